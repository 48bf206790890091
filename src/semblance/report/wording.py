"""Values as the page writes them: safe text, dates, tables."""

from __future__ import annotations

from html import escape
from typing import Any

from semblance.report.data import printable

__all__ = ["date_text", "esc", "table_html"]


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


def table_html(head: str, body: str, label: str, kind: str = "") -> str:
    """A table that scrolls sideways by itself where the page is too narrow; `head` and `body` are HTML."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(label)}"><table class="{kind}">'
        f"<thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )
