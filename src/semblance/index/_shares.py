"""Which bits of a code go to which substring of multi-index hashing: buckets as equal in size as can be."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

__all__ = ["share_bits"]

SAMPLE = 8192
"""Codes that are looked at."""

Words = NDArray[np.uint64]


def share_bits(words: Words, bits: int, m: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The bits `(bits,)`, substring after substring, and where each of the m begins `(m + 1,)`.

    Greedy: the substring of least entropy takes the bit that adds most to it. Entropy is the collision
    entropy -log2 sum p^2 of a sample's buckets, as a query meets n sum p^2 codes in its own bucket.
    """
    chosen = np.unique(np.linspace(0, len(words) - 1, min(len(words), SAMPLE)).astype(np.int64))
    packed = np.ascontiguousarray(words[chosen].astype("<u8", copy=False)).view(np.uint8)
    sample = np.unpackbits(packed, axis=1, bitorder="little")[:, :bits]
    sizes = [bits // m + (j < bits % m) for j in range(m)]
    parts: list[list[int]] = [[] for _ in range(m)]
    buckets = [np.zeros(len(sample), dtype=np.int64) for _ in range(m)]
    pairs = float(len(sample)) ** 2  # of the sample's codes that share a bucket
    open_ = [(-pairs, 0, j) for j in range(m)]  # a heap: the least entropy, then the fewest bits first
    left = list(range(bits))
    while left:
        _, size, j = open_[0]
        order = np.argsort(buckets[j], kind="stable")
        counts = np.bincount(buckets[j])
        begins = np.cumsum(counts) - counts
        ones = np.add.reduceat(sample[order][:, left], begins, axis=0, dtype=np.int64).astype(np.float64)
        meeting = (ones**2 + (counts[:, None] - ones) ** 2).sum(axis=0)
        best = int(np.argmin(meeting))
        bit = left.pop(best)
        parts[j].append(bit)
        halves = 2 * buckets[j] + sample[:, bit]
        buckets[j] = (np.cumsum(np.bincount(halves) > 0) - 1)[halves]
        if size + 1 < sizes[j]:
            heapq.heapreplace(open_, (-float(meeting[best]), size + 1, j))
        else:
            heapq.heappop(open_)
    low = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return np.concatenate([sorted(part) for part in parts]).astype(np.int32), low
