"""Splits, the table and its mandatory rows, and the summary over seeds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from semblance.errors import ConfigError, InputError
from semblance.evaluation.metrics import score
from semblance.evaluation.protocol import (
    REQUIRED_ROWS,
    class_split,
    evaluate,
    split_by_column,
    split_hash,
    summarise_seeds,
)
from semblance.evaluation.statistics import class_bootstrap, paired_class_bootstrap, t_interval

LABELS = [f"class {number}" for number in np.random.default_rng(0).integers(0, 20, 300)]


def table(seed: int = 0, n: int = 120, classes: int = 8) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows that separate the classes more and more."""
    r = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = r.standard_normal((classes, 12))[labels]
    noise = {"raw pixels": 4.0, "untrained encoder": 2.0, "frozen start": 1.9, "learned": 0.6}
    return {name: centres + size * r.standard_normal((n, 12)) for name, size in noise.items()}, labels


def test_classes_are_in_one_part_only_and_nothing_is_lost() -> None:
    split = class_split([*LABELS, None, float("nan")], seed=3)
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(300))
    parts = {name: {LABELS[row] for row in rows} for name, rows in split.items()}
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [10, 2, 8]
    assert len(set.union(*parts.values())) == 20


def test_a_split_depends_on_the_seed_and_the_classes_alone() -> None:
    again, other = class_split(LABELS, seed=1), class_split(LABELS, seed=2)
    assert class_split(LABELS, seed=1)["train"].tolist() == again["train"].tolist()
    assert again["train"].tolist() != other["train"].tolist()
    turned = class_split(LABELS[::-1], seed=1)
    assert {LABELS[::-1][row] for row in turned["test"]} == {LABELS[row] for row in again["test"]}


def test_every_part_gets_a_class() -> None:
    split = class_split(["a", "b", "c"], (0.98, 0.01, 0.01))
    assert [len(rows) for rows in split.values()] == [1, 1, 1]
    with pytest.raises(InputError, match="2 classes"):
        class_split(["a", "b", "b"])
    for fractions in ((0.5, 0.5), (0.5, 0.1, 0.1), (0.5, 0.5, 0.0)):
        with pytest.raises(ConfigError, match="fractions"):
            class_split(LABELS, fractions)


def test_split_by_a_column() -> None:
    column, labels = ["seen", "unseen", None, "seen"], ["a", "b", "a", "c"]
    split = split_by_column(column, labels)
    assert {name: rows.tolist() for name, rows in split.items()} == {"seen": [0, 3], "unseen": [1]}
    with pytest.raises(InputError, match='"a" is in "seen" and "unseen"'):
        split_by_column(column, ["a", "a", "a", "c"])
    with pytest.raises(InputError, match="came with"):
        split_by_column(column, ["a"])


def test_the_hash_sees_every_move_and_no_reordering() -> None:
    paths = list("abcd")
    first = split_hash({"x": [0, 1], "y": [2, 3]}, paths)
    assert len(first) == 32
    assert first == split_hash({"y": [3, 2], "x": [1, 0]}, paths)
    assert first == split_hash({"x": [3, 2], "y": [1, 0]}, paths[::-1])
    moved = [{"x": [0, 2], "y": [1, 3]}, {"x": [0], "y": [1, 2, 3]}, {"x": [0, 1, 2, 3]}]
    assert len({first, *(split_hash(split, paths) for split in moved)}) == 4


@pytest.fixture(scope="module")
def result() -> dict:
    rows, labels = table()
    return evaluate(rows, [*labels[:-1].tolist(), None], samples=500, balanced=True)


def test_the_table_is_json_and_says_what_was_scored(result: dict) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["rows"]) == ["raw pixels", "untrained encoder", "frozen start", "learned"]
    assert (result["images"], result["classes"], result["seed"]) == (119, 8, 0)
    assert result["left_out"] == {"without label": 1, "alone in class": 0}
    assert result["versions"]["numpy"] == np.__version__


def test_the_numbers_are_those_of_the_metrics(result: dict) -> None:
    rows, labels = table()
    learned, start = (score(rows[name][:-1], labels[:-1]) for name in ("learned", "untrained encoder"))
    for metric, value in learned.summary.items():
        assert result["rows"]["learned"][metric] == pytest.approx(value)
    for metric in ("recall@1", "map@r"):
        a, b = learned.per_query[metric], start.per_query[metric]
        interval = class_bootstrap(a, labels[:-1], samples=500)
        assert result["intervals"]["learned"][metric] == pytest.approx([interval.low, interval.high])
        gap = paired_class_bootstrap(a, b, labels[:-1], samples=500)
        got = result["differences"]["learned"][metric]
        assert [got["mean"], got["low"], got["high"]] == pytest.approx(list(gap[:3]), abs=1e-7)
        assert got["text"] == gap.text
        gap = paired_class_bootstrap(a, b, labels[:-1], samples=500, balanced=True)
        assert result["differences"]["learned"][f"{metric}_balanced"]["low"] == pytest.approx(gap.low)
    assert result["differences"]["learned"]["map@r"]["significant"]
    assert result["intervals"]["learned"]["nmi"] is None
    assert "untrained encoder" not in result["differences"]
    assert "nmi" not in result["differences"]["learned"]


@pytest.mark.parametrize("name", REQUIRED_ROWS)
def test_a_table_without_a_mandatory_row_is_refused(name: str) -> None:
    rows, labels = table()
    del rows[name]
    with pytest.raises(ConfigError, match=f'lacks the row "{name}"'):
        evaluate(rows, labels)


def test_other_references_and_rows() -> None:
    rows, labels = table()
    with pytest.raises(ConfigError, match='"sme"'):
        evaluate(rows, labels, reference="sme")
    short = evaluate({"a": rows["learned"]}, labels, "a", required=(), clusters=False, samples=10)
    assert short["differences"] == {}
    assert "nmi" not in short["rows"]["a"]


def test_one_class_has_no_interval() -> None:
    rows, _ = table()
    got = evaluate(rows, ["only"] * 120, clusters=False)
    assert got["intervals"]["learned"]["recall@1"] is None
    assert got["differences"]["learned"]["recall@1"]["text"].endswith("(no interval: fewer than 2 classes)")


def test_the_same_array_is_scored_once() -> None:
    rows, labels = table()
    rows["frozen start"] = rows["untrained encoder"]
    got = evaluate(rows, labels, samples=10)
    assert got["rows"]["frozen start"] == got["rows"]["untrained encoder"]
    gap = got["differences"]["frozen start"]["map@r"]
    assert (gap["mean"], gap["low"], gap["high"], gap["significant"]) == (0, 0, 0, False)


def test_rows_and_labels_must_fit() -> None:
    rows, labels = table()
    with pytest.raises(InputError, match='"raw pixels" has 120 embeddings for 119'):
        evaluate(rows, labels[:-1])
    with pytest.raises(InputError, match="no image has a label"):
        evaluate(rows, [None] * 120)


def test_the_same_seed_gives_the_same_table() -> None:
    rows, labels = table()
    assert evaluate(rows, labels, samples=50) == evaluate(rows, labels, samples=50)


def test_seeds_are_summed_up_with_t_intervals() -> None:
    results = []
    for seed in range(3):
        rows, labels = table(seed)
        results.append(evaluate(rows, labels, seed=seed, samples=10))
    summary = summarise_seeds(results)
    values = [result["rows"]["learned"]["map@r"] for result in results]
    base = [result["rows"]["untrained encoder"]["map@r"] for result in results]
    got = summary["rows"]["learned"]["map@r"]
    assert (got["mean"], got["low"], got["high"]) == pytest.approx(t_interval(values))
    gap = summary["differences"]["learned"]["map@r"]
    paired = t_interval([a - b for a, b in zip(values, base, strict=True)])
    assert (gap["mean"], gap["low"], gap["high"]) == pytest.approx(paired)
    assert gap["significant"] == (paired.low > 0)
    assert summary["seeds"] == [0, 1, 2]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    one = summarise_seeds(results[:1])
    assert one["rows"]["learned"]["nmi"]["low"] is None
    assert one["differences"]["learned"]["nmi"]["text"].endswith("(no interval: fewer than 2 seeds)")
    with pytest.raises(ConfigError, match="twice"):
        summarise_seeds([results[0], results[0]])
    with pytest.raises(ConfigError, match='differ in "images"'):
        summarise_seeds([results[0], {**results[1], "images": 3}])
    with pytest.raises(ConfigError, match="different rows"):
        summarise_seeds([results[0], {**results[1], "rows": {"raw pixels": {}}}])
    with pytest.raises(ConfigError, match="no result"):
        summarise_seeds([])
