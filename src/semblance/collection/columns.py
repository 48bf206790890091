"""The columns of a collection: what the user's manifest says of each image, and what was measured on it.

    columns.parquet    the manifest's columns, one row per row of `pixels.npy`
    measured.parquet   the measurements, where an objective asked for them

Of a text column, numbers are read where every value that is there is one, else times (ISO 8601, as seconds
since 1970), else it is a category. Empty, "nan", "na", "none" and "null" are missing. Nested columns are left
out.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from semblance import ranks
from semblance.collection import disk
from semblance.contracts import Column, Progress
from semblance.errors import CollectionError, ConfigError
from semblance.images.formats import PixelFormat
from semblance.images.measure import measure_store, source_of
from semblance.images.store import read_images
from semblance.training.positives import Positives, by_group, by_time

__all__ = [
    "GIVEN",
    "MEASURED",
    "all_columns",
    "data_hash",
    "given_columns",
    "measured_columns",
    "positives",
    "read",
    "trial_columns",
    "write_given",
]

GIVEN, MEASURED = "columns.parquet", "measured.parquet"
IMAGES = b"images"
MISSING = frozenset(("", "nan", "na", "n/a", "none", "null"))


def trial_columns(manifest: pa.Table | None, n: int) -> dict[str, Column]:
    """A manifest's columns for `n` images that only stand for the real ones: of the same kinds."""
    given = (
        {}
        if manifest is None
        else given_columns(manifest.select([n for n in manifest.column_names if n != "path"]))
    )
    return {name: Column(np.resize(one.values, n), one.levels) for name, one in given.items()}


def write_given(folder: Path, manifest: pa.Table | None, table: pa.Table) -> None:
    """`columns.parquet` in `folder`, of a manifest's rows in the order of the image table's first rows."""
    if manifest is None or manifest.num_columns < 2:
        return
    rows = table["row"].to_numpy()[: len(manifest)]
    order = np.argsort(rows, kind="stable")[int((rows < 0).sum()) :]
    names = [name for name in manifest.column_names if name != "path"]
    _write(folder / GIVEN, manifest.select(names).take(pa.array(order)))


def given_columns(table: pa.Table) -> dict[str, Column]:
    """Name -> column of a table as a user writes one."""
    found: dict[str, Column] = {}
    for name in (name for name in table.column_names if name != "path"):
        column = _column(table[name].combine_chunks())
        if column is not None:
            found[name] = column
    return found


def measured_columns(
    folder: Path, pixels: NDArray[Any], kind: PixelFormat, table: pa.Table, progress: Progress | None
) -> dict[str, Column]:
    """The measurements of a store, kept in `folder/measured.parquet` with the hash of its images."""
    found = measure_store(pixels, kind, table, progress)
    arrays = {name: pa.array(column.values) for name, column in found.items()}
    turns = pa.schema(
        [pa.field(n, pa.float64(), metadata={"turns": str(int(found[n].turns))}) for n in arrays]
    )
    if ranks.index() == 0:
        _write(folder / MEASURED, pa.table(arrays, schema=turns.with_metadata({IMAGES: data_hash(table)})))
    return found


def read(folder: Path) -> dict[str, Column]:
    """Name -> column of a collection: those given, then those measured that have another name."""
    found: dict[str, Column] = {}
    try:
        if (folder / GIVEN).is_file():
            found |= given_columns(pq.read_table(folder / GIVEN))
        if (folder / MEASURED).is_file():
            table = pq.read_table(folder / MEASURED)
            for field in table.schema:
                turns = (field.metadata or {}).get(b"turns") == b"1"
                column = Column(table[field.name].to_numpy(), source=source_of(field.name), turns=turns)
                found.setdefault(field.name, column)
    except (OSError, pa.ArrowException) as error:
        raise CollectionError(f"{folder}: its columns are damaged: {error}", "build it again") from error
    return found


def all_columns(
    folder: Path, pixels: NDArray[Any], kind: PixelFormat, progress: Progress | None = None
) -> dict[str, Column]:
    """What `read` gives, after measuring where that has not been done for these images: others may have come
    while a build was stopped."""
    found, table = read(folder), read_images(folder)
    measured = any(column.source == "measured" for column in found.values())
    if measured:
        facts = pq.read_schema(folder / MEASURED).metadata or {}
        measured = facts.get(IMAGES) == data_hash(table).encode()
    if not measured:
        found = {name: column for name, column in found.items() if column.source == "given"}
    if any(len(column.values) != len(pixels) for column in found.values()):
        raise CollectionError(f"{folder}: its columns are of other images", "build it again")
    if not measured:
        fresh = measured_columns(folder, pixels, kind, table, progress)
        found |= {name: one for name, one in fresh.items() if name not in found}  # in the order of `read`
    return found


def data_hash(table: Any) -> str:
    """BLAKE2b-64 over the content hashes of the readable images in row order."""
    digest = hashlib.blake2b(digest_size=8)
    rows, hashes = table.column("row").to_pylist(), table.column("hash").to_pylist()
    for _, one in sorted((row, one) for row, one in zip(rows, hashes, strict=True) if row >= 0):
        digest.update(one.encode())
    return digest.hexdigest()


def positives(wanted: str, columns: Mapping[str, Column], paths: Sequence[str]) -> Positives | None:
    """Whose images make the second views; None for each its own. Raises `ConfigError` for an unknown column
    or where no image would have a partner."""
    kind, _, name = wanted.partition(":")
    if kind == "view":
        return None
    if name and name not in columns:
        hint = f"known: {', '.join(columns)}" if columns else "columns come with a CSV or Parquet manifest"
        raise ConfigError(f'--positives {wanted}: there is no column "{name}"', hint)
    folders = np.array([path.rpartition("/")[0] for path in paths])
    if kind == "folder":
        found = by_group(wanted, folders)
    elif kind == "column":
        found = by_group(wanted, columns[name].values)
    else:
        if columns[name].levels:
            raise ConfigError(
                f'--positives {wanted}: "{name}" holds no times', "numbers or ISO 8601 dates are"
            )
        found = by_time(wanted, columns[name].values, folders)
    if found.alone == len(paths):
        raise ConfigError(f"--positives {wanted}: no image has another to pair with", "leave it out")
    return found


def _write(path: Path, table: pa.Table) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    disk.write_atomically(path, lambda file: file.write(sink.getvalue()))


def _column(array: Any) -> Column | None:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _column(array.dictionary_decode())
    if pa.types.is_boolean(kind):
        return _category([None if one is None else str(one).lower() for one in array.to_pylist()])
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = [math.nan if one is None else float(one) for one in array.to_pylist()]
        return Column(_finite(np.array(values, np.float64)))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        ticks = array.cast(pa.timestamp("us", tz=zone)).cast(pa.int64()).to_pylist()
        return Column(np.array([math.nan if one is None else one * 1e-6 for one in ticks], np.float64))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_text(array.to_pylist())
    return None


def _from_text(texts: Sequence[str | None]) -> Column:
    there = [None if text is None or text.strip().lower() in MISSING else text.strip() for text in texts]
    for parse in (float, _seconds):
        try:
            values = [math.nan if text is None else parse(text) for text in there]
        except ValueError:
            continue
        return Column(_finite(np.array(values, np.float64)))
    return _category(there)


def _seconds(text: str) -> float:
    when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()


def _category(texts: Sequence[str | None]) -> Column:
    levels = tuple(sorted({text for text in texts if text is not None}))
    place = {text: float(i) for i, text in enumerate(levels)}
    return Column(np.array([math.nan if t is None else place[t] for t in texts], np.float64), levels)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)
