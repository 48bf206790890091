"""SME against two nested loops in float64, its partners against brute force, and its published settings."""

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
from semblance.objectives.sme import Config, sme_loss


def unit_rows(n: int, d: int, seed: int) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=stream, dtype=torch.float64), dim=1)


def loops(first: Tensor, second: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """J of the paper over all 2m rows, one probability at a time; right-hand features are constants."""
    rows = [*first, *second]
    fixed = [row.detach() for row in rows]
    n, m = len(rows), len(first)
    attraction, spreading = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for i in range(n):
        powers = {k: torch.exp(rows[i] @ fixed[k] / tau) for k in range(n) if k != i}
        whole = torch.stack(list(powers.values())).sum()
        pair = (i + m) % n
        attraction = attraction - torch.log(powers[pair] / whole) / n
        for j in powers:
            if j != pair:
                spreading = spreading - torch.log(1 - powers[j] / whole) / n
    return attraction, spreading


@pytest.mark.parametrize(("m", "d", "tau"), [(2, 3, 0.1), (5, 4, 0.5), (12, 8, 0.1), (7, 2, 5.0)])
def test_equals_two_loops_gradient_included(m: int, d: int, tau: float) -> None:
    leaf = unit_rows(2 * m, d, m).requires_grad_()
    for index, theirs in enumerate(loops(leaf[:m], leaf[m:], tau)):
        ours = sme_loss(leaf[:m], leaf[m:], tau)[index]
        assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-10)
        (slope,) = torch.autograd.grad(ours, leaf)
        (expected,) = torch.autograd.grad(theirs, leaf, retain_graph=True)
        assert torch.allclose(slope, expected, rtol=1e-8, atol=1e-12)


def test_by_hand() -> None:
    """Two images on two axes: each row sees its pair at e^1 and two others at e^0."""
    axes = torch.eye(2, dtype=torch.float64)
    attraction, spreading = sme_loss(axes, axes, 1.0)
    assert float(attraction) == pytest.approx(math.log((math.e + 2) / math.e))
    assert float(spreading) == pytest.approx(-2 * math.log(1 - 1 / (math.e + 2)))


@pytest.mark.parametrize("tau", [1e-3, 0.05, 100.0])
@pytest.mark.parametrize("kind", ["identical", "antipodal", "far pair"])
def test_finite_where_probabilities_reach_one(tau: float, kind: str) -> None:
    rows = unit_rows(4, 6, 1).float()
    first, second = rows.clone(), rows.clone()
    if kind == "identical":
        first, second = rows[:1].repeat(4, 1), rows[:1].repeat(4, 1)
    elif kind == "antipodal":
        second = -first
    else:  # some other row, not the pair, takes all the probability
        second = rows.roll(1, 0)
    leaf = torch.cat([first, second]).requires_grad_()
    total = sum(sme_loss(leaf[:4], leaf[4:], tau))
    assert isinstance(total, Tensor)
    (slope,) = torch.autograd.grad(total, leaf)
    assert torch.isfinite(total)
    assert torch.isfinite(slope).all()
    if kind == "far pair" and tau == 1e-3:  # -log(1 - p) is about its margin over tau: it must not saturate
        assert float(total.detach()) > 100
        assert slope.any()


def test_the_objective_is_its_loss(make: Callable[..., Any], batch: Callable[..., Batch]) -> None:
    objective = make("sme", tau=0.2).double()
    given = batch(6, 1, torch.float64)
    loss = objective(given)
    f = objective.head(objective.encoder(torch.cat(given.views)))
    attraction, spreading = loops(f[:6], f[6:], 0.2)
    assert float(loss.terms["attraction"].detach()) == pytest.approx(float(attraction.detach()), rel=1e-9)
    assert float(loss.terms["spreading"].detach()) == pytest.approx(float(spreading.detach()), rel=1e-9)
    assert float(loss.total.detach()) == pytest.approx(float((attraction + spreading).detach()), rel=1e-9)


@pytest.mark.parametrize("options", [{"tau": 0.0}, {"dim": 1}, {"partner": 1.5}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Config(**options)


@pytest.mark.parametrize("name", ["sme", "cbswr"])
def test_partners_are_drawn_once_an_epoch(name: str, make: Callable[..., Any]) -> None:
    features = unit_rows(10, 12, 3).float()
    with_coin, without = make(name, partner=1.0), make(name, partner=0.0)
    for objective in (with_coin, without):
        objective.before_epoch(lambda: features)
    ids = torch.arange(10)
    drawn = with_coin.partners(ids, torch.Generator().manual_seed(0))
    similar = features @ features.T
    for i in range(10):
        others = [j for j in range(10) if j != i]
        assert int(drawn[i]) == max(others, key=lambda j: float(similar[i, j]))
    assert torch.equal(without.partners(ids, torch.Generator().manual_seed(0)), ids)
    assert without.partner.neighbours.numel() == 0
