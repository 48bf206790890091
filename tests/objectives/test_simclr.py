"""NT-Xent against two nested loops in float64, by hand, and at temperatures where exponentials overflow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.contracts import Batch
from semblance.errors import ConfigError
from semblance.objectives.simclr import Config, nt_xent


def unit_rows(n: int, d: int, seed: int) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=stream, dtype=torch.float64), dim=1)


def loops(first: Tensor, second: Tensor, tau: float, decoupled: bool) -> Tensor:
    """Eq. 1 for every ordered pair of positives, one exponential at a time."""
    rows = [*first, *second]
    n, m = len(rows), len(first)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        j = i + m if i < m else i - m
        below = torch.zeros((), dtype=torch.float64)
        for k in range(n):
            if k != i and not (decoupled and k == j):
                below = below + torch.exp(rows[i] @ rows[k] / tau)
        total = total - torch.log(torch.exp(rows[i] @ rows[j] / tau) / below)
    return total / n


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(("m", "d", "tau"), [(2, 3, 0.1), (5, 4, 0.5), (9, 8, 0.07)])
def test_equals_two_loops_gradient_included(m: int, d: int, tau: float, decoupled: bool) -> None:
    leaf = unit_rows(2 * m, d, m).requires_grad_()
    ours, theirs = (form(leaf[:m], leaf[m:], tau, decoupled) for form in (nt_xent, loops))
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-10)
    slopes = [torch.autograd.grad(loss, leaf)[0] for loss in (ours, theirs)]
    assert torch.allclose(*slopes, rtol=1e-8, atol=1e-12)


def test_by_hand() -> None:
    """Two images on two axes: each row sees its pair at e^1 and two others at e^0."""
    axes = torch.eye(2, dtype=torch.float64)
    assert float(nt_xent(axes, axes, 1.0)) == pytest.approx(math.log((math.e + 2) / math.e))
    assert float(nt_xent(axes, axes, 1.0, decoupled=True)) == pytest.approx(math.log(2 / math.e))


@pytest.mark.parametrize("decoupled", [False, True])
def test_finite_at_any_temperature(decoupled: bool) -> None:
    rows = unit_rows(4, 6, 1).float()
    for second in (rows, -rows, rows.roll(1, 0), rows[:1].expand(4, 6)):
        leaf = rows.clone().requires_grad_()
        loss = nt_xent(leaf, second, 1e-3, decoupled)
        (slope,) = torch.autograd.grad(loss, leaf)
        assert torch.isfinite(loss)
        assert torch.isfinite(slope).all()


def test_an_easy_batch_still_teaches_where_it_is_decoupled() -> None:
    """All positives found: NT-Xent's gradient has faded, the decoupled one's has not."""
    rows = F.normalize(torch.eye(4) + 0.01, dim=1)
    sizes = []
    for decoupled in (False, True):
        leaf = rows.clone().requires_grad_()
        (slope,) = torch.autograd.grad(nt_xent(leaf, rows.roll(0), 0.05, decoupled), leaf)
        sizes.append(float(slope.norm()))
    assert sizes[0] < 1e-3 * sizes[1]


@pytest.mark.parametrize("hidden", [0, 6])
def test_the_objective_is_its_loss(
    hidden: int, make: Callable[..., Any], batch: Callable[..., Batch]
) -> None:
    """On the embedding itself, or on what a projector makes of it."""
    objective = make("simclr", tau=0.2, decoupled=True, hidden=hidden).double()
    given = batch(6, 1, torch.float64)
    loss = objective(given)
    f = objective.head(objective.encoder(torch.cat(given.views)))
    if hidden:
        f = F.normalize(objective.projector(f), dim=1)
        assert f.shape == (12, hidden)
    expected = float(loops(f[:6], f[6:], 0.2, True).detach())
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-9)
    cosine = float((f[:6] * f[6:]).sum(1).mean().detach())
    assert float(loss.stats["positive_cosine"]) == pytest.approx(cosine, rel=1e-6)


@pytest.mark.parametrize("options", [{"tau": 0.0}, {"dim": 1}, {"hidden": -1}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Config(**options)
