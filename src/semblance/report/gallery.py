"""Pictures in rows: images of the collection with their nearest neighbours, and exact duplicates."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semblance.report.data import ReportData
from semblance.report.layout import nearest, spread
from semblance.report.thumbs import Sheet, fit_sheet
from semblance.report.wording import esc

__all__ = ["Gallery", "duplicates", "gallery", "neighbours", "sheet_style"]

QUERIES, NEIGHBOURS = 12, 8
GROUPS, COPIES = 12, 4
SIDE, BUDGET = 112, 600_000


@dataclass(frozen=True)
class Gallery:
    """What the rows show: query rows, their neighbours and distances, groups of copies, one sheet of
    all pictures and the place of each row in it."""

    queries: NDArray[np.int64]
    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    groups: tuple[tuple[int, ...], ...]
    sheet: Sheet
    place: dict[int, int]


def gallery(data: ReportData) -> Gallery:
    """Queries spread over the embedding, their neighbours, the first groups of copies, one sheet."""
    queries = spread(data.embeddings, QUERIES)
    ids, distances = nearest(data.embeddings, queries, NEIGHBOURS)
    groups = tuple(group[:COPIES] for group in data.copies[:GROUPS])
    rows = dict.fromkeys(
        [*queries.tolist(), *ids.ravel().tolist(), *(row for group in groups for row in group)]
    )
    place = {row: i for i, row in enumerate(rows)}
    return Gallery(queries, ids, distances, groups, fit_sheet(data.pixels, list(rows), SIDE, BUDGET), place)


def neighbours(data: ReportData, shown: Gallery) -> str:
    """One list per query: the query, then its neighbours with the distance under each; "" for one image."""
    if not shown.ids.size:
        return ""
    copy_of = {row: group[0] for group in data.copies for row in group}
    rows = []
    for i, query in enumerate(shown.queries.tolist()):
        cells = [_figure(data, shown, query, "query", "query")]
        for row, distance in zip(shown.ids[i].tolist(), shown.distances[i].tolist(), strict=True):
            same = row in copy_of and copy_of[row] == copy_of.get(query)
            label = f"{distance:.3f}" + (" copy" if same else "")
            cells.append(_figure(data, shown, row, label, "", f"distance {distance:.3f}"))
        rows.append(
            f'<li><p class="name"><bdi>{esc(data.paths[query])}</bdi></p>'
            f'<ul class="row">{"".join(f"<li>{cell}</li>" for cell in cells)}</ul></li>'
        )
    return f'<ol class="queries">{"".join(rows)}</ol>'


def duplicates(data: ReportData, shown: Gallery) -> str:
    """A strip of groups of byte-identical images; "" if there are none."""
    if not shown.groups:
        return ""
    items = []
    for whole, group in zip(data.copies, shown.groups, strict=False):
        names = "".join(f"<li><bdi>{esc(data.paths[row])}</bdi></li>" for row in group)
        more = f"<li>and {len(whole) - len(group):,} more</li>" if len(whole) > len(group) else ""
        items.append(
            f"<li>{picture(shown, group[0], data.paths[group[0]])}<div><b>{len(whole)} files</b>"
            f"<ul>{names}{more}</ul></div></li>"
        )
    rest = len(data.copies) - len(shown.groups)
    more = f'<p class="fine">and {rest:,} more groups, in <code>images.parquet</code></p>' if rest > 0 else ""
    return f'<ul class="copies">{"".join(items)}</ul>{more}'


def picture(shown: Gallery, row: int, name: str) -> str:
    """One picture of the sheet, as wide as its container."""
    x, y = _share(shown.sheet, shown.place[row])
    return f'<span class="pic" role="img" aria-label="{esc(name)}" style="--x:{x:g}%;--y:{y:g}%"></span>'


def sheet_style(sheet: Sheet) -> str:
    """The CSS rule that gives every `.pic` its sheet, as data inside the page."""
    text = base64.b64encode(sheet.jpeg).decode("ascii")
    return (
        f".pic{{background-image:url(data:image/jpeg;base64,{text});"
        f"background-size:{sheet.columns * 100}% {sheet.lines * 100}%}}"
    )


def _figure(data: ReportData, shown: Gallery, row: int, label: str, kind: str, spoken: str = "") -> str:
    path = data.paths[row]
    label_of = data.labels[row] if data.labels else None
    under = f"<span>{esc(label_of)}</span>" if label_of else ""
    alt = ", ".join(part for part in (path, label_of, spoken) if part)
    name = f' class="{kind}"' if kind else ""
    return (
        f'<figure{name} title="{esc(path)}">{picture(shown, row, alt)}'
        f"<figcaption>{esc(label)}{under}</figcaption></figure>"
    )


def _share(sheet: Sheet, place: int) -> Sequence[float]:
    column, line = place % sheet.columns, place // sheet.columns
    across = 100 * column / (sheet.columns - 1) if sheet.columns > 1 else 0.0
    down = 100 * line / (sheet.lines - 1) if sheet.lines > 1 else 0.0
    return round(across, 4), round(down, 4)
