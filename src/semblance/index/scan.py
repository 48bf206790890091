"""Exact Hamming search: every query is compared with every packed code, at the speed of memory.

What: the `k` nearest codes, all within a radius, or how many lie at each distance, without approximation,
ordered by (distance, id). Many queries are answered together: tiles of codes are transposed to planes of
bits and counted upright, hundreds of codes at an instruction (see `native/sliced.h`). A single query reads
the codes once. Compiled for the processor at hand, or NumPy where there is no compiler: equal answers.

When: up to some ten million codes always; beyond that where neighbours lie far (see `mih` and `auto`).

Cost: one query takes the time of reading `n * ceil(bits / 64) * 8` bytes; in batches a core compares 8 to 40
billion pairs of 64-bit codes a second (docs/results/search.md). Memory beside the codes and the answer: about
40 bytes for each of k and query; for `among`, a copy of those codes, 64 MiB of them at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.contracts import Matches
from semblance.errors import ConfigError
from semblance.index import _kernel
from semblance.index._codes import Codes, Ids, Words, as_codes
from semblance.index._folder import unreadable

__all__ = ["Config", "Index"]

Rows = NDArray[np.int64]
Distances = NDArray[np.int32]

_SLAB_WORDS = 2**23  # words of filtered codes copied at a time


@dataclass(frozen=True)
class Config:
    """`threads`: cores that share a search."""

    threads: int = 1

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}", "give at least 1")


class Index:
    """Exact search over packed codes that come and go.

    `recall` is the share of true neighbours that a search promises to find.

    >>> index = Index()
    >>> index.add(np.array([[0], [7]], dtype=np.uint8))
    array([0, 1])
    >>> index.search(np.array([1], dtype=np.uint8), k=2).distances
    array([[1., 2.]], dtype=float32)
    """

    recall = 1.0
    takes = "codes"

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
        """The ids `(n,)` under which `codes` `(n, bits / 8)` uint8 were added.

        Without `ids` they count on from the largest one present. Raises `InputError` for codes of another
        width or type, or an id that is negative or already taken; nothing is added then.
        """
        return self._codes.add(codes, ids)

    def remove(self, ids: ArrayLike) -> None:
        """Forget the codes under `ids`. Raises `InputError` if one is not there; none is removed then."""
        self._codes.remove(ids)

    def search(self, queries: ArrayLike, k: int, among: ArrayLike | None = None) -> Matches:
        """The k nearest of each query `(q, bits / 8)`, ordered by (distance, id); -1 and inf pad `k > n`.

        `among` `(m,)`: the ids to which the search is confined; ids that are not in the index count for none.
        """
        asked = self._codes.queries(queries)
        if k < 1:
            raise ConfigError(f"k is {k}", "ask for at least one neighbour")
        parts = []
        for words, rows in self._slabs(among):
            found, distances = _kernel.nearest(words, asked, k, threads=self.config.threads)
            parts.append((found if rows is None else _pick(rows, found), distances))
        found, distances = _nearest_of(parts, len(asked), k)
        return self._matches(found, distances)

    def within(self, queries: ArrayLike, radius: float, among: ArrayLike | None = None) -> Matches:
        """All at a distance of at most `radius`, ordered by (distance, id), padded to the longest row.

        Raises `ConfigError` if `radius` is negative or NaN.
        """
        asked = self._codes.queries(queries)
        if not radius >= 0:
            raise ConfigError(f"the radius is {radius}", "a distance is at least 0")
        limit = int(min(radius, 8 * asked.itemsize * asked.shape[1]))
        parts = []
        for words, rows in self._slabs(among):
            ends, found, distances = _kernel.within(words, asked, limit, threads=self.config.threads)
            query = np.repeat(np.arange(len(asked)), np.diff(ends))
            parts.append((query, found if rows is None else rows[found], distances))
        query, found, distances = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if len(parts) > 1:
            order = np.lexsort((found, distances, query))
            query, found, distances = query[order], found[order], distances[order]
        counts = np.bincount(query, minlength=len(asked))
        shape = (len(asked), int(counts.max(initial=0)))
        places = np.arange(shape[1]) < counts[:, None]
        all_rows = np.full(shape, -1, dtype=np.int64)
        all_distances = np.full(shape, _kernel.FAR, dtype=np.int32)
        all_rows[places], all_distances[places] = found, distances
        return self._matches(all_rows, all_distances)

    def count(self, queries: ArrayLike, among: ArrayLike | None = None) -> NDArray[np.int64]:
        """How many codes lie at each distance from each query: `(q, bits + 1)` int64."""
        packed = as_codes(queries, self.bits, "queries")
        asked, bits = self._codes.queries(packed), 8 * packed.shape[1]
        total = np.zeros((len(asked), bits + 1), dtype=np.int64)
        for words, _ in self._slabs(among):
            total += _kernel.count(words, asked, bits, threads=self.config.threads)
        return total

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the folder `path`: `codes.npy`, `ids.npy` unless they are 0 to n-1, `index.json`; or nothing.

        Raises `CollectionError` if `path` exists and `overwrite` is not set.
        """
        self._codes.save(path, "scan", asdict(self.config), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """The index saved in the folder `path`; its codes stay on disk, mapped into memory.

        Raises `CollectionError` if the folder is not one that `save` wrote.
        """
        codes, config = Codes.load(path, "scan")
        try:
            index = cls(Config(**config))
        except (TypeError, ConfigError) as error:
            raise unreadable(path, "scan", error) from error
        index._codes = codes
        return index

    def _slabs(self, among: ArrayLike | None) -> Iterator[tuple[Words, Rows | None]]:
        """Stretches of the codes to search and the rows they stand in, rising; None: from 0 on."""
        words = self._codes.words
        if among is None:
            yield words, None
            return
        rows = self._codes.rows(among)
        step = max(1, _SLAB_WORDS // words.shape[1])
        for start in range(0, max(1, len(rows)), step):
            some = rows[start : start + step]
            yield words[some], some

    def _matches(self, rows: Rows, distances: Distances) -> Matches:
        far = np.where(rows < 0, np.float32(np.inf), distances.astype(np.float32))
        return Matches(self._codes.names(rows), far)


def _pick(rows: Rows, found: Rows) -> Rows:
    """The rows that numbers in `rows` stand for; -1 stays."""
    if len(rows) == 0:
        return found
    picked: Rows = np.where(found < 0, np.int64(-1), rows[found])
    return picked


def _nearest_of(parts: list[tuple[Rows, Distances]], queries: int, k: int) -> tuple[Rows, Distances]:
    """The k best of several answers; rows rise from part to part, so equal distances stay in order."""
    if len(parts) == 1:
        return parts[0]
    found = np.concatenate([part[0] for part in parts], axis=1)
    distances = np.concatenate([part[1] for part in parts], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(distances, order, axis=1)
