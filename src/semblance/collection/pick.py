"""Which images of a folder learn, which vote and which are scored, as a recipe says."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from semblance.collection.recipe import Data, Rows
from semblance.errors import ConfigError, InputError
from semblance.evaluation.protocol import split_hash
from semblance.files import write_atomic
from semblance.images.manifest import filter_rows, read_manifest
from semblance.images.sources import locate, scan

__all__ = ["Picked", "natural", "pick"]

TABLE = "labels.csv"


@dataclass(frozen=True)
class Picked:
    """Rows `train`, `bank` and `score` of `table`, whose `path` is relative to `folder`; `column` of classes.

    `hash` changes when any image changes its part or its label.
    """

    folder: Path
    table: pa.Table
    column: str
    train: tuple[int, ...]
    bank: tuple[int, ...]
    score: tuple[int, ...]
    hash: str

    def files(self, rows: Sequence[int]) -> list[str]:
        """The files of `rows`."""
        paths = self.table["path"].to_pylist()
        return [str(locate(self.folder, paths[row])) for row in rows]

    def labels(self, rows: Sequence[int]) -> list[str]:
        """Their classes."""
        values = self.table[self.column].to_pylist()
        return [str(values[row]) for row in rows]

    def seen(self) -> int:
        """How many of the scored classes the training's images are of, too."""
        return len(set(self.labels(self.train)) & set(self.labels(self.score)))

    def write_manifest(self, path: Path) -> Path:
        """`path`, a table of what learns: all columns, the images relative to it."""
        kept = self.table.take(list(self.train))
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(kept.column_names)
        for row in kept.to_pylist():
            row["path"] = _from(path.parent, self.folder, row["path"])
            writer.writerow(row.values())
        write_atomic(path, out.getvalue().encode("utf-8"))
        return path


def pick(data: Data, folder: Path, most: int | None = None) -> Picked:
    """The images that learn, vote and are scored, at most `most` of each.

    Raises `InputError` for a folder, table or file that is missing or a selection without images,
    `ConfigError` for a column that is not there.
    """
    table = _read(data, folder)
    if data.column not in table.column_names:
        raise ConfigError(
            f'the images have no column "{data.column}"', f"known: {', '.join(table.column_names)}"
        )
    paths = table["path"].to_pylist()
    labels = [_label(value) for value in table[data.column].to_pylist()]
    train, score = _split(data, table, paths, labels)
    score = [row for row in score if labels[row]]
    train, score = (
        _few(rows, paths, limit, most) for rows, limit in ((train, data.images), (score, data.scored))
    )
    chosen = train if data.bank is None else _few(_matching(table, data.bank), paths, None, most)
    bank = [row for row in chosen if labels[row]]
    for name, rows in (("learn", train), ("score", score)):
        if len(rows) < 2:
            raise InputError(f"the recipe leaves {len(rows)} images to {name}", "at least 2 are needed")
    parts = {"train": train, "bank": bank, "score": score}
    keys = [f"{path}\0{label}" for path, label in zip(paths, labels, strict=True)]
    columns = table.set_column(
        table.column_names.index(data.column), data.column, pa.array(labels, pa.string())
    )
    found = Picked(
        folder, columns, data.column, tuple(train), tuple(bank), tuple(score), split_hash(parts, keys)
    )
    _check_files(found)
    return found


def natural(name: str) -> list[Any]:
    """A key that orders names as people do: 9 before 10.

    >>> sorted(["10", "9", "b2", "b10"], key=natural)
    ['9', '10', 'b2', 'b10']
    """
    parts = re.split(r"([0-9]+)", name)
    return [(1, 0, part) if i % 2 == 0 else (0, int(part), "") for i, part in enumerate(parts) if part]


def _read(data: Data, folder: Path) -> pa.Table:
    """The table of all images: that of the folder, or one made of its folders' names."""
    if not folder.is_dir():
        raise InputError(f"the images are not in {folder}")
    path = folder / (data.table or TABLE)
    if data.table is not None or path.is_file():
        if not path.is_file():
            raise InputError(f"the table {path} does not exist")
        return read_manifest(path)
    paths = [item.path for item in scan(folder).items]
    parents = [PurePosixPath(one).parent for one in paths]
    columns = {"path": paths, "class": [one.name or "." for one in parents]}
    if data.column not in columns:
        raise ConfigError(
            f'the folders of {folder} give no column "{data.column}"', f"class, or put a {TABLE} there"
        )
    columns["split"] = [one.parts[0] if one.parts else "." for one in parents]
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _split(
    data: Data, table: pa.Table, paths: Sequence[str], labels: Sequence[str | None]
) -> tuple[list[int], list[int]]:
    """Rows that learn and rows that are scored."""
    every = range(table.num_rows)
    if data.score is not None:
        scored = _matching(table, data.score)
        if data.train is not None:
            return _matching(table, data.train), scored
    elif data.train_classes is not None:
        classes = sorted({label for label in labels if label}, key=natural)
        if len(classes) < 2:
            raise InputError(f"there are {len(classes)} classes to share out", "at least 2 are needed")
        kept = min(max(1, round(data.train_classes * len(classes))), len(classes) - 1)
        later = set(classes[kept:])
        scored = [row for row in every if labels[row] in later]
        return [row for row in every if labels[row] and labels[row] not in later], scored
    else:
        order = sorted(every, key=lambda row: _draw(paths[row]))
        scored = sorted(order[: round((data.held_out or 0) * len(order))])
    left_out = set(scored)
    return [row for row in every if row not in left_out], scored


def _matching(table: pa.Table, rows: Rows) -> list[int]:
    """The numbers of the rows that `filter_rows` keeps."""
    numbered = table.append_column("row number", pa.array(range(table.num_rows), pa.int64()))
    numbers: list[int] = filter_rows(numbered, rows)["row number"].to_pylist()
    return numbers


def _few(rows: Sequence[int], paths: Sequence[str], *limits: int | None) -> list[int]:
    """At most as many as the least of `limits`, chosen by their paths, in order."""
    most = min((limit for limit in limits if limit is not None), default=len(rows))
    return sorted(sorted(rows, key=lambda row: _draw(paths[row]))[:most]) if most < len(rows) else list(rows)


def _draw(path: str) -> bytes:
    """What a path is drawn by: the same on every machine, whatever else the table holds."""
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _label(value: Any) -> str | None:
    text = "" if value is None or value != value else str(value).strip()
    return text or None


def _check_files(found: Picked) -> None:
    rows = sorted({*found.train, *found.bank, *found.score})
    missing = [path for path in found.files(rows) if not os.path.isfile(path)]
    if missing:
        raise InputError(f"{len(missing):,} of {len(rows):,} images are missing, first {missing[0]}")


def _from(base: Path, folder: Path, path: str) -> str:
    """`path` in `folder` as seen from `base`; absolute where no drive holds both."""
    try:
        root = os.path.relpath(folder.resolve(), base.resolve())
    except ValueError:
        root = str(folder.resolve())
    return (Path(root) / path).as_posix()
