"""Measurements as targets: every formula against a slow loop, and what roles do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.objectives.conftest import Tiny, toy_columns
from torch import Tensor, nn
from torch.nn import functional as F

from semblance import plugins
from semblance.contracts import Batch, Column
from semblance.errors import ConfigError
from semblance.objectives import measure
from semblance.objectives._closing import Erased, erase_from, erasure
from semblance.objectives._heads import masked_huber, reverse
from semblance.objectives._targets import given_away, log_score, prepare, rank_normal

NAN = float("nan")


def column(*values: float, levels: tuple[str, ...] = (), **more: Any) -> Column:
    return Column(np.array(values, np.float64), levels, **more)


def built(columns: dict[str, Column], **options: Any) -> Any:
    torch.manual_seed(0)
    config = plugins.configure("objectives", "measure", {"dim": 6, **options})
    objective = measure.Objective(config, Tiny())
    objective.take_columns(columns)
    return objective


def test_rank_normal_and_log_score_against_loops() -> None:
    values = np.random.default_rng(0).integers(0, 9, 40).astype(float)
    values[[3, 7]] = NAN
    good = [v for v in values if v == v]
    ranks, logs = rank_normal(values), log_score(values + 1)
    mean = sum(math.log(v + 1) for v in good) / len(good)
    spread = math.sqrt(sum((math.log(v + 1) - mean) ** 2 for v in good) / len(good))
    for i, v in enumerate(values):
        if v != v:
            assert math.isnan(ranks[i])
            assert math.isnan(logs[i])
            continue
        place = sum(w < v for w in good) + (sum(w == v for w in good) + 1) / 2
        share = (place - 0.5) / len(good)
        assert 0.5 * (1 + math.erf(ranks[i] / math.sqrt(2))) == pytest.approx(share)
        assert logs[i] == pytest.approx((math.log(v + 1) - mean) / spread)
    signed = log_score(np.array([-100.0, 0, 1, 2, 1e9]))
    assert np.abs(signed).max() <= 4
    assert (np.diff(signed) > 0).all()


def test_masked_huber_against_loops() -> None:
    chance = torch.Generator().manual_seed(0)
    guess = torch.randn(7, 4, generator=chance, dtype=torch.float64) * 2
    wanted = torch.randn(7, 4, generator=chance, dtype=torch.float64)
    wanted[2, 1], wanted[:, 3] = NAN, NAN
    guess.requires_grad_()
    found = masked_huber(guess, wanted)
    for k in range(4):
        terms = []
        for i in range(7):
            error = float(guess[i, k].detach() - wanted[i, k])
            if error == error:
                terms.append(0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5)
        assert float(found[k].detach()) == pytest.approx(sum(terms) / len(terms) if terms else 0.0)
    found.sum().backward()
    assert torch.isfinite(guess.grad).all()
    assert not guess.grad[2, 1]


def test_weights_make_norms_equal() -> None:
    weights = measure.equalised(torch.tensor([1.0, 2.0, 4.0, 0.0]))
    assert float(weights.mean()) == pytest.approx(1)
    strength = weights[:3] * torch.tensor([1.0, 2.0, 4.0])
    assert torch.allclose(strength, strength[0].expand(3))
    assert measure.equalised(torch.zeros(2)).tolist() == [1, 1]
    wild = measure.equalised(torch.tensor([1e-9, 1.0, 1e9]))
    assert float(wild.max() / wild.min()) == pytest.approx(100)


def test_reversed_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    y = reverse(x, 0.25)
    (y * torch.arange(3.0)).sum().backward()
    assert y.tolist() == [1, 1, 1]
    assert x.grad is not None
    assert x.grad.tolist() == [0, -0.25, -0.5]


def test_targets() -> None:
    columns = {
        "hour": column(0, 6, 12, NAN, 0),
        "flat": column(2, 2, 2, NAN, 2),
        "kind": column(0, 1, NAN, 0, 1, levels=("a", "b")),
        "name": column(0, 1, 2, 3, 4, levels=("a", "b", "c", "d", "e")),
        "angle": column(1, 2, 3, 4, 5, turns=True),
        "inf": column(1, 2, np.inf, 4, 5),
    }
    found = prepare(columns, "rank", {"hour": 24.0})
    assert found.names == ("hour cos", "hour sin", "angle", "inf")
    root = math.sqrt(2)
    np.testing.assert_allclose(found.values[:3, 0], [root, 0, -root], atol=1e-6)
    np.testing.assert_allclose(found.values[:3, 1], [0, root, 0], atol=1e-6)
    assert np.isnan(found.values[3, :2]).all()
    assert np.isnan(found.values[2, 3])
    assert found.turns.tolist() == [False, False, True, False]
    (kind,) = found.categories
    assert (kind.name, kind.codes.tolist(), kind.levels) == ("kind", [0, 1, -1, 0, 1], 2)
    held = prepare(columns, "rank", {}, np.arange(5) == 0)
    assert np.isnan(held.values[0]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": "nope"}, 'keep names "nope"'),
        ({"drop": "z*"}, r'drop names "z\*"'),
        ({"keep": "mean_0", "ignore": "mean_*"}, "to be both kept and ignored"),
        ({"circular": "mean_0"}, "name:period"),
        ({"circular": "mean_0:x"}, "name:period"),
        ({"circular": "nope:3"}, "no column"),
        ({"holdout": 1.0}, "holdout"),
        ({"drop": "patient"}, 'names "patient", of which most images have a value of their own'),
    ],
)
def test_bad_roles_say_why(options: dict[str, Any], words: str) -> None:
    columns = toy_columns()
    n = len(next(iter(columns.values())).values)
    columns["patient"] = Column(np.arange(n) // 1.5, tuple(map(str, range(n))))
    with pytest.raises(ConfigError, match=words):
        built(columns, **options)


def test_without_columns_it_says_so() -> None:
    objective = measure.Objective(measure.Config(), Tiny())
    for call in (
        lambda: objective.check_batch(8),
        lambda: objective(Batch((torch.rand(4, 3, 8, 8),), torch.arange(4))),
    ):
        with pytest.raises(ConfigError, match="no columns"):
            call()
    with pytest.raises(ConfigError, match="nothing to predict"):
        built({"flat": column(*[1.0] * 16)}, keep="flat")


def test_measurements_are_kept_and_the_users_columns_shown() -> None:
    columns = toy_columns() | {"given": column(*range(16)), "batch": column(*[0, 1] * 8, levels=("x", "y"))}
    found = measure.roles(measure.Config(), columns)
    assert found["mean_0"] == "keep"
    assert found["given"] == found["batch"] == "show"
    # What a dropped column gives away is not kept, unless asked for by name.
    tied = columns | {"p50_0": column(*[0.0, 5.0] * 8, source="measured")}
    assert measure.roles(measure.Config(drop="batch"), tied)["p50_0"] == "ignore"
    assert measure.roles(measure.Config(drop="batch", keep="p50_0"), tied)["p50_0"] == "keep"
    assert given_away(tied["p50_0"], tied["batch"]) == pytest.approx(1)
    assert given_away(tied["batch"], tied["p50_0"]) == pytest.approx(1)
    noise = column(*np.random.default_rng(0).normal(size=16))
    assert given_away(noise, tied["batch"]) < 0.3


def test_the_loss_against_loops() -> None:
    """One batch in evaluation mode: heads applied by hand, huber and cross-entropy summed in Python."""
    columns = {
        "z": column(*np.random.default_rng(0).normal(size=16)),
        "kind": column(*[0, 1, 2, NAN] * 4, levels=("a", "b", "c")),
    }
    objective = built(columns, keep="z,kind", holdout=0.0).eval()
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([0, 3, 5, 14, 15])
    with torch.no_grad():
        loss = objective(Batch((images,), ids))
        e = objective.encoder(images)
    total = 0.0
    for head, x in zip(objective.kept, (e, objective.head(e).detach()), strict=True):
        x = F.batch_norm(x, head.norm.running_mean, head.norm.running_var) if head.norm else x * 6**0.5
        y = head.out(head.trunk(x)).detach()
        huber, entropy, known = 0.0, 0.0, 0
        for row, i in enumerate(ids.tolist()):
            error = float(y[row, 0] - rank_normal(columns["z"].values)[i])
            huber += 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5
            level = columns["kind"].values[i]
            if level == level:
                known += 1
                entropy -= float(torch.log_softmax(y[row, 1:], 0)[int(level)])
        total += (huber / len(ids) + entropy / known) / 2
    assert float(loss.total) == pytest.approx(total / 2, rel=1e-5)


def test_many_levels_are_learned_against_centroids() -> None:
    names = tuple(f"{i}" for i in range(300))
    values = np.repeat(np.arange(300), 3).astype(float)
    objective = built({"name": Column(values, names)}, keep="name", holdout=0.0, hidden=0, turn=0.0)
    (centroids,) = objective.kept[0].many
    z = torch.tensor([[3.0, 4.0] + [0.0] * 62, [0.0, 1.0] + [0.0] * 62, [1.0] + [0.0] * 63])
    with torch.no_grad():
        centroids.project = nn.Identity()
        assert float(centroids(z, torch.tensor([7, 7, -1]))) == 0  # no level has been seen
        np.testing.assert_allclose(centroids.centroids[7, :2], [0.3, 0.9], atol=1e-6)
        assert centroids.seen.sum() == 1
        centroids(z[2:], torch.tensor([7]))
        np.testing.assert_allclose(centroids.centroids[7, :2], [0.37, 0.81], atol=1e-6)
        centroids(z[2:], torch.tensor([2]))
        loss = centroids.eval()(z[1:2], torch.tensor([7]))
    cosine = 0.81 / math.hypot(0.37, 0.81) / 0.07
    assert float(loss) == pytest.approx(math.log(1 + math.exp(0 - cosine)), abs=1e-5)


def test_turned_images_are_the_eight() -> None:
    image = torch.arange(18.0).view(1, 2, 3, 3).repeat(400, 1, 1, 1)
    torch.manual_seed(0)
    turned, coins = measure.turn(image, 0.5)
    ways = {tuple(one.flatten().tolist()) for one in turned}
    x = image[0].numpy()
    wanted = {tuple(np.rot90(y, k, (1, 2)).flatten().tolist()) for y in (x, x[:, :, ::-1]) for k in range(4)}
    assert ways == wanted
    assert 150 < int(coins.sum()) < 250
    assert (turned[~coins] == image[~coins]).all()
    assert not (turned[coins] == image[coins]).flatten(1).all(1).any()


def test_what_turning_changes_is_masked() -> None:
    objective = built({"a": column(*range(16), turns=True, source="measured")}, turn=1.0, holdout=0.0)
    images = torch.rand(6, 3, 8, 8)
    assert float(objective.train()(Batch((images,), torch.arange(6))).total.detach()) == 0
    assert float(objective.eval()(Batch((images,), torch.arange(6))).total.detach()) > 0


def test_held_out_rows_lend_no_targets() -> None:
    held = measure.held_out(200, 0.1)
    assert held.sum() == 20
    objective = built({"a": column(*np.random.default_rng(0).normal(size=200))}, keep="a", turn=0.0)
    rows = torch.from_numpy(np.flatnonzero(held)[:6])
    assert float(objective(Batch((torch.rand(6, 3, 8, 8),), rows)).total.detach()) == 0
    assert measure.held_out(3, 0.9).sum() == 1


@pytest.mark.parametrize("k", [1, 3])
def test_erasure_leaves_nothing_linear_and_changes_least(k: int) -> None:
    chance = torch.Generator().manual_seed(k)
    z = torch.randn(300, k, generator=chance, dtype=torch.float64)
    x = torch.randn(300, 6, generator=chance, dtype=torch.float64) @ torch.randn(
        6, 6, generator=chance, dtype=torch.float64
    )
    x[:, :k] += 3 * z
    matrix, mean = erasure(x, z)
    after = x - (x - mean) @ matrix.T
    assert (after - after.mean(0)).T.mm(z - z.mean(0)).abs().max() / 300 < 1e-9
    assert torch.linalg.matrix_rank(matrix, tol=1e-8) == k
    assert torch.allclose(matrix @ matrix, matrix)
    # Orthogonal where x is white: no smaller change would do.
    covariance = torch.cov(x.T, correction=0)
    assert torch.allclose(matrix @ covariance, covariance @ matrix.T)


def test_unit_rows_hardly_tell_what_was_erased() -> None:
    """A batch that moves the mean and stretches the rest, read by a linear classifier before and after."""
    chance = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 3, (900,), generator=chance)
    features = torch.randn(900, 12, generator=chance) + F.one_hot(batch, 12) * 2.0 + 1.0
    linear = nn.Linear(12, 8)

    def told() -> float:
        rows = F.normalize(linear(features).detach(), dim=1).numpy()
        model = LogisticRegression(max_iter=500).fit(rows[:450], batch[:450])
        return float(model.score(rows[450:], batch[450:]))

    assert told() > 0.5
    erase_from(linear, features[:800], F.one_hot(batch[:800]).float())
    assert told() < 0.42
    assert linear(features[:800]).detach().mean(0).abs().max() < 1e-5


def test_dropping_takes_a_batch_out_of_the_head() -> None:
    chance = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 3, (90,), generator=chance)
    features = torch.randn(90, 12, generator=chance) + F.one_hot(batch, 12) * 4.0
    columns = {
        "batch": Column(batch.double().numpy(), ("a", "b", "c")),
        "z": column(*features[:, 5].tolist()),
    }
    objective = built(columns, drop="batch", keep="z", holdout=0.0)
    told = [objective.head.linear(features).detach()]
    objective.finish(lambda: features, objective.head)
    told.append(objective.head.linear(features).detach())
    apart = [max(float((y[batch == k].mean(0) - y.mean(0)).abs().max()) for k in range(3)) for y in told]
    assert apart[0] > 0.1
    assert apart[1] < 1e-4 * apart[0] + 1e-5
    alone = built({"z": columns["z"]}, keep="z")
    weight = alone.head.linear.weight.clone()
    alone.finish(lambda: features, alone.head)  # nothing to drop: centred, and no more
    assert torch.equal(alone.head.linear.weight, weight)
    assert alone.head.linear(features).detach().mean(0).abs().max() < 1e-5
    plain = nn.Linear(12, 4)  # no head that is known: left alone
    before = plain.weight.clone()
    built({"z": columns["z"]}, keep="z").finish(lambda: features, plain)
    assert torch.equal(plain.weight, before)
    erase_from(plain, features, F.one_hot(batch).float())
    assert not torch.equal(plain.weight, before)


def test_reversal_reaches_the_encoder_only() -> None:
    """The adversary learns; the encoder is pushed the other way, more and more."""
    columns = {"batch": column(*[0, 1] * 8, levels=("x", "y"))}
    objective = built(columns, drop="batch", holdout=0.0, turn=0.0)
    images, ids = torch.rand(16, 3, 8, 8), torch.arange(16)

    def slope() -> Tensor:
        objective.zero_grad()
        objective.train()(Batch((images,), ids)).total.backward()
        return objective.encoder.first.weight.grad.clone()

    assert not slope().any()  # the ramp begins at nothing
    objective.count = measure.RAMP
    assert slope().norm() > 0
    assert objective.dropped[0].out.weight.grad.norm() > 0


def test_in_a_sum_the_plain_view_is_its_own(make: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    config = plugins.configure("objectives", "sme+measure", {"sme.dim": 8, "measure.drop": "batch"})
    objective = plugins.get("objectives", "sme+measure").Objective(config, Tiny())
    objective.take_columns(toy_columns() | {"batch": column(*[0, 1] * 8, levels=("x", "y"))})
    assert [view.plain for view in objective.views] == [0, 0, 1]
    seen: dict[str, int] = {}
    for name, part in objective.parts.items():
        own = part.forward
        part.forward = lambda batch, name=name, own=own: (seen.update({name: len(batch.views)}), own(batch))[
            1
        ]
    loss = objective.train()(Batch(tuple(torch.rand(3, 16, 3, 8, 8)), torch.arange(16)))
    assert seen == {"sme": 2, "measure": 1}
    assert {"measure.keep", "measure.drop"} <= set(loss.terms)
    e = torch.rand(16, 12)
    rows, own = objective.head(e), [part.head(e) for part in objective.parts.values()]
    assert rows.shape == (16, objective.config.dim) == (16, 8 + 128)
    assert torch.allclose(rows @ rows.T, (own[0] @ own[0].T + own[1] @ own[1].T) / 2, atol=1e-6)
    before = [weight.clone() for weight in objective.head.parameters()]
    objective.finish(lambda: e, objective.head)
    assert not any(torch.equal(*pair) for pair in zip(before, objective.head.parameters(), strict=True))


def told(rows: Tensor, batch: Tensor) -> float:
    """Squared distances of the batches' means from the whole's, in the metric of the rows' own spread."""
    x = (rows - rows.mean(0)).detach().double()
    lengths, axes = torch.linalg.eigh(x.T @ x / len(x))
    good = lengths > 1e-9 * lengths[-1]
    white = x @ axes[:, good] / lengths[good].sqrt()
    return sum(float(white[batch == k].mean(0).square().sum()) for k in batch.unique())


def test_what_is_erased_from_unit_rows_is_gone_and_they_stay_unit_rows() -> None:
    torch.manual_seed(0)
    batch = torch.randint(0, 3, (2000,))
    rows = F.normalize(torch.randn(2000, 40) + F.one_hot(batch, 40) * 2.0, dim=1)
    erased = Erased(40)
    torch.testing.assert_close(erased(rows), rows)
    erased.fit(rows, F.one_hot(batch).float())
    assert told(erased(rows), batch) < 1e-2 * told(rows, batch)
    assert torch.allclose(erased(rows).norm(dim=1), torch.ones(2000))


def test_heads_side_by_side_forget_together() -> None:
    """Each is brought to length 1 by itself; between them a linear reader finds what neither says alone."""
    torch.manual_seed(0)
    batch = torch.randint(0, 3, (600,))
    e = torch.randn(600, 12) + F.one_hot(batch, 12) * 2.0 + 1.0
    options = {"sme.dim": 12, "measure.dim": 12, "measure.drop": "batch"}
    config = plugins.configure("objectives", "sme+measure", options)
    objective = plugins.get("objectives", "sme+measure").Objective(config, Tiny())
    columns = {"batch": Column(batch.double().numpy(), ("a", "b", "c")), "z": column(*e[:, 5].tolist())}
    objective.take_columns(columns)
    objective.finish(lambda: e, objective.head)
    whole = objective.head(e)
    apart = torch.cat([part.head(e) for part in objective.parts.values()], 1)
    assert told(whole, batch) < 0.5 * told(apart, batch)
    again = plugins.get("objectives", "sme+measure").Objective(config, Tiny())
    again.head.load_state_dict(objective.head.state_dict())
    torch.testing.assert_close(again.head(e), whole)
    free = plugins.configure("objectives", "sme+measure", {"sme.dim": 12})
    assert plugins.get("objectives", "sme+measure").Objective(free, Tiny()).erased is None


def test_a_head_with_batch_statistics_forgets_too() -> None:
    """What is erased from a joined head is measured as it will be read: with the statistics it has kept."""
    torch.manual_seed(0)
    batch = torch.randint(0, 2, (200,))
    e = torch.randn(200, 12) + F.one_hot(batch, 12) * 2.0
    options = {"measure.drop": "batch", "orthohash.dim": 8}
    config = plugins.configure("objectives", "orthohash+measure", options)
    objective = plugins.get("objectives", "orthohash+measure").Objective(config, Tiny()).train()
    objective.take_columns({"batch": Column(batch.double().numpy(), ("a", "b"))})
    kept = {name: value.clone() for name, value in objective.head.state_dict().items() if "running" in name}
    objective.finish(lambda: e, objective.head)
    assert kept
    assert all(torch.equal(objective.head.state_dict()[name], value) for name, value in kept.items())
    parts = list(objective.parts.values())
    apart = torch.cat([part.head.eval()(e) for part in parts], 1)
    assert told(objective.head.eval()(e), batch) < 0.1 * told(apart, batch)
