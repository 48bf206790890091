"""Labels: from a table, a mapping, a list or the names of folders to one for each image, and to numbers.

A training that learns from labels finds them as `taught.npy` beside its pixels, in row order; they are gone
when the collection is finished, whose configuration says what they were.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from semblance import plugins
from semblance.collection import disk
from semblance.errors import ConfigError, InputError
from semblance.evaluation import tables
from semblance.images.sources import Source, folder_labels

__all__ = [
    "TAUGHT",
    "Lesson",
    "check",
    "labels_in_order",
    "lesson_for",
    "read",
    "said_of",
    "targets",
    "trial",
    "write",
]

TAUGHT = "taught.npy"
SEPARATOR = "|"
"""Between the labels of an image that has several: "cat|outdoors"."""

Given = str | Path | Mapping[str, Any] | Sequence[Any] | None
Targets = NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True)
class Lesson:
    """Labels that a training learns from: where they are given, and `said`, what they are in a few words."""

    objective: str
    labels: Any
    column: str | None
    said: str


def lesson_for(objective: str, labels: Given, column: str | None) -> Lesson | None:
    """What the objective learns from; None for one that learns without labels.

    Raises `ConfigError` where such a one was given labels, and for a column without a table.
    """
    needs = getattr(plugins.get("objectives", objective).Objective, "labels", False)
    if not needs:
        if labels is not None or column is not None:
            raise ConfigError(
                f"{objective} learns without labels",
                "leave --labels and --column out, or take another --objective",
            )
        return None
    return Lesson(objective, labels, column, said_of(labels, column))


def said_of(labels: Given, column: str | None) -> str:
    """What labels are in a few words, with a hash of their values: equal words are equal labels."""
    if labels is None:
        if column is not None:
            raise ConfigError("a column was named without a table", "give --labels too")
        return "names of folders"
    if isinstance(labels, (str, Path)):
        path = Path(labels)
        if not path.is_file():
            raise InputError(f"the labels {path} do not exist", "give a CSV or Parquet file")
        return f"{column or _only_column(path)} of {path.name} ({disk.file_hash(path)[:16]})"
    values = sorted(labels.items()) if isinstance(labels, Mapping) else np.asarray(labels).tolist()
    digest = hashlib.blake2b(json.dumps(values, default=str).encode(), digest_size=8)
    return f"labels given ({digest.hexdigest()})"


def labels_in_order(
    paths: Sequence[str], labels: Given, column: str | None, name: str
) -> tuple[list[Any], str]:
    """One label or None for each of `paths`, and what they are called. `name`: of the collection.

    `labels`: a CSV or Parquet table and its `column`, a mapping from path to label, one label for each path
    in order, or None for the names of the folders. Raises `InputError` or `ConfigError` for labels that do
    not fit.
    """
    if labels is None:
        if column is not None:
            raise ConfigError("a column was named without a table", "give --labels too")
        folders = folder_labels(paths)
        if folders is None:
            raise InputError(
                f"all images of {name} lie in one folder, which names no classes",
                "give --labels TABLE --column NAME",
            )
        return list(folders), "folder"
    if isinstance(labels, (str, Path)):
        chosen = column or _only_column(Path(labels))
        return list(tables.read_labels(labels, chosen, paths).values), chosen
    if isinstance(labels, Mapping):
        values = [labels.get(path) for path in paths]
        if all(value is None for value in values):
            raise InputError("none of the labels belongs to an image", f"paths look like {paths[0]}")
        return values, column or "label"
    if len(labels) != len(paths):
        raise InputError(f"{len(labels)} labels for {len(paths)} readable images", "give one for each")
    return list(labels), column or "label"


def targets(values: Sequence[Any]) -> tuple[Targets, list[str]]:
    """Labels as numbers, `(n,)` int64 with -1 for none, or, where one has several, `(n, classes)` bool; and
    the names of the classes, sorted.

    A label is a text or number; None, NaN, an empty text and a number below 0 are none. Several are a list,
    tuple or set, or a text with "|" between them.

    >>> targets(["cat", None, "dog"])[0].tolist(), targets(["cat|dog", "dog"])[0].tolist()
    ([1, -1, 0], [[True, True], [False, True]])
    """
    sets = [_classes(value) for value in values]
    names = sorted(set().union(*sets))
    place = {name: i for i, name in enumerate(names)}
    if all(len(one) < 2 for one in sets):
        return np.array([place[one[0]] if one else -1 for one in sets], np.int64), names
    several = np.zeros((len(sets), len(names)), np.bool_)
    for row, one in enumerate(sets):
        several[row, [place[name] for name in one]] = True
    return several, names


def check(lesson: Lesson | None, source: Source) -> None:
    """Raise before anything is decoded where the labels could not be used."""
    if lesson is not None:
        _taught(lesson, [item.path for item in source.items], early=True)


def write(folder: Path, lesson: Lesson | None, paths: Sequence[str]) -> None:
    """`taught.npy` in `folder`: the labels of the store's rows, whose images are `paths`."""
    if lesson is not None:
        rows = _taught(lesson, paths)
        disk.write_atomically(folder / TAUGHT, lambda file: np.save(file, rows))


def read(folder: Path) -> Targets:
    """The labels that `write` left."""
    found: Targets = np.load(folder / TAUGHT, allow_pickle=False)
    return found


def trial(lesson: Lesson | None, source: Source, n: int) -> Targets:
    """Labels for `n` images that only stand for the real ones: of as many classes."""
    if lesson is None:
        return np.arange(n) % 2
    rows = _taught(lesson, [item.path for item in source.items], early=True)
    return rows[np.arange(n) % len(rows)] if n >= len(rows) else rows[np.arange(n) * len(rows) // n]


def _taught(lesson: Lesson, paths: Sequence[str], early: bool = False) -> Targets:
    """The labels of `paths`, checked. `early`: some of the images may still turn out to be unreadable."""
    if lesson.labels is None and folder_labels(paths) is None:
        raise ConfigError(
            f"{lesson.objective} learns from labels, and all images lie in one folder",
            "folders that name classes, or --labels TABLE --column NAME",
        )
    one_each = not isinstance(lesson.labels, (str, Path, Mapping)) and lesson.labels is not None
    if early and one_each:
        values = list(lesson.labels)
    else:
        values = labels_in_order(paths, lesson.labels, lesson.column, "the source")[0]
    rows, names = targets(values)
    if len(names) < 2:
        raise InputError(
            f"the labels ({lesson.said}) name {len(names)} classes", f"{lesson.objective} needs at least two"
        )
    return rows


def _classes(value: Any) -> list[str]:
    if isinstance(value, np.ndarray) and value.dtype == np.bool_:
        return [f"{i:06}" for i in np.flatnonzero(value)]
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return sorted({name for one in value for name in _classes(one)})
    if isinstance(value, str):
        return sorted({part.strip() for part in value.split(SEPARATOR)} - {""})
    if value is None or value != value or (isinstance(value, (int, float, np.number)) and value < 0):
        return []
    return [str(value)]


def _header(path: Path) -> list[str]:
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","), [])
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read as a table: {error}", "give a CSV or Parquet file"
        ) from error


def _only_column(path: Path) -> str:
    header = _header(path)
    if len(header) < 2:
        raise InputError(
            f"{path.name} has no column of labels", "a column of paths and one of labels are needed"
        )
    names = [name for name in header if name != ("path" if "path" in header else header[0])]
    if len(names) == 1:
        return names[0]
    if "class" in names or "label" in names:
        return "class" if "class" in names else "label"
    raise ConfigError(f"{path.name} has several columns", f"choose one with --column: {', '.join(names)}")
