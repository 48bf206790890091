"""Hamming search in NumPy alone: the path without a compiler, and the yardstick of the compiled ones.

The three functions take codes `(n, w)` and queries `(q, w)` as uint64 words and go through the codes in
blocks, so that no q-by-n matrix ever stands in memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FAR", "count", "distances", "nearest", "within"]

FAR = 2**31 - 1
"""The distance that pads a row with fewer than k matches."""

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]
Distances = NDArray[np.int32]

_BLOCK_WORDS = 2**17  # words compared at a time: what a core keeps near
_BITS_SET = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def distances(codes: Words, query: Words) -> Distances:
    """Hamming distances `(n,)` int32 from one query `(w,)` to the codes `(n, w)`."""
    differing = codes ^ query
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counts = np.bitwise_count(differing)
    else:
        counts = _BITS_SET[differing.view(np.uint8)]
    found: Distances = counts[:, 0].astype(np.int32)
    for column in range(1, counts.shape[1]):  # many short sums along the rows take far longer
        found += counts[:, column]
    return found


def nearest(codes: Words, queries: Words, k: int) -> tuple[Rows, Distances]:
    """Rows and distances `(q, k)` of the k nearest codes, ordered by (distance, row); -1 and `FAR` pad."""
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    found = np.full((len(queries), k), FAR, dtype=np.int32)
    step = max(1, _BLOCK_WORDS // codes.shape[1])
    for i, query in enumerate(queries):
        best = np.empty(0, dtype=np.int64)  # distance * 2^40 + row: sorts as (distance, row)
        for start in range(0, len(codes), step):
            near = distances(codes[start : start + step], query)
            passed = np.arange(len(near)) if len(best) < k else np.flatnonzero(near < (best[-1] >> 40))
            if len(passed):
                keys = (near[passed].astype(np.int64) << 40) | (passed + start)
                best = np.sort(np.concatenate([best, keys]))[:k]
        rows[i, : len(best)] = best & (2**40 - 1)
        found[i, : len(best)] = best >> 40
    return rows, found


def within(codes: Words, queries: Words, radius: int) -> tuple[Rows, Rows, Distances]:
    """(ends, rows, distances): query i's matches are `[ends[i]:ends[i + 1]]`, ordered by (distance, row)."""
    step = max(1, _BLOCK_WORDS // codes.shape[1])
    parts: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    ends = np.zeros(len(queries) + 1, dtype=np.int64)
    for i, query in enumerate(queries):
        keys = [np.empty(0, dtype=np.int64)]
        for start in range(0, len(codes), step):
            near = distances(codes[start : start + step], query)
            passed = np.flatnonzero(near <= radius)
            keys.append((near[passed].astype(np.int64) << 40) | (passed + start))
        parts.append(np.sort(np.concatenate(keys)))
        ends[i + 1] = ends[i] + len(parts[-1])
    whole = np.concatenate(parts)
    return ends, whole & (2**40 - 1), (whole >> 40).astype(np.int32)


def count(codes: Words, queries: Words, bits: int) -> NDArray[np.int64]:
    """How many codes lie at each distance: `(q, bits + 1)` int64."""
    histogram = np.zeros((len(queries), bits + 1), dtype=np.int64)
    step = max(1, _BLOCK_WORDS // codes.shape[1])
    for i, query in enumerate(queries):
        for start in range(0, len(codes), step):
            near = distances(codes[start : start + step], query)
            histogram[i] += np.bincount(near, minlength=bits + 1)
    return histogram
