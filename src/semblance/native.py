"""The compiled parts of a room, where the installation has them."""

from __future__ import annotations

import ctypes
import functools
import importlib.util

__all__ = ["library"]


@functools.cache
def library(module: str) -> ctypes.CDLL | None:
    """The extension `module` as a C library, which lets other threads run while it works; None without it.

    >>> library("semblance.nowhere") is None
    True
    """
    try:
        spec = importlib.util.find_spec(module)
        return None if spec is None or spec.origin is None else ctypes.CDLL(spec.origin)
    except (ImportError, OSError):
        return None
