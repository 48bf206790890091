"""What a build of the pixel store has to do, and the table that it ends with: nothing is decoded here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semblance.errors import CollectionError
from semblance.images.decode import DECODE_VERSION, Fit, Pixels
from semblance.images.formats import PixelFormat
from semblance.images.journal import IMAGES, PIXELS, Record
from semblance.images.sources import Item, Problem, Source

__all__ = ["Plan", "image_table", "make_plan", "open_store", "read_images", "store_facts"]

_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("row", pa.int64()),
        ("path", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("hash", pa.string()),
        ("duplicate_of", pa.int64()),
        ("status", pa.string()),
    ]
)


def open_store(path: Path) -> np.memmap[Any, np.dtype[Any]]:
    """The pixels of a store (its folder or its `pixels.npy`), mapped read-only: uint8 or uint16
    `(n, size, size, c)`.

    Raises `CollectionError` where there is none or it is damaged.
    """
    path = path / PIXELS if path.is_dir() else path
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise CollectionError(
            f"{path} is not a pixel store: {error}", "build the collection again"
        ) from error
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 4 or not isinstance(pixels, np.memmap):
        raise CollectionError(f"{path} is not a pixel store", "build the collection again")
    return pixels


def read_images(folder: Path) -> pa.Table:
    """The image table in `folder`. Raises `CollectionError` where there is none or it is damaged."""
    path = folder / IMAGES
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CollectionError(
            f"{path} cannot be read: {str(error).splitlines()[0]}", "build the collection again"
        ) from error


def store_facts(table: pa.Table) -> dict[str, Any]:
    """How `table` was built: `key`, `version`, `size`, `fit`, `next_id`, and how many items were `decoded`
    and how many `reused` from the previous store; empty where the table does not say."""
    facts: dict[str, Any] = json.loads((table.schema.metadata or {}).get(b"semblance", b"{}"))
    return facts


@dataclass
class Plan:
    """What to do with each item: `reuse[i]` is its index in `old_records`, or -1 to decode it."""

    key: str
    facts: dict[str, Any]
    ids: list[int]
    problems: list[Problem]
    reuse: list[int]
    old_records: list[tuple[Record, int]]
    old: Pixels | None
    finished: pa.Table | None = None


def make_plan(
    source: Source, folder: Path, size: int, fit: Fit, previous: Path | None, wanted: PixelFormat
) -> Plan:
    """Which items the stores in `folder` and `previous` already hold, and which ids all of them get.

    Raises `CollectionError` where an older store is damaged.
    """
    here = _try_images(folder)
    in_place = previous is None or previous.absolute() == folder.absolute()
    before = here if in_place else read_images(previous) if previous else None
    known = {path.as_py(): i for i, path in enumerate(before["path"])} if before else {}
    names = {item.path for item in source.items}
    first: dict[str, Problem] = {}
    for problem in source.problems:
        if problem.path not in names:
            first.setdefault(problem.path, problem)
    problems = list(first.values())
    paths = [item.path for item in source.items] + [problem.path for problem in problems]
    ids, next_id = _ids(paths, before, known)

    facts: dict[str, Any] = {"version": DECODE_VERSION, "size": size, "fit": fit}
    if not wanted.photo:
        facts["pixels"] = json.loads(json.dumps(asdict(wanted)))
    old_facts = store_facts(before) if before else {}
    usable = source.kind != "array" and _made_like(old_facts, facts)
    records = _old_records(before) if before and usable else []
    reuse = _reusable(source.items, before, known) if records else [-1] * len(source.items)
    reused = sum(index >= 0 for index in reuse)
    facts |= {"next_id": next_id, "decoded": len(reuse) - reused, "reused": reused}
    facts["key"] = _key(source, problems, facts, ids, reuse, old_facts.get("key"))
    old = _old_pixels(previous or folder, size, records, wanted) if reused else None
    found = Plan(facts["key"], facts, ids, problems, reuse, records, old)

    if here and store_facts(here).get("key") == found.key:
        found.finished = here
    elif here and in_place and facts["decoded"] == 0 and here["id"].to_pylist() == ids:
        new = image_table(found, source, [records[index][0] for index in reuse])
        found.finished = new if new.equals(here.select(_SCHEMA.names)) else None
    return found


def _ids(paths: Sequence[str], before: pa.Table | None, known: dict[str, int]) -> tuple[list[int], int]:
    """An id for each path: the one it had, or the next that was never given."""
    if before is None:
        return list(range(len(paths))), len(paths)
    old = before["id"].to_pylist()
    next_id = max([store_facts(before).get("next_id", 0), *(i + 1 for i in old)])
    ids = []
    for path in paths:
        if path in known:
            ids.append(old[known[path]])
        else:
            ids.append(next_id)
            next_id += 1
    return ids, next_id


def _reusable(items: Sequence[Item], before: pa.Table, known: dict[str, int]) -> list[int]:
    """For each item the index in `before` of what it still is, or -1. Unread files are tried again."""
    stamps = list(zip(before["bytes"].to_pylist(), before["mtime_ns"].to_pylist(), strict=True))
    lasting = [not status.startswith(_PASSING) for status in before["status"].to_pylist()]
    found = []
    for item in items:
        index = known.get(item.path, -1)
        same = index >= 0 and lasting[index] and stamps[index] == (item.bytes, item.mtime_ns)
        found.append(index if same else -1)
    return found


_PASSING = ("unreadable: cannot be read", "unreadable: needs too much memory")


def _old_records(before: pa.Table) -> list[tuple[Record, int]]:
    columns = [before[name].to_pylist() for name in ("status", "width", "height", "hash", "row")]
    return [
        (Record("" if status == "ok" else status.removeprefix("unreadable: "), width, height, digest), row)
        for status, width, height, digest, row in zip(*columns, strict=True)
    ]


def _made_like(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return all(old.get(name) == new.get(name) for name in ("version", "size", "fit", "pixels"))


def _old_pixels(folder: Path, size: int, records: list[tuple[Record, int]], wanted: PixelFormat) -> Pixels:
    pixels = open_store(folder)
    if pixels.shape[1:] != (size, size, wanted.channels) or len(pixels) != sum(
        not record.reason for record, _ in records
    ):
        raise CollectionError(
            f"{folder / PIXELS} and {IMAGES} beside it are not of one build", f"delete {folder / IMAGES}"
        )
    return pixels


def _key(source: Source, problems: list[Problem], *parts: Any) -> str:
    """Equal only for builds that give the same bytes."""
    hasher = hashlib.blake2b(json.dumps([source.kind, *parts], sort_keys=True).encode(), digest_size=16)
    for item in source.items:
        hasher.update(f"{item.path}\0{item.bytes} {item.mtime_ns}\0".encode())
    for problem in problems:
        hasher.update(f"{problem.path}\0{problem.reason}\0".encode())
    if source.array is not None:
        for image in source.array:
            hasher.update(np.ascontiguousarray(image).data)
    return hasher.hexdigest()


def image_table(plan: Plan, source: Source, records: Sequence[Record]) -> pa.Table:
    """The image table, its columns as `images.store` tells them; `records` `(len(source.items),)`."""
    first: dict[str | None, int] = {}
    columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    rows = 0
    nothing = Record("", 0, 0, None)
    listed = [*source.items, *(Item(problem.path, 0, 0) for problem in plan.problems)]
    reasons = [*records, *(nothing._replace(reason=problem.reason) for problem in plan.problems)]
    for number, item, record in zip(plan.ids, listed, reasons, strict=True):
        ok = not record.reason
        original = first.setdefault(record.hash, number) if ok else number
        values = (
            number,
            rows if ok else -1,
            item.path,
            record.width,
            record.height,
            item.bytes,
            item.mtime_ns,
            record.hash,
            None if original == number else original,
            "ok" if ok else f"unreadable: {record.reason}",
        )
        rows += ok
        for name, value in zip(_SCHEMA.names, values, strict=True):
            columns[name].append(value)
    metadata = {"semblance": json.dumps(plan.facts, sort_keys=True)}
    return pa.table(columns, schema=_SCHEMA.with_metadata(metadata))


def _try_images(folder: Path) -> pa.Table | None:
    if not ((folder / IMAGES).exists() and (folder / PIXELS).exists()):
        return None
    return read_images(folder)
