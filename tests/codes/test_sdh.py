"""Supervised discrete hashing: every step lowers what is minimised, bits are chosen exactly."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance.codes import sdh, unpack
from semblance.errors import ConfigError, InputError


def problem(n: int, bits: int, classes: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.eye(classes)[rng.integers(classes, size=n)]
    phi = rng.random((n, 7))
    b = rng.integers(0, 2, (n, bits)) * 2.0 - 1.0
    return {"y": y, "phi": phi, "b": b, "w": rng.standard_normal((bits, classes)), "p": rng.random((7, bits))}


def plain(b: Any, w: Any, p: Any, y: Any, phi: Any, config: sdh.Config, a: Any = None) -> float:
    """The objective, entry by entry; `a` is the graph's similarity."""
    n, bits = b.shape
    total = 0.0
    for i in range(n):
        for c in range(y.shape[1]):
            total += (y[i, c] - sum(b[i, k] * w[k, c] for k in range(bits))) ** 2
        for k in range(bits):
            total += config.v * (b[i, k] - sum(phi[i, j] * p[j, k] for j in range(phi.shape[1]))) ** 2
    total += config.l * sum(value**2 for value in w.ravel())
    square = sum(value**2 for value in phi.ravel()) / phi.shape[1]
    total += config.v * config.e * square * sum(value**2 for value in p.ravel())
    if a is not None:
        laplacian = np.eye(n) - a
        total += config.graph * sum(float(b[:, k] @ laplacian @ b[:, k]) for k in range(bits))
    return float(total)


def test_the_objective_is_its_formula() -> None:
    given_, config = problem(6, 3, 2, 0), sdh.Config(graph=0.7, v=0.3)
    graph = sdh.anchor_graph(np.random.default_rng(1).random((6, 5)))
    dense = graph.z.toarray() @ np.diag(1 / graph.mass) @ graph.z.toarray().T
    names = ("b", "w", "p", "y", "phi")
    found = sdh.objective(*(given_[name] for name in names), config, graph)
    assert found == pytest.approx(plain(*(given_[name] for name in names), config, dense), rel=1e-9)
    without = sdh.objective(*(given_[name] for name in names), config)
    assert without == pytest.approx(plain(*(given_[name] for name in names), config), rel=1e-9)


def test_the_graph_is_a_walk() -> None:
    """Rows of A sum to 1, A is symmetric and positive, and a constant is as smooth as can be."""
    far = np.random.default_rng(0).random((20, 9))
    graph = sdh.anchor_graph(far)
    dense = graph.smooth(np.eye(20))
    np.testing.assert_allclose(dense.sum(1), 1)
    np.testing.assert_allclose(dense, dense.T, atol=1e-12)
    assert np.linalg.eigvalsh(dense).min() > -1e-9
    np.testing.assert_allclose(graph.smooth(np.ones(20)), 1)
    counts = (graph.z.toarray() > 0).sum(1)
    assert set(counts) == {3}
    for i in range(20):
        assert set(np.flatnonzero(graph.z.toarray()[i])) == set(np.argsort(far[i])[:3])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), bits=st.integers(1, 9), weight=st.sampled_from([0.0, 0.5]))
def test_every_step_lowers_the_objective(seed: int, bits: int, weight: float) -> None:
    x, config = problem(25, bits, 3, seed), sdh.Config(graph=weight, v=0.2)
    graph = sdh.anchor_graph(np.random.default_rng(seed).random((25, 6))) if weight else None
    b, w, p, y, phi = (x[name] for name in ("b", "w", "p", "y", "phi"))
    small = config.e * np.square(phi).sum() / 7
    last = sdh.objective(b, w, p, y, phi, config, graph)
    for _ in range(3):
        w = sdh.ridge(b.T @ b, b.T @ y, config.l)
        values = [sdh.objective(b, w, p, y, phi, config, graph)]
        p = sdh.ridge(phi.T @ phi, phi.T @ b, small)
        values.append(sdh.objective(b, w, p, y, phi, config, graph))
        sdh.descend(b, y @ w.T + config.v * phi @ p, w, graph, config.graph)
        values.append(sdh.objective(b, w, p, y, phi, config, graph))
        for value in values:
            assert value <= last + 1e-9 * abs(last)
            last = value
    assert set(np.unique(b)) <= {-1.0, 1.0}


def test_a_bit_at_a_time_is_exact() -> None:
    """With one bit the best of all codes is found; with more no single bit can be bettered."""
    x, config = problem(6, 1, 2, 3), sdh.Config(v=0.4)
    b, w, p, y, phi = (x[name] for name in ("b", "w", "p", "y", "phi"))
    sdh.descend(b, y @ w.T + config.v * phi @ p, w)
    best = min(
        plain(np.array(code, float)[:, None], w, p, y, phi, config)
        for code in itertools.product((-1, 1), repeat=6)
    )
    assert plain(b, w, p, y, phi, config) == pytest.approx(best)
    x = problem(8, 4, 3, 4)
    b, w, p, y, phi = (x[name] for name in ("b", "w", "p", "y", "phi"))
    while sdh.descend(b, y @ w.T + config.v * phi @ p, w):
        pass
    here = plain(b, w, p, y, phi, config)
    for i in range(8):
        for k in range(4):
            b[i, k] *= -1
            assert plain(b, w, p, y, phi, config) >= here - 1e-9
            b[i, k] *= -1


def test_first_codes() -> None:
    """The classes' own, parted at the median class: no bit is the same for all."""
    rng = np.random.default_rng(0)
    phi, y = rng.random((30, 7)).astype(np.float32), rng.integers(3, size=30)
    b = sdh.first_codes(phi, np.eye(3)[y], 16, np.random.default_rng(1))
    normals = np.random.default_rng(1).standard_normal((7, 16)).astype(np.float32)
    means = np.stack([(phi @ normals)[y == c].mean(0) for c in range(3)])
    for i in range(30):
        for k in range(16):
            assert b[i, k] == (1 if means[y[i], k] >= sorted(means[:, k])[1] else -1)
    assert (np.abs(b.sum(0)) < 30).all()


def test_closed_forms() -> None:
    rng = np.random.default_rng(0)
    a, right = rng.standard_normal((9, 4)), rng.standard_normal((9, 3))
    wanted = np.linalg.inv(a.T @ a + 0.5 * np.eye(4)) @ a.T @ right
    np.testing.assert_allclose(sdh.ridge(a.T @ a, a.T @ right, 0.5), wanted)
    x, anchors = rng.standard_normal((3, 4)), rng.standard_normal((2, 4))
    wanted = [[np.exp(-sum((p - q) ** 2) / (2 * 1.5**2)) for q in anchors] for p in x]
    np.testing.assert_allclose(sdh.rbf(x, anchors, 1.5), wanted)


@pytest.mark.parametrize("graph", [0.0, 1.0])
def test_classes_come_apart(graph: float, embeddings: np.ndarray, classes: np.ndarray) -> None:
    several = np.zeros((600, 6), dtype=bool)
    several[np.arange(600), classes] = True
    several[:300:7, 0] = True
    for y in (classes, several):
        coder = sdh.Coder(sdh.Config(bits=24, anchors=100, graph=graph)).fit(embeddings[:400], y[:400])
        bits = unpack(coder.encode(embeddings))
        far = (bits[400:, None] != bits[None]).sum(2)
        same = classes[400:, None] == classes[None]
        assert far[same].mean() < 0.4 * far[~same].mean()


def test_more_rows_than_are_used(
    embeddings: np.ndarray, classes: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdh, "MOST_ROWS", 80)
    coder = sdh.Coder(sdh.Config(bits=16)).fit(embeddings, classes)
    assert coder.state()["anchors"].shape == (80, 24)
    monkeypatch.setattr(sdh, "BLOCK", 7)
    again = sdh.Coder(sdh.Config(bits=16)).fit(embeddings, classes)
    np.testing.assert_allclose(again.project(embeddings), coder.project(embeddings), atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"anchors": 0}, {"rounds": 0}, {"width": 0.0}, {"l": 0.0}, {"v": 0.0}, {"graph": -1.0}]
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        sdh.Config(**options)


def test_labelled_rows_that_are_all_alike(embeddings: np.ndarray) -> None:
    x = embeddings.copy()
    x[:10] = x[0]
    y = np.full(600, -1)
    y[:10] = np.arange(10) % 2
    with pytest.raises(InputError, match="all labelled embeddings are the same"):
        sdh.Coder(sdh.Config(bits=16)).fit(x, y)
