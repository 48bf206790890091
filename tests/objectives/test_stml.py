"""STML against loops over pairs, written from the method's description, and its batches of neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance import plugins
from semblance.contracts import Batch
from semblance.errors import ConfigError
from semblance.objectives.stml import (
    batches,
    contextualised_similarity,
    distillation,
    least,
    relative_distances,
    relaxed_contrastive,
)

Make = Callable[..., Any]
Array = np.ndarray[Any, np.dtype[np.float64]]


def rows_of(n: int, d: int, seed: int) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=stream, dtype=torch.float64), dim=1)


def slow_similarity(t: Array, k: int, sigma: float) -> Array:
    n = len(t)
    close = [[math.exp(-((t[i] - t[j]) ** 2).sum() / sigma) for j in range(n)] for i in range(n)]
    listed, nearest = [], []
    for i in range(n):
        first = [j for j in range(n) if j in (i, (i + n // 2) % n)]
        rest = sorted((j for j in range(n) if j not in first), key=lambda j: -close[i][j])
        ranked = first + rest
        listed.append(set(ranked[: 2 * k]))
        nearest.append(ranked[:k])
    mutual = [{j for j in listed[i] if i in listed[j]} for i in range(n)]
    shared = [
        [len(mutual[i] & mutual[j]) / len(mutual[i]) if j in mutual[i] else 0.0 for j in range(n)]
        for i in range(n)
    ]
    expanded = [[math.fsum(shared[q][j] for q in nearest[i]) / k for j in range(n)] for i in range(n)]
    return np.array(
        [[(close[i][j] + (expanded[i][j] + expanded[j][i]) / 2) / 2 for j in range(n)] for i in range(n)]
    )


@given(st.integers(0, 10_000), st.integers(4, 8), st.integers(2, 3))
@settings(max_examples=20, deadline=None)
def test_similarity_against_loops(seed: int, m: int, k: int) -> None:
    """k is 2 at least: with 1 the two views of an image tie for the one place."""
    t = rows_of(2 * m, 3, seed)
    found = contextualised_similarity(t, k, 3.0).numpy()
    slow = slow_similarity(t.numpy(), k, 3.0)
    off = ~np.eye(2 * m, dtype=bool)
    assert found[off] == pytest.approx(slow[off], rel=1e-6)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-9
    assert np.allclose(found, found.T)


def slow_loss(f: Array, g: Array, w: Array, delta: float) -> tuple[float, float, float]:
    n, relative = len(f), []
    for s in (f, g):
        d = [[math.dist(s[i], s[j]) for j in range(n)] for i in range(n)]
        relative.append([[d[i][j] / (math.fsum(d[i]) / n) for j in range(n)] for i in range(n)])
    contrast = [
        math.fsum(
            w[i][j] * S[i][j] ** 2 + (1 - w[i][j]) * max(0.0, delta - S[i][j]) ** 2
            for i in range(n)
            for j in range(n)
            if i != j
        )
        / (n * (n - 1))
        for S in relative
    ]
    kl = 0.0
    for i in range(n):
        p, q = ([math.exp(-S[i][j]) for j in range(n)] for S in (relative[1], relative[0]))
        p, q = ([value / math.fsum(one) for value in one] for one in (p, q))
        kl += math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return contrast[0], contrast[1], kl / n


@given(st.integers(0, 10_000), st.floats(0.5, 1.5))
@settings(max_examples=20, deadline=None)
def test_losses_against_loops(seed: int, delta: float) -> None:
    f, g = rows_of(8, 3, seed), 2 * rows_of(8, 5, seed + 1)
    w = contextualised_similarity(rows_of(8, 4, seed + 2), 2, 3.0)
    one, two = relative_distances(f), relative_distances(g)
    found = (relaxed_contrastive(one, w, delta), relaxed_contrastive(two, w, delta), distillation(two, one))
    assert [float(x) for x in found] == pytest.approx(
        slow_loss(f.numpy(), g.numpy(), w.numpy(), delta), rel=1e-6
    )


def test_equal_rows_are_finite() -> None:
    s = torch.ones(6, 4, requires_grad=True)
    w = contextualised_similarity(torch.ones(6, 4), 2, 3.0)
    relaxed_contrastive(relative_distances(s), w, 1.0).backward()
    assert s.grad is not None
    assert torch.isfinite(s.grad).all()


def test_the_wide_head_is_taught_by_contrast_alone(make: Make, batch: Make) -> None:
    """The distillation moves f and not g; the teacher takes no gradient."""
    objective = make("stml", background=16).train()
    objective(batch(8)).terms["distillation"].backward()
    assert objective.head.linear.weight.grad.any()
    assert objective.background.linear.weight.grad is None
    assert not any(p.requires_grad for p in objective.teacher.parameters())


def test_the_step_is_the_sum_of_its_formulas(make: Make, batch: Make) -> None:
    objective = make("stml", background=16, neighbours=2, delta=0.9).double().train()
    views = batch(6, dtype=torch.float64)
    with torch.no_grad():
        loss = objective(views)
        e = objective.encoder(torch.cat(views.views))
        f = (e @ objective.head.linear.weight.T).numpy()
        g = (e @ objective.background.linear.weight.T).numpy()
    t = g / np.linalg.norm(g, axis=1, keepdims=True)  # at first the teacher is the student
    w = slow_similarity(t, 2, 3.0)
    one, two, kl = slow_loss(f, g, w, 0.9)
    off = ~np.eye(12, dtype=bool)
    floor = (w * (1 - w))[off].mean() * 0.81
    wanted = [(one - floor) / 2, (two - floor) / 2, kl]
    assert [float(x) for x in loss.terms.values()] == pytest.approx(wanted, rel=1e-5)


def test_least_is_where_every_pair_is_at_its_own_distance() -> None:
    w = contextualised_similarity(rows_of(8, 4, 0), 2, 3.0)
    perfect = (1 - w) * 0.9
    assert float(relaxed_contrastive(perfect, w, 0.9)) == pytest.approx(float(least(w, 0.9)))
    for step in (-0.01, 0.01):
        assert float(relaxed_contrastive(perfect + step, w, 0.9)) > float(least(w, 0.9))


def test_the_teacher_follows_after_the_step(make: Make) -> None:
    objective = make("stml", momentum=0.75, background=16).train()
    was = objective.teacher[0].first.weight.clone()
    with torch.no_grad():
        objective.encoder.first.weight.add_(1.0)
    objective.after_step()
    assert torch.allclose(
        objective.teacher[0].first.weight, 0.75 * was + 0.25 * objective.encoder.first.weight
    )
    assert not objective.train().teacher.training
    assert objective.encoder.training


@given(st.integers(4, 40), st.integers(1, 5), st.integers(2, 12), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_batches_are_queries_with_their_neighbours(n: int, k: int, batch: int, seed: int) -> None:
    k, batch = min(k, n, batch), min(batch, n)
    k = min(k, batch)
    stream = torch.Generator().manual_seed(seed)
    neighbours = torch.stack(
        [torch.cat([torch.tensor([i]), torch.randperm(n, generator=stream)[: k - 1]]) for i in range(n)]
    )
    shuffled = torch.randperm(n, generator=stream)
    found = batches(shuffled, neighbours, batch)
    assert found.shape == (n // batch * batch,)
    queries = []
    for one in found.view(-1, batch).tolist():
        for start in range(0, batch // k * k, k):
            assert one[start : start + k] == neighbours[one[start]].tolist()
            queries.append(one[start])
    assert len(set(queries)) == len(queries)


def test_neighbours_are_exact_and_the_image_comes_first(make: Make) -> None:
    objective = make("stml", neighbours=3, background=16)
    features = torch.randn(20, 12, generator=torch.Generator().manual_seed(1))
    objective.before_epoch(lambda: features)
    g = torch.nn.functional.normalize(features @ objective.background.linear.weight.detach().T, dim=1)
    for i in range(20):
        similar = [(-2.0 if j == i else -float(g[i] @ g[j]), j) for j in range(20)]
        assert objective.neighbours[i].tolist() == [j for _, j in sorted(similar)[:3]]
    shuffled = torch.arange(20).flip(0)
    assert objective.order(shuffled, 6).view(-1, 6)[0, 0] == 19
    assert torch.equal(objective.order(shuffled, 2), shuffled)  # no room for a query's neighbours
    assert torch.equal(make("stml").order(shuffled, 6), shuffled)


@pytest.mark.parametrize(
    "options", [{"neighbours": 0}, {"sigma": 0.0}, {"delta": -1.0}, {"momentum": 1.0}, {"background": 1}]
)
def test_values_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="stml needs"):
        plugins.configure("objectives", "stml", options)


def test_in_a_sum_it_makes_the_batches(tiny: Any, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = plugins.configure("objectives", "sme+stml", {"stml.neighbours": 2})
    objective = plugins.get("objectives", "sme+stml").Objective(config, tiny()).train()
    objective.before_epoch(lambda: torch.randn(10, 12))
    order = objective.order(torch.arange(10), 4)
    assert torch.equal(order, objective.parts["stml"].order(torch.arange(10), 4))
    views = torch.rand(2, 8, 3, 8, 8)
    loss = objective(Batch((views[0], views[1]), torch.arange(8)))
    assert {"sme.attraction", "stml.distillation"} <= set(loss.terms)
    loss.total.backward()
    objective.after_step()
    monkeypatch.setattr(plugins.get("objectives", "sme").Objective, "order", lambda *_: None, raising=False)
    with pytest.raises(ConfigError, match="both make the batches"):
        plugins.get("objectives", "sme+stml").Objective(config, tiny())
