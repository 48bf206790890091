"""Durations and sizes as a person reads them."""

from __future__ import annotations

__all__ = ["bytes_text", "seconds_text"]


def seconds_text(seconds: float) -> str:
    """A duration to read.

    >>> [seconds_text(s) for s in (0.25, 42.0, 130.0, 7300.0)]
    ['0.2 s', '42 s', '2 min 10 s', '2 h 1 min']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def bytes_text(count: float) -> str:
    """A size to read.

    >>> [bytes_text(n) for n in (700, 2_500_000, 3.2e9)]
    ['700 B', '2.5 MB', '3.2 GB']
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
