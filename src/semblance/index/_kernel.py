"""Hamming kernels: compiled ones through ctypes, which lets other threads run, or NumPy's; equal answers.

Codes `(n, w)` and queries `(q, w)` are C-contiguous uint64 words (see `_codes`). Rows are numbers of codes;
ties go to the lower row. `path` names an implementation and is the fastest of `paths()` by default;
the environment variable `SEMBLANCE_KERNEL` sets another default.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from semblance.errors import ConfigError
from semblance.index import _popcount
from semblance.index._popcount import FAR

__all__ = ["FAR", "count", "nearest", "paths", "within"]

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]
Distances = NDArray[np.int32]


def paths() -> tuple[str, ...]:
    """The implementations that this installation and processor can run, fastest first."""
    return ("numpy",)


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
    chosen(path)
    return _popcount.nearest(codes, queries, k)


def within(
    codes: Words, queries: Words, radius: int, *, path: str | None = None, threads: int = 1
) -> tuple[Rows, Rows, Distances]:
    """(ends, rows, distances): query i's matches are `[ends[i]:ends[i + 1]]`, ordered by (distance, row)."""
    chosen(path)
    return _popcount.within(codes, queries, radius)


def count(
    codes: Words, queries: Words, bits: int, *, path: str | None = None, threads: int = 1
) -> NDArray[np.int64]:
    """How many codes lie at each distance from each query: `(q, bits + 1)` int64."""
    chosen(path)
    return _popcount.count(codes, queries, bits)
