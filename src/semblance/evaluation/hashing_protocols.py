"""The protocols of the hashing literature: labels in, rows of query, training and database images out.

Numbers of two papers compare only under one protocol, and most sets have several. A preset says how many
images ask, how many teach and what is searched; the rows are drawn by a seed, so a table that names protocol
and seed can be made again. `split_hash` of the room gives the digits that prove it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.errors import ConfigError, InputError

__all__ = ["PROTOCOLS", "Protocol", "draw_protocol", "label_matrix", "seen_and_unseen"]

Ids = NDArray[np.int64]
Split = dict[str, Ids]

_QUERY_PARTS = ("test", "val", "validation", "query")
_TRAIN_PARTS = ("train",)
_DATABASE_PARTS = ("database", "index", "gallery")


@dataclass(frozen=True)
class Protocol:
    """How many images play which part.

    `query`, `train`: how many, over all classes. `database`: all but the queries ("rest"), all but queries
    and training images ("rest without train"), or the training images ("train"). `classes`: how many there
    are, 0 for any. `several`: whether an image may have several labels, one in common being enough. `draw`:
    the same number "per class", "at random", or as a column of the table says ("given"). `at`: the R of
    mAP@R, None for the whole database. `data`: what the table must list.
    """

    query: int
    train: int
    database: Literal["rest", "rest without train", "train"]
    classes: int
    several: bool
    draw: Literal["per class", "at random", "given"]
    at: int | None
    data: str


_CIFAR = "the 60,000 images of CIFAR-10"
_LANDMARKS = "queries and database of a landmark set, told apart by a column"

PROTOCOLS = {
    "cifar10-c0": Protocol(1_000, 5_000, "rest without train", 10, False, "per class", None, _CIFAR),
    "cifar10-c1": Protocol(1_000, 5_000, "rest", 10, False, "per class", None, _CIFAR),
    "cifar10-c2": Protocol(10_000, 50_000, "train", 10, False, "per class", None, _CIFAR),
    "nuswide-21": Protocol(
        2_100, 10_500, "rest", 21, True, "per class", 5_000, "NUS-WIDE with its 21 most frequent labels"
    ),
    "nuswide-81": Protocol(5_000, 10_000, "rest", 81, True, "at random", 5_000, "NUS-WIDE with 81 labels"),
    "imagenet100": Protocol(
        5_000, 13_000, "rest", 100, False, "per class", 1_000, "100 classes of ImageNet, train and val"
    ),
    "coco": Protocol(5_000, 10_000, "rest", 80, True, "at random", 5_000, "MS-COCO with 80 labels"),
    "flickr25k": Protocol(2_000, 5_000, "rest", 0, True, "at random", None, "MIRFlickr-25K with its labels"),
    "gldv2": Protocol(1_129, 0, "rest", 0, False, "given", 100, _LANDMARKS),
    "roxford": Protocol(70, 0, "rest", 0, False, "given", None, _LANDMARKS),
    "rparis": Protocol(70, 0, "rest", 0, False, "given", None, _LANDMARKS),
}
"""Presets by name. Papers on Flickr25K take 1,000 to 2,000 queries and 4,000 to 10,000 training images: say
which with `dataclasses.replace`. Relevance on ROxford and RParis comes in lists (`hashing.score_lists`)."""


def draw_protocol(
    protocol: str | Protocol,
    labels: ArrayLike,
    parts: Sequence[Any] | NDArray[Any] | None = None,
    seed: int = 0,
) -> Split:
    """Rows `{"query", "train", "database"}`, each int64 in rising order, by a preset's name or a `Protocol`.

    `labels`: `(n,)` names or numbers, or `(n, c)` bool where images may have several; images without a label
    (a number below 0, a row without True) are in no part. `parts` `(n,)`: the table's own split. Queries
    then come only from its "test", "val" or "query" rows, training images only from "train"; without it
    both come from all rows. Raises `ConfigError` for an unknown name or missing parts, `InputError` where
    the table has too few images or other classes.

    >>> half = Protocol(2, 4, "rest without train", 2, False, "per class", None, "ten images")
    >>> {name: len(rows) for name, rows in draw_protocol(half, [0, 1] * 5).items()}
    {'query': 2, 'train': 4, 'database': 4}
    """
    name, rules = _named(protocol)
    n, classes = _classes(labels, rules, name)
    column = None if parts is None else np.array([str(part).strip().lower() for part in parts])
    if column is not None and column.shape != (n,):
        raise InputError(f"{n} labels came with {len(column)} parts", "one for each image")
    if rules.draw == "given":
        return _given(name, column, n)
    rng = np.random.default_rng(seed)
    free = np.zeros(n, dtype=np.bool_)
    free[np.concatenate(classes)] = True
    rest = free.copy()
    drawn: Split = {}
    wanted = (("query", rules.query, _QUERY_PARTS), ("train", rules.train, _TRAIN_PARTS))
    for part, count, names in wanted:
        allowed = free if column is None else free & np.isin(column, names)
        groups = classes if rules.draw == "per class" else [np.flatnonzero(free)]
        rows = _draw(groups, allowed, count, rng, f"{part} images for {name}")
        drawn[part] = rows
        free[rows] = False
    rest[drawn["query"]] = False
    if rules.database == "rest without train":
        rest[drawn["train"]] = False
    database = drawn["train"] if rules.database == "train" else np.flatnonzero(rest)
    if not len(database):
        raise InputError(f"no image is left for the database of {name}", f"it wants {rules.data}")
    return {**drawn, "database": database}


def seen_and_unseen(
    labels: ArrayLike, trained: ArrayLike, queries: int = 4, seed: int = 0
) -> dict[str, Split]:
    """Two splits, "seen" and "unseen", for codes that were trained on some of the classes.

    `labels` `(n,)`; `trained` `(n,)` bool, whether a row's class is one of them. Of each class up to
    `queries` images ask (one stays at least), the others are the database, either side by itself. "train"
    of both: the database of the seen classes, so that no query was trained on. Raises `InputError` if a class
    is on both sides or one side is empty.
    """
    names, seen = np.asarray(labels), np.asarray(trained)
    if names.ndim != 1 or seen.shape != names.shape or seen.dtype != np.bool_:
        raise InputError(f"labels of shape {names.shape} came with a trained column of shape {seen.shape}")
    both = np.intersect1d(names[seen], names[~seen])
    if len(both):
        raise InputError(f'the class "{both[0]}" is both trained on and not', "split by class")
    if seen.all() or not seen.any():
        raise InputError("all classes are on one side", "leave some classes out of training")
    rng = np.random.default_rng(seed)
    asks = np.zeros(len(names), dtype=np.bool_)
    for rows in _rows_by_class(names):
        drawn = rng.permutation(rows)
        asks[drawn[: min(queries, len(rows) - 1)]] = True
    train = np.flatnonzero(seen & ~asks)
    sides = {"seen": seen, "unseen": ~seen}
    return {
        name: {"query": np.flatnonzero(side & asks), "train": train, "database": np.flatnonzero(side & ~asks)}
        for name, side in sides.items()
    }


def label_matrix(
    texts: Sequence[str | None], separator: str = " "
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """`(n, c)` bool and the c label names, from one text per image that lists its labels; None for none.

    >>> label_matrix(["sky sea", None, "sea"])[0].tolist()
    [[True, True], [False, False], [True, False]]
    """
    split = [{name.strip() for name in (text or "").split(separator)} - {""} for text in texts]
    names = tuple(sorted(set().union(*split)))
    place = {name: at for at, name in enumerate(names)}
    matrix = np.zeros((len(split), len(names)), dtype=np.bool_)
    for row, found in enumerate(split):
        matrix[row, [place[name] for name in found]] = True
    return matrix, names


def _named(protocol: str | Protocol) -> tuple[str, Protocol]:
    if isinstance(protocol, Protocol):
        return "this protocol", protocol
    if protocol not in PROTOCOLS:
        near = difflib.get_close_matches(protocol, PROTOCOLS, n=3, cutoff=0.4) or PROTOCOLS
        raise ConfigError(f'there is no protocol "{protocol}"', f"known: {', '.join(near)}")
    return protocol, PROTOCOLS[protocol]


def _classes(labels: ArrayLike, rules: Protocol, name: str) -> tuple[int, list[Ids]]:
    """How many images there are, and the rows of each class or label."""
    array = np.asarray(labels)
    if array.ndim != 1 + rules.several or (rules.several and array.dtype != np.bool_):
        form = "(n, labels) bool: make one with label_matrix" if rules.several else "(n,) names or numbers"
        raise InputError(f"{name} got labels of shape {array.shape} and type {array.dtype}", f"give {form}")
    classes = [np.flatnonzero(column) for column in array.T] if rules.several else _rows_by_class(array)
    if rules.classes and len(classes) != rules.classes:
        found = f"the labels have {len(classes)} classes, {name} has {rules.classes}"
        raise InputError(found, f"it wants {rules.data}")
    return len(array), classes


def _draw(
    groups: Sequence[Ids], allowed: NDArray[np.bool_], count: int, rng: np.random.Generator, what: str
) -> Ids:
    """`count` of the allowed rows, as many of each group, no row twice."""
    each, uneven = divmod(count, len(groups))
    if uneven:
        raise ConfigError(f"{count} {what} are not as many for each of {len(groups)} classes")
    free = allowed.copy()
    drawn = np.zeros(len(free), dtype=np.bool_)
    for number, rows in enumerate(groups):
        rows = rows[free[rows]]
        if len(rows) < each:
            where = f"class {number} (in sorted order)" if len(groups) > 1 else "the table"
            found = f"{where} has {len(rows):,} of the {each:,} {what}"
            raise InputError(found, "images are missing, or are in another part")
        taken = rng.permutation(rows)[:each]
        drawn[taken], free[taken] = True, False
    return np.flatnonzero(drawn)


def _given(name: str, column: NDArray[Any] | None, n: int) -> Split:
    """The rows as the table's own column has them."""
    if column is None:
        raise ConfigError(f"{name} needs the table's own parts", 'give a column with "query" and "database"')
    named = {"query": _QUERY_PARTS, "train": _TRAIN_PARTS, "database": _DATABASE_PARTS}
    split = {part: np.flatnonzero(np.isin(column, names)) for part, names in named.items()}
    for part in ("query", "database"):
        if not len(split[part]):
            raise InputError(f"{name} found no {part} rows among {n}", f"mark them {', '.join(named[part])}")
    return split


def _rows_by_class(names: NDArray[Any]) -> list[Ids]:
    """The rows of each class, in sorted order of the classes; numbers below 0 are none."""
    rows = np.flatnonzero(names >= 0) if names.dtype.kind == "i" else np.arange(len(names))
    numbers = np.unique(names[rows], return_inverse=True)[1]
    order = np.argsort(numbers, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(numbers[order])) + 1)
