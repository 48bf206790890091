"""Vectors by id, and the exact order of a few of them: what an index does with its candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.contracts import Matches
from semblance.errors import ConfigError
from semblance.index import exact
from semblance.index._codes import Ids
from semblance.index._search import Floats, measure

__all__ = ["Shortlist", "check_radius", "padded"]


class Shortlist:
    """`vectors`: an exact index. Add and remove here, so that ids are found again."""

    def __init__(self, vectors: exact.Index | None = None) -> None:
        self.vectors = vectors or exact.Index()
        self._sorted: tuple[Ids, NDArray[np.intp]] | None = None

    def add(self, vectors: ArrayLike, ids: ArrayLike | None) -> Ids:
        """The ids under which the vectors were added; raises as `exact.Index.add` does."""
        self._sorted = None
        return self.vectors.add(vectors, ids)

    def remove(self, ids: ArrayLike) -> None:
        """Forget the vectors under `ids`; raises as `exact.Index.remove` does."""
        self._sorted = None
        self.vectors.remove(ids)

    def stored(self) -> tuple[Floats, Ids]:
        """The vectors `(n, d)` and their ids, in the order in which they were added."""
        like = np.empty((0, self.vectors.dim or 1), dtype=np.float32)
        return self.vectors._gallery(like), self.vectors._ids

    def distances(self, query: Floats, ids: Ids) -> Floats:
        """From one query `(d,)` to the vectors under `ids`, all of them there, as `exact` measures them."""
        gallery, _ = self.stored()
        if self._sorted is None:
            order = np.argsort(self.vectors._ids)
            self._sorted = self.vectors._ids[order], order
        names, order = self._sorted
        return measure(query, gallery, order[np.searchsorted(names, ids)])

    def nearest(self, queries: Floats, candidates: Sequence[Ids], k: int) -> Matches:
        """The k nearest of each query's own candidates, ordered by (distance, id); -1 and inf pad."""
        found = Matches(
            np.full((len(queries), k), -1, dtype=np.int64),
            np.full((len(queries), k), np.inf, dtype=np.float32),
        )
        for i, ids in enumerate(candidates):
            distances = self.distances(queries[i], ids)
            order = np.lexsort((ids, distances))[:k]
            found.ids[i, : len(order)], found.distances[i, : len(order)] = ids[order], distances[order]
        return found


def padded(found: Sequence[tuple[Ids, Floats]]) -> Matches:
    """Each query's ids and distances, ordered by (distance, id) and padded to the longest with -1 and inf."""
    shape = (len(found), max((len(ids) for ids, _ in found), default=0))
    whole = Matches(np.full(shape, -1, dtype=np.int64), np.full(shape, np.inf, dtype=np.float32))
    for i, (ids, distances) in enumerate(found):
        order = np.lexsort((ids, distances))
        whole.ids[i, : len(ids)], whole.distances[i, : len(ids)] = ids[order], distances[order]
    return whole


def check_radius(radius: float) -> float:
    """The radius as a float32, as `exact` compares with it; `ConfigError` if it is negative or NaN."""
    if not radius >= 0:
        raise ConfigError(f"the radius is {radius}", "a distance is at least 0")
    return float(np.float32(min(radius, float(np.finfo(np.float32).max))))
