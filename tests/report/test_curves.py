"""Curves: marks that enclose the values, points where the numbers are, gaps where there are none."""

from __future__ import annotations

import html
import itertools
import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semblance.report.curves import BOTTOM, HEIGHT, TOP, Chart, Series, charts, draw, format_value, ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_the_range_in_even_round_steps(low: float, span: float) -> None:
    high = low + span
    marks = ticks(low, high)
    step = marks[1] - marks[0]
    slack = 1e-6 * max(step, abs(low))
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 2 <= len(marks) <= 8
    assert all(b - a == pytest.approx(step, rel=1e-3) for a, b in itertools.pairwise(marks))


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0, 1e-9, 1e9])
def test_ticks_of_a_single_value_are_around_it(value: float) -> None:
    marks = ticks(value, value)
    assert marks[0] <= value <= marks[-1]
    assert len(marks) >= 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.5, "0.5"),
        (-1.25, "−1.25"),
        (3e-5, "3e−5"),
        (2.34e-4, "2.3e−4"),
        (123.4, "123.4"),
        (5e4, "50,000"),
    ],
)
def test_values_are_short(value: float, text: str) -> None:
    assert format_value(value) == text


def points(svg: str, curve: int) -> list[tuple[float, float]]:
    path = re.search(rf'<path class="line c{curve}" d="([^"]*)"', svg)
    assert path
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path[1])]


def test_points_are_at_their_values() -> None:
    svg = draw(Chart("Loss", "loss", "", (1, 2, 3), (Series("a", (0.0, 1.0, 0.5)),)))
    (x1, y1), (x2, y2), (x3, y3) = points(svg, 0)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 == pytest.approx(HEIGHT - BOTTOM)
    assert y2 == pytest.approx(TOP)
    assert y3 == pytest.approx((y1 + y2) / 2, abs=0.2)


def test_gaps_break_the_line_and_one_epoch_is_a_dot() -> None:
    svg = draw(Chart("Loss", "loss", "", (1, 2, 3), (Series("a", (1.0, None, 2.0)),)))
    assert re.search(r'd="M[\d.]+ [\d.]+M[\d.]+ [\d.]+"', svg)
    alone = draw(Chart("Loss", "loss", "", (1,), (Series("a", (1.0,)),)))
    assert alone.count("<circle") == 1
    assert "nan" not in alone


def test_numbers_for_the_script_are_those_of_the_curves() -> None:
    svg = draw(Chart("Loss", "loss", "", (1, 4), (Series("a", (1.0, 2.0)), Series("b", (None, 3e-5)))))
    found = re.search(r'data-chart="([^"]*)"', svg)
    assert found
    data = json.loads(html.unescape(found[1]))
    assert data["epochs"] == [1, 4]
    assert data["values"] == [["1", "2"], ["–", "3e−5"]]
    assert len(data["x"]) == 2


def test_axes_are_named() -> None:
    svg = draw(Chart("Loss", "the loss", "", (1, 2), (Series("a", (1.0, 2.0)),)))
    assert ">epoch</text>" in svg
    assert ">the loss</text>" in svg


def line(**values: Any) -> dict[str, Any]:
    return {"epoch": 1, "loss": 1.0, "lr": 0.1, **values}


def test_only_what_was_measured_is_drawn() -> None:
    assert [chart.title for chart in charts([line()])] == ["Loss", "Learning rate"]
    health = {"effective_rank": 3.0, "used_clusters": 0.5, "gradient_shares": {"a": 1.0}}
    titles = [chart.title for chart in charts([line(health=health)])]
    assert titles == ["Loss", "Learning rate", "Effective rank", "Used clusters", "Gradient shares"]
    assert charts([]) == []


def test_a_value_that_is_no_number_is_a_gap() -> None:
    found = charts([line(), line(loss=math.nan), line(loss=None)])[0]
    assert found.series[0].values == (1.0, None, None)


def test_terms_stand_beside_the_total_where_there_are_several() -> None:
    assert [s.name for s in charts([line(terms={"only": 1.0})])[0].series] == ["total"]
    assert [s.name for s in charts([line(terms={"a": 1.0, "b": 2.0})])[0].series] == ["total", "a", "b"]


def test_names_of_terms_are_escaped() -> None:
    svg = "".join(draw(chart) for chart in charts([line(terms={"<b>": 1.0, "b": 1.0})]))
    assert svg.count("&lt;b&gt;") >= 3
    assert "<b> " not in svg
