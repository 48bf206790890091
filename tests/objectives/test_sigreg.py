"""The distance from a Gaussian against complex exponentials and quadrature, and on known distributions."""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.contracts import Batch, View
from semblance.errors import ConfigError
from semblance.objectives.sigreg import Config, epps_pulley, every_direction, invariance


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadrature(samples: list[float], knots: int) -> float:
    """n times the integral over [-5, 5], trapezoids between `knots` equally spaced points."""
    n, places = len(samples), [-5 + 10 * k / (knots - 1) for k in range(knots)]
    heights = []
    for t in places:
        ecf = sum(cmath.exp(1j * t * x) for x in samples) / n
        heights.append(abs(ecf - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2))
    width = 10 / (knots - 1)
    return n * sum(width * (a + b) / 2 for a, b in itertools.pairwise(heights))


@pytest.mark.parametrize(("n", "scale"), [(1, 1.0), (2, 0.3), (7, 1.0), (20, 2.0)])
def test_sketch_equals_seventeen_knots(n: int, scale: float) -> None:
    x = scale * normal(n, 3, seed=n)
    found = epps_pulley(x)
    for column in range(3):
        assert float(found[column]) == pytest.approx(quadrature(x[:, column].tolist(), 17), rel=1e-9)


@pytest.mark.parametrize(("n", "d", "scale"), [(1, 1, 1.0), (2, 3, 0.3), (6, 4, 1.0), (5, 2, 4.0)])
def test_every_direction_equals_the_integral_over_t(n: int, d: int, scale: float) -> None:
    """At one t, `E|ecf|^2` and `E ecf` over directions first; then t in fine steps, far beyond 5."""
    z = scale * normal(2, n, d, seed=n)
    for view, found in zip(z.tolist(), every_direction(z).tolist(), strict=True):
        total, width = 0.0, 0.01
        for k in range(-800, 801):
            t = width * k
            apart = [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for x in view for y in view]
            power = sum(math.exp(-t * t * u / (2 * d)) for u in apart) / n**2
            real = sum(math.exp(-t * t * sum(a * a for a in x) / (2 * d)) for x in view) / n
            gauss = math.exp(-t * t / 2)
            total += width * (power - 2 * gauss * real + gauss**2) * gauss
        assert found == pytest.approx(n * total, rel=1e-6)


def test_every_direction_is_where_many_lead() -> None:
    z = 0.7 * normal(1, 20, 8)
    many = epps_pulley(z @ normal(8, 20_000, seed=1) / math.sqrt(8)).mean()
    assert float(every_direction(z)) == pytest.approx(float(many), rel=0.02)


def test_samples_of_a_gaussian_come_to_the_same_however_many() -> None:
    expected = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
    for n in (8, 64):
        assert float(epps_pulley(normal(n, 5_000)).mean()) == pytest.approx(expected, rel=0.05)
    assert expected == pytest.approx(1.06, abs=0.001)


@pytest.mark.parametrize("wrong", ["narrow", "wide", "aside", "two heaps", "one point"])
def test_what_is_not_gaussian_scores_worse_and_is_drawn_towards_it(wrong: str) -> None:
    x = normal(64, 200)
    x = {
        "narrow": 0.5 * x,
        "wide": 2 * x,
        "aside": x + 1,
        "two heaps": x.sign() + 0.1 * x,
        "one point": torch.zeros_like(x),
    }[wrong].requires_grad_()
    before = epps_pulley(x).mean()
    assert float(before.detach()) > 2
    (slope,) = torch.autograd.grad(before, x)
    assert torch.isfinite(slope).all()
    if wrong != "one point":  # where all lie at the origin no direction is better than another
        assert float(epps_pulley(x.detach() - 50 * slope).mean()) < float(before.detach())


def test_every_direction_knows_the_right_scale_and_shape() -> None:
    z = normal(20, 64, 32)
    flat = torch.cat([z[..., :8] * 2, torch.zeros(20, 64, 24, dtype=z.dtype)], 2)
    right, *wrong = (float(every_direction(x).mean()) for x in (z, 0.7 * z, 1.4 * z, z + 0.5, flat))
    assert right < min(wrong)


def test_invariance_is_the_distance_from_the_centre_of_the_global_views() -> None:
    z = normal(4, 3, 2)
    total = 0.0
    for view in range(4):
        for i in range(3):
            for k in range(2):
                total += float(z[view, i, k] - (z[0, i, k] + z[1, i, k]) / 2) ** 2
    assert float(invariance(z)) == pytest.approx(total / (4 * 3 * 2), rel=1e-12)


@pytest.mark.parametrize(("hidden", "local", "directions"), [(0, 0, 0), (0, 0, 5), (6, 0, 5), (0, 2, 5)])
def test_the_objective_is_its_loss(
    hidden: int, local: int, directions: int, make: Callable[..., Any]
) -> None:
    """All rows, of views of two sizes, along the directions that the global generator gives, or all."""
    options = {"dim": 4, "weight": 0.3, "directions": directions, "hidden": hidden, "local": local}
    objective = make("sigreg", **options).double()
    assert objective.views == (View(), View(), *[View(0.5, 0.3)] * local)
    sides = [round(8 * view.size) for view in objective.views]
    views = tuple(torch.rand(6, 3, side, side, dtype=torch.float64) for side in sides)
    torch.manual_seed(3)
    loss = objective(Batch(views, torch.arange(6)))
    torch.manual_seed(3)
    lines = F.normalize(torch.randn(hidden or 4, 5, dtype=torch.float64), dim=0)
    e = [
        objective.encoder(view) @ objective.head.linear.weight.T + objective.head.linear.bias
        for view in views
    ]
    z = objective.projector(torch.cat(e)).reshape(len(views), 6, -1).detach()
    sketches = [quadrature((view @ line).tolist(), 17) for view in z for line in lines.T]
    if not directions:
        sketches = every_direction(z).tolist()
    assert float(loss.terms["gaussian"].detach()) == pytest.approx(
        0.3 * sum(sketches) / len(sketches), rel=1e-9
    )
    assert float(loss.terms["invariance"].detach()) == pytest.approx(0.7 * float(invariance(z)), rel=1e-9)
    parts = sum(float(term.detach()) for term in loss.terms.values())
    assert float(loss.total.detach()) == pytest.approx(parts, rel=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"weight": 0.0},
        {"weight": 1.0},
        {"directions": -1},
        {"dim": 1},
        {"local": -1},
        {"size": 0.0},
        {"area": 2.0},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Config(**options)
