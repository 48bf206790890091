"""The scan in Numba, as well as it goes: what the choice of C is measured against (see `search.py`)."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils  # noqa: F401  (registers what intrinsics need)
from numba.extending import intrinsic

__all__ = ["nearest_many", "nearest_one"]


@intrinsic
def popcount(context, x):
    """The processor's own population count of a 64-bit word."""

    def code(context, builder, signature, arguments):
        function = builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)])
        return builder.call(function, arguments)

    return types.uint64(types.uint64), code


@njit(cache=False, boundscheck=False)
def measure(codes, query, first, far):
    """Distances from one query to the codes from `first` on into `far`; a loop that LLVM makes vectors of."""
    w = codes.shape[1]
    if w == 1:
        for i in range(len(far)):
            far[i] = popcount(codes[first + i, 0] ^ query[0])
    elif w == 2:
        for i in range(len(far)):
            far[i] = popcount(codes[first + i, 0] ^ query[0]) + popcount(codes[first + i, 1] ^ query[1])
    else:
        for i in range(len(far)):
            total = np.uint64(0)
            for j in range(w):
                total += popcount(codes[first + i, j] ^ query[j])
            far[i] = total


@njit(cache=False, boundscheck=False)
def take(far, best, limit, known, k):
    """`best` counts accepted codes by distance; the limit falls with the k-th. Returns (limit, known)."""
    for start in range(0, len(far), 64):
        block = far[start : start + 64]
        least = np.uint16(65535)
        for i in range(len(block)):
            least = min(least, block[i])
        if least >= limit:
            continue
        for i in range(len(block)):
            if block[i] < limit:
                best[block[i]] += 1
                known += 1
                while known >= k:
                    limit -= 1
                    known -= best[limit]
    return limit, known


@njit(cache=False, boundscheck=False)
def nearest_many(codes, queries, k):
    """Distances `(q, k)` of the k nearest: blocks of codes stay in cache for all queries."""
    n, w = codes.shape
    bits = 64 * w
    best = np.zeros((len(queries), bits + 2), dtype=np.int64)
    limits = np.full(len(queries), bits + 1, dtype=np.int64)
    known = np.zeros(len(queries), dtype=np.int64)
    room = np.empty(2048, dtype=np.uint16)
    for first in range(0, n, 2048):
        far = room[: min(2048, n - first)]
        for i in range(len(queries)):
            measure(codes, queries[i], first, far)
            limits[i], known[i] = take(far, best[i], limits[i], known[i], k)
    out = np.empty((len(queries), k), dtype=np.int32)
    for i in range(len(queries)):
        j = 0
        for distance in range(bits + 1):
            for _ in range(min(best[i, distance], k - j)):
                out[i, j] = distance
                j += 1
    return out


def nearest_one(codes, query, k):
    """Distances `(k,)` of one query's k nearest."""
    return nearest_many(codes, query[None], k)[0]
