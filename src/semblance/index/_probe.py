"""Search in tables of multi-index hashing: exact nearest and radius search, within a budget of work.

`nearest` and `within` visit buckets at 0 flips of each substring of the query, then at 1 flip and so on.
After substring j at s flips every code at a distance of at most `m * s + j` was met, so they stop when the
k-th best or the radius lies within that. A code counts in the first table that meets it: it lies at more than
s flips in the tables before j and at s or more in those after it. A query whose work would exceed the budget
is given up, and `done` says so.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semblance.index._popcount import distances
from semblance.index._tables import SEVERAL, Tables, native, substring

__all__ = ["NOTHING", "Probe", "nearest", "within"]

Words = NDArray[np.uint64]
Keys = NDArray[np.uint64]
Done = NDArray[np.bool_]
Numbers = NDArray[np.int64]

NOTHING = np.uint64(2**64 - 1)
"""The key of no match. A key is distance * 2^32 + row: it sorts as (distance, row)."""

_LOOKED_UP = 2**14  # buckets at a time, in NumPy
_LEVELS = {"native-avx512": 2, "native-avx2": 1, "native-popcnt": 1}
_EXPECTED = 64  # matches of a radius search, for a start


@dataclass(frozen=True)
class Probe:
    """What a search needs to know beside tables and queries.

    `path` of the kernel. `budget`: the work that one query may cost, and `pool`: what it may cost on average;
    in the unit of the prices `lookup` (a bucket), `code` (one compared) and `hit` (one near enough to be
    looked at). `allowed` `(count,)` uint8: which rows may be found; None: all. `threads` share the queries.
    """

    path: str
    budget: int
    pool: int
    lookup: int
    code: int
    hit: int
    allowed: NDArray[np.uint8] | None = None
    threads: int = 1


class _Struct(ctypes.Structure):
    """`Tables` of native/mih.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n", "count", "groups", "posted")),
        *((name, ctypes.c_int32) for name in ("m", "words", "bits", "level")),
        *((name, ctypes.c_int64) for name in ("lookup", "code", "hit")),
        *(
            (name, ctypes.c_void_p)
            for name in ("low", "first", "offsets", "codes", "where", "start", "rows", "allowed")
        ),
    ]


def nearest(tables: Tables, queries: Words, k: int, probe: Probe) -> tuple[Keys, Done]:
    """Keys `(q, k)`, rising, of the k nearest of each query `(q, w)`, and which queries were `done` `(q,)`.

    The queries' bits stand in the tables' order. `NOTHING` pads; keys of a query that is not done mean
    nothing.
    """
    keys = np.full((len(queries), k), NOTHING, dtype=np.uint64)
    done = np.zeros(len(queries), dtype=np.bool_)
    library = native(probe.path)
    if library is None:
        for i, found in enumerate(_search_all(tables, queries, probe, k, None)):
            if found is not None:
                done[i] = True
                keys[i, : len(found)] = found
        return keys, done
    call, struct = library.semblance_mih_nearest, _struct(tables, probe)

    def part(begin: int, end: int) -> None:
        asked, best, ready = queries[begin:end], keys[begin:end], done[begin:end]
        to = (probe.budget, len(asked) * probe.pool, best.ctypes.data, ready.ctypes.data)
        call(ctypes.byref(struct), asked.ctypes.data, len(asked), k, *to)

    _in_parts(part, len(queries), probe.threads)
    return keys, done


def within(tables: Tables, queries: Words, radius: int, probe: Probe) -> tuple[Numbers, Keys, Done]:
    """(ends, keys, done): the keys within `radius` of query i are `keys[ends[i]:ends[i + 1]]`, rising.

    A query that is not done has none.
    """
    library = native(probe.path)
    if library is None:
        found = _search_all(tables, queries, probe, None, radius)
        done = np.array([keys is not None for keys in found], dtype=np.bool_)
        lists = [np.empty(0, dtype=np.uint64) if keys is None else keys for keys in found]
    else:
        lists, done = _within_compiled(library, tables, queries, radius, probe)
    ends = np.concatenate([[0], np.cumsum([len(keys) for keys in lists], dtype=np.int64)])
    return ends, np.concatenate([np.empty(0, dtype=np.uint64), *lists]), done


def _within_compiled(
    library: ctypes.CDLL, tables: Tables, queries: Words, radius: int, probe: Probe
) -> tuple[list[Keys], Done]:
    call, struct = library.semblance_mih_within, _struct(tables, probe)
    done = np.zeros(len(queries), dtype=np.bool_)
    lists: list[Keys] = [np.empty(0, dtype=np.uint64)] * len(queries)

    def part(begin: int, end: int) -> None:
        asked, ready = queries[begin:end], done[begin:end]
        ends = np.zeros(len(asked) + 1, dtype=np.int64)
        keys = np.empty(_EXPECTED * len(asked), dtype=np.uint64)
        while True:
            budget = (probe.budget, len(asked) * probe.pool)
            to = (keys.ctypes.data, len(keys), ends[1:].ctypes.data, ready.ctypes.data)
            needed = call(ctypes.byref(struct), asked.ctypes.data, len(asked), radius, *budget, *to)
            if needed <= len(keys):
                break
            keys = np.empty(needed, dtype=np.uint64)
        for i in range(len(asked)):
            lists[begin + i] = np.sort(keys[ends[i] : ends[i + 1]])

    _in_parts(part, len(queries), probe.threads)
    return lists, done


def _in_parts(part: Callable[[int, int], None], count: int, threads: int) -> None:
    """`part(begin, end)` over all queries, a few parts for each thread so that hard queries even out."""
    if threads < 2 or count < 2:
        part(0, count)
        return
    step = -(-count // (4 * threads))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda begin: part(begin, min(count, begin + step)), range(0, count, step)))


def _struct(tables: Tables, probe: Probe) -> _Struct:
    """What native/mih.c reads. Its addresses are good while `tables` and `probe` live."""
    base = tables.__dict__.get("_struct")  # taking addresses costs as much as a quick search
    if base is None:
        counts = (tables.n, tables.count, len(tables.start) - 1, len(tables.rows))
        arrays = (tables.low, tables.first, tables.offsets, tables.tables, tables.where)
        addresses = [array.ctypes.data for array in (*arrays, tables.start, tables.rows)]
        base = _Struct(*counts, tables.m, tables.words, tables.bits, 0, 0, 0, 0, *addresses, None)
        tables.__dict__["_struct"] = base
    struct = _Struct.from_buffer_copy(base)
    struct.level = _LEVELS.get(probe.path, 0)
    struct.lookup, struct.code, struct.hit = probe.lookup, probe.code, probe.hit
    struct.allowed = None if probe.allowed is None else probe.allowed.ctypes.data
    return struct


def _search_all(
    tables: Tables, queries: Words, probe: Probe, k: int | None, radius: int | None
) -> list[Keys | None]:
    """For each query what `_search` finds within the budget and the pool; None where they do not suffice."""
    found: list[Keys | None] = []
    pool = len(queries) * probe.pool
    for query in queries:
        mine = min(probe.budget, pool)
        keys, left = _search(tables, query, probe, k, radius, mine) if mine > 0 else (None, 0)
        pool -= mine - left
        found.append(keys)
    return found


def _search(
    tables: Tables, query: Words, probe: Probe, k: int | None, radius: int | None, left: int
) -> tuple[Keys | None, int]:
    """Rising keys of the k nearest, or of all within the radius, and what is left of the budget."""
    best = np.empty(0, dtype=np.uint64)
    for s in range(tables.bits + 1):
        for j in range(tables.m):
            full = k is not None and len(best) == k
            limit = int(best[-1] >> np.uint64(32)) if full else tables.bits if radius is None else radius
            if (full or k is None) and limit < tables.m * s + j:
                return np.sort(best), left
            width = int(tables.low[j + 1] - tables.low[j])
            price = probe.lookup + probe.code * tables.n / 2**width
            if math.comb(width, s) * price > left:
                return None, 0
            for flips in _flips(width, s):
                keys, cost = _visit(tables, query, probe, (s, j), flips, limit, left)
                left -= cost
                if left < 0:
                    return None, 0
                best = np.concatenate([best, keys])
                if k is not None:
                    best = np.sort(best)[:k]
    return np.sort(best), left


@functools.lru_cache(maxsize=64)
def _flips(width: int, s: int) -> list[Numbers]:
    """All numbers of `width` bits of which s are set, in parts."""
    bits = [1 << bit for bit in range(width)]
    sums = np.fromiter(map(sum, itertools.combinations(bits, s)), dtype=np.int64)
    return [sums[begin : begin + _LOOKED_UP] for begin in range(0, len(sums), _LOOKED_UP)]


def _visit(
    tables: Tables,
    query: Words,
    probe: Probe,
    step: tuple[int, int],
    flips: Numbers,
    limit: int,
    left: int,
) -> tuple[Keys, int]:
    """Keys within `limit` first met in these buckets, and what that cost; none if it is more than `left`."""
    s, j = step
    low, words = int(tables.low[j]), tables.words
    buckets = (substring(query[None], low, int(tables.low[j + 1]) - low) ^ flips) + int(tables.first[j])
    ends = np.minimum(tables.offsets[buckets + 1], tables.n).astype(np.int64)
    begins = np.minimum(tables.offsets[buckets], ends)
    sizes = ends - begins
    cost = len(flips) * probe.lookup + int(sizes.sum()) * probe.code
    if cost > left:
        return np.empty(0, dtype=np.uint64), cost
    inside = _counted(sizes)
    positions = np.repeat(begins, sizes) + inside
    address = np.repeat(begins * words, sizes) + inside
    stride = np.repeat(sizes, sizes)
    codes = np.stack([tables.tables[j][address + word * stride] for word in range(words)], axis=1)
    far = distances(codes, query)
    hits = np.flatnonzero(far <= limit)
    cost += len(hits) * probe.hit
    codes, far, positions = codes[hits], far[hits], positions[hits]
    first = np.ones(len(hits), dtype=np.bool_)
    for i in range(tables.m):
        if i != j:
            begin, width = int(tables.low[i]), int(tables.low[i + 1] - tables.low[i])
            flipped = substring(codes, begin, width) ^ substring(query[None], begin, width)
            first &= distances(flipped.astype(np.uint64)[:, None], np.zeros(1, np.uint64)) >= s + (i < j)
    return _keys(tables, probe, j, positions[first], far[first]), cost


def _keys(tables: Tables, probe: Probe, j: int, positions: Numbers, far: NDArray[np.int32]) -> Keys:
    """One key for each row that may be found, of the codes at `positions` of table j."""
    numbers = tables.where[j][positions]
    alone = numbers < SEVERAL
    groups = (numbers[~alone] - SEVERAL).astype(np.int64)
    begins = tables.start[groups].astype(np.int64)
    sizes = tables.start[groups + 1] - begins
    members = tables.rows[np.repeat(begins, sizes) + _counted(sizes)]
    rows = np.concatenate([numbers[alone], members]).astype(np.int64)
    far = np.concatenate([far[alone], np.repeat(far[~alone], sizes)])
    if probe.allowed is not None:
        there = probe.allowed[rows] != 0
        rows, far = rows[there], far[there]
    keys: Keys = (far.astype(np.uint64) << np.uint64(32)) | rows.astype(np.uint64)
    return keys


def _counted(sizes: Numbers) -> Numbers:
    """0 to size - 1 for each of the sizes."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
