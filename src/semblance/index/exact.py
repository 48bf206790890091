"""Exact nearest neighbours: every query is compared with every vector.

What: the `k` nearest by Euclidean distance, ordered by (distance, id), without approximation. A distance is
`float32(sqrt(sum_j (q_j - x_j)^2))`, the sum taken in float64 over differences, so it depends on the two
vectors alone: duplicates tie exactly, a vector lies at distance 0 from itself, and no block size changes a
result. Ties go to the lower id, also at the boundary of the k nearest.

When: up to about a million vectors, or wherever a result must be beyond doubt.

Cost: `2 q n d` floating-point operations for the product and about `3 q k d` for measuring; memory as
configured (`Config.memory_mb`) beside the vectors and the answer. Vectors with thousands of equal distances
(a collapsed embedding) are measured one by one: still right, but slow.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from semblance.contracts import Matches
from semblance.errors import ConfigError, InputError
from semblance.index._codes import as_ids
from semblance.index._folder import read_about, read_array, unreadable, write_folder
from semblance.index._search import BLOCK_BYTES, Floats, Ids, as_vectors, nearest, within

__all__ = ["BLOCK_BYTES", "Config", "Index", "as_vectors", "nearest", "within"]


@dataclass(frozen=True)
class Config:
    """`memory_mb`: memory for intermediate results of a search, in MiB."""

    memory_mb: int = 256


class Index:
    """Exact search over vectors that come and go.

    `recall` is the share of true neighbours that a search promises to find.

    >>> index = Index()
    >>> index.add([[0.0, 0.0], [3.0, 4.0]])
    array([0, 1])
    >>> index.search([0.0, 0.0], k=2).distances
    array([[0., 5.]], dtype=float32)
    """

    recall = 1.0
    takes = "vectors"

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        if self.config.memory_mb < 1:
            raise ConfigError(f"memory_mb is {self.config.memory_mb}", "give at least 1")
        self._parts: list[Floats] = []
        self._ids: Ids = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def dim(self) -> int | None:
        """How many dimensions the vectors have; None while nothing was ever added."""
        return self._parts[0].shape[1] if self._parts else None

    @property
    def ids(self) -> Ids:
        """The ids `(n,)`, in the order in which they were added."""
        ids: Ids = self._ids.copy()
        return ids

    def add(self, vectors: ArrayLike, ids: ArrayLike | None = None) -> Ids:
        """The ids `(n,)` under which `vectors` `(n, d)` were added.

        Without `ids` they count on from the largest one present. Raises `InputError` for NaN, another
        dimension, or an id that is negative or already taken; nothing is added then.
        """
        array = as_vectors(vectors, self.dim)
        if ids is None:
            start = int(self._ids.max()) + 1 if len(self) else 0
            new = np.arange(start, start + len(array), dtype=np.int64)
        else:
            new = as_ids(ids)
            if len(new) != len(array):
                raise InputError(f"{len(array)} vectors came with {len(new)} ids")
            values, counts = np.unique(new, return_counts=True)
            taken = np.concatenate([values[counts > 1], values[np.isin(values, self._ids)]])
            if len(taken):
                raise InputError(f"id {int(taken[0])} is already taken", "remove it first")
        # A caller who goes on writing to the array must not change the index.
        self._parts.append(array.copy() if np.may_share_memory(array, np.asarray(vectors)) else array)
        self._ids = np.concatenate([self._ids, new])
        return new

    def search(self, queries: ArrayLike, k: int, among: ArrayLike | None = None) -> Matches:
        """The k nearest of each query `(q, d)`, ordered by (distance, id); -1 and inf pad `k > n`.

        `among` `(m,)`: the ids to which the search is confined; ids that are not in the index count for none.
        """
        asked = as_vectors(queries, self.dim, "queries")
        if not len(self) and k >= 1:
            shape = (len(asked), k)
            return Matches(np.full(shape, -1, dtype=np.int64), np.full(shape, np.inf, dtype=np.float32))
        gallery, ids = self._among(asked, among)
        return nearest(asked, gallery, k, ids=ids, block_bytes=self._block_bytes)

    def within(self, queries: ArrayLike, radius: float, among: ArrayLike | None = None) -> Matches:
        """All at a distance of at most `radius`, ordered by (distance, id), padded to the longest row."""
        asked = as_vectors(queries, self.dim, "queries")
        gallery, ids = self._among(asked, among)
        return within(asked, gallery, radius, ids=ids, block_bytes=self._block_bytes)

    def remove(self, ids: ArrayLike) -> None:
        """Forget the vectors under `ids`. Raises `InputError` if one is not there; none is removed then."""
        gone = as_ids(ids)
        absent = gone[~np.isin(gone, self._ids)]
        if len(absent):
            raise InputError(f"id {int(absent[0])} is not in the index")
        keep = ~np.isin(self._ids, gone)
        if self._parts:
            self._parts = [np.concatenate(self._parts)[keep]]
        self._ids = self._ids[keep]

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the folder `path`: `vectors.npy`, `ids.npy`, `index.json`; all of it or nothing.

        Raises `CollectionError` if `path` exists and `overwrite` is not set, or is no index.
        """
        stored = self._gallery(np.empty((0, self.dim or 1), dtype=np.float32))
        about = {"dim": self.dim, "config": asdict(self.config)}
        write_folder(path, "exact", about, {"vectors": stored, "ids": self._ids}, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """The index saved in the folder `path`; its vectors stay on disk, mapped into memory.

        Raises `CollectionError` if the folder is not one that `save` wrote.
        """
        about = read_about(path, "exact")
        stored, ids = read_array(path, "vectors", "exact"), np.array(read_array(path, "ids", "exact"))
        try:
            index, dim = cls(Config(**about["config"])), about["dim"]
            sound = stored.dtype == np.float32 and ids.dtype == np.int64 and ids.ndim == 1
            if not sound or stored.shape != (len(ids), dim or 1):
                raise ValueError("its parts do not fit together")
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise unreadable(path, "exact", error) from error
        if dim is not None:
            index._parts = [stored]
        index._ids = ids
        return index

    @property
    def _block_bytes(self) -> int:
        return self.config.memory_mb * 2**20

    def _gallery(self, like: Floats) -> Floats:
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0] if self._parts else np.empty((0, like.shape[1]), dtype=np.float32)

    def _among(self, like: Floats, among: ArrayLike | None) -> tuple[Floats, Ids]:
        """The vectors to search and their ids."""
        gallery = self._gallery(like)
        if among is None:
            return gallery, self._ids
        rows = np.flatnonzero(np.isin(self._ids, as_ids(among)))
        return gallery[rows], self._ids[rows]
