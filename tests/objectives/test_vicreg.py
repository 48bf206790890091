"""VICReg's terms against loops over every pair of dimensions, by hand, and on degenerate batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from semblance.contracts import Batch
from semblance.errors import ConfigError
from semblance.objectives.vicreg import Config, covariance, variance


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum() / len(values)


def slow(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance, one number at a time."""
    n, d = x.shape
    alike = mean([(x[i, j] - y[i, j]) ** 2 for i in range(n) for j in range(d)])
    spread, shared = [], []
    for z in (x, y):
        means = [mean([z[i, j] for i in range(n)]) for j in range(d)]
        c = [
            [sum((z[i, a] - means[a]) * (z[i, b] - means[b]) for i in range(n)) / (n - 1) for b in range(d)]
            for a in range(d)
        ]
        spread.append(mean([torch.relu(1 - torch.sqrt(c[j][j] + 1e-4)) for j in range(d)]))
        shared.append(sum(c[a][b] ** 2 for a in range(d) for b in range(d) if a != b) / d)
    return alike, mean(spread), shared[0] + shared[1]


def rows(n: int, d: int, seed: int) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=stream, dtype=torch.float64) @ torch.randn(
        d, d, generator=stream, dtype=torch.float64
    )


@pytest.mark.parametrize(("n", "d"), [(2, 3), (6, 4), (9, 2)])
def test_terms_equal_loops_gradient_included(n: int, d: int) -> None:
    leaf = (0.4 * rows(2 * n, d, n)).requires_grad_()
    x, y = leaf[:n], leaf[n:]
    ours = ((variance(x) + variance(y)) / 2, covariance(x) + covariance(y))
    for mine, theirs in zip(ours, slow(x, y)[1:], strict=True):
        assert float(mine.detach()) == pytest.approx(float(theirs.detach()), rel=1e-10)
        slopes = [torch.autograd.grad(term, leaf, retain_graph=True)[0] for term in (mine, theirs)]
        assert torch.allclose(*slopes, rtol=1e-8, atol=1e-12)


def test_by_hand() -> None:
    """Both dimensions +-1/2, the same: variance 1/2 with n - 1, standard deviation short of 1 by 0.293."""
    z = torch.tensor([[0.5, 0.5], [-0.5, -0.5]], dtype=torch.float64)
    assert float(variance(z)) == pytest.approx(1 - math.sqrt(0.5 + 1e-4))
    assert float(covariance(z)) == pytest.approx(2 * 0.25 / 2)
    assert float(variance(4 * z)) == 0


def test_identical_rows_have_a_finite_way_out() -> None:
    leaf = torch.full((4, 3), 0.7, requires_grad=True)
    (slope,) = torch.autograd.grad(variance(leaf) + covariance(leaf), leaf)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("hidden", [0, 6])
def test_the_objective_is_its_loss(
    hidden: int, make: Callable[..., Any], batch: Callable[..., Batch]
) -> None:
    """Of the linear layer's output, before it is brought to length 1, or of a projector's."""
    objective = make("vicreg", dim=4, invariance=3.0, variance=2.0, covariance=0.5, hidden=hidden).double()
    given = batch(5, 1, torch.float64)
    loss = objective(given)
    e = objective.encoder(torch.cat(given.views))
    z = objective.projector(e @ objective.head.linear.weight.T + objective.head.linear.bias)
    alike, spread, shared = slow(z[:5], z[5:])
    for name, expected in (("invariance", 3 * alike), ("variance", 2 * spread), ("covariance", shared / 2)):
        assert float(loss.terms[name].detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    parts = sum(float(term.detach()) for term in loss.terms.values())
    assert float(loss.total.detach()) == pytest.approx(parts, rel=1e-9)


@pytest.mark.parametrize("options", [{"invariance": -1.0}, {"dim": 1}, {"hidden": -1}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Config(**options)
