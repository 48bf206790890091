"""Sums of objectives: one pass of the encoder, gradients in stated shares, options by name, one state."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.objectives.conftest import Tiny, toy_columns

from semblance import plugins
from semblance.contracts import PAIR, Batch, View
from semblance.errors import ConfigError
from semblance.objectives._combined import balanced
from semblance.objectives._shared import Shared
from semblance.training import checkpoint

Make = Callable[..., Any]


@pytest.fixture
def combined(tiny: Any) -> Make:
    """`combined("sme+cbswr", seed=0, **{"sme.tau": 0.2})` around a tiny encoder."""

    def build(title: str = "sme+cbswr", seed: int = 0, **options: Any) -> Any:
        torch.manual_seed(seed)
        config = plugins.configure("objectives", title, {"cbswr.clusters": 4, **options})
        return plugins.get("objectives", title).Objective(config, tiny())

    return build


def slopes_at_maps(objective: Any, batch: Batch) -> list[float]:
    """|d(w_k L_k)/dE| of every objective, by running it alone on maps of its own."""
    found = []
    for k, (name, part) in enumerate(objective.parts.items()):
        alone = plugins.get("objectives", name).Objective(part.config, objective.encoder).train()
        alone.load_state_dict({**part.state_dict(), **_encoder_state(objective)})
        held: list[torch.Tensor] = []
        real = objective.encoder.maps

        def keep(x: torch.Tensor, real: Any = real, held: Any = held) -> torch.Tensor:
            held.append(real(x))
            return held[-1]

        objective.encoder.maps = keep
        try:
            loss = alone(batch).total
        finally:
            del objective.encoder.maps
        (slope,) = torch.autograd.grad(loss, held)
        found.append(float(slope.norm() * objective.weights[k]))
    return found


def _encoder_state(objective: Any) -> dict[str, torch.Tensor]:
    return {f"encoder.{name}": value for name, value in objective.encoder.state_dict().items()}


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(0.01, 1)), min_size=2, max_size=5),
)
def test_weights_give_the_shares(pairs: list[tuple[float, float]]) -> None:
    norms, shares = np.array(pairs).T
    weights = balanced(torch.tensor(norms), torch.tensor(shares)).numpy()
    slow = [share / shares[0] * norms[0] / norm for norm, share in pairs]
    assert weights == pytest.approx([min(1e3, weight) for weight in slow])
    if max(slow) < 1e3:
        assert weights * norms / (weights * norms).sum() == pytest.approx(shares / shares.sum())


def test_a_loss_without_gradient_keeps_its_weight() -> None:
    assert balanced(torch.tensor([2.0, 0.0, 4.0]), torch.tensor([0.5, 0.2, 0.3])).tolist() == pytest.approx(
        [1.0, 1.0, 0.3]
    )
    assert balanced(torch.tensor([0.0, 3.0]), torch.tensor([0.5, 0.5])).tolist() == [1.0, 1.0]


def test_every_view_is_encoded_once(combined: Make, batch: Make) -> None:
    objective, rows = combined("cbswr+sme").train(), []
    real = objective.encoder.maps
    objective.encoder.maps = lambda x: (rows.append(len(x)), real(x))[1]
    objective(batch(8))
    assert rows == [16]


@pytest.mark.parametrize("shares", [(), (0.8, 0.2)])
def test_gradients_at_the_maps_have_the_shares(
    shares: tuple[float, ...], combined: Make, batch: Make
) -> None:
    # Without dropout: the parts run a second time here, and would draw other masks.
    options = {"shares": shares, "cbswr.dropout": 0.0}
    objective = combined(**options).train()
    objective.parts["cbswr"].count = 1  # gamma as it stands
    objective(batch(8))
    objective.parts["cbswr"].count = 1
    found = slopes_at_maps(objective, batch(8))
    wanted = shares or (0.5, 0.5)
    assert found[0] / sum(found) == pytest.approx(wanted[0], rel=1e-3)
    assert objective(batch(8)).stats["share.sme"].item() == pytest.approx(wanted[0], rel=1e-5)


def test_the_sum_is_that_of_its_parts(combined: Make, batch: Make) -> None:
    objective = combined(**{"shares": (0.7, 0.3), "sme.tau": 0.3, "cbswr.variant": "fixed"}).eval()
    objective.weights.copy_(torch.tensor([1.0, 0.25]))
    whole = objective(batch(8))
    parts = []
    for name, part in objective.parts.items():
        alone = plugins.get("objectives", name).Objective(part.config, objective.encoder).eval()
        alone.load_state_dict({**part.state_dict(), **_encoder_state(objective)})
        parts.append(alone(batch(8)))
    assert whole.total.item() == pytest.approx((parts[0].total + 0.25 * parts[1].total).item(), rel=1e-5)
    assert whole.terms["cbswr.rim"].item() == pytest.approx(0.25 * parts[1].terms["rim"].item(), rel=1e-5)
    assert set(whole.terms) == {
        "sme.attraction", "sme.spreading", "cbswr.metric", "cbswr.rim", "cbswr.reconstruction",
    }  # fmt: skip
    assert float(whole.stats["positive_cosine"]) == pytest.approx(float(parts[0].stats["positive_cosine"]))


def test_it_trains_every_part_and_the_head_is_the_first_ones(combined: Make, batch: Make) -> None:
    objective = combined().train()
    assert objective.head is objective.parts["sme"].head
    listed = [id(p) for group in objective.parameter_groups() for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in objective.parameters())
    assert [group.get("weight_decay") for group in objective.parameter_groups()].count(1e-4) == 1
    objective(batch(8)).total.backward()
    assert all(p.grad is not None and p.grad.any() for p in objective.encoder.parameters())
    assert objective.parts["cbswr"].head.linear.weight.grad.any()


def test_state_survives_a_checkpoint(combined: Make, batch: Make, tmp_path: Path) -> None:
    pair = []
    for seed in (0, 1):
        objective = combined(seed=seed).train()
        pair.append((objective, torch.optim.AdamW(objective.parameter_groups(), lr=3e-3)))

    def step(which: int, number: int) -> float:
        objective, optimiser = pair[which]
        torch.manual_seed(number)
        loss = objective(batch(8, number)).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    for number in range(10):
        step(0, number)
    checkpoint.save(tmp_path / "last.safetensors", *pair[0], {"step": 10})
    checkpoint.load(tmp_path / "last.safetensors", *pair[1])
    for number in range(10, 54):  # beyond the next look at the gradients
        assert step(0, number) == step(1, number)
    assert pair[0][0].weights[1] != 1


def test_options_are_read_by_the_part_they_are_of() -> None:
    config = plugins.configure("objectives", "sme+cbswr", {"cbswr.clusters": "7", "shares": "3,1"})
    assert (config.cbswr.clusters, config.sme.dim, config.shares, config.dim) == (7, 128, (3.0, 1.0), 128)
    assert plugins.configure("objectives", "sme+cbswr", dataclasses.asdict(config)) == config
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.shares = ()


@pytest.mark.parametrize(
    ("title", "options", "says"),
    [
        ("sme+sme", {}, "sme\\+sme.*no sum of different"),
        ("sme+", {}, "no sum of different"),
        ("sme+cbswrr", {}, 'no objective is called "cbswrr"'),
        ("sme+cbswr", {"clusters": 3}, 'no option "clusters".*cbswr.clusters'),
        ("sme+cbswr", {"sme.tua": 3}, 'sme has no option "tua".*tau'),
        ("sme+cbswr", {"sme": 3}, 'no option "sme"'),
        ("sme+cbswr", {"sme.tau": "warm"}, "sme.tau is 'warm'"),
        ("sme+cbswr", {"shares": "1,2,3"}, "shares is 1,2,3.*each of sme, cbswr"),
        ("sme+cbswr", {"shares": "1,0"}, "above 0"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(title: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        plugins.configure("objectives", title, options)
    assert "\n" not in str(caught.value)


def test_only_one_may_make_the_batches(combined: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sme", "cbswr"):
        kind = plugins.get("objectives", name).Objective
        monkeypatch.setattr(kind, "order", lambda self, shuffled, batch: shuffled, raising=False)
    with pytest.raises(ConfigError, match="sme and cbswr both make the batches"):
        combined()


def test_only_one_may_choose_partners(combined: Make) -> None:
    assert combined(**{"sme.partner": 0.5}).partner.share == 0.5
    with pytest.raises(ConfigError, match="sme and cbswr both choose the partners"):
        combined(**{"sme.partner": 0.5, "cbswr.partner": 0.5})


def test_views_are_those_of_whom_asks_for_most(
    combined: Make, batch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert combined().views == (View(plain=0.5), View()), "as often plain as any part wants it"
    kind = plugins.get("objectives", "sme").Objective
    monkeypatch.setattr(kind, "views", (*PAIR, View(0.5, 0.25)), raising=False)
    assert combined().views == (View(plain=0.5), View(), View(0.5, 0.25))
    monkeypatch.setattr(kind, "views", (View(0.5), View()), raising=False)
    with pytest.raises(ConfigError, match="needs other views"):
        combined()


def test_features_are_made_once_and_only_if_asked_for(combined: Make) -> None:
    asked: list[int] = []

    def embed() -> torch.Tensor:
        asked.append(1)
        return torch.randn(6, 12)

    combined().before_epoch(embed)
    assert not asked
    objective = combined(**{"cbswr.partner": 1.0})
    objective.before_epoch(embed)
    assert len(asked) == 1
    ids = torch.arange(6)
    assert (objective.partners(ids, torch.Generator()) != ids).all()
    assert torch.equal(combined().partners(ids, torch.Generator()), ids)


def test_the_shared_encoder_knows_views_in_any_order(tiny: Any) -> None:
    encoder = tiny().eval()
    views = [torch.rand(3, 3, 8, 8) for _ in range(3)] + [torch.rand(3, 3, 16, 16)]
    shared, rows = Shared(encoder), []
    shared.look(views)
    real = encoder.maps
    encoder.maps = lambda x: (rows.append(len(x)), real(x))[1]
    for wanted in (views[1], torch.cat([views[2], views[0]]), views[3], torch.cat(views[:3])):
        assert torch.allclose(shared.maps(wanted), real(wanted), atol=1e-6)
        assert torch.allclose(shared(wanted), encoder.forward(wanted) if rows else real(wanted).mean((2, 3)))
    assert rows == []
    shared.maps(torch.rand(3, 3, 8, 8))
    shared.maps(torch.rand(4, 3, 8, 8))
    assert rows == [3, 4]
    assert shared.dim == encoder.dim


def test_who_has_roles_for_columns_gets_them_alone() -> None:
    """Else cbswr would keep a measurement that measure drops."""
    for title, alone in (("cbswr+measure", False), ("cbswr+sme", True)):
        config = plugins.configure("objectives", title, {})
        objective = plugins.get("objectives", title).Objective(config, Tiny())
        objective.take_columns(toy_columns())
        assert (objective.parts["cbswr"].measured is not None) == alone
