"""Metrics as `evaluate` leaves them in `collection.json`: read into one plain shape, then a table."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semblance.report.data import ReportData, number
from semblance.report.wording import esc, table_html

__all__ = ["Score", "Scores", "meaning", "metrics", "read_scores"]

MEANINGS = {
    "recall": "One of the {k} nearest is of the same class.",
    "map@r": "Share of the R nearest that are of the same class, early ranks weighing more.",
    "r_precision": "Share of the R nearest of the same class; R is the size of the class.",
    "nmi": "Agreement of k-means groups with the classes; flattered by many groups.",
    "ami": "The same, corrected for chance: 0 is chance, 1 is perfect.",
    "knn": "The {k} nearest vote for the right class.",
}


@dataclass(frozen=True)
class Score:
    """One number: its 95 % interval, its difference to the reference and whether that is significant,
    each None where not known."""

    value: float
    low: float | None = None
    high: float | None = None
    gap: float | None = None
    significant: bool | None = None


@dataclass(frozen=True)
class Scores:
    """The table: `rows[name][metric]`, in the order they were given; `reference` names a row or is ""."""

    rows: Mapping[str, Mapping[str, Score]]
    metrics: tuple[str, ...]
    reference: str = ""


def read_scores(evaluation: Mapping[str, Any] | None) -> Scores | None:
    """The table of an evaluation, or None where there is none.

    A value is a number, its interval in `evaluation["intervals"][row][metric]`; or, over several seeds,
    a mapping with `mean`, `low` and `high`. `evaluation["differences"][row][metric]` says with
    `significant` whether it differs from the row `reference`.
    """
    rows = (evaluation or {}).get("rows")
    if evaluation is None or not isinstance(rows, Mapping):
        return None
    found: dict[str, dict[str, Score]] = {}
    for name, values in rows.items():
        intervals, gaps = (
            _part(_part(evaluation.get(key)).get(name)) for key in ("intervals", "differences")
        )
        scores = {
            str(metric): score
            for metric, value in _part(values).items()
            if (score := _score(value, intervals.get(metric), gaps.get(metric)))
        }
        if scores:
            found[str(name)] = scores
    metrics = tuple(dict.fromkeys(metric for scores in found.values() for metric in scores))
    if not metrics:
        return None
    reference = str(evaluation.get("reference") or "")
    return Scores(found, metrics, reference if reference in found else "")


def meaning(metric: str) -> str:
    """One line on what a metric says, or "" for one not known here.

    >>> meaning("recall@4")
    'One of the 4 nearest is of the same class.'
    """
    plain = metric.lower().replace("-", "_").replace(" ", "_")
    if plain in ("mapr", "map_r"):
        plain = "map@r"
    if plain in MEANINGS and plain not in ("recall", "knn"):
        return MEANINGS[plain]
    if plain in ("r@1", "recall@1"):
        return "The nearest image is of the same class."
    for stem in ("recall", "r", "knn"):
        k = plain.removeprefix(stem).strip("@_")
        if plain.startswith(stem) and k.isdigit():
            return MEANINGS["knn" if stem == "knn" else "recall"].format(k=k)
    return ""


def metrics(data: ReportData, scores: Scores | None) -> str:
    """The table of metrics with intervals; without labels, what can be said instead."""
    if scores is None:
        name = shlex.quote(data.folder)
        return (
            '<div class="note"><p>It was not scored against labels, so this report cannot say whether the '
            "embedding is better than another. It shows neighbours; judge them by eye.</p>"
            "<p>With a label for each image it is measured against raw pixels and the encoder before "
            f"training:</p><pre><code>semblance evaluate {esc(name)} --labels labels.csv</code></pre></div>"
        )
    head = "".join(
        f'<th scope=col role="columnheader">{esc(name)}'
        f"{'<small>reference</small>' if name == scores.reference else ''}</th>"
        for name in scores.rows
    )
    lines = []
    for metric in scores.metrics:
        row = [scores.rows[name].get(metric) for name in scores.rows]
        best = max(score.value for score in row if score)
        cells = "".join(_score_cell(score, best) for score in row)
        words = meaning(metric)
        under = f"<small>{esc(words)}</small>" if words else ""
        title = esc(_metric_title(metric))
        lines.append(f'<tr role="row"><th scope=row role="rowheader">{title}{under}</th>{cells}</tr>')
    corner = '<th scope=col role="columnheader"></th>'
    table = table_html(
        f'<tr role="row">{corner}{head}</tr>', "".join(lines), "Metrics by embedding", "scores"
    )
    return f'<div style="--n:{len(scores.rows)}">{table}</div><p class="fine">{_key(scores)}</p>'


def _part(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _score(value: Any, interval: Any, difference: Any) -> Score | None:
    mean, low, high = value, None, None
    if isinstance(value, Mapping):
        mean, low, high = (number(value.get(key)) for key in ("mean", "low", "high"))
    elif isinstance(interval, Sequence) and len(interval) == 2:
        low, high = number(interval[0]), number(interval[1])
    middle = number(mean)
    if middle is None:
        return None
    gap = _part(difference)
    told = gap.get("significant")
    return Score(middle, low, high, number(gap.get("mean")), told if isinstance(told, bool) else None)


def _metric_title(metric: str) -> str:
    known = {"map@r": "MAP@R", "nmi": "NMI", "ami": "AMI", "r_precision": "R-precision"}
    plain = metric.lower().replace("-", "_")
    if plain in known:
        return known[plain]
    if plain.startswith("recall@"):
        return f"R@{plain[7:]}"
    return f"kNN {plain.removeprefix('knn').strip('@_')}" if plain.startswith("knn") else metric


def _score_cell(score: Score | None, best: float) -> str:
    if score is None:
        return '<td role="cell">–</td>'
    value = f"{score.value:.3f}"
    shown = f"<b>{value}</b>" if score.value == best else value
    between = ""
    if score.low is not None and score.high is not None:
        between = f"<small>{score.low:.3f}–{score.high:.3f}</small>"
    mark = ""
    if score.significant is not None:
        sign = (
            ""
            if score.gap is None
            else "equal, "
            if score.gap == 0
            else f"{score.gap:+.3f} ".replace("-", "\u2212")
        )
        words = "significant" if score.significant else "not significant"
        mark = f'<small class="{"yes" if score.significant else "no"}">{sign}{words}</small>'
    return f'<td role="cell">{shown}{between}{mark}</td>'


def _key(scores: Scores) -> str:
    cells = [score for row in scores.rows.values() for score in row.values()]
    parts = ["Best of each row in bold."]
    if any(score.low is not None for score in cells):
        parts.append("Small figures: 95 % interval.")
    if any(score.significant is not None for score in cells):
        against = esc(scores.reference or "the reference")
        parts.append(
            f"Below it the difference to {against}: significant where its own 95 % interval, over the same "
            "images, leaves out zero."
        )
    return " ".join(parts)
