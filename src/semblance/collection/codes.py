"""A collection's binary codes: `codes.npy` and `coder.safetensors`, made from its embeddings.

The coder belongs to the collection's model and refuses another's; `collection.json` names both files'
hashes. An update encodes what is new with the coder that is there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semblance import codes as room
from semblance import plugins
from semblance.collection import disk
from semblance.collection import price as prices
from semblance.collection.model import plain
from semblance.contracts import Progress
from semblance.errors import CollectionError, ConfigError, InputError, ModelMismatch

if TYPE_CHECKING:
    from semblance.collection.store import Collection

__all__ = ["carry", "choose_and_write", "coder_of", "codes_of", "describe", "encode"]

CODES, CODER = "codes.npy", "coder.safetensors"
AUTO_BITS, AUTO_CODERS = (16, 32, 64, 128, 256), ("pca", "itq")
"""What the default is chosen from: coders that learn in seconds and stand in every table."""

SAMPLED = 200

Codes = NDArray[np.uint8]
ENCODE = "semblance encode {} makes them"


def encode(
    collection: Collection,
    coder: str = "auto",
    bits: int | None = None,
    labels: str | Path | Mapping[str, Any] | Sequence[Any] | None = None,
    column: str | None = None,
    *,
    clusters: int | None = None,
    rethreshold: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Codes:
    """Codes `(n, bits / 8)` uint8 of a collection's images, kept in it beside the coder that made them.

    `coder` "auto" takes the default from a small price table (see `price.choose`). A coder that learns from
    labels takes them as `evaluate` does, or, with `clusters`, k-means clusters of the embeddings in their
    place. `rethreshold` keeps the coder that is there and sets only its thresholds anew. `options` are the
    coder's own. Raises `ConfigError` for what does not fit together, `InputError` for embeddings or labels
    that cannot be used, `CollectionError` where there is no coder to keep or the disk is full.
    """
    rows = collection.embeddings
    if rethreshold:
        if coder != "auto" or any(one is not None for one in (bits, labels, column, clusters)) or options:
            raise ConfigError(
                "--rethreshold keeps the coder that is there", "leave coder, bits, labels and options out"
            )
        made, about = coder_of(collection).rethreshold(rows), dict(collection.info["codes"])
        about["rethresholded"] = True
    else:
        asked = (labels, column, clusters)
        made, about, table = _fitted(rows, coder, bits, options, collection, asked, progress)
        if table is not None:
            collection.info = {**collection.info, "price": table}
    with disk.explain_disk_errors(f"encoding {collection.path.name}"):
        record, packed = _write(collection.path, made, rows, collection.info["model"], about)
    collection.record(codes=record)
    return packed


def _write(
    folder: Path, coder: Any, rows: NDArray[np.float32], model: str, about: Mapping[str, Any]
) -> tuple[dict[str, Any], Codes]:
    """(what `collection.json` says of them, the codes), after writing both files into `folder`."""
    packed: Codes = coder.encode(rows)
    # Both are whole before either counts.
    with tempfile.TemporaryDirectory(prefix=".codes-", dir=folder) as beside:
        made = {name: Path(beside) / name for name in (CODES, CODER)}
        disk.write_atomically(made[CODES], lambda file: np.save(file, packed))
        room.save(made[CODER], coder, model)
        parts = {name: disk.file_hash(path) for name, path in made.items()}
        for name, path in made.items():
            os.replace(path, folder / name)
    return {**about, "identity": room.identity(coder, model), "parts": parts}, packed


def choose_and_write(
    folder: Path, rows: NDArray[np.float32], model: str, progress: Progress | None = None
) -> dict[str, Any]:
    """What a build does: `{"codes": ..., "price": ...}` for `collection.json`, after the default coder was
    chosen, fitted and written; both None where these embeddings cannot be coded."""
    try:
        made, about, table = _automatic(rows, None, {}, progress)
    except (InputError, ConfigError):
        return {"codes": None, "price": None}
    return {"codes": _write(folder, made, rows, model, about)[0], "price": table}


def carry(old: Collection, folder: Path, rows: NDArray[np.float32]) -> dict[str, Any] | None:
    """What an update does: `rows` encoded with the coder of `old`, written into `folder`; None if none."""
    about = old.info.get("codes")
    if not about:
        return None
    return _write(folder, coder_of(old), rows, old.info["model"], about)[0]


def describe(collection: Collection) -> dict[str, Any]:
    """What a collection's codes look like, as JSON: balance, correlation, distinct codes (see
    `codes.diagnose`), the mean `histogram` of distances from sampled queries, and which index would answer at
    what cost, `reason`. Raises as `codes_of` does."""
    packed, about = np.array(codes_of(collection)), collection.info["codes"]
    found = room.diagnose(packed)._asdict()
    found["ones"] = [round(float(share), 4) for share in found["ones"]]
    auto = plugins.get("index", "auto").Index(plugins.configure("index", "auto"))
    auto.add(packed)
    some = packed[np.linspace(0, len(packed) - 1, min(SAMPLED, len(packed))).astype(np.int64)]
    counts = auto.count(some).sum(axis=0).astype(np.float64)
    counts[0] -= len(some)  # each query itself
    result: dict[str, Any] = plain(
        {
            **found,
            "coder": about["coder"],
            "bytes": packed.nbytes,
            "histogram": (counts / max(1.0, counts.sum())).tolist(),
            "reason": auto.reason,
        }
    )
    return result


def coder_of(collection: Collection) -> Any:
    """A collection's coder. Raises `CollectionError` without one, `ModelMismatch` for another model's."""
    _check(collection, CODER)
    return room.load(collection.path / CODER, collection.info["model"])


def codes_of(collection: Collection) -> Codes:
    """The codes `(n, bits / 8)` of a collection, mapped from disk. Raises as `coder_of` does."""
    _check(collection, CODES)
    again = ENCODE.format(collection.path.name)
    try:
        found: Codes = np.load(collection.path / CODES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CollectionError(f"{collection.path / CODES} is damaged: {error}", again) from error
    if found.dtype != np.uint8 or found.ndim != 2 or len(found) != len(collection):
        raise ModelMismatch(f"{collection.path / CODES} is of other images", again)
    return found


def _check(collection: Collection, name: str) -> None:
    about = collection.info.get("codes")
    again = ENCODE.format(collection.path.name)
    if not about or not (collection.path / name).is_file():
        raise CollectionError(f"{collection.path.name} has no codes", again)
    if disk.file_hash(collection.path / name) != about["parts"].get(name):
        raise ModelMismatch(
            f"{collection.path / name} is not the one this collection was encoded with", again
        )


def _fitted(
    rows: NDArray[np.float32],
    name: str,
    bits: int | None,
    options: Mapping[str, Any],
    collection: Collection,
    asked: tuple[Any, str | None, int | None],
    progress: Progress | None,
) -> tuple[Any, dict[str, Any], dict[str, Any] | None]:
    """(the fitted coder, what to record, the price table where it was chosen by one)."""
    labels, column, clusters = asked
    if name == "auto":
        if options or labels is not None or column or clusters:
            raise ConfigError("options and labels need a coder by name", "--coder itq, for example")
        return _automatic(rows, bits, options, progress)
    config = plugins.configure("codes", name, {**options, **({} if bits is None else {"bits": bits})})
    coder = plugins.get("codes", name).Coder(config)
    told: dict[str, Any] = {"labels": None}
    y = None
    if coder.labels:
        y, told["labels"] = _labels(collection, rows, labels, column, clusters)
    elif labels is not None or column or clusters:
        raise ConfigError(f"{name} learns without labels", "leave --labels, --column and --clusters out")
    coder.fit(rows, y)
    return coder, {"coder": name, "bits": config.bits, "config": plain(config), "chosen": None, **told}, None


def _automatic(
    rows: NDArray[np.float32], bits: int | None, options: Mapping[str, Any], progress: Progress | None
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    lengths = AUTO_BITS if bits is None else (bits,)
    table = prices.price(rows, lengths, AUTO_CODERS, progress=progress)
    best = prices.choose(table)
    if best is None:
        raise InputError(f"these embeddings cannot be coded: {table['rows'][0]['why not']}")
    config = plugins.configure("codes", best["coder"], {"bits": best["bits"], **options})
    coder = plugins.get("codes", best["coder"]).Coder(config).fit(rows)
    chosen = prices.sentence(table, best)
    about = {"coder": best["coder"], "bits": best["bits"], "config": plain(config), "labels": None}
    return coder, {**about, "chosen": chosen}, table


def _labels(
    collection: Collection,
    rows: NDArray[np.float32],
    labels: Any,
    column: str | None,
    clusters: int | None,
) -> tuple[NDArray[np.int64] | NDArray[np.bool_], str]:
    """Labels for the coder (see `labelled.targets`), and what they are."""
    from semblance.collection.labelled import labels_in_order, targets

    if clusters is not None:
        if labels is not None or column:
            raise ConfigError("labels and clusters were both asked for", "give --labels or --clusters")
        return np.asarray(room.pseudo_labels(rows, clusters), np.int64), f"{clusters} clusters"
    values, said = labels_in_order(collection.paths, labels, column, collection.path.name)
    y, known = targets(values)
    if len(known) < 2:
        raise InputError("the labels name fewer than 2 classes", "a coder that learns from labels needs 2")
    return y, said
