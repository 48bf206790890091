"""The compiled parts of a room, where the installation has them, and the processor they run on."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import platform
import re
from pathlib import Path

__all__ = ["library", "processor"]


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


def processor() -> str:
    """The processor's name, where the system tells it; else its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found.group(1) if found else platform.processor() or platform.machine()
