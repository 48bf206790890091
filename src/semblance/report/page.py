"""The report: one HTML file that needs nothing else, from an open collection."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from semblance.files import write_atomic
from semblance.report.atlas import atlas, atlas_data, atlas_section
from semblance.report.data import CollectionLike, ReportData, from_collection
from semblance.report.gallery import duplicates, gallery, neighbours, sheet_style
from semblance.report.price import price_lead, price_panel
from semblance.report.scores import metrics, read_scores
from semblance.report.sections import (
    facts,
    footer,
    happened,
    model_line,
    section,
    training,
    unreadable,
)
from semblance.report.wording import date_text, esc

__all__ = ["render", "write_report"]


def write_report(
    collection: CollectionLike, path: str | Path | None = None, labels: Mapping[str, Any] | None = None
) -> Path:
    """The path of the report of an open collection, by default `report.html` in its folder.

    `labels` (image path -> label) only colours the map. Written beside and renamed: a reader finds
    the old page or the new one. Cost: one pass over the embeddings per query, and where openTSNE is
    installed some seconds for the map. Raises `CollectionError` if parts do not fit together.
    """
    target = Path(collection.path) / "report.html" if path is None else Path(path)
    text = render(from_collection(collection, labels))
    write_atomic(target, text.encode("utf-8"))
    return target


def render(data: ReportData) -> str:
    """The whole page. The same data gives the same text; the only script allowed to run is ours."""
    script, style = _part("page.js"), _part("page.css")
    scores = read_scores(data.evaluation)
    shown = gallery(data) if len(data.embeddings) else None
    chart = atlas(data) if len(data.embeddings) else None
    parts = [
        section(
            "happened",
            "What happened",
            "What was estimated before the run, and what it took.",
            happened(data),
        ),
        section("metrics", "How good it is", _metrics_lead(data, scores is not None), metrics(data, scores)),
        section("training", "Training", "Measured once an epoch, without labels.", training(data)),
    ]
    points: dict[str, Any] = {}
    if shown is not None and chart is not None:
        points = atlas_data(data, chart)
        parts += [
            section("map", "Map", _map_lead(data, len(chart.rows)), atlas_section(data, chart)),
            section(
                "neighbours",
                "Nearest neighbours",
                _neighbours_lead(shown.queries.size),
                neighbours(data, shown),
            ),
            section("duplicates", "Exact duplicates", _copies_lead(data), duplicates(data, shown)),
        ]
    parts += [
        section("price", "The price of a bit", price_lead(data.price, data.codes), price_panel(data.price)),
        section("unreadable", "Unreadable files", _unreadable_lead(data), unreadable(data)),
        section(
            "use",
            "How to use it",
            "Everything is in the collection's folder, which can be moved.",
            footer(data),
        ),
    ]
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{_digest(script)}'"
    return Template(_part("page.html")).substitute(
        policy=policy,
        title=esc(data.name),
        when=esc(date_text(data.created)),
        model=model_line(data),
        facts=facts(data),
        contents=_contents(parts),
        sections="\n".join(part for part in parts if part),
        style=style,
        sheet=sheet_style(shown.sheet) if shown is not None else "",
        data=_json(points),
        script=script,
    )


def _contents(parts: list[str]) -> str:
    """Links to the sections that are there, read from their own headings."""
    links = []
    for part in parts:
        if part:
            name = part.split('id="', 1)[1].split('"', 1)[0]
            title = part.split("<h2", 1)[1].split(">", 1)[1].split("</h2>", 1)[0]
            links.append(f'<a href="#{name}">{title}</a>')
    return "".join(links)


def _metrics_lead(data: ReportData, known: bool) -> str:
    if not known:
        return "Not measured: that takes labels."
    evaluation = data.evaluation or {}
    column = evaluation.get("column")
    said = f" (<code>{esc(column)}</code>)" if column else ""
    taught = evaluation.get("taught")
    if taught:
        return f"Measured on labels{said}. The model learned from {esc(taught)}: of these it is no test."
    return f"Measured on labels{said} that training never saw."


def _map_lead(data: ReportData, count: int) -> str:
    total = len(data.embeddings)
    sample = (
        f"{count:,} of {total:,} images, evenly spaced through the collection."
        if count < total
        else (f"All {total:,} images.")
    )
    colour = (
        "Coloured by label."
        if data.labels
        else "No colours: without labels, groups drawn here would be guesses."
    )
    return f"{sample} {colour}"


def _neighbours_lead(count: int) -> str:
    chosen = (
        "One image"
        if count == 1
        else f"{count} images chosen to differ as much as possible, odd ones included"
    )
    return (
        f"{chosen}. Under each neighbour its distance: 0 is the same place, 1.41 is unrelated, 2 is opposite."
    )


def _copies_lead(data: ReportData) -> str:
    files = "file is a byte-for-byte copy" if data.duplicate_count == 1 else "files are byte-for-byte copies"
    return f"{data.duplicate_count:,} {files} of another."


def _unreadable_lead(data: ReportData) -> str:
    count = data.unreadable_count
    return f"{count:,} {'file was' if count == 1 else 'files were'} skipped; the rest is not affected."


def _json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _part(name: str) -> str:
    return resources.files("semblance.report").joinpath(name).read_text(encoding="utf-8")
