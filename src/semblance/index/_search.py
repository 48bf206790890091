"""Blocked exact search, which the exact index and the metrics share.

A float32 matrix product of centred vectors proposes candidates; its rounding error is bounded, and all
that the bound cannot rule out is measured again: a distance is `float32(sqrt(sum_j (q_j - x_j)^2))`, the sum
taken in float64 over differences. So it depends on the two vectors alone: duplicates tie exactly, a vector
lies at distance 0 from itself, and no block size changes a result.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.contracts import Matches
from semblance.errors import ConfigError, InputError

__all__ = ["BLOCK_BYTES", "as_vectors", "measure", "nearest", "within"]

BLOCK_BYTES = 256 * 2**20
"""Default memory for intermediate results, in bytes."""

_CENTRED_ROWS = 8192
_CELL_BYTES = 12  # one (query, vector) pair: its bound, the copy that partition makes, the mask
_CACHED = 2**16  # numbers measured at a time: what a core keeps near
_NOTHING = np.uint64((0x7F800000 << 32) | 0xFFFFFFFF)  # the key of no match: distance inf, no id

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Keys = NDArray[np.uint64]


def as_vectors(values: ArrayLike, dim: int | None = None, what: str = "vectors") -> Floats:
    """`values` as a C-contiguous `(n, d)` float32 array; one vector `(d,)` becomes `(1, d)`.

    Raises `InputError` for another shape, another dimension than `dim`, NaN, infinity or non-numbers.
    """
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite and is refused below
            array = np.ascontiguousarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"the {what} are not an array of numbers", "give an (n, d) float32 array") from error
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"the {what} have shape {array.shape}", "expected (n, d)")
    if dim is not None and array.shape[1] != dim:
        raise InputError(f"the {what} have {array.shape[1]} dimensions, the index has {dim}")
    step = max(1, BLOCK_BYTES // (8 * array.shape[1]))
    for start in range(0, len(array), step):
        finite = np.isfinite(array[start : start + step]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise InputError(f"row {row} of the {what} is not finite", "NaN and infinity have no neighbours")
    return array


def nearest(
    queries: Floats,
    gallery: Floats,
    k: int,
    *,
    ids: Ids | None = None,
    exclude: Ids | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Matches:
    """The k nearest of `gallery` for each query, ordered by (distance, id); -1 and inf pad `k > n`.

    `queries` `(q, d)` and `gallery` `(n, d)`: finite float32 (see `as_vectors`). `ids` `(n,)`: distinct
    numbers of the gallery's rows, 0 to n-1 by default. `exclude` `(q,)`: one id that each query must not
    return (itself), -1 for none. Raises `ConfigError` for `k < 1`.
    """
    if k < 1:
        raise ConfigError(f"k is {k}", "ask for at least one neighbour")
    names, ranks = _named(ids, len(gallery))
    width = k if exclude is None else k + 1
    best = np.full((len(queries), width), _NOTHING, dtype=np.uint64)
    for query, rows in _candidates(queries, gallery, best, None, block_bytes):
        keys = _keys(measure(queries[query], gallery, rows), ranks[rows])
        if best[query, 0] != _NOTHING:
            keys = np.concatenate([best[query], keys])
        if len(keys) > 2 * width:
            keys = np.partition(keys, width - 1)[:width]
        keys = np.sort(keys)[:width]
        best[query, : len(keys)] = keys
    found = Matches(*_unpacked(best, names))
    return found if exclude is None else _without(found, exclude, k)


def within(
    queries: Floats,
    gallery: Floats,
    radius: float,
    *,
    ids: Ids | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Matches:
    """All of `gallery` at a distance of at most `radius` (as float32), ordered by (distance, id).

    Rows are padded with -1 and inf to the longest one, so ask for many queries in blocks. Raises
    `ConfigError` if `radius` is negative or NaN.
    """
    if not radius >= 0:
        raise ConfigError(f"the radius is {radius}", "a distance is at least 0")
    limit = np.float32(min(radius, float(np.finfo(np.float32).max)))
    names, ranks = _named(ids, len(gallery))
    found: list[list[Keys]] = [[] for _ in range(len(queries))]
    for query, rows in _candidates(queries, gallery, None, float(limit), block_bytes):
        distances = measure(queries[query], gallery, rows)
        inside = distances <= limit
        found[query].append(_keys(distances[inside], ranks[rows[inside]]))
    width = max((sum(map(len, parts)) for parts in found), default=0)
    packed = np.full((len(queries), width), _NOTHING, dtype=np.uint64)
    for query, parts in enumerate(found):
        if parts:
            keys = np.sort(np.concatenate(parts))
            packed[query, : len(keys)] = keys
    return Matches(*_unpacked(packed, names))


def _named(ids: Ids | None, n: int) -> tuple[Ids, NDArray[np.uint64]]:
    """The ids in rising order, and each gallery row's place among them."""
    if ids is None:
        return np.arange(n, dtype=np.int64), np.arange(n, dtype=np.uint64)
    order = np.argsort(ids)
    ranks = np.empty(n, dtype=np.uint64)
    ranks[order] = np.arange(n, dtype=np.uint64)
    return ids[order], ranks


def _keys(distances: Floats, ranks: NDArray[np.uint64]) -> Keys:
    """One number per match that sorts as (distance, id): the bits of a float32 >= 0 rise with it."""
    keys: Keys = (distances.view(np.uint32).astype(np.uint64) << np.uint64(32)) | ranks
    return keys


def _distances(keys: Keys) -> Floats:
    """The distances packed into `keys`."""
    distances: Floats = (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
    return distances


def _unpacked(keys: Keys, names: Ids) -> tuple[Ids, Floats]:
    ids = np.full(keys.shape, -1, dtype=np.int64)
    there = keys != _NOTHING
    ids[there] = names[(keys[there] & np.uint64(0xFFFFFFFF)).astype(np.int64)]
    return ids, _distances(keys)


def _without(found: Matches, exclude: Ids, k: int) -> Matches:
    """`found` without each query's excluded id; where it was not found the last match goes."""
    keep = found.ids != exclude[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(found.ids), k)
    return Matches(found.ids[keep].reshape(shape), found.distances[keep].reshape(shape))


def measure(query: Floats, gallery: Floats, rows: NDArray[np.intp]) -> Floats:
    """Distances `(m,)` from one query to the gallery's `rows`, from float64 differences."""
    wide = query.astype(np.float64)
    squares = np.empty(len(rows))
    step = max(1, _CACHED // len(wide))
    for start in range(0, len(rows), step):
        difference = np.take(gallery, rows[start : start + step], axis=0).astype(np.float64)
        difference -= wide
        np.einsum("ij,ij->i", difference, difference, out=squares[start : start + step])
    return np.sqrt(squares).astype(np.float32)


def _candidates(
    queries: Floats, gallery: Floats, best: Keys | None, radius: float | None, block_bytes: int
) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(query, gallery rows): a superset of the rows among the k nearest, or within `radius`.

    `best` `(q, k)` holds the k smallest keys known so far; the caller updates it as candidates come.

    With centred, scaled q and x and r = |x|, t = r^2 - 2 q.x is the squared distance less |q|^2. The
    float32 product errs by at most c (|q| + r)^2 <= 2c (|q|^2 + r^2), so
    l = (1 - 2c) r^2 - 2 q.x never exceeds t + 2c |q|^2. If l_k is the k-th smallest l, then each of those k
    has r^2 <= 2 |q|^2 + 2.01 (l_k + |q|^2) and so t <= l_k + c (16 |q|^2 + 12 (l_k + |q|^2)): whatever has
    a larger l is not among the k nearest. Centring makes |q| and r as small as the data's spread.

    c = (d + 16) 2^-24 holds for any order of summation; for d > 140 it is (16 + 12 sqrt(d)) 2^-24, which
    independent roundings exceed with probability 1e-31 (Higham and Mary 2019, lambda = 12).
    """
    n, dim = gallery.shape
    if n == 0 or len(queries) == 0:
        return
    centre = gallery.mean(axis=0, dtype=np.float64)
    largest = max(float(np.abs(gallery).max()), float(np.abs(queries).max()))
    scale = 2.0 ** -float(np.frexp(largest)[1]) if largest > 0 else 1.0
    c = (16 + min(dim, 12 * dim**0.5)) * 2.0**-24
    columns = min(n, max(256, block_bytes // (_CELL_BYTES * 256 + 12 * dim)))
    step = max(1, min(1024, block_bytes // (_CELL_BYTES * columns + 12 * dim)))
    for first in range(0, n, columns):
        x, squares = _centred(gallery[first : first + columns], centre, scale)
        lowered = ((1 - 2 * c) * squares).astype(np.float32)
        for start in range(0, len(queries), step):
            q, q_squares = _centred(queries[start : start + step], centre, scale)
            low = (-2 * q) @ x.T
            low += lowered
            if radius is not None:
                limit = (radius * scale) ** 2 * np.ones(len(q)) - q_squares
            elif best is not None:
                known = _distances(best[start : start + step, -1]).astype(np.float64)
                limit = (known * scale) ** 2 - q_squares
                k = best.shape[1]
                if k < len(x):
                    limit = np.minimum(limit, np.partition(low, k - 1, axis=1)[:, k - 1])
            limit += c * (16 * q_squares + 12 * np.maximum(limit + q_squares, 0)) + 1e-30
            flat = np.flatnonzero(low <= np.minimum(limit, 3e38).astype(np.float32)[:, None])
            ends = np.searchsorted(flat, np.arange(len(q) + 1) * len(x))
            for i in np.flatnonzero(np.diff(ends)):
                yield start + int(i), flat[ends[i] : ends[i + 1]] - i * len(x) + first


def _centred(block: Floats, centre: NDArray[np.float64], scale: float) -> tuple[Floats, NDArray[np.float64]]:
    """`(block - centre) * scale` in float32, and the squared norms of its rows in float64."""
    moved = np.empty(block.shape, dtype=np.float32)
    squares = np.empty(len(block))
    for start in range(0, len(block), _CENTRED_ROWS):
        part = (block[start : start + _CENTRED_ROWS] - centre) * scale
        moved[start : start + _CENTRED_ROWS] = part
        squares[start : start + _CENTRED_ROWS] = np.einsum("ij,ij->i", part, part)
    return moved, squares
