"""Hamming kernels: compiled ones through ctypes, which lets other threads run, or NumPy's; equal answers.

Codes `(n, w)` and queries `(q, w)` are C-contiguous uint64 words (see `_codes`). Rows are numbers of codes;
ties go to the lower row. `path` names an implementation and is the fastest of `paths()` by default;
the environment variable `SEMBLANCE_KERNEL` sets another default. `threads` share the work: the queries where
they are many, the codes where not.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from semblance.errors import ConfigError, InputError
from semblance.index import _popcount
from semblance.index._popcount import FAR

__all__ = ["FAR", "chosen", "count", "library", "nearest", "paths", "within"]

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]
Distances = NDArray[np.int32]
Part = TypeVar("Part")

_ABI = 1
_NATIVE = ("native-avx512", "native-avx2", "native-popcnt", "native")  # numbered as in native/module.c
_ROW_BITS = 48
_MOST_WORDS = 1023  # a distance fits in 16 bits, with one number to spare
_WORTH_A_THREAD = 2**21  # words compared below which another thread costs more than it brings
_MANY = 64  # queries for each thread from which on they are shared out instead of the codes


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None where it was not built, or was built from another version's source."""
    found = importlib.util.find_spec("semblance.index._native")
    if found is None or found.origin is None:
        return None
    try:
        native = ctypes.CDLL(found.origin)
        if native.semblance_abi() != _ABI:
            return None
    except (OSError, AttributeError):
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    asked: list[Any] = [ctypes.c_int, pointer, size, size, pointer, size]
    native.semblance_nearest.argtypes = [*asked, size, pointer, pointer]
    native.semblance_within.argtypes = [*asked, ctypes.c_uint32, ctypes.POINTER(ctypes.c_void_p), pointer]
    native.semblance_count.argtypes = [*asked, size, pointer]
    native.semblance_lookup.argtypes = [pointer, size, size, size, pointer, pointer, pointer]
    native.semblance_lookup.restype = None
    native.semblance_free.argtypes = [pointer]
    native.semblance_free.restype = None
    return native


@functools.cache
def paths() -> tuple[str, ...]:
    """The implementations that this installation and processor can run, fastest first."""
    native = library()
    if native is None:
        return ("numpy",)
    return (*(name for i, name in enumerate(_NATIVE) if native.semblance_usable(i)), "numpy")


def chosen(path: str | None = None) -> str:
    """`path`, or else what `SEMBLANCE_KERNEL` says, or else the fastest; `ConfigError` if it cannot run."""
    name = path or os.environ.get("SEMBLANCE_KERNEL") or paths()[0]
    if name not in paths():
        raise ConfigError(f'the kernel "{name}" cannot run here', f"known: {', '.join(paths())}")
    return name


def nearest(
    codes: Words, queries: Words, k: int, *, path: str | None = None, threads: int = 1
) -> tuple[Rows, Distances]:
    """Rows and distances `(q, k)` of the k nearest codes, ordered by (distance, row); -1 and `FAR` pad."""
    if k < 1:
        raise ConfigError(f"k is {k}", "ask for at least one neighbour")
    name = chosen(path)
    codes, queries = _fit(codes, queries)
    if name == "numpy":
        return _popcount.nearest(codes, queries, k)

    def part(first: int, last: int, start: int, stop: int) -> tuple[Rows, Distances]:
        rows = np.empty((stop - start, k), dtype=np.int64)
        found = np.empty((stop - start, k), dtype=np.int32)
        _call("nearest", name, codes[first:last], queries[start:stop], k, rows.ctypes.data, found.ctypes.data)
        return rows, found

    return _shared(part, codes, queries, threads, lambda *found: _join_nearest(k, *found))


def within(
    codes: Words, queries: Words, radius: int, *, path: str | None = None, threads: int = 1
) -> tuple[Rows, Rows, Distances]:
    """(ends, rows, distances): query i's matches are `[ends[i]:ends[i + 1]]`, ordered by (distance, row)."""
    name = chosen(path)
    codes, queries = _fit(codes, queries)
    if name == "numpy":
        return _popcount.within(codes, queries, radius)

    def part(first: int, last: int, start: int, stop: int) -> tuple[Rows, Rows, Distances]:
        ends = np.zeros(stop - start + 1, dtype=np.int64)
        keys = ctypes.c_void_p()
        asked = codes[first:last], queries[start:stop]
        _call("within", name, *asked, min(radius, FAR), ctypes.byref(keys), ends.ctypes.data)
        try:
            whole = np.empty(int(ends[-1]), dtype=np.uint64)
            ctypes.memmove(whole.ctypes.data, keys, whole.nbytes)
        finally:
            _free(keys)
        rows = (whole & np.uint64(2**_ROW_BITS - 1)).astype(np.int64)
        return ends, rows, (whole >> np.uint64(_ROW_BITS)).astype(np.int32)

    return _shared(part, codes, queries, threads, _join_within)


def count(
    codes: Words, queries: Words, bits: int, *, path: str | None = None, threads: int = 1
) -> NDArray[np.int64]:
    """How many codes lie at each distance from each query: `(q, bits + 1)` int64."""
    name = chosen(path)
    codes, queries = _fit(codes, queries)
    if name == "numpy":
        return _popcount.count(codes, queries, bits)

    def part(first: int, last: int, start: int, stop: int) -> NDArray[np.int64]:
        out = np.zeros((stop - start, bits + 1), dtype=np.int64)
        _call("count", name, codes[first:last], queries[start:stop], bits, out.ctypes.data)
        return out

    return _shared(part, codes, queries, threads, _join_count)


def _fit(codes: Words, queries: Words) -> tuple[Words, Words]:
    """Both as C reads them; it looks no further than this."""
    if (len(codes) and codes.shape[1] != queries.shape[1]) or codes.shape[1] > _MOST_WORDS:
        raise InputError(f"codes of {codes.shape[1]} words meet queries of {queries.shape[1]}")
    return np.ascontiguousarray(codes, dtype=np.uint64), np.ascontiguousarray(queries, dtype=np.uint64)


def _call(operation: str, path: str, codes: Words, queries: Words, *rest: Any) -> None:
    native = library()
    assert native is not None
    n, w = codes.shape
    asked = (_NATIVE.index(path), codes.ctypes.data, n, w, queries.ctypes.data, len(queries))
    if getattr(native, f"semblance_{operation}")(*asked, *rest) != 0:
        raise InputError("the answer does not fit in memory", "ask for fewer queries, neighbours or radius")


def _free(memory: ctypes.c_void_p) -> None:
    native = library()
    assert native is not None
    native.semblance_free(memory)


def _shared(
    part: Callable[[int, int, int, int], Part],
    codes: Words,
    queries: Words,
    threads: int,
    join: Callable[[list[Part], list[int], bool], Part],
) -> Part:
    """`part(first code, last, first query, last)` over all, by threads; `join(parts, starts, of codes)`."""
    n, q = len(codes), len(queries)
    workers = min(threads, codes.size * q // _WORTH_A_THREAD)
    if workers < 2:
        return part(0, n, 0, q)
    by_codes = q < _MANY * workers
    cuts = [i * (n if by_codes else q) // workers for i in range(workers + 1)]
    jobs = [(i, j, 0, q) if by_codes else (0, n, i, j) for i, j in itertools.pairwise(cuts)]
    others = [_pool(workers - 1).submit(part, *job) for job in jobs[1:]]
    try:
        parts = [part(*jobs[0])]
    finally:
        wait(others)  # they read memory that may be let go after an error
    return join(parts + [other.result() for other in others], cuts, by_codes)


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads that stay: starting one takes longer than reading many codes."""
    return ThreadPoolExecutor(workers, thread_name_prefix="semblance-kernel")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has the pool and none of its threads


def _join_nearest(
    k: int, parts: list[tuple[Rows, Distances]], starts: list[int], by_codes: bool
) -> tuple[Rows, Distances]:
    if not by_codes:
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([found for _, found in parts])
    # Parts come in order of rows, so a stable sort by distance alone keeps equal ones in order.
    shifted = [np.where(rows < 0, -1, rows + start) for (rows, _), start in zip(parts, starts, strict=False)]
    rows = np.concatenate(shifted, axis=1)
    found = np.concatenate([distances for _, distances in parts], axis=1)
    order = np.argsort(found, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(found, order, axis=1)


def _join_within(
    parts: list[tuple[Rows, Rows, Distances]], starts: list[int], by_codes: bool
) -> tuple[Rows, Rows, Distances]:
    counts = [np.diff(ends) for ends, _, _ in parts]
    rows = [part[1] + start * by_codes for part, start in zip(parts, starts, strict=False)]
    found = np.concatenate([distances for _, _, distances in parts])
    if by_codes:
        query = np.concatenate([np.repeat(np.arange(len(each)), each) for each in counts])
        order = np.lexsort((found, query))  # stable, as above
        return _ends(sum(counts)), np.concatenate(rows)[order], found[order]
    return _ends(np.concatenate(counts)), np.concatenate(rows), found


def _ends(counts: Any) -> Rows:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def _join_count(parts: list[NDArray[np.int64]], starts: list[int], by_codes: bool) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.sum(parts, axis=0) if by_codes else np.concatenate(parts)
    return total
