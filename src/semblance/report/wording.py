"""Values as the page writes them: safe text, dates, durations, sizes."""

from __future__ import annotations

from html import escape
from typing import Any

from semblance.report.data import printable

__all__ = ["bytes_text", "date_text", "esc", "seconds_text", "table_html"]


def esc(text: Any) -> str:
    """`text` as it may stand in HTML, in element or attribute: printable first, then escaped."""
    return escape(printable(text))


def date_text(iso: str) -> str:
    """An ISO time, short.

    >>> date_text("2026-03-01T12:30:05+00:00")
    '2026-03-01 12:30 UTC'
    """
    if len(iso) < 16 or iso[10] not in "T ":
        return iso
    zone = " UTC" if iso.endswith(("+00:00", "Z")) else ""
    return f"{iso[:10]} {iso[11:16]}{zone}"


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


def table_html(head: str, body: str, label: str, kind: str = "") -> str:
    """A table that scrolls sideways by itself where the page is too narrow; `head` and `body` are HTML."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(label)}"><table class="{kind}">'
        f"<thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )
