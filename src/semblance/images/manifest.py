"""A CSV or Parquet manifest -> a table whose `path` column is text.

CSV values stay text as they are written: `007` is not 7. The separator is a comma, in `.tsv` a tab.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semblance.errors import ConfigError, InputError

__all__ = ["SUFFIXES", "filter_rows", "read_manifest"]

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")


def read_manifest(path: Path) -> pa.Table:
    """The manifest's rows in file order; its `path` column is text, empty where nothing was given.

    Raises `InputError` where the file cannot be read, a row has too many or too few columns, or there is
    no `path` column (the message names the columns found).
    """
    table = _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _read_csv(path)
    found = [name for name in table.column_names if name == "path"]
    if len(found) != 1:
        columns = ", ".join(table.column_names) or "none"
        what = "more than one column" if found else "no column"
        raise InputError(
            f'{path} has {what} called "path"; its columns are: {columns}',
            'name the column of file names "path" (relative to the manifest), separate columns by commas',
        )
    column = table["path"]
    try:
        text = pc.fill_null(pc.cast(column, pa.string()), "")
    except pa.ArrowException as error:
        raise InputError(f'the column "path" of {path} is not text but {column.type}') from error
    return table.set_column(table.column_names.index("path"), "path", text)


def filter_rows(table: pa.Table, where: Mapping[str, Any]) -> pa.Table:
    """The rows in which every column named in `where` has that value, or one of a list, compared as text.

    Raises `ConfigError` for a column that is not there, `InputError` where no row is left.
    """
    for column, value in where.items():
        if column not in table.column_names:
            raise ConfigError(
                f'the manifest has no column "{column}"', f"known: {', '.join(table.column_names)}"
            )
        values = value if isinstance(value, (list, tuple)) else [value]
        wanted = [str(one).lower() if isinstance(one, bool) else str(one) for one in values]
        texts = pc.cast(table[column], pa.string())
        kept = table.filter(pc.is_in(texts, pa.array(wanted, pa.string())))
        if kept.num_rows == 0:
            some = sorted({text for text in pc.unique(texts).to_pylist() if text is not None})[:8]
            asked = " or ".join(f'"{one}"' for one in wanted)
            raise InputError(f"no row of the manifest has {column} = {asked}", f"found: {', '.join(some)}")
        table = kept
    return table


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {_first_line(error)}") from error


def _read_csv(path: Path) -> pa.Table:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, delimiter=separator, strict=True)
            names = next(reader, [])
            rows = []
            for row in reader:
                if row and len(row) != len(names):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(row)} columns, but {len(names)} in the header",
                        'put quotes around values that hold the separator: "a, b.jpg"',
                    )
                if row:  # an empty line is not a row
                    rows.append(row)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8", "save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {_first_line(error)}") from error
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(len(names))]
    return pa.Table.from_arrays(columns, names=names)


def _first_line(error: BaseException) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return (strerror or str(error) or type(error).__name__).splitlines()[0]
