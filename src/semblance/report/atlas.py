"""The map: points, names, labels and thumbnails, as data that the page's script draws."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.report.data import ReportData
from semblance.report.layout import Layout, evenly, layouts, nearest
from semblance.report.thumbs import Sheet, fit_sheet
from semblance.report.wording import esc

__all__ = ["Atlas", "atlas", "atlas_data", "atlas_section"]

POINTS, NEAR = 2000, 6
SIDE, BUDGET = 48, 1_300_000
GRID = 10_000
"""Coordinates are whole numbers from 0 to GRID: finer than a screen, shorter than decimals."""
COLOURS = 10
"""Labels with a colour of their own; the rarer ones share grey."""


@dataclass(frozen=True)
class Atlas:
    """The `rows` on the map, their layouts, each one's nearest others on the map, and the thumbnails."""

    rows: NDArray[np.int64]
    layouts: tuple[Layout, ...]
    near: NDArray[np.int64]
    sheet: Sheet


def atlas(data: ReportData) -> Atlas:
    """An even sample of the collection, laid out; thumbnails in one sheet."""
    rows = evenly(len(data.embeddings), POINTS)
    sample = np.asarray(data.embeddings[rows], dtype=np.float32)
    near, _ = nearest(sample, np.arange(len(rows), dtype=np.int64), NEAR)
    sheet = fit_sheet(data.pixels, rows, SIDE, BUDGET)
    return Atlas(rows, tuple(layouts(data.embeddings, rows)), near, sheet)


def atlas_data(data: ReportData, shown: Atlas) -> dict[str, Any]:
    """What the script needs, as JSON values: `names[i]`, `points[layout][2 i]`, `near[i]`, `label[i]`."""
    names, label, counts = _label_index(data, shown)
    return {
        "names": [data.paths[row] for row in shown.rows.tolist()],
        "layouts": [
            {
                "name": layout.name,
                "note": layout.note,
                "points": np.rint(layout.points * GRID).astype(int).ravel().tolist(),
            }
            for layout in shown.layouts
        ],
        "grid": GRID,
        "near": shown.near.tolist(),
        "labels": names,
        "counts": counts,
        "label": label,
        "side": shown.sheet.side,
        "columns": shown.sheet.columns,
    }


def atlas_section(data: ReportData, shown: Atlas) -> str:
    """The map's HTML: canvas, controls, the panel that names a picture, the legend; "" for one image."""
    if len(shown.rows) < 2:
        return ""
    jpeg = base64.b64encode(shown.sheet.jpeg).decode("ascii")
    choices, legend = _choices(shown), _legend(data, shown)
    spoken = (
        f"Map of {len(shown.rows):,} images, {shown.layouts[0].name}. Arrow keys walk from image to image."
    )
    return (
        f'<div class="atlas" id="atlas"><div class="bar">{choices}'
        '<div class="group" role="group" aria-label="Marks">'
        '<button type="button" data-marks="pictures" aria-pressed="true">Pictures</button>'
        '<button type="button" data-marks="dots" aria-pressed="false">Dots</button></div>'
        '<div class="group zoom" role="group" aria-label="Zoom">'
        '<button type="button" data-zoom="out" aria-label="Zoom out">−</button>'
        '<button type="button" data-zoom="in" aria-label="Zoom in">+</button>'
        '<button type="button" data-zoom="fit">Fit</button></div></div>'
        f'<div class="stage"><canvas id="plot" tabindex="0" role="img" aria-label="{esc(spoken)}" '
        'aria-describedby="map-help"></canvas>'
        '<aside class="card" id="card" hidden><canvas id="big" aria-hidden="true"></canvas>'
        '<div><p class="name" id="card-name" aria-live="polite"></p><p class="fine" id="card-label"></p>'
        '<div id="card-near"></div></div></aside></div>'
        f"{legend}"
        f'<p class="fine"><span id="map-note">{esc(shown.layouts[0].note)}</span> '
        '<span id="map-help">Hover, tap or walk with the arrow keys; + and − zoom, 0 fits; '
        "click the map, then the wheel zooms and dragging moves; on a touch screen two fingers.</span></p>"
        "<noscript><p>The map is drawn by a script, and scripts are off.</p></noscript>"
        f'<img id="sheet" alt="" hidden src="data:image/jpeg;base64,{jpeg}"></div>'
    )


def _choices(shown: Atlas) -> str:
    if len(shown.layouts) < 2:
        return ""
    buttons = [
        f'<button type="button" data-layout="{i}" aria-pressed="{"false" if i else "true"}">'
        f"{esc(layout.name)}</button>"
        for i, layout in enumerate(shown.layouts)
    ]
    return f'<div class="group" role="group" aria-label="Projection">{"".join(buttons)}</div>'


def _legend(data: ReportData, shown: Atlas) -> str:
    names, _, counts = _label_index(data, shown)
    keys = [
        f'<button type="button" class="key" data-label="{i}" aria-pressed="false"><i class="m{i}"></i>'
        f"{esc(name)} <b>{count:,}</b></button>"
        for i, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    return (
        f'<div class="legend labels" role="group" aria-label="Labels">{"".join(keys)}</div>' if keys else ""
    )


def _label_index(data: ReportData, shown: Atlas) -> tuple[list[str], list[int], list[int]]:
    """Names in the legend, each point's place in it (-1: no label), and counts on the map."""
    if not data.labels:
        return [], [], []
    values = [data.labels[row] for row in shown.rows.tolist()]
    order = sorted(
        Counter(value for value in values if value is not None).items(), key=lambda kv: (-kv[1], kv[0])
    )
    many = len(order) > COLOURS
    named = [name for name, _ in order[: COLOURS - 1 if many else COLOURS]]
    place = {name: i for i, name in enumerate(named)}
    label = [-1 if value is None else place.get(value, len(named)) for value in values]
    names = [*named, f"{len(order) - len(named)} others"] if many else named
    return names, label, [label.count(i) for i in range(len(names))]
