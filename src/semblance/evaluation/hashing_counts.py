"""Each query's items counted by Hamming distance, all of them and the relevant ones.

Relevant is what shares a class, or any of several labels, or what a list names. Queries with the same labels
ask the same part of the database, so relevance costs no comparison of labels per pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.errors import ConfigError, InputError
from semblance.index import _kernel
from semblance.index._codes import as_codes, to_words

__all__ = ["Asked", "Counts", "Ids", "by_labels", "by_lists"]

Words = NDArray[np.uint64]
Counts = NDArray[np.int64]
Ids = NDArray[np.int64]


class Asked(NamedTuple):
    """Queries with their sets of labels, and how distances from them to the database are counted.

    `bits`: length of a code. `sets` `(q,)`: a number per set of labels, -1 for none. `histograms(rows)`:
    `(b, bits + 1)` counts of all items and of the relevant ones, for these queries, by distance.
    """

    bits: int
    sets: Ids
    histograms: Callable[[Ids], tuple[Counts, Counts]]


def by_labels(
    queries: ArrayLike,
    database: ArrayLike,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    query_ids: ArrayLike | None = None,
    database_ids: ArrayLike | None = None,
) -> Asked:
    """Relevant is what shares a label: see `hashing.score_codes`."""
    q, x, bits = _pair(queries, database)
    sets, rows_of, share = _labelled(query_labels, database_labels, len(q), x)
    own = _own_rows(query_ids, database_ids, len(q), len(x))

    def histograms(rows: Ids) -> tuple[Counts, Counts]:
        counts = _kernel.count(x, q[rows], bits)
        relevant = np.zeros_like(counts)
        for number in np.unique(sets[rows]):
            which = np.flatnonzero(sets[rows] == number)
            relevant[which] = _kernel.count(rows_of(int(number)), q[rows[which]], bits)
        itself = np.flatnonzero(own[rows] >= 0)
        asked = rows[itself]
        differing = np.unpackbits((q[asked] ^ x[own[asked]]).view(np.uint8), axis=1)
        distance = differing.sum(axis=1, dtype=np.int64)
        counts[itself, distance] -= 1
        relevant[itself, distance] -= share(asked, own[asked])
        return counts, relevant

    return Asked(bits, sets, histograms)


def by_lists(
    queries: ArrayLike,
    database: ArrayLike,
    relevant: Sequence[ArrayLike],
    ignored: Sequence[ArrayLike] | None = None,
) -> Asked:
    """Relevant is what each query's list of rows names: see `hashing.score_lists`."""
    q, x, bits = _pair(queries, database)
    lists = [_rows(relevant, len(q), len(x), "relevant"), _rows(ignored, len(q), len(x), "ignored")]
    for i, (wanted, junk) in enumerate(zip(*lists, strict=True)):
        if len(np.intersect1d(wanted, junk)):
            raise InputError(f"query {i} has rows that are both relevant and ignored")

    def histograms(rows: Ids) -> tuple[Counts, Counts]:
        wanted, junk = (
            np.concatenate([_kernel.count(x[one[i]], q[[i]], bits) for i in rows]) for one in lists
        )
        return _kernel.count(x, q[rows], bits) - junk, wanted

    return Asked(bits, np.arange(len(q), dtype=np.int64), histograms)


def _pair(queries: ArrayLike, database: ArrayLike) -> tuple[Words, Words, int]:
    q, x = as_codes(queries, what="queries"), as_codes(database, what="database codes")
    if q.shape[1] != x.shape[1]:
        what = f"the queries have {8 * q.shape[1]} bits, the database {8 * x.shape[1]}"
        raise InputError(what, "encode both with one coder")
    if not len(q) or not len(x):
        raise InputError(f"there are {len(q)} queries and {len(x)} items", "nothing can be scored")
    return to_words(q), to_words(x), 8 * x.shape[1]


def _labelled(
    query_labels: ArrayLike, database_labels: ArrayLike, q: int, x: Words
) -> tuple[Ids, Callable[[int], Words], Callable[[Ids, Ids], NDArray[np.bool_]]]:
    """Each query's set of labels; the codes relevant to a set; whether pairs (query, item) share a label."""
    asked, theirs = np.asarray(query_labels), np.asarray(database_labels)
    for array, rows, what in ((asked, q, "queries"), (theirs, len(x), "items")):
        if array.ndim not in (1, 2) or len(array) != rows:
            raise InputError(f"{rows} {what} came with labels of shape {array.shape}", "one row for each")
    if asked.ndim != theirs.ndim or asked.shape[1:] != theirs.shape[1:]:
        raise InputError(f"the labels have the shapes {asked.shape} and {theirs.shape}", "give both alike")
    if asked.ndim == 2:
        if asked.dtype != np.bool_ or theirs.dtype != np.bool_:
            raise InputError(f"labels of shape {asked.shape} are {asked.dtype}", "give bool, or (n,) labels")
        sets, numbers = np.unique(asked, axis=0, return_inverse=True)
        return (
            numbers.reshape(-1).astype(np.int64),
            lambda number: x[theirs[:, sets[number]].any(axis=1)],
            lambda rows, items: (asked[rows] & theirs[items]).any(axis=1),
        )
    both = _class_numbers(asked, theirs)
    numbers, classes = both[:q], both[q:]
    order = np.argsort(classes, kind="stable")
    ends = np.searchsorted(classes[order], np.arange(int(both.max()) + 2))
    ordered = x[order]

    def rows_of(number: int) -> Words:
        return ordered[ends[number] : ends[number + 1]] if number >= 0 else ordered[:0]

    def share(rows: Ids, items: Ids) -> NDArray[np.bool_]:
        return np.asarray((numbers[rows] == classes[items]) & (numbers[rows] >= 0))

    return numbers, rows_of, share


def _class_numbers(asked: NDArray[Any], theirs: NDArray[Any]) -> Ids:
    """Numbers of the classes from 0, queries first; -1 where a label is a number below 0."""
    kinds = {("number" if array.dtype.kind in "iub" else "name") for array in (asked, theirs)}
    texts = [array for array in (asked, theirs) if array.dtype.kind not in "iub"]
    fit = all(array.dtype.kind == "U" or all(type(value) is str for value in array) for array in texts)
    if len(kinds) > 1 or not fit:
        raise InputError("the labels are not all whole numbers or all names", "none may be missing")
    both = np.concatenate([asked, theirs])
    numbers = np.unique(both, return_inverse=True)[1].astype(np.int64)
    return np.where(both < 0, -1, numbers) if both.dtype.kind == "i" else numbers


def _own_rows(query_ids: ArrayLike | None, database_ids: ArrayLike | None, q: int, n: int) -> Ids:
    """`(q,)`: the row of the database with each query's own id, -1 for none."""
    if query_ids is None and database_ids is None:
        return np.full(q, -1, dtype=np.int64)
    if query_ids is None or database_ids is None:
        raise ConfigError("ids of only one side were given", "give those of queries and database, or none")
    asked, theirs = np.asarray(query_ids), np.asarray(database_ids)
    if asked.shape != (q,) or theirs.shape != (n,) or {asked.dtype.kind, theirs.dtype.kind} - set("iu"):
        raise InputError(f"ids of shapes {asked.shape} and {theirs.shape} for {q} queries and {n} items")
    order = np.argsort(theirs, kind="stable")
    ordered = theirs[order]
    if (ordered[1:] == ordered[:-1]).any():
        raise InputError("two items of the database have the same id", "without that, none can be left out")
    at = np.minimum(np.searchsorted(ordered, asked), n - 1)
    return np.where(ordered[at] == asked, order[at], -1)


def _rows(lists: Sequence[ArrayLike] | None, q: int, n: int, what: str) -> list[Ids]:
    if lists is None:
        return [np.zeros(0, dtype=np.int64)] * q
    rows = [np.unique(np.asarray(one, dtype=np.int64)) for one in lists]
    if len(rows) != q or any(len(one) and not 0 <= one[0] <= one[-1] < n for one in rows):
        raise InputError(
            f"the {what} rows are not one list of rows from 0 to {n - 1} for each of {q} queries"
        )
    return rows
