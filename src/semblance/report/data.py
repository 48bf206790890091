"""What the report needs from a collection, taken out of it once and checked for sense."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semblance.errors import CollectionError
from semblance.images.sources import folder_labels

__all__ = ["CollectionLike", "ReportData", "from_collection", "number", "printable"]

UNREADABLE_SHOWN = 200
"""How many unreadable files the report names; the rest are counted."""

BUILDING = ".building"
"""Ends the hidden name under which a collection is built."""


class CollectionLike(Protocol):
    """The reading half of a collection, as far as the report uses it."""

    @property
    def path(self) -> Path:
        """The collection's folder."""
        ...

    @property
    def info(self) -> Mapping[str, Any]:
        """What `collection.json` holds."""
        ...

    @property
    def images(self) -> Any:
        """The image table (`pyarrow.Table`): id, row, path, duplicate_of, status."""
        ...

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """`(n, h, w, c)` uint8."""
        ...

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """`(n, d)` float32."""
        ...

    def metrics(self) -> list[dict[str, Any]]:
        """One dict per epoch of training."""
        ...


@dataclass(frozen=True)
class ReportData:
    """Everything the page is made from; rows are rows of the pixel store.

    `paths` and `labels` have one entry per row, `copies` one tuple of rows per group of exact
    duplicates (the first is the original), `unreadable` the first (path, reason) pairs. All texts
    are printable: no control characters, no lone surrogates.
    """

    name: str
    folder: str
    pixels: NDArray[np.uint8]
    embeddings: NDArray[np.float32]
    paths: tuple[str, ...]
    labels: tuple[str | None, ...] | None = None
    created: str = ""
    version: str = ""
    model: Any = None
    images: int = 0
    unreadable_count: int = 0
    duplicate_count: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()
    copies: tuple[tuple[int, ...], ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    bill: Mapping[str, Any] = field(default_factory=dict)
    actual: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    price: Mapping[str, Any] | None = None
    codes: Mapping[str, Any] | None = None
    epochs: tuple[Mapping[str, Any], ...] = ()


def from_collection(collection: CollectionLike, labels: Mapping[str, Any] | None = None) -> ReportData:
    """What the report shows of an open collection.

    `labels` maps an image's path to its label and only colours the map; without it the names of the
    folders are taken where the evaluation took them, or a column `label` of the image table. Raises
    `CollectionError` if the image table, the pixel store and the embeddings do not agree on the number
    of rows.
    """
    info = collection.info
    table = collection.images
    columns = {name: table.column(name).to_pylist() for name in table.column_names if name in _COLUMNS}
    pixels, embeddings = collection.pixels, collection.embeddings
    rows = columns["row"]
    readable = {row: i for i, row in enumerate(rows) if row is not None and row >= 0}
    if not len(pixels) == len(embeddings) == len(readable):
        raise CollectionError(
            f"{collection.path.name} holds {len(readable)} readable images, {len(pixels)} rows of pixels "
            f"and {len(embeddings)} embeddings",
            "build the collection again",
        )
    order = [readable[row] for row in sorted(readable)]
    bad = [i for i, status in enumerate(columns["status"]) if status != "ok"]
    known = _known(columns, labels, info.get("evaluation") or {})
    counts = info.get("counts") or {}
    copies = _copies(columns)
    return ReportData(
        name=printable(info.get("name") or collection.path.stem),
        folder=printable(_final_name(collection.path.name)),
        pixels=pixels,
        embeddings=embeddings,
        paths=tuple(printable(columns["path"][i]) for i in order),
        labels=_labels(known, order),
        created=str(info.get("created") or ""),
        version=str(info.get("version") or ""),
        model=info.get("model"),
        images=int(counts.get("images", len(rows))),
        unreadable_count=int(counts.get("unreadable", len(bad))),
        duplicate_count=int(counts.get("duplicates", sum(len(group) - 1 for group in copies))),
        unreadable=tuple(_problem(columns, i) for i in bad[:UNREADABLE_SHOWN]),
        copies=copies,
        config=info.get("config") or {},
        bill=info.get("bill") or {},
        actual=info.get("actual") or {},
        evaluation=info.get("evaluation") or None,
        price=info.get("price") or None,
        codes=info.get("codes") or None,
        epochs=tuple(collection.metrics()),
    )


def _final_name(name: str) -> str:
    """The name a collection will have: a build writes its report before the folder is renamed."""
    if name.startswith(".") and name.endswith(BUILDING):
        return name[1:].removesuffix(BUILDING)
    return name


_COLUMNS = ("id", "row", "path", "duplicate_of", "status", "label")


def _copies(columns: Mapping[str, Sequence[Any]]) -> tuple[tuple[int, ...], ...]:
    row_of = dict(zip(columns["id"], columns["row"], strict=True))
    groups: dict[int, list[int]] = {}
    for row, first in zip(columns["row"], columns.get("duplicate_of", ()), strict=False):
        if first is not None and row >= 0 and row_of.get(first, -1) >= 0:
            groups.setdefault(row_of[first], [row_of[first]]).append(row)
    return tuple(tuple(group) for _, group in sorted(groups.items()))


def _problem(columns: Mapping[str, Sequence[Any]], i: int) -> tuple[str, str]:
    reason = str(columns["status"][i]).removeprefix("unreadable").lstrip(": ")
    return printable(columns["path"][i]), printable(reason or "unreadable")


def _known(
    columns: Mapping[str, Sequence[Any]], labels: Mapping[str, Any] | None, evaluation: Mapping[str, Any]
) -> Sequence[Any] | None:
    if labels is not None:
        return [labels.get(path) for path in columns["path"]]
    if evaluation.get("column") == "folder":
        return folder_labels(columns["path"])
    return columns.get("label")


def _labels(known: Sequence[Any] | None, order: Sequence[int]) -> tuple[str | None, ...] | None:
    if known is None or all(value is None for value in known):
        return None
    return tuple(None if known[i] is None else printable(known[i]) for i in order)


def printable(text: Any) -> str:
    r"""`text` with all that cannot be shown, or that would mislead the eye, written as an escape.

    Control characters, lone surrogates (undecodable bytes of a file name) and the marks that turn
    the direction of writing become visible.

    >>> printable("a\nb\udce9")
    'a\\nb\\xe9'
    """
    return "".join(_escape(char) if unicodedata.category(char) in _HIDDEN else char for char in str(text))


_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escape(char: str) -> str:
    code = ord(char)
    if char in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char]
    if char == "\u200d":  # joins the parts of one emoji or ligature, harmless
        return char
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def number(value: Any) -> float | None:
    """`value` as a finite float, or None: what JSON left out and what is not a number look alike."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    return float(value) if math.isfinite(value) else None
