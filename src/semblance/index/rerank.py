"""Approximate float search: packed codes find candidates, exact float distances put them in order.

What: the `oversample * k` codes nearest to a query's own code (`auto` searches them), and among these the k
vectors at the smallest Euclidean distance, ordered by (distance, id); distances are those of `exact`. Only
one thing can go wrong: the code of a true neighbour lies too far. More bits or more oversampling mend it.
`recall` is what is promised for unit vectors with the default options; codes of fewer bits keep less of it.

When: from about 100,000 vectors on, or where vectors are too many for memory: a search reads `oversample * k`
of them, which may stay on disk, mapped into memory.

Codes come from `bits` random hyperplanes (Charikar, STOC 2002: they tell the angle between two vectors, so
vectors should be of one length), unless `encode` is given, such as a fitted coder's, or codes are handed to
`add`.

Cost: the search for codes, plus the measuring of `oversample * k` vectors; memory of codes and vectors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.contracts import Matches
from semblance.errors import CollectionError, ConfigError, InputError
from semblance.index import auto
from semblance.index._codes import Ids, as_codes
from semblance.index._folder import read_array, unreadable
from semblance.index._search import Floats, as_vectors
from semblance.index._shortlist import Shortlist, check_radius, padded

__all__ = ["Config", "Encode", "Index"]

Encode = Callable[[Floats], NDArray[np.uint8]]
"""Vectors `(n, d)` float32 -> packed codes `(n, bits / 8)` uint8."""

_LEAST = 200  # candidates of a search: measuring fewer would save nothing
_BLOCK = 4096  # vectors encoded at a time


@dataclass(frozen=True)
class Config:
    """`oversample`: candidates for each neighbour asked for. `bits` and `seed`: of the hyperplanes, where no
    encoder is given. `threads`: cores that share the search for candidates."""

    oversample: int = 10
    bits: int = 256
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.oversample < 1:
            raise ConfigError(f"oversample is {self.oversample}", "give at least 1")
        if self.bits < 8 or self.bits % 8:
            raise ConfigError(f"bits is {self.bits}", "give a multiple of 8")
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}", "give at least 1")


class Index:
    """Search by codes first and floats after, over vectors that come and go.

    >>> index = Index()
    >>> index.add([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    array([0, 1, 2])
    >>> index.search([0.0, 1.0], k=2).ids
    array([[1, 2]])
    """

    recall = 0.9
    takes = "vectors"

    def __init__(self, config: Config | None = None, encode: Encode | None = None) -> None:
        self.config = config or Config()
        self._encode = encode
        self._planes: Floats = np.empty((0, 0), dtype=np.float32)
        self._codes = auto.Index(auto.Config(threads=self.config.threads))
        self._floats = Shortlist()

    def __len__(self) -> int:
        return len(self._floats.vectors)

    @property
    def dim(self) -> int | None:
        """How many dimensions the vectors have; None while nothing was ever added."""
        return self._floats.vectors.dim

    @property
    def bits(self) -> int | None:
        """Bits of a code; None while nothing was ever added."""
        return self._codes.bits

    @property
    def ids(self) -> Ids:
        """The ids `(n,)`, in the order in which they were added."""
        return self._floats.vectors.ids

    @property
    def reason(self) -> str:
        """How the codes are searched, and why."""
        return self._codes.reason

    def add(self, vectors: ArrayLike, ids: ArrayLike | None = None, codes: ArrayLike | None = None) -> Ids:
        """The ids `(n,)` under which `vectors` `(n, d)`, with these `codes` or encoded here, were added.

        Without `ids` they count on from the largest one present. Raises `InputError` for NaN, another
        dimension or width of codes, or an id that is negative or already taken; nothing is added then.
        """
        array = as_vectors(vectors, self.dim)
        packed = self._encoded(array) if codes is None else as_codes(codes, self.bits)
        if len(packed) != len(array):
            raise InputError(f"{len(array)} vectors came with {len(packed)} codes")
        if self.bits is not None and 8 * packed.shape[1] != self.bits:
            raise InputError(f"the codes have {8 * packed.shape[1]} bits, the index has {self.bits}")
        new = self._floats.add(vectors, ids)
        self._codes.add(packed, new)
        return new

    def remove(self, ids: ArrayLike) -> None:
        """Forget the vectors under `ids`. Raises `InputError` if one is not there; none is removed then."""
        self._floats.remove(ids)
        self._codes.remove(ids)

    def search(self, queries: ArrayLike, k: int, among: ArrayLike | None = None) -> Matches:
        """The k nearest of each query `(q, d)`, ordered by (distance, id); -1 and inf pad `k > n`.

        `among` `(m,)`: the ids to which the search is confined; ids that are not in the index count for none.
        """
        asked = as_vectors(queries, self.dim, "queries")
        if k < 1:
            raise ConfigError(f"k is {k}", "ask for at least one neighbour")
        wide = max(1, min(max(self.config.oversample * k, _LEAST), len(self)))
        near = self._codes.search(self._encoded(asked), wide, among).ids
        return self._floats.nearest(asked, [row[row >= 0] for row in near], k)

    def within(self, queries: ArrayLike, radius: float, among: ArrayLike | None = None) -> Matches:
        """All at a distance of at most `radius`, ordered by (distance, id), padded to the longest row.

        More candidates are taken until none of the farther half lies within the radius. Raises `ConfigError`
        if `radius` is negative or NaN.
        """
        asked, limit = as_vectors(queries, self.dim, "queries"), check_radius(radius)
        packed = self._encoded(asked)
        found = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))] * len(asked)
        open_, wide = np.arange(len(asked)), max(1, min(_LEAST, len(self)))
        while len(open_):
            near = self._codes.search(packed[open_], wide, among).ids
            more = []
            for query, row in zip(open_.tolist(), near, strict=True):
                ids = row[row >= 0]
                distances = self._floats.distances(asked[query], ids)
                inside = distances <= limit
                found[query] = ids[inside], distances[inside]
                if len(ids) == wide < len(self) and inside[wide // 2 :].any():
                    more.append(query)
            open_, wide = np.array(more, dtype=np.int64), min(4 * wide, len(self))
        return padded(found)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the folder `path`, vectors, codes and tables: all of it or nothing.

        Raises `CollectionError` if `path` exists and `overwrite` is not set.
        """
        vectors, ids = self._floats.stored()
        about = {"rerank": asdict(self.config), "dim": self.dim, "encode": self._encode is not None}
        arrays = {"vectors": vectors.astype("<f4", copy=False), "vector_ids": ids.astype("<i8", copy=False)}
        self._codes.save_as("rerank", path, about, arrays, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], encode: Encode | None = None) -> Index:
        """The index saved in the folder `path`; vectors, codes and tables stay on disk, mapped into memory.

        An index that was made with an encoder needs it again. Raises `CollectionError` if the folder is not
        one that `save` wrote.
        """
        codes, about = auto.Index.load_as("rerank", path)
        stored, ids = read_array(path, "vectors", "rerank"), read_array(path, "vector_ids", "rerank")
        try:
            index, dim, encoded = cls(Config(**about["rerank"]), encode), about["dim"], about["encode"]
            sound = stored.dtype == np.dtype("<f4") and ids.dtype == np.dtype("<i8") and ids.ndim == 1
            if not sound or stored.shape != (len(ids), dim or 1) or len(ids) != len(codes):
                raise ValueError("its parts do not fit together")
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise unreadable(path, "rerank", error) from error
        if encoded and encode is None:
            raise CollectionError(f"{path} was made with an encoder", "give it to load(path, encode=...)")
        index._codes = codes
        if dim is not None:
            index._floats.vectors._parts = [stored.astype(np.float32, copy=False)]
        index._floats.vectors._ids = np.array(ids, dtype=np.int64)
        return index

    def _encoded(self, vectors: Floats) -> NDArray[np.uint8]:
        """The codes `(n, bits / 8)` of vectors `(n, d)`."""
        starts = range(0, max(1, len(vectors)), _BLOCK)
        return np.concatenate([self._encoded_block(vectors[start : start + _BLOCK]) for start in starts])

    def _encoded_block(self, vectors: Floats) -> NDArray[np.uint8]:
        if self._encode is not None:
            return as_codes(self._encode(vectors), self.bits)
        shape = (vectors.shape[1], self.config.bits)
        if self._planes.shape != shape:
            self._planes = np.random.default_rng(self.config.seed).standard_normal(shape, dtype=np.float32)
        return np.packbits(vectors @ self._planes >= 0, axis=1, bitorder="little")
