"""Views on a CPU in compiled code: one pass from stored pixels to float32, where the installation has it."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from semblance.errors import ConfigError, InputError
from semblance.native import library

__all__ = ["available", "warp"]

POINTER, INT, LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
SHARE = 1 << 18
"""Numbers of output that are worth another thread."""

_threads: dict[int, ThreadPoolExecutor] = {}


def available() -> bool:
    """Whether this installation was compiled."""
    return library("semblance.images._native") is not None


def warp(
    pixels: Tensor, theta: Tensor, size: int, own: Tensor | None, mean: Tensor | None, scale: float
) -> Tensor:
    """`(n, h, w, c)` uint8 or uint16 by affine grids `theta` `(n, 2, 3)` -> `(n, c, size, size)` float32.

    Bilinear, mirrored at the border, times `scale`; then, where given, `own @ x + mean @ m` per pixel x of a
    view of mean m (`(n, c, c)` each), within [0, 1]. In memory channels-last. All on the CPU.
    """
    call = _compiled().semblance_views
    call.restype = INT
    call.argtypes = [
        POINTER,
        INT,
        LONG,
        LONG,
        INT,
        INT,
        INT,
        POINTER,
        INT,
        POINTER,
        POINTER,
        ctypes.c_float,
        POINTER,
    ]
    n, h, w, c = pixels.shape
    parts = [part if part is None else part.contiguous() for part in (pixels, theta.float(), own, mean)]
    stored, grid, colour, average = (None if part is None else part.data_ptr() for part in parts)
    out = torch.empty((n, c, size, size), memory_format=torch.channels_last)

    def some(start: int, stop: int) -> int:
        wide = pixels.dtype is not torch.uint8
        given = (stored, wide, start, stop, h, w, c, grid, size, colour, average, scale, out.data_ptr())
        code: int = call(*given)
        return code

    count = max(1, min(torch.get_num_threads(), n, out.numel() // SHARE))
    cuts = [n * i // count for i in range(count + 1)]
    if count == 1:
        codes = [some(0, n)]
    else:
        pool = _threads.setdefault(count, ThreadPoolExecutor(count, "views"))
        codes = list(pool.map(some, cuts[:-1], cuts[1:]))
    if any(codes):
        raise InputError(f"there is no memory for {n} views of {size} pixels", "take a smaller batch")
    return out


def _compiled() -> ctypes.CDLL:
    native = library("semblance.images._native")
    if native is None:
        raise ConfigError("this installation has no compiled views", "ask available() first")
    return native
