"""SwAV against loops, its codes against plain Sinkhorn, and clusters that it must find."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.contracts import Batch, View
from semblance.errors import ConfigError
from semblance.objectives.swav import Config, swapped


def plain_sinkhorn(cosines: Tensor, epsilon: float) -> list[list[float]]:
    """Three rounds over columns, then rows, of plain exponentials."""
    q = [[math.exp(value / epsilon) for value in row] for row in cosines.tolist()]
    for _ in range(3):
        sums = [sum(row[k] for row in q) for k in range(len(q[0]))]
        q = [[value / total for value, total in zip(row, sums, strict=True)] for row in q]
        q = [[value / sum(row) for value in row] for row in q]
    return q


def loops(scores: Tensor, codes: Tensor, tau: float) -> Tensor:
    """Cross-entropy of every global view's codes with every other view's prediction, one number at a time."""
    views, m, clusters = scores.shape
    losses = []
    for s in range(2):
        for t in range(views):
            if s == t:
                continue
            for i in range(m):
                powers = [torch.exp(scores[t, i, k] / tau) for k in range(clusters)]
                losses.append(
                    -sum(codes[s, i, k] * torch.log(powers[k] / sum(powers)) for k in range(clusters))
                )
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("views", "m", "clusters"), [(2, 3, 2), (4, 2, 5)])
def test_equals_loops_gradient_included(views: int, m: int, clusters: int) -> None:
    stream = torch.Generator().manual_seed(views)
    scores = torch.rand(views, m, clusters, generator=stream, dtype=torch.float64).requires_grad_()
    codes = torch.rand(2, m, clusters, generator=stream, dtype=torch.float64).softmax(2)
    ours, theirs = swapped(scores, codes, 0.2), loops(scores, codes, 0.2)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-10)
    slopes = [torch.autograd.grad(loss, scores)[0] for loss in (ours, theirs)]
    assert torch.allclose(*slopes, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("hidden", "local"), [(0, 0), (6, 0), (0, 2)])
def test_the_objective_is_its_loss(hidden: int, local: int, make: Callable[..., Any]) -> None:
    """Codes from the global views alone, predictions from all, clusters counted in the first view."""
    objective = make("swav", dim=4, prototypes=5, tau=0.2, epsilon=0.1, hidden=hidden, local=local).double()
    assert objective.views == (View(), View(), *[View(0.5, 0.3)] * local)
    sides = [round(8 * view.size) for view in objective.views]
    views = tuple(torch.rand(6, 3, side, side, dtype=torch.float64) for side in sides)
    loss = objective(Batch(views, torch.arange(6)))
    f = torch.cat([objective.head(objective.encoder(view)) for view in views])
    z = F.normalize(objective.projector(f), dim=1).reshape(len(views), 6, -1).detach()
    c = F.normalize(objective.prototypes.weight, dim=1).detach()
    codes = torch.tensor([plain_sinkhorn(view @ c.T, 0.1) for view in z[:2]], dtype=torch.float64)
    expected = loops(z @ c.T, codes, 0.2)
    assert float(loss.total.detach()) == pytest.approx(float(expected), rel=1e-6)
    used = {max(range(5), key=lambda k: row[k]) for row in codes[0].tolist()}
    assert float(loss.stats["used_clusters"]) == pytest.approx(len(used) / 5)


def test_no_cluster_takes_all_whatever_the_prototypes(make: Callable[..., Any]) -> None:
    """All prototypes but one far away: without balance every image would be given to that one."""
    objective = make("swav", dim=4, prototypes=4)
    with torch.no_grad():
        images = torch.rand(2, 16, 3, 8, 8)
        f = objective.head(objective.encoder(images[0]))
        objective.prototypes.weight.copy_(-f.mean(0) + 0.1 * torch.randn(4, 4))
        objective.prototypes.weight[0] = f.mean(0)
        assert (f @ F.normalize(objective.prototypes.weight, dim=1).T).argmax(1).unique().numel() == 1
        loss = objective(Batch((images[0], images[1]), torch.arange(16)))
    assert float(loss.stats["used_clusters"]) >= 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"prototypes": 1},
        {"tau": 0.0},
        {"epsilon": 0.0},
        {"dim": 1},
        {"local": -1},
        {"size": 1.5},
        {"area": 0.0},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Config(**options)
