"""The HTML report of a collection: one file, nothing fetched, made to be looked at."""

from __future__ import annotations

from semblance.report.page import render, write_report

__all__ = ["render", "write_report"]
