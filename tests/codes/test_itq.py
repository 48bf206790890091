"""ITQ against plain loops; its loss never rises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from semblance import codes
from semblance.codes import _linear, itq
from semblance.errors import ConfigError


def reference(v: np.ndarray, r: np.ndarray, rounds: int) -> tuple[np.ndarray, list[float]]:
    """The paper's two steps, element by element, and the loss before each."""
    n, k = v.shape
    losses = []
    for _ in range(rounds):
        b = np.empty((n, k))
        total = 0.0
        for i in range(n):
            for j in range(k):
                value = sum(v[i, m] * r[m, j] for m in range(k))
                b[i, j] = 1.0 if value >= 0 else -1.0
                total += (b[i, j] - value) ** 2
        losses.append(total)
        products = np.array([[sum(b[i, p] * v[i, q] for i in range(n)) for q in range(k)] for p in range(k)])
        s, _, s_hat = np.linalg.svd(products)  # B^T V = S Omega S_hat^T
        r = s_hat.T @ s.T
    return r, losses


def test_the_rotation_is_that_of_plain_loops() -> None:
    rng = np.random.default_rng(3)
    v = rng.standard_normal((40, 5)) * [3, 2, 1, 1, 0.5]
    start = _linear.rotation(5, rng)
    expected, losses = reference(v, start, 6)
    found = itq.turn(v, start, 6)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-12)
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(losses))
    assert itq.loss(v, start) == pytest.approx(losses[0])
    assert itq.loss(v, found) <= losses[-1] + 1e-9


def test_the_loss_falls_on_embeddings(embeddings: np.ndarray) -> None:
    found = _linear.principal(embeddings)
    v = (embeddings - found.mean) @ found.directions[:, :16]
    r = _linear.rotation(16, np.random.default_rng(0))
    losses = [itq.loss(v, r)]
    for _ in range(50):
        r = itq.turn(v, r, 1)
        losses.append(itq.loss(v, r))
    assert (np.diff(losses) <= 1e-9).all()
    assert losses[-1] < losses[0]
    coder = itq.Coder(itq.Config(bits=16)).fit(embeddings)
    turned = found.directions[:, :16].T @ coder.state()["weights"]
    np.testing.assert_allclose(turned @ turned.T, np.eye(16), atol=1e-5)
    assert itq.loss(v, turned) == pytest.approx(losses[-1], rel=1e-4)


def test_bits_beyond_the_dimensions_are_random_rotations(embeddings: np.ndarray) -> None:
    short = itq.Coder(itq.Config(bits=24)).fit(embeddings)
    long = itq.Coder(itq.Config(bits=56)).fit(embeddings)
    assert np.array_equal(long.encode(embeddings)[:, :3], short.encode(embeddings))
    w = long.state()["weights"]
    for block in (w[:, :24], w[:, 24:48]):
        np.testing.assert_allclose(block.T @ block, np.eye(24), atol=1e-5)
    np.testing.assert_allclose(w[:, 48:].T @ w[:, 48:], np.eye(8), atol=1e-5)
    assert codes.diagnose(long.encode(embeddings)).max_correlation < 0.99


def test_a_sample_teaches_the_rotation_alone(embeddings: np.ndarray) -> None:
    whole = itq.Coder(itq.Config(bits=8)).fit(embeddings)
    some = itq.Coder(itq.Config(bits=8, rows=300)).fit(embeddings)
    span = [coder.state()["weights"] for coder in (whole, some)]
    assert not np.allclose(*span)
    np.testing.assert_allclose(span[0] @ span[0].T, span[1] @ span[1].T, atol=1e-9)


@pytest.mark.parametrize("options", [{"rounds": 0}, {"rows": 1}])
def test_configuration(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        itq.Config(**options)
