"""CIBHash: its terms in plain loops, its gradient, its network in NumPy as in torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from semblance.codes import cibhash, unpack
from semblance.errors import ConfigError


def slow_contrast(one: np.ndarray, other: np.ndarray, temperature: float) -> float:
    """NT-Xent, pair by pair."""
    z = [row / math.sqrt(float(row @ row)) for row in [*one, *other]]
    m, total = len(one), 0.0
    for i in range(2 * m):
        j = (i + m) % (2 * m)
        below = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(2 * m) if k != i)
        total -= math.log(math.exp(float(z[i] @ z[j]) / temperature) / below)
    return total / (2 * m)


def slow_divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL of independent bits, bit by bit."""
    total = 0.0
    for row, other in zip(p, q, strict=True):
        for a, b in zip(row, other, strict=True):
            total += a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))
    return total / len(p)


def test_terms() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 5, 3))
    found = cibhash.contrast(torch.from_numpy(one), torch.from_numpy(other), 0.3)
    assert found.item() == pytest.approx(slow_contrast(one, other, 0.3))
    p, q = rng.uniform(0.05, 0.95, (2, 4, 3))
    assert cibhash.divergence(torch.from_numpy(p), torch.from_numpy(q)).item() == pytest.approx(
        slow_divergence(p, q), rel=1e-5
    )
    assert cibhash.divergence(torch.from_numpy(p), torch.from_numpy(p)).item() == pytest.approx(0, abs=1e-9)


def test_the_second_of_a_divergence_is_held_fixed() -> None:
    p, q = (torch.full((1, 1), value, requires_grad=True) for value in (0.3, 0.6))
    cibhash.divergence(p, q).backward()
    assert q.grad is None
    assert p.grad.item() == pytest.approx(math.log(0.3 / 0.6) - math.log(0.7 / 0.4), rel=1e-5)


def test_signs_pass_the_slope_of_the_probability() -> None:
    u = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    b = cibhash.signs(u)
    assert b.detach().round(decimals=6).tolist() == [-1.0, 1.0, 1.0]
    b.sum().backward()
    p = 1 / (1 + np.exp([2.0, 0.0, -0.5]))
    np.testing.assert_allclose(u.grad, p * (1 - p), rtol=1e-6)


def test_values_are_those_of_the_trained_network(embeddings: np.ndarray) -> None:
    config = cibhash.Config(bits=16, epochs=2, hidden=24)
    coder = cibhash.Coder(config).fit(embeddings)
    wide = embeddings.astype(np.float64)
    mean = wide.mean(0)
    scale = np.sqrt(((wide - mean) ** 2).sum(1).mean() / wide.shape[1])
    first, bias, second, offset = cibhash.train(
        torch.from_numpy(((wide - mean) / scale).astype("f4")), config
    )
    expected = np.maximum((wide - mean) / scale @ first + bias, 0) @ second + offset
    np.testing.assert_allclose(coder.project(embeddings), expected, atol=1e-4)


def test_training_pulls_views_together(embeddings: np.ndarray) -> None:
    """Codes of two noisy copies find each other more often after the training than before it."""
    rng = np.random.default_rng(1)
    spread = embeddings.std() * 0.5
    views = [embeddings + spread * rng.standard_normal(embeddings.shape).astype("f4") for _ in range(2)]
    losses = []
    for epochs, lr in ((1, 1e-9), (10, 3e-3)):
        coder = cibhash.Coder(cibhash.Config(bits=16, epochs=epochs, lr=lr, hidden=64)).fit(embeddings)
        b = [torch.from_numpy(2.0 * unpack(coder.encode(view)) - 1) for view in views]
        losses.append(cibhash.contrast(b[0], b[1], 0.3).item())
    assert losses[1] < losses[0] - 0.1


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"batch": 1}, {"rows": 1}, {"hidden": 0}, {"lr": 0.0}, {"noise": 0.0}, {"beta": -1.0}],
)
def test_configuration(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        cibhash.Config(**options)
