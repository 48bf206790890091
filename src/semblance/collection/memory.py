"""How much memory this process takes and has taken, as the system counts it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

__all__ = ["forget_peak", "peak_memory", "resident_memory"]

STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Bytes: the most that was resident since the start or `forget_peak`; 0 where nothing can tell."""
    found = _status("VmHWM")
    if found:
        return found
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_memory() -> int:
    """Bytes resident now; the peak where the system does not say."""
    return _status("VmRSS") or peak_memory()


def forget_peak() -> bool:
    """Start a new peak from what is resident now; True where the system did so (most Linux kernels)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    # Some kernels take the write and keep the peak.
    return _status("VmHWM") <= _status("VmRSS") + 2**24


def _status(name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
