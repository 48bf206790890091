"""Approximate float search through a graph of neighbours (HNSW), by the library usearch.

What: the `k` nearest by Euclidean distance, nearly always (`recall` is what is promised): a search walks from
vector to nearer vector along links that were laid when they were added (Malkov and Yashunin, TPAMI 2020).
What the graph proposes is measured again as `exact` measures it and ordered by (distance, id), so distances
are exact and ties in order. Fewer than 1,024 vectors, and the few that a filter leaves, are compared one by
one.

When: from a million float vectors on, in memory, searched far more often than changed. Below that, and
wherever a result must be beyond doubt, take `exact`; for codes take `auto`, which is exact.

Cost: a search measures some hundreds of vectors, at any size. Building is slow, as every vector is searched
for before it is linked; it takes `2 d + 8 m + 20` bytes beside the vectors' own `4 d`. With `threads` above 1
the links, and so the misses, differ from one build to the next. Needs the extra "graph".
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.contracts import Matches
from semblance.errors import ConfigError, MissingExtra
from semblance.index._codes import Ids, as_ids
from semblance.index._folder import read_about, read_array, unreadable, write_folder
from semblance.index._search import Floats, as_vectors
from semblance.index._shortlist import Shortlist, check_radius, padded

__all__ = ["Config", "Index"]

_FEW = 1024  # vectors that are compared one by one
_SHARE = 8  # a search for more than one in so many is quicker one by one
_GONE = 4  # removed vectors stay in the graph as bridges until they are one in so many


@dataclass(frozen=True)
class Config:
    """`m`: links of a vector. `ef_construction` and `ef_search`: vectors kept in mind while adding and while
    searching; more find more and take longer. `threads`: cores that share both."""

    m: int = 16
    ef_construction: int = 128
    ef_search: int = 64
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ConfigError(f"{name} is {value}", "give at least 1")


class Index:
    """Approximate search over vectors that come and go.

    `recall` is the share of true neighbours that a search promises to find.

    >>> index = Index()
    >>> index.add([[0.0, 0.0], [3.0, 4.0]])
    array([0, 1])
    >>> index.search([0.0, 0.0], k=2).distances
    array([[0., 5.]], dtype=float32)
    """

    recall = 0.95
    takes = "vectors"

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        _library()
        self._floats = Shortlist()
        self._graph: Any = None
        self._linked: Ids = np.empty(0, dtype=np.int64)  # ids in the graph, rising
        self._gone = 0
        self._frozen: NDArray[np.uint8] | None = None  # the bytes of a graph that is mapped from disk

    def __len__(self) -> int:
        return len(self._floats.vectors)

    @property
    def dim(self) -> int | None:
        """How many dimensions the vectors have; None while nothing was ever added."""
        return self._floats.vectors.dim

    @property
    def ids(self) -> Ids:
        """The ids `(n,)`, in the order in which they were added."""
        return self._floats.vectors.ids

    def add(self, vectors: ArrayLike, ids: ArrayLike | None = None) -> Ids:
        """The ids `(n,)` under which `vectors` `(n, d)` were added; the next search links them.

        Without `ids` they count on from the largest one present. Raises `InputError` for NaN, another
        dimension, or an id that is negative or already taken; nothing is added then.
        """
        return self._floats.add(vectors, ids)

    def remove(self, ids: ArrayLike) -> None:
        """Forget the vectors under `ids`. Raises `InputError` if one is not there; none is removed then."""
        self._floats.remove(ids)
        gone = np.intersect1d(as_ids(ids), self._linked)
        if len(gone):
            self._thaw()
            self._graph.remove(gone.astype(np.uint64))
            self._linked = np.setdiff1d(self._linked, gone, assume_unique=True)
            self._gone += len(gone)

    def search(self, queries: ArrayLike, k: int, among: ArrayLike | None = None) -> Matches:
        """The k nearest of each query `(q, d)`, ordered by (distance, id); -1 and inf pad `k > n`.

        `among` `(m,)`: the ids to which the search is confined; ids that are not in the index count for none.
        """
        asked = as_vectors(queries, self.dim, "queries")
        if k < 1:
            raise ConfigError(f"k is {k}", "ask for at least one neighbour")
        self.build()
        allowed = None if among is None else np.intersect1d(as_ids(among), self._linked)
        pool = len(self._linked) if allowed is None else len(allowed)
        wide = -(-(2 * k + 6) * len(self) // max(1, pool))
        if self._graph is None or _SHARE * wide > len(self):
            return self._floats.vectors.search(asked, k, among)
        candidates = self._walk(asked, wide, allowed)
        found = self._floats.nearest(asked, candidates, k)
        short = found.ids[:, -1] < 0
        if short.any():  # the filter left too little of what the graph proposed
            rest = self._floats.vectors.search(asked[short], k, among)
            found.ids[short], found.distances[short] = rest.ids, rest.distances
        return found

    def within(self, queries: ArrayLike, radius: float, among: ArrayLike | None = None) -> Matches:
        """All at a distance of at most `radius`, ordered by (distance, id), padded to the longest row.

        More candidates are taken until one lies beyond the radius. Raises `ConfigError` if `radius` is
        negative or NaN.
        """
        asked, limit = as_vectors(queries, self.dim, "queries"), check_radius(radius)
        self.build()
        allowed = None if among is None else np.intersect1d(as_ids(among), self._linked)
        found = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))] * len(asked)
        open_, wide = np.arange(len(asked)), _FEW // _SHARE
        while len(open_):
            if self._graph is None or _SHARE * wide > len(self):
                rest = self._floats.vectors.within(asked[open_], limit, among)
                for query, ids, distances in zip(open_.tolist(), rest.ids, rest.distances, strict=True):
                    found[query] = ids[ids >= 0], distances[ids >= 0]
                break
            more = []
            for query, ids in zip(open_.tolist(), self._walk(asked[open_], wide, None), strict=True):
                distances = self._floats.distances(asked[query], ids)
                inside = distances <= limit
                if inside.all():
                    more.append(query)
                if allowed is not None:
                    inside &= np.isin(ids, allowed)
                found[query] = ids[inside], distances[inside]
            open_, wide = np.array(more, dtype=np.int64), 4 * wide
        return padded(found)

    def build(self) -> None:
        """Link what was added. Searching and saving do it by themselves."""
        vectors, ids = self._floats.stored()
        if len(ids) < _FEW:
            self._graph, self._linked, self._gone, self._frozen = None, ids[:0], 0, None
            return
        if self._graph is None or _GONE * self._gone > len(ids):
            self._graph, self._linked, self._gone, self._frozen = self._empty(), ids[:0], 0, None
        if len(self._linked) < len(ids):
            self._thaw()
            new = np.flatnonzero(~np.isin(ids, self._linked))
            keys = ids[new].astype(np.uint64)
            self._graph.add(keys, np.ascontiguousarray(vectors[new]), threads=self.config.threads)
            self._linked = np.sort(ids)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the folder `path`: `vectors.npy`, `ids.npy`, `graph.npy`, `index.json`; all of it or nothing.

        Raises `CollectionError` if `path` exists and `overwrite` is not set, or is no index.
        """
        self.build()
        vectors, ids = self._floats.stored()
        arrays: dict[str, NDArray[Any]] = {"vectors": vectors.astype("<f4", copy=False), "ids": ids}
        if self._graph is not None:
            whole = self._frozen
            arrays["graph"] = np.frombuffer(self._graph.save(), dtype=np.uint8) if whole is None else whole
        about = {"config": asdict(self.config), "dim": self.dim, "linked": self._graph is not None}
        write_folder(path, "graph", about, arrays, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """The index saved in the folder `path`; vectors and graph stay on disk, mapped into memory.

        Raises `CollectionError` if the folder is not one that `save` wrote.
        """
        _library()
        about = read_about(path, "graph")
        stored, ids = read_array(path, "vectors", "graph"), read_array(path, "ids", "graph")
        try:
            index, dim = cls(Config(**about["config"])), about["dim"]
            sound = stored.dtype == np.dtype("<f4") and ids.dtype == np.dtype("<i8") and ids.ndim == 1
            if not sound or stored.shape != (len(ids), dim or 1):
                raise ValueError("its parts do not fit together")
            if dim is not None:
                index._floats.vectors._parts = [stored.astype(np.float32, copy=False)]
            index._floats.vectors._ids = np.array(ids, dtype=np.int64)
            if about["linked"]:
                index._frozen = read_array(path, "graph", "graph")
                index._graph = _library().restore(index._frozen.data, view=True)
                index._linked = np.sort(index._floats.vectors._ids)
                if len(index._graph) != len(ids) or index._graph.ndim != dim:
                    raise ValueError("its graph is not that of its vectors")
        except (KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
            raise unreadable(path, "graph", error) from error
        return index

    def _walk(self, queries: Floats, wide: int, allowed: Ids | None) -> list[Ids]:
        """About `wide` ids near each query, those that may be found, in no order."""
        self._graph.expansion_search = max(self.config.ef_search, wide)
        found = self._graph.search(queries, wide, threads=self.config.threads)
        keys = np.asarray(found.keys).reshape(len(queries), -1).astype(np.int64)
        counts = found.counts if keys.shape[0] > 1 else [keys.shape[1]]
        lists = [np.unique(row[:count]) for row, count in zip(keys, counts, strict=True)]
        return lists if allowed is None else [row[np.isin(row, allowed)] for row in lists]

    def _empty(self) -> Any:
        """A graph without vectors. bfloat16 has the range of float32 and half its size."""
        return _library()(
            ndim=self.dim,
            metric="l2sq",
            dtype="bf16",
            connectivity=self.config.m,
            expansion_add=self.config.ef_construction,
        )

    def _thaw(self) -> None:
        """A graph that was mapped from disk can be changed from now on."""
        if self._frozen is not None:
            self._graph = _library().restore(self._frozen.data, view=False)
            self._graph.expansion_add = self.config.ef_construction
            self._frozen = None


def _library() -> Any:
    """The class of a graph; raises `MissingExtra` where usearch is not installed."""
    try:
        from usearch.index import Index as Graph
    except ImportError as error:
        raise MissingExtra("graph", 'the index "graph"') from error
    return Graph
