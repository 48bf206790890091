"""The variant `plus`: each part against a loop from the formula, its state, and that the others stay."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.objectives.conftest import toy_columns
from torch.nn import functional as F

from semblance.contracts import Batch, Column, View
from semblance.errors import ConfigError
from semblance.objectives._cbswr_plus import (
    Features,
    Measured,
    Memory,
    Trust,
    contrast_loss,
    correlation_loss,
    soft_shares,
)
from semblance.objectives._closing import whiten
from semblance.objectives.cbswr import Config
from semblance.training import checkpoint

Make = Callable[..., Any]
ALL_ON = {"clusters": 4, "teacher": 0.9, "assign": "soft", "rebuild": "features", "memory": 0.5}


def unit_rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=stream, dtype=torch.float64), dim=1)


def slow_contrast(f: np.ndarray[Any, Any], q: list[int], trust: list[float], tau: float) -> float:
    n, total = len(f), 0.0
    for i in range(n):
        pair = (i + n // 2) % n
        e = [math.exp(f[i] @ f[j] / tau) for j in range(n)]
        whole = math.fsum(e[j] for j in range(n) if j != i)
        rivals = repulsion = 0.0
        for j in range(n):
            if j in (i, pair):
                continue
            w = 1 - trust[q[i]] if q[i] == q[j] else 1.0
            rivals += w * e[j]
            repulsion -= w * math.log(1 - e[j] / whole)
        total += math.log(rivals) - f[i] @ f[pair] / tau + repulsion
    return total / n


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 4), st.floats(0.1, 2.0))
@settings(max_examples=25, deadline=None)
def test_contrast_against_a_loop(seed: int, m: int, k: int, tau: float) -> None:
    stream = torch.Generator().manual_seed(seed)
    f = unit_rows(2 * m, 3, seed)
    q = torch.randint(0, k, (m,), generator=stream).repeat(2)
    trust = torch.rand(k, generator=stream, dtype=torch.float64) * 0.99
    found = contrast_loss(f, q, trust, tau)
    assert float(found) == pytest.approx(slow_contrast(f.numpy(), q.tolist(), trust.tolist(), tau), rel=1e-9)


def test_trusted_clusters_are_spared_and_all_can_be() -> None:
    """Full trust removes a cluster's instances; with nothing left to repel the loss is still finite."""
    f = unit_rows(8, 3).float().requires_grad_()
    q = torch.tensor([0, 0, 1, 1] * 2)
    some = contrast_loss(f, q, torch.tensor([1.0, 0.0]), 0.5)
    assert float(some.detach()) < float(contrast_loss(f, q, torch.zeros(2), 0.5).detach())
    nothing = contrast_loss(f, torch.zeros(8, dtype=torch.int64), torch.ones(1), 0.5)
    (some + nothing).backward()
    assert f.grad is not None
    assert torch.isfinite(f.grad).all()


@given(st.integers(0, 10_000), st.integers(3, 20), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_correlations_against_numpy(seed: int, n: int, d: int) -> None:
    f = unit_rows(n, d, seed)
    c = np.corrcoef(f.numpy(), rowvar=False)
    slow = math.fsum(c[a, b] ** 2 for a in range(d) for b in range(d) if a != b) / d
    assert float(correlation_loss(f)) == pytest.approx(slow, rel=1e-6)


def test_a_constant_column_correlates_with_none() -> None:
    f = torch.cat([unit_rows(9, 3).float(), torch.full((9, 1), 0.3)], 1).requires_grad_()
    loss = correlation_loss(f)
    loss.backward()
    assert f.grad is not None
    assert torch.isfinite(f.grad).all()


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_soft_shares_are_balanced(seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    cosines = 2 * torch.rand(24, 4, generator=stream, dtype=torch.float64) - 1
    shares = soft_shares(cosines)
    slow = np.exp(cosines.numpy() / 0.1)
    for _ in range(3):
        slow = slow / slow.sum(0)
        slow = slow / slow.sum(1)[:, None]
    assert shares.numpy() == pytest.approx(slow, rel=1e-9)
    assert shares.sum(1).numpy() == pytest.approx(np.ones(24))


def test_trust_is_earned_by_agreement() -> None:
    trust, chance = Trust(4, rate=0.5), 0.25
    assert trust().tolist() == [0, 0, 0, 0]
    first, second = torch.tensor([0] * 30 + [1] * 30), torch.tensor([0] * 30 + [1] * 15 + [2] * 15)
    trust.see(first, second)
    assert trust().tolist() == pytest.approx([1.0, (0.5 - chance) / (1 - chance), 0, 0])
    trust.see(first, (first + 1) % 4)
    assert trust().tolist() == pytest.approx([(15 / 45 - chance) / (1 - chance), 0, 0, 0], abs=1e-6)
    doubted = Trust(4, rate=0.5, doubt=0.25)
    doubted.see(first, second)  # agreement beyond chance is 1, 1/3, 0, 0
    assert doubted().tolist() == pytest.approx([1.0, (1 / 3 - 0.25) / 0.75, 0, 0])
    few = Trust(4)
    few.see(torch.tensor([0, 0]), torch.tensor([0, 0]))
    assert few().tolist() == [0, 0, 0, 0]  # two images of ten that trust asks for


def test_untrusted_clusters_leave_the_embedding_alone(make: Make, batch: Make) -> None:
    """At first only instances and correlations move the encoder; the cluster head learns all the same."""
    objective = make("cbswr", variant="plus", clusters=4, metric=0.0, decorrelate=0.0, doubt=0.0).train()
    objective.trust.see = lambda first, second: None
    objective(batch(8)).total.backward()
    assert not any(p.grad is not None and p.grad.any() for p in objective.encoder.parameters())
    assert objective.cluster.linear.weight.grad.any()
    slopes = []
    for trusted in (0.25, 0.75):
        objective.trust.hits.fill_(100 * (trusted * 0.75 + 0.25))
        objective.trust.tries.fill_(100)
        objective.zero_grad()
        torch.manual_seed(0)
        objective(batch(8)).total.backward()
        slopes.append(objective.encoder.first.weight.grad.clone())
    assert torch.allclose(3 * slopes[0], slopes[1], rtol=1e-3, atol=1e-7)


def test_memory_is_a_moving_mean_on_the_sphere() -> None:
    memory = Memory(3, 4, 0.75).train()
    one, two = unit_rows(3, 4, 1).float(), unit_rows(3, 4, 2).float()
    c, seen = memory(one, torch.tensor([True, True, False]))
    assert seen.tolist() == [True, True, False]
    assert torch.allclose(c[:2], one[:2])
    c, seen = memory(two, torch.tensor([False, True, True]))
    assert seen.all()
    assert torch.allclose(c[0], one[0])
    assert torch.allclose(c[1], F.normalize(0.75 * one[1] + 0.25 * two[1], dim=0))
    assert torch.allclose(c[2], two[2])
    memory.eval()
    memory(one, torch.ones(3, dtype=torch.bool))
    assert torch.allclose(memory.centroids, c)


@pytest.mark.parametrize("soft", [False, True])
def test_features_are_drawn_for_every_member(soft: bool) -> None:
    """One drawing per cluster equals one per row, weighted by its share in the cluster (F.3)."""
    torch.manual_seed(0)
    drawing = Features(5).double()
    features = torch.randn(8, 5, dtype=torch.float64).abs()
    if soft:
        belongs = torch.rand(8, 3, dtype=torch.float64)
        belongs = belongs / belongs.sum(1, keepdim=True)
    else:
        belongs = F.one_hot(torch.tensor([0, 1, 1, 2] * 2), 3)
    counts = belongs.sum(0)
    slow = 0.0
    for j in range(3):
        weights = [float(belongs[i, j]) for i in range(8)]
        mean = sum(weights[i] * features[i] for i in range(8)) / sum(weights)
        drawn = drawing.linear(mean / mean.norm())
        slow += sum(
            weights[i] * float((features[i] / features[i].norm() - drawn).square().sum().detach())
            for i in range(8)
        )
    found = drawing(features, belongs, counts)
    assert float(found.detach()) == pytest.approx(slow / 8, rel=1e-9)


def test_the_teacher_follows_and_assigns(make: Make, batch: Make) -> None:
    objective = make("cbswr", variant="plus", clusters=4, teacher=0.75).train()
    assert not any(p.requires_grad for p in objective.teacher.parameters())
    assert not any(module.training for module in objective.teacher.modules())
    was = [p.clone() for p in objective.teacher.copies[0].parameters()]
    with torch.no_grad():
        for p in objective.encoder.parameters():
            p.add_(1.0)
    objective.after_step()
    for now, before, student in zip(
        objective.teacher.copies[0].parameters(), was, objective.encoder.parameters(), strict=True
    ):
        assert torch.allclose(now, 0.75 * before + 0.25 * student)
    views = batch(8)
    objective.teacher.copies[2].linear.weight.data.zero_()  # no opinion: all cosines equal
    objective(views)
    assert objective.teacher(torch.cat(views.views)).abs().max() < 1e-5


@pytest.mark.parametrize("options", [{}, ALL_ON], ids=["preset", "all on"])
def test_it_trains_and_its_state_survives(
    options: dict[str, Any], make: Make, batch: Make, tmp_path: Path
) -> None:
    pair = []
    for seed in (0, 1):
        objective = make("cbswr", seed, variant="plus", **{"clusters": 4, **options}).train()
        groups = [
            {**g, "params": [p for p in g["params"] if p.requires_grad]} for g in objective.parameter_groups()
        ]
        pair.append((objective, torch.optim.AdamW(groups, lr=3e-3)))

    def step(which: int, number: int) -> float:
        objective, optimiser = pair[which]
        torch.manual_seed(number)
        loss = objective(batch(8, number % 3))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        objective.after_step()
        assert {"metric", "rim", "decorrelation"} <= set(loss.terms)
        return float(loss.total.detach())

    losses = [step(0, number) for number in range(30)]
    checkpoint.save(tmp_path / "last.safetensors", *pair[0], {"step": 30})
    checkpoint.load(tmp_path / "last.safetensors", *pair[1])
    again = [step(0, number) for number in range(30, 60)]
    assert again == [step(1, number) for number in range(30, 60)]
    assert sum(again[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("shrink", [0.01, 0.1, 1.0])
def test_whitening_against_numpy(shrink: float) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(9, 5).double()
    features = torch.randn(200, 9, dtype=torch.float64) @ torch.randn(9, 9, dtype=torch.float64)
    y = linear(features).detach().numpy()
    values, axes = np.linalg.eigh(np.cov(y.T, bias=True))
    wanted = (y - y.mean(0)) @ axes / np.sqrt(values + shrink * values.mean()) @ axes.T
    wanted *= np.sqrt(y.var(0).sum() / wanted.var(0).sum())
    whiten(linear, features, shrink)
    assert linear(features).detach().numpy() == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_whitening_leaves_a_head_that_says_nothing() -> None:
    linear = torch.nn.Linear(4, 3)
    was = linear.weight.clone()
    whiten(linear, torch.ones(10, 4))
    assert torch.equal(linear.weight, was)


def test_only_plus_whitens_its_head_in_the_end(make: Make) -> None:
    assert not hasattr(make("cbswr", variant="fixed"), "finish")
    assert not hasattr(make("cbswr", variant="plus", whiten=False), "finish")
    objective = make("cbswr", variant="plus")
    features, asked = torch.rand(50, 12) ** 3, []

    def embed(most: int) -> torch.Tensor:
        asked.append(most)
        return features

    def evenness() -> float:
        sizes = torch.linalg.eigvalsh(torch.cov(objective.head.free(features).T)).detach()
        return float(sizes.sum() ** 2 / sizes.square().sum())

    before = evenness()
    objective.finish(embed, objective.head)
    assert asked == [10_000]
    assert evenness() > before
    assert objective.head.free(features).mean(0).abs().max() < 1e-5


def test_nothing_foreign_and_no_clusters_at_all(make: Make, batch: Make) -> None:
    """All in one cluster: the centroid term is 0; without it and without trust plain contrast is left."""
    objective = make("cbswr", variant="plus", clusters=4, memory=0.0, spare="never").train()
    objective._assign = lambda noisy, clean: torch.zeros(len(clean), dtype=torch.int64)
    loss = objective(batch(8))
    assert torch.isfinite(loss.total)
    plain = make("cbswr", variant="plus", clusters=4, memory=0.0, spare="never", central=0.0).train()
    plain._assign = objective._assign
    assert float(plain(batch(8)).terms["metric"].detach()) == pytest.approx(
        float(loss.terms["metric"].detach()), rel=1e-5
    )


@pytest.mark.parametrize("options", [{"memory": 1.0}, {"teacher": -0.1}, {"doubt": 1.0}])
def test_rates_are_checked(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="memory < 1"):
        Config(variant="plus", **options)  # type: ignore[arg-type]


def test_clusters_may_exceed_the_batch_where_centroids_are_kept(make: Make) -> None:
    make("cbswr", variant="plus", clusters=9, memory=0.5).check_batch(8)
    with pytest.raises(ConfigError, match="clusters is 9, a batch has 8"):
        make("cbswr", variant="plus", clusters=9).check_batch(8)


def test_without_any_term_there_is_nothing_to_learn(make: Make, batch: Make) -> None:
    off = {"metric": 0.0, "rim": 0.0, "decorrelate": 0.0, "measured": 0.0, "reconstruction": 0.0}
    with pytest.raises(ConfigError, match="every term of cbswr is off"):
        make("cbswr", variant="plus", **off).check_batch(8)
    drawn = make("cbswr", variant="plus", **off | {"reconstruction": 1e-3, "rebuild": "pixels"}).train()
    drawn.check_batch(8)
    loss = drawn(batch(8))
    assert set(loss.terms) == {"reconstruction"}
    assert loss.total.isfinite()


PINNED: dict[str, tuple[float, float]] = {
    "released": (2.323551, 2.062696),
    "paper": (2.064054, 2.094074),
    "fixed": (4.429194, 3.645814),
}
"""Losses of the first two steps, from before there was a fourth variant."""


@pytest.mark.parametrize("variant", PINNED)
def test_the_other_variants_are_what_they_were(variant: str, make: Make) -> None:
    objective = make("cbswr", variant=variant, clusters=8).train()
    optimiser = torch.optim.SGD(objective.parameter_groups(), lr=0.05)
    found = []
    for step in range(2):
        patterns = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(step + 1))
        views = (patterns + 0.05 * noise).clamp(0, 1)
        torch.manual_seed(step)
        loss = objective(Batch((views[0], views[1]), torch.arange(16)))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        found.append(float(loss.total.detach()))
    assert found == pytest.approx(PINNED[variant], rel=1e-4)
    assert not [name for name in objective.state_dict() if name.startswith(("trust", "memory", "teacher"))]


def test_measurements_against_a_loop() -> None:
    """Normal scores of the ranks, one hidden layer on normalised features, Huber, plain images only."""
    torch.manual_seed(0)
    n, d, given = 9, 5, np.random.default_rng(0).normal(size=(9, 2)) ** 3
    given[4, 1] = np.nan
    measured = Measured(
        d,
        {
            "a": Column(given[:, 0], source="measured"),
            "b": Column(given[:, 1], source="measured"),
            "same": Column(np.ones(n), source="measured"),
            "price": Column(np.arange(9.0)),
            "bytes": Column(np.arange(9.0), source="file"),
        },
    ).double()
    measured.values = measured.values.double()
    ids = torch.tensor([8, 1, 4, 0, 3, 6])
    plain = torch.tensor([True, False, True, True, False, True])
    features = torch.randn(6, d, dtype=torch.float64, requires_grad=True)
    found = measured(features, ids, plain)

    rows = [0, 2, 3, 5]
    e = features.detach().numpy()
    chosen = e[rows]
    spread = np.sqrt(chosen.var(0) + 1e-5)
    hidden, out = measured.heads.trunk[0], measured.heads.out
    losses: list[list[float]] = [[], []]
    for row in rows:
        x = (e[row] - chosen.mean(0)) / spread
        y = hidden.weight.detach().numpy() @ x + hidden.bias.detach().numpy()
        y = np.array([v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in y])
        guess = out.weight.detach().numpy() @ y + out.bias.detach().numpy()
        for k in range(2):
            good = [v for v in given[:, k] if v == v]
            value = given[int(ids[row]), k]
            if value != value:
                continue
            share = (sum(v < value for v in good) + 0.5) / len(good)
            wanted = float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))
            error = abs(guess[k] - wanted)
            losses[k].append(0.5 * error**2 if error < 1 else error - 0.5)
    assert float(found.detach()) == pytest.approx(np.mean([np.mean(one) for one in losses]), rel=1e-5)
    found.backward()
    assert features.grad is not None
    assert not features.grad[~plain].any()
    assert features.grad[plain].any()


def test_measurements_need_two_plain_images_and_something_to_predict() -> None:
    columns = toy_columns()
    one = torch.arange(16) == 3
    assert not Measured(4, columns)(torch.randn(16, 4), torch.arange(16), one)
    flat = {name: Column(np.ones(16), source="measured") for name in columns}
    assert not Measured(4, flat)(torch.randn(16, 4), torch.arange(16), ~one)


def test_plus_shows_the_images_themselves_and_predicts_their_measurements(make: Make, batch: Make) -> None:
    objective = make("cbswr", clusters=4).train()
    assert objective.views == (View(plain=0.5), View())
    objective.take_columns(toy_columns())
    given = batch(16)
    assert "measured" not in objective(given).terms
    given.plain = torch.arange(16) % 2 == 1
    loss = objective(given)
    assert float(sum(loss.terms.values()).detach()) == pytest.approx(float(loss.total.detach()))
    again = objective.measured(objective.encoder(given.views[0]), given.ids, given.plain)
    assert float(loss.terms["measured"].detach()) == pytest.approx(4 * float(again.detach()), rel=1e-5)
    for options in ({"variant": "fixed"}, {"measured": 0.0}, {"plain": 0.0}):
        assert not hasattr(make("cbswr", **options), "take_columns")
    assert make("cbswr", variant="fixed").views == (View(), View())
    for options in ({"plain": 1.0}, {"plain": -0.1}, {"measured": -1.0}, {"beneath": -1.0}):
        with pytest.raises(ConfigError, match="plain < 1, measured >= 0"):
            Config(**options)
