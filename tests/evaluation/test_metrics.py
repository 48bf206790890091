"""Metrics against loops written from their definitions, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import KNeighborsClassifier

from semblance.errors import ConfigError, InputError
from semblance.evaluation.metrics import (
    hits,
    map_at_r,
    neighbours,
    r_precision,
    recall_at,
    score,
    unit,
    weighted_knn,
)


def ranked(x: np.ndarray, query: int) -> list[int]:
    """Rows by (distance, row), the query itself left out by its number."""
    pairs = []
    for row in range(len(x)):
        if row != query:
            total = 0.0
            for a, b in zip(x[query].tolist(), x[row].tolist(), strict=True):
                total += (a - b) * (a - b)
            pairs.append((float(np.float32(math.sqrt(total))), row))
    return [row for _, row in sorted(pairs)]


def slow_scores(x: np.ndarray, labels: list, ks=(1, 2, 4, 8), knn=(20, 200), temperature=0.1) -> dict:
    """Every per-image score, one definition at a time; images alone in their class are no queries."""
    out: dict[str, dict[int, float]] = {}
    for query in range(len(x)):
        others = sum(1 for row in range(len(x)) if row != query and labels[row] == labels[query])
        if others == 0:
            continue
        order = ranked(x, query)
        for k in ks:
            found = any(labels[row] == labels[query] for row in order[:k])
            out.setdefault(f"recall@{k}", {})[query] = float(found)
        total, correct = 0.0, 0
        for i in range(1, others + 1):
            if labels[order[i - 1]] == labels[query]:
                correct += 1
                total += correct / i
        out.setdefault("map@r", {})[query] = total / others
        out.setdefault("r-precision", {})[query] = correct / others
        for k in knn:
            votes: dict = {}
            for row in order[:k]:
                cosine = sum(a * b for a, b in zip(x[query].tolist(), x[row].tolist(), strict=True))
                votes[labels[row]] = votes.get(labels[row], 0.0) + math.exp(cosine / temperature)
            best = max(votes.values())
            winner = min(label for label, vote in votes.items() if vote > best * (1 - 1e-12))
            out.setdefault(f"knn@{k}", {})[query] = float(winner == labels[query])
    return out


def hard_set(seed: int) -> tuple[np.ndarray, list[str]]:
    """Clusters that overlap, with duplicates inside and across classes, ties, and classes of one image."""
    r = np.random.default_rng(seed)
    labels = [f"c{number}" for number in r.integers(0, 7, 70)]
    centres = {label: r.integers(-2, 3, 4) for label in sorted(set(labels))}
    x = np.array([centres[label] + r.integers(-1, 2, 4) for label in labels], dtype=np.float32)
    x[10:15] = x[20:25]
    x[(x == 0).all(axis=1)] = 1
    return x, [*labels, "alone", "single"] if seed % 2 else labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block_bytes", [1, 2**28])
def test_every_score_equals_its_loop(seed: int, block_bytes: int) -> None:
    x, labels = hard_set(seed)
    x = np.concatenate([x, x[: len(labels) - len(x)]])
    scores = score(x, labels, balanced=True, clusters=False, block_bytes=block_bytes)
    slow = slow_scores(unit(x), labels)
    assert set(scores.per_query) == set(slow)
    assert scores.left_out == 2 * (seed % 2)
    for name, by_query in slow.items():
        assert scores.queries.tolist() == list(by_query)
        np.testing.assert_allclose(scores.per_query[name], list(by_query.values()), atol=1e-6, err_msg=name)
        assert scores.summary[name] == pytest.approx(np.mean(list(by_query.values())), abs=1e-6)
        means = []
        for label in sorted({labels[query] for query in by_query}):
            means.append(np.mean([value for query, value in by_query.items() if labels[query] == label]))
        assert scores.summary[f"{name}_balanced"] == pytest.approx(np.mean(means), abs=1e-6)


def test_names_of_the_summary() -> None:
    x, labels = hard_set(0)
    names = ["recall@1", "recall@2", "recall@4", "recall@8", "map@r", "r-precision", "knn@20", "knn@200"]
    assert list(score(x, labels, restarts=1).summary) == [*names, "nmi", "ami"]


def test_map_at_r_by_hand() -> None:
    # R = 3, correct at ranks 1, 3 and 4: (1/1 + 2/3) / 3; the fourth lies beyond R.
    found = np.array([[True, False, True, True, False], [False, False, True, True, True]])
    relevant = np.array([3, 3])
    np.testing.assert_allclose(map_at_r(found, relevant), [(1 + 2 / 3) / 3, (1 / 3) / 3], rtol=1e-6)
    np.testing.assert_allclose(r_precision(found, relevant), [2 / 3, 1 / 3], rtol=1e-6)
    assert recall_at(found, 2).tolist() == [1, 0]
    assert recall_at(found, 99).tolist() == [1, 1]


def test_no_neighbour_is_no_hit() -> None:
    labels = np.array(["a", "b"])
    assert hits(np.array([[1, -1]]), labels, np.array(["b"])).tolist() == [[True, False]]


@settings(max_examples=60, deadline=None)
@given(
    x=arrays(
        np.float32, st.tuples(st.integers(1, 25), st.integers(1, 3)), elements=st.floats(-3, 3, width=16)
    ),
    k=st.integers(1, 30),
)
def test_neighbours_are_the_sorted_others(x: np.ndarray, k: int) -> None:
    found = neighbours(x, k)
    for query in range(len(x)):
        order = ranked(x, query)[:k]
        assert found.ids[query].tolist() == order + [-1] * (k - len(order))
        assert np.isfinite(found.distances[query]).sum() == len(order)


def test_neighbours_of_some_rows_and_with_self() -> None:
    x = np.array([[0.0], [1.0], [3.0], [1.0]])
    assert neighbours(x, 2, queries=[3, 0]).ids.tolist() == [[1, 0], [1, 3]]
    assert neighbours(x, 2, queries=[3], exclude_self=False).ids.tolist() == [[1, 3]]
    with pytest.raises(InputError, match="row numbers"):
        neighbours(x, 1, queries=[4])


def test_duplicates_of_one_class_are_found_and_of_another_come_by_row() -> None:
    x = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    scores = score(x, [0, 1, 1, 0, 1], knn=(), clusters=False)
    # Row 1 ties rows 0 (other class) and 2: row 0 comes first. Row 2 ties 0 and 1 likewise;
    # after row 3, row 4 ties rows 0, 1 and 2, and row 0 is of the other class again.
    assert scores.per_query["recall@1"].tolist() == [0, 0, 0, 0, 0]
    assert scores.per_query["recall@2"].tolist() == [0, 1, 1, 1, 0]


def test_order_of_the_rows_does_not_matter() -> None:
    r = np.random.default_rng(5)
    labels = r.integers(0, 6, 150)
    x = r.standard_normal((6, 12))[labels] + r.standard_normal((150, 12))
    order = r.permutation(150)
    first, second = score(x, labels, balanced=True), score(x[order], labels[order], balanced=True)
    assert first.summary == pytest.approx(second.summary, abs=1e-9)
    assert first.per_query["map@r"][order] == pytest.approx(second.per_query["map@r"])


def test_scale_does_not_matter_and_the_input_is_not_touched() -> None:
    r = np.random.default_rng(6)
    x = r.standard_normal((60, 5)).astype(np.float32)
    before, labels = x.copy(), np.arange(60) % 4
    scaled = x * np.float32(2) ** r.integers(-60, 60, (60, 1)).astype(np.float32)
    assert score(x, labels).summary == score(scaled, labels).summary
    assert np.array_equal(x, before)
    np.testing.assert_allclose(np.linalg.norm(unit(scaled), axis=1), 1, rtol=1e-6)
    assert unit(np.zeros((2, 3))).tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("k", [1, 5, 20, 200])
def test_weighted_knn_equals_scikit_learn(k: int) -> None:
    r = np.random.default_rng(k)
    bank_labels, labels = r.integers(0, 5, 250), r.integers(0, 6, 80)
    centres = r.standard_normal((6, 10))
    bank, queries = (unit(centres[y] + 1.5 * r.standard_normal((len(y), 10))) for y in (bank_labels, labels))
    model = KNeighborsClassifier(k, weights=lambda d: np.exp((1 - d**2 / 2) / 0.1), algorithm="brute")
    expected = model.fit(bank.astype(float), bank_labels).predict(queries.astype(float)) == labels
    scores = weighted_knn(bank, bank_labels, queries, labels, k=k, balanced=True)
    assert scores.per_query[f"knn@{k}"].tolist() == expected.tolist()
    assert scores.summary[f"knn@{k}"] == expected.mean()
    by_class = np.mean([expected[labels == label].mean() for label in np.unique(labels)])
    assert scores.summary[f"knn@{k}_balanced"] == pytest.approx(by_class)


def test_leave_one_out_knn_equals_scikit_learn_one_at_a_time() -> None:
    r = np.random.default_rng(9)
    labels = r.integers(0, 4, 60)
    x = unit(r.standard_normal((4, 6))[labels] + r.standard_normal((60, 6)))
    right = []
    for i in range(60):
        rest = np.delete(np.arange(60), i)
        model = KNeighborsClassifier(20, weights=lambda d: np.exp((1 - d**2 / 2) / 0.1), algorithm="brute")
        right.append(model.fit(x[rest].astype(float), labels[rest]).predict(x[i : i + 1].astype(float))[0])
    scores = weighted_knn(x, labels, k=20)
    assert scores.per_query["knn@20"].tolist() == (np.array(right) == labels).tolist()


def test_a_zero_vector_votes_with_cosine_zero() -> None:
    # The query's neighbours are the zero row (cosine 0) and its opposite (cosine -1).
    scores = weighted_knn([[0.0, 0.0], [-1.0, 0.0]], ["zero", "far"], [[1.0, 0.0]], ["zero"], k=2)
    assert scores.summary["knn@2"] == 1


def test_labels_must_fit() -> None:
    x = np.eye(3)
    with pytest.raises(InputError, match="no class has two"):
        score(x, [0, 1, 2])
    with pytest.raises(InputError, match="shape"):
        score(x, [0, 1])
    with pytest.raises(InputError, match="float"):
        score(x, [0, 0, np.nan])
    with pytest.raises(InputError, match="NoneType, str"):
        score(x, np.array(["a", "a", None], dtype=object))
    with pytest.raises(InputError, match="nothing to score"):
        score(np.empty((0, 3)), [])
    with pytest.raises(ConfigError, match="temperature"):
        weighted_knn(x, [0, 0, 1], temperature=0)
    with pytest.raises(ConfigError, match="query_labels"):
        weighted_knn(x, [0, 0, 1], x)
    with pytest.raises(InputError, match="2 dimensions"):
        weighted_knn(x, [0, 0, 1], np.eye(2), [0, 1])
