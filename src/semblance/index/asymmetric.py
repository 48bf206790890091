"""Exact search with real-valued queries in binary codes: bits of which the query is sure weigh more.

What: the codes are packed bits as everywhere, but a query stays what the coder computed before it took signs
(its `project(x)`), `bits` numbers q. The distance to a code c, its bits read as -1 and +1, is

    d(q, c) = sum of |q_i| over the bits where c_i differs from the sign of q_i (0 counts as +)
            = (||q - c||^2 - ||q - sign(q)||^2) / 4,

so it orders as the Euclidean distance from q to c does, is 0 to the query's own code, and is the Hamming
distance where all q are -1 or +1. The sum is taken in float64 byte by byte and rounded to float32 once, so it
is the same on every machine. Results are ordered by (distance, id), as in `scan` (Gordo, Perronnin, Gong and
Lazebnik, "Asymmetric distances for binary embeddings", TPAMI 2014).

When: the query's numbers are at hand and Hamming distances tie too much; as a second look at a short list.

Cost: a table of 256 entries for each byte and query; then one look-up per byte and code, about 3 nanoseconds
for each 64 bits of a code: some twenty times the scan for one query.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.contracts import Matches
from semblance.errors import ConfigError
from semblance.index import _lookup
from semblance.index._codes import Codes, Ids
from semblance.index._folder import unreadable
from semblance.index._search import Floats, as_vectors

__all__ = ["Config", "Index"]

Rows = NDArray[np.int64]
Found = tuple[Rows, Floats]

_BLOCK = 2**16  # codes measured at a time


@dataclass(frozen=True)
class Config:
    """`threads`: cores that share the queries of a search."""

    threads: int = 1

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}", "give at least 1")


class Index:
    """Exact search of packed codes by real-valued queries.

    >>> index = Index()
    >>> index.add(np.array([[0b01], [0b10]], dtype=np.uint8))
    array([0, 1])
    >>> index.search([0.25, 0.5, -1, -1, -1, -1, -1, -1], k=2).distances
    array([[0.25, 0.5 ]], dtype=float32)
    """

    recall = 1.0
    takes = "codes"
    asks = "projections"

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._codes = Codes()

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def bits(self) -> int | None:
        """How many bits the codes have; None while nothing was ever added."""
        return self._codes.bits

    @property
    def ids(self) -> Ids:
        """The ids `(n,)`, rising."""
        return self._codes.ids

    def add(self, codes: ArrayLike, ids: ArrayLike | None = None) -> Ids:
        """The ids `(n,)` under which `codes` `(n, bits / 8)` uint8 were added; see `scan`."""
        return self._codes.add(codes, ids)

    def remove(self, ids: ArrayLike) -> None:
        """Forget the codes under `ids`. Raises `InputError` if one is not there; none is removed then."""
        self._codes.remove(ids)

    def search(self, queries: ArrayLike, k: int, among: ArrayLike | None = None) -> Matches:
        """The k nearest of each query `(q, bits)` float32, ordered by (distance, id); -1 and inf pad `k > n`.

        `among` `(m,)`: the ids to which the search is confined; ids that are not in the index count for none.
        """
        asked = as_vectors(queries, self.bits, "queries")
        if k < 1:
            raise ConfigError(f"k is {k}", "ask for at least one neighbour")

        def of_one(query: Floats) -> Found:
            best: Found = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
            for rows, far in self._measured(query, allowed):
                best = _better(best, rows, far, k)
            return best

        allowed = None if among is None else self._codes.rows(among)
        return self._matches(self._each(of_one, asked), k)

    def within(self, queries: ArrayLike, radius: float, among: ArrayLike | None = None) -> Matches:
        """All at a distance of at most `radius`, ordered by (distance, id), padded to the longest row.

        Raises `ConfigError` if `radius` is negative or NaN.
        """
        asked = as_vectors(queries, self.bits, "queries")
        if not radius >= 0:
            raise ConfigError(f"the radius is {radius}", "a distance is at least 0")
        limit = np.float32(min(radius, float(np.finfo(np.float32).max)))

        def of_one(query: Floats) -> Found:
            parts = [(some[far <= limit], far[far <= limit]) for some, far in self._measured(query, allowed)]
            rows = np.concatenate([np.empty(0, dtype=np.int64), *(part[0] for part in parts)])
            distances = np.concatenate([np.empty(0, dtype=np.float32), *(part[1] for part in parts)])
            order = np.argsort(distances, kind="stable")
            return rows[order], distances[order]

        allowed = None if among is None else self._codes.rows(among)
        found = self._each(of_one, asked)
        return self._matches(found, max((len(rows) for rows, _ in found), default=0))

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the folder `path`, all of it or nothing; see `scan`."""
        self._codes.save(path, "asymmetric", asdict(self.config), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """The index saved in the folder `path`; its codes stay on disk, mapped into memory.

        Raises `CollectionError` if the folder is not one that `save` wrote.
        """
        codes, config = Codes.load(path, "asymmetric")
        try:
            index = cls(Config(**config))
        except (TypeError, ConfigError) as error:
            raise unreadable(path, "asymmetric", error) from error
        index._codes = codes
        return index

    def _measured(self, query: Floats, allowed: Rows | None) -> Iterator[Found]:
        """Rows, rising, and their distances, block by block."""
        words = self._codes.words
        count = len(words) if allowed is None else len(allowed)
        if count == 0:
            return
        tables, own = _lookup.tables_of(query)
        for start in range(0, count, _BLOCK):
            if allowed is None:
                block = words[start : start + _BLOCK]
                rows = np.arange(start, start + len(block), dtype=np.int64)
            else:
                rows = allowed[start : start + _BLOCK]
                block = words[rows]
            yield rows, _lookup.distances(block, tables, own)

    def _each(self, of_one: Callable[[Floats], Found], queries: Floats) -> list[Found]:
        if self.config.threads == 1 or len(queries) == 1:
            return [of_one(query) for query in queries]
        with ThreadPoolExecutor(self.config.threads) as pool:
            return list(pool.map(of_one, queries))

    def _matches(self, found: list[Found], width: int) -> Matches:
        rows = np.full((len(found), width), -1, dtype=np.int64)
        distances = np.full((len(found), width), np.inf, dtype=np.float32)
        for i, (some, far) in enumerate(found):
            rows[i, : len(some)], distances[i, : len(far)] = some, far
        return Matches(self._codes.names(rows), distances)


def _better(best: Found, rows: Rows, far: Floats, k: int) -> Found:
    """The k best of `best`, in order, and of later `rows` at distances `far`."""
    if len(best[0]) == k:
        near = np.flatnonzero(far < best[1][-1])
        rows, far = rows[near], far[near]
    if len(far) > k:
        near = np.flatnonzero(far <= np.partition(far, k - 1)[k - 1])
        rows, far = rows[near], far[near]
    rows, far = np.concatenate([best[0], rows]), np.concatenate([best[1], far])
    order = np.argsort(far, kind="stable")[:k]  # rows have come in order: equal distances stay in theirs
    return rows[order], far[order]
