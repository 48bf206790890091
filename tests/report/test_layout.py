"""Neighbours against brute force, samples and maps against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance.report import layout
from semblance.report.layout import evenly, layouts, nearest, principal, spread


def unit(n: int, d: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def brute(x: np.ndarray, queries: np.ndarray, k: int) -> tuple[list[list[int]], list[list[float]]]:
    """Distances one by one, sorted by (distance, row)."""
    ids, distances = [], []
    for q in queries:
        found = sorted((float(np.sqrt(((x[i] - x[q]) ** 2).sum())), i) for i in range(len(x)) if i != q)[:k]
        ids.append([i for _, i in found])
        distances.append([d for d, _ in found])
    return ids, distances


@pytest.mark.parametrize("block", [1, 7, 4096])
@pytest.mark.parametrize("k", [1, 8, 50])
def test_neighbours_equal_brute_force(monkeypatch: pytest.MonkeyPatch, block: int, k: int) -> None:
    monkeypatch.setattr(layout, "BLOCK", block)
    x = unit(40, 6)
    x[10:14] = x[3]
    queries = np.array([3, 0, 39, 12])
    ids, distances = nearest(x, queries, k)
    wanted, apart = brute(x, queries, k)
    assert ids.tolist() == wanted
    np.testing.assert_allclose(distances, apart, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_images_have_few_neighbours(n: int) -> None:
    ids, distances = nearest(unit(n, 4), np.arange(n), 8)
    assert ids.shape == distances.shape == (n, n - 1)


@given(st.integers(0, 300), st.integers(1, 50))
def test_an_even_sample_covers_all(n: int, count: int) -> None:
    rows = evenly(n, count)
    assert len(rows) == min(n, count)
    assert len(set(rows.tolist())) == len(rows)
    if n > count:
        assert np.diff(rows).max(initial=0) - np.diff(rows).min(initial=n) <= 1


def test_spread_takes_the_farthest_each_time() -> None:
    x = unit(50, 5)
    taken = spread(x, 6).tolist()
    assert taken[0] == int(((x - x.mean(0)) ** 2).sum(1).argmin())
    for i in range(1, 6):
        least = [min(((x[j] - x[t]) ** 2).sum() for t in taken[:i]) for j in range(50)]
        assert taken[i] == int(np.argmax(least))


def test_spread_stops_where_all_are_alike() -> None:
    assert spread(np.repeat(unit(1, 4), 9, axis=0), 5).tolist() == [0]
    assert len(spread(np.repeat(unit(2, 4), 9, axis=0), 5)) == 2
    assert spread(np.zeros((0, 4), np.float32), 5).tolist() == []


def test_a_large_set_is_sampled_first() -> None:
    rows = spread(unit(100, 3), 4, pool=10)
    assert set(rows.tolist()) <= set(range(0, 100, 10))


def test_principal_axes_equal_a_singular_value_decomposition() -> None:
    x = unit(70, 6) * np.array([3, 2, 1, 1, 0.5, 0.1], np.float32)
    mean, axes, shares = principal(x)
    _, s, v = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(mean, x.mean(0), atol=1e-6)
    np.testing.assert_allclose(np.abs(axes @ v[:2].T), np.eye(2), atol=1e-4)
    np.testing.assert_allclose(shares, (s**2 / (s**2).sum())[:2], atol=1e-5)
    assert (axes[np.arange(2), np.abs(axes).argmax(1)] > 0).all()


def cases() -> dict[str, np.ndarray]:
    x = unit(30, 5)
    broken = x.copy()
    broken[3] = np.nan
    broken[4, 1] = np.inf
    return {
        "one": unit(1, 4),
        "two": unit(2, 4),
        "alike": np.repeat(unit(1, 4), 20, axis=0),
        "one dimension": np.linspace(-1, 1, 12, dtype=np.float32)[:, None],
        "broken": broken,
        "usual": x,
    }


@pytest.mark.parametrize("case", cases())
def test_coordinates_are_finite_and_inside(case: str) -> None:
    x = cases()[case]
    found = layouts(x, np.arange(len(x)))
    assert found[-1].name == "PCA"
    for one in found:
        assert one.points.shape == (len(x), 2)
        assert np.isfinite(one.points).all()
        assert one.points.min() >= 0
        assert one.points.max() <= 1


def test_tsne_comes_first_keeps_neighbours_and_is_the_same_twice() -> None:
    pytest.importorskip("openTSNE")
    group = np.arange(60) % 3
    x = (np.eye(8)[group] + np.random.default_rng(0).normal(0, 0.05, (60, 8))).astype(np.float32)
    first, again = layouts(x, np.arange(60)), layouts(x, np.arange(60))
    assert [one.name for one in first] == ["t-SNE", "PCA"]
    np.testing.assert_array_equal(first[0].points, again[0].points)
    ids, _ = nearest(first[0].points, np.arange(60), 5)
    assert (group[ids] == group[:, None]).mean() > 0.9


@pytest.mark.usefixtures("without_tsne")
def test_without_the_extra_there_is_pca() -> None:
    assert [one.name for one in layouts(unit(30, 5), np.arange(30))] == ["PCA"]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 25), st.integers(1, 10), st.integers(0, 5))
def test_neighbours_never_contain_the_query_and_never_repeat(n: int, k: int, seed: int) -> None:
    ids, distances = nearest(unit(n, 3, seed), np.arange(n), k)
    for query, row in enumerate(ids.tolist()):
        assert query not in row
        assert len(set(row)) == len(row) == min(k, n - 1)
    assert (np.diff(distances, axis=1) >= 0).all()
