"""Labels from a table, brought into the order of a collection's images."""

from __future__ import annotations

import csv
import difflib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from semblance.errors import ConfigError, InputError

__all__ = ["Labels", "read_labels"]

_EMPTY = ("", "nan")


@dataclass(frozen=True)
class Labels:
    """Labels in the order of the images asked for.

    `values`: one per image, None where the table says nothing. `unlabelled`: how many of these; `unused`:
    rows of the table that belong to none of the images.
    """

    values: tuple[str | None, ...]
    column: str
    unlabelled: int
    unused: int


def read_labels(path: str | os.PathLike[str], column: str, paths: Sequence[str]) -> Labels:
    """The labels of the images `paths` from the CSV, TSV or Parquet table at `path`.

    The images' column is "path" if there is one, else the first; paths are compared with forward slashes.
    If none is the same, leading folders are dropped on one side until some are. Labels are text; empty and
    NaN ones count as missing. Raises `InputError` if the table cannot be read, an image has two labels,
    or nothing matches, and `ConfigError` if there is no such column.
    """
    table = Path(path)
    header, rows = _read(table)
    if column not in header:
        near = difflib.get_close_matches(column, header, n=3, cutoff=0.5) or header
        raise ConfigError(f'{table.name} has no column "{column}"', f"it has: {', '.join(near)}")
    key = "path" if "path" in header else header[0]
    known: dict[str, str | None] = {}
    for name, value in _pairs(rows, key, column):
        if known.setdefault(name, value) != value:
            raise InputError(f'{table.name} gives "{name}" two labels: {known[name]} and {value}')
    wanted = [_posix(name) for name in paths]
    found = _aligned(known, wanted)
    if wanted and found is None:
        example = next(iter(known), "nothing")
        raise InputError(
            f'no image of the collection is in the column "{key}" of {table.name}',
            f'the collection has "{wanted[0]}", the table "{example}"',
        )
    keys = found or [None] * len(wanted)
    values = tuple(None if name is None else known[name] for name in keys)
    unused = len(known.keys() - set(keys))
    return Labels(values, column, sum(value is None for value in values), unused)


def _read(table: Path) -> tuple[list[str], Iterable[Mapping[str, Any]]]:
    """The column names and the rows of a table."""
    try:
        if table.suffix.lower() in (".parquet", ".pq"):
            stored = pq.read_table(table)
            return list(stored.column_names), stored.to_pylist()
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if table.suffix.lower() == ".tsv" else ",")
            header, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        message = f"{table} cannot be read as a table: {error}"
        raise InputError(message, "give a CSV or Parquet file") from error
    if not header:
        raise InputError(f"{table} is empty", "its first line must name the columns")
    return header, rows


def _pairs(rows: Iterable[Mapping[str, Any]], key: str, column: str) -> Iterator[tuple[str, str | None]]:
    for row in rows:
        name, value = row[key], row[column]
        if name is not None and str(name):
            yield _posix(str(name)), _text(value)


def _text(value: Any) -> str | None:
    """A label as text: 3.0 is "3", as a column of whole numbers with gaps is stored."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    text = "" if value is None else str(value).strip()
    return None if text.lower() in _EMPTY else text


def _posix(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))


def _aligned(known: Mapping[str, Any], wanted: Sequence[str]) -> list[str | None] | None:
    """For each wanted path the table's own, None where there is none; None if nothing matches at all."""
    depth = max((name.count("/") for name in (*known, *wanted)), default=0)
    for drop in range(depth + 1):
        for ours, theirs in ((0, drop), (drop, 0)):
            short: dict[str, str | None] = {}
            for name in known:
                tail = _tail(name, theirs)
                short[tail] = name if tail not in short else None  # two rows of one tail: neither is sure
            found = [short.get(_tail(name, ours)) for name in wanted]
            once = {name for name in found if name is not None}
            if once and (drop == 0 or len(once) == sum(name is not None for name in found)):
                return found
    return None


def _tail(name: str, drop: int) -> str:
    """`name` without its first `drop` folders; empty, and so never found, where it has fewer."""
    parts = name.split("/", drop)
    return parts[drop] if len(parts) > drop else ""
