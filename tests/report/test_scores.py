"""The table of metrics: what `evaluate` writes is read, and said in words."""

from __future__ import annotations

from typing import Any

import pytest

from semblance.report.data import from_collection
from semblance.report.scores import Score, meaning, metrics, read_scores


def test_values_intervals_and_differences_meet(evaluation: dict[str, Any]) -> None:
    scores = read_scores(evaluation)
    assert scores is not None
    assert scores.metrics == ("recall@1", "r-precision", "nmi")
    assert scores.reference == "untrained encoder"
    assert scores.rows["learned"]["recall@1"] == Score(0.7, 0.65, 0.75, 0.3, True)
    assert scores.rows["untrained encoder"]["recall@1"] == Score(0.4)
    assert scores.rows["raw pixels"]["nmi"] == Score(0.2)


def test_several_seeds_are_read_too() -> None:
    value = {"mean": 0.5, "low": 0.4, "high": 0.6, "text": "0.5"}
    scores = read_scores({"rows": {"learned": {"nmi": value}}, "seeds": [0, 1]})
    assert scores is not None
    assert scores.rows["learned"]["nmi"] == Score(0.5, 0.4, 0.6)


@pytest.mark.parametrize(
    "evaluation", [None, {}, {"rows": None}, {"rows": {"a": {}}}, {"rows": {"a": {"nmi": None}}}]
)
def test_nothing_is_no_table(evaluation: Any) -> None:
    assert read_scores(evaluation) is None


@pytest.mark.parametrize(
    "metric",
    ["recall@1", "recall@8", "map@r", "r-precision", "r_precision", "nmi", "ami", "knn@20", "knn@200"],
)
def test_every_metric_of_ours_is_explained(metric: str) -> None:
    assert meaning(metric).endswith(".")


def test_an_unknown_metric_is_shown_without_words(collection: Any) -> None:
    scores = read_scores({"rows": {"a": {"<odd>": 1.0}}})
    text = metrics(from_collection(collection), scores)
    assert "&lt;odd&gt;" in text
    assert meaning("<odd>") == ""


def test_the_table_says_what_is_significant(collection: Any, evaluation: dict[str, Any]) -> None:
    text = metrics(from_collection(collection), read_scores(evaluation))
    assert "<b>0.700</b>" in text
    assert "0.650–0.750" in text
    assert "+0.300 significant" in text
    assert "−0.200 significant" in text
    assert "+0.100 not significant" in text
    assert "untrained encoder<small>reference</small>" in text


def test_without_labels_the_page_says_what_it_cannot_say(collection: Any) -> None:
    text = metrics(from_collection(collection), None)
    assert "cannot say whether the embedding is better" in text
    assert "semblance evaluate photos.smb" in text
