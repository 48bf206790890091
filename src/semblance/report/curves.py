"""Curves of a training as inline SVG, drawn here: no plotting library, no script needed to read them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from semblance.report.data import number, printable

__all__ = ["Chart", "Series", "charts", "draw", "format_value", "ticks"]

WIDTH, HEIGHT = 440, 210
LEFT, RIGHT, TOP, BOTTOM = 62, 10, 12, 36


@dataclass(frozen=True)
class Series:
    """One curve: a name and one value per epoch, None where there is none."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes: `label` names the y axis, `note` says how to read it.

    `epochs` are places along the x axis, called `axis`; with `names` each is shown by its name.
    """

    title: str
    label: str
    note: str
    epochs: tuple[int, ...]
    series: tuple[Series, ...]
    low: float | None = None
    high: float | None = None
    axis: str = "epoch"
    names: tuple[str, ...] = ()


HEALTH = (
    (
        "Effective rank",
        "dimensions",
        "How many directions the embedding uses. A fall towards 1 is collapse.",
        (("effective rank", "effective_rank"),),
        (0.0, None),
    ),
    (
        "Cosine",
        "mean cosine",
        "Two views of one image should be near 1, two random images well below.",
        (("same image", "positive_cosine"), ("random pair", "mean_cosine")),
        (None, 1.0),
    ),
    (
        "Used clusters",
        "share in use",
        "Share of the clusters that hold images.",
        (("used clusters", "used_clusters"),),
        (0.0, 1.0),
    ),
)
"""Charts of what is watched without labels: title, axis, note, (curve, key) pairs, range to include."""


def charts(epochs: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts that lines of `metrics.jsonl` give; a quantity never measured has none."""
    health = [_mapping(line.get("health")) for line in epochs]
    terms = [_mapping(line.get("terms")) for line in epochs]
    shares = [_mapping(line.get("gradient_shares")) for line in health]
    axis = tuple(_epoch(line, i) for i, line in enumerate(epochs))
    names = _keys(terms)
    loss = [
        _series("total", epochs, "loss"),
        *(_series(name, terms, name) for name in names if len(names) > 1),
    ]
    rate = [_series("learning rate", epochs, "lr")]
    pulls = [_series(name, shares, name) for name in _keys(shares)]
    found = [
        _chart("Loss", "loss", "What training minimises; its terms add up to the total.", axis, loss),
        _chart(
            "Learning rate", "rate", "The size of a step, as the schedule sets it.", axis, rate, (0.0, None)
        ),
    ]
    for title, label, note, curves, limits in HEALTH:
        series = [_series(name, health, key) for name, key in curves]
        found.append(_chart(title, label, note, axis, series, limits))
    note = "How much each term of the loss pulls on the encoder, at its last maps."
    found.append(_chart("Gradient shares", "share of gradient", note, axis, pulls, (0.0, 1.0)))
    return [chart for chart in found if chart.series]


def draw(chart: Chart) -> str:
    """The chart as an HTML figure: legend with the last values, SVG, and the numbers for the script.

    The script moves a line along the epochs and puts that epoch's values into the legend.
    """
    numbers = [value for curve in chart.series for value in curve.values if value is not None]
    low = min([*numbers, *([] if chart.low is None else [chart.low])])
    high = max([*numbers, *([] if chart.high is None else [chart.high])])
    marks = ticks(low, high)
    low, high = min(low, marks[0]), max(high, marks[-1])
    x = _scale(chart.epochs[0], chart.epochs[-1], LEFT, WIDTH - RIGHT)
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [_grid(_tick_text(mark, marks), y(mark)) for mark in marks]
    names = dict(zip(chart.epochs, chart.names or map(str, chart.epochs), strict=True))
    marked = chart.epochs if chart.names else _epoch_ticks(chart.epochs)
    parts += [_epoch_tick(names.get(place, str(place)), x(place)) for place in marked]
    for i, curve in enumerate(chart.series):
        parts.append(_line(curve, i, [x(epoch) for epoch in chart.epochs], y))
    last = names[chart.epochs[-1]]
    legend = "".join(_legend(curve, i) for i, curve in enumerate(chart.series))
    data = {
        "epochs": list(chart.names or chart.epochs),
        "x": [round(x(epoch), 1) for epoch in chart.epochs],
        "values": [[format_value(value) for value in curve.values] for curve in chart.series],
    }
    summary = ", ".join(f"{curve.name} {format_value(curve.values[-1])}" for curve in chart.series)
    spoken = f"{chart.title} by {chart.axis}; at {chart.axis} {last}: {summary}"
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return (
        f'<figure class="chart" data-chart="{escape(json.dumps(data, allow_nan=False))}">'
        f"<figcaption><h3>{escape(chart.title)}</h3><p>{escape(chart.note)}</p></figcaption>"
        f'<p class="legend">{legend}<span class="at">{chart.axis} <b>{last}</b></span></p>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{escape(spoken)}">'
        f"{''.join(parts)}"
        f'<line class="cursor" x1="0" x2="0" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 3}" text-anchor="middle">'
        f"{escape(chart.axis)}</text>"
        f'<text class="axis" transform="translate(9 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(chart.label)}</text></svg></figure>"
    )


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round marks (1, 2, 2.5 or 5 times a power of ten) that enclose [low, high], about `count` steps.

    >>> ticks(0.1, 0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.95)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(i * step, digits) + 0.0 for i in range(first, last + 1)]


def format_value(value: float | None) -> str:
    """Three significant digits, a true minus sign, a dash for nothing.

    >>> format_value(0.00123), format_value(12345.6), format_value(None)
    ('0.00123', '12,346', '–')
    """
    if value is None:
        return "–"
    size = abs(value)
    if size >= 1000:
        text = f"{value:,.0f}"
    elif size == 0 or size >= 0.001:
        text = f"{value:.3g}" if size < 100 else f"{value:.1f}"
    else:
        mantissa, exponent = f"{value:.1e}".split("e")
        text = f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return text.replace("-", "\u2212")


def _chart(
    title: str,
    label: str,
    note: str,
    epochs: tuple[int, ...],
    series: Sequence[Series | None],
    limits: tuple[float | None, float | None] = (None, None),
) -> Chart:
    kept = tuple(curve for curve in series if curve is not None)
    return Chart(title, label, note, epochs, kept, *limits)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _keys(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for line in lines for key in line))


def _series(name: str, lines: Sequence[Mapping[str, Any]], key: str) -> Series | None:
    values = tuple(number(line.get(key)) for line in lines)
    return None if all(value is None for value in values) else Series(printable(name), values)


def _epoch(line: Mapping[str, Any], i: int) -> int:
    value = number(line.get("epoch"))
    return i + 1 if value is None else int(value)


def _scale(low: float, high: float, start: float, end: float) -> Any:
    span = high - low
    if span == 0:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / span * (end - start)


def _epoch_ticks(epochs: Sequence[int]) -> list[int]:
    first, last = epochs[0], epochs[-1]
    if last - first <= 6:
        return sorted(set(epochs))
    step = max(1, round(ticks(0, last - first, 5)[1]))
    inner = [mark for mark in range(step, last, step) if mark > first + step / 2 and mark <= last - step / 2]
    return [first, *inner, last]


def _grid(text: str, y: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'
    )


def _tick_text(mark: float, marks: Sequence[float]) -> str:
    """One notation for all marks of an axis: `1e−3` beside `5e−4`, not `0.001`."""
    if mark == 0 or max(abs(marks[0]), abs(marks[-1])) >= 0.01:
        return format_value(mark)
    mantissa, exponent = f"{mark:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "\u2212")


def _epoch_tick(name: str, x: float) -> str:
    y = HEIGHT - BOTTOM + 15
    return f'<text class="tick" x="{x:.1f}" y="{y}" text-anchor="middle">{escape(name)}</text>'


def _line(curve: Series, i: int, xs: Sequence[float], y: Any) -> str:
    path, pen = [], "M"
    for x, value in zip(xs, curve.values, strict=True):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{x:.1f} {y(value):.1f}")
        pen = "L"
    known = [(x, value) for x, value in zip(xs, curve.values, strict=True) if value is not None]
    x, value = known[-1]
    title = f"<title>{escape(curve.name)}</title>"
    return (
        f'<path class="line c{i % 8}" d="{"".join(path)}">{title}</path>'
        f'<circle class="dot c{i % 8}" cx="{x:.1f}" cy="{y(value):.1f}" r="3"/>'
    )


def _legend(curve: Series, i: int) -> str:
    return (
        f'<span class="key"><i class="c{i % 8}"></i>{escape(curve.name)} '
        f"<b>{format_value(curve.values[-1])}</b></span>"
    )
