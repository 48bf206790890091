"""What every objective promises (`semblance.contracts.Objective`), found by name.

The same on one and on two ranks is tested with the training loop.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from semblance import plugins
from semblance.contracts import Batch
from semblance.errors import ConfigError
from semblance.images.views_presets import PRESETS
from semblance.training import checkpoint
from semblance.training.config import TrainConfig

NAMES = plugins.names("objectives")
Make = Callable[..., Any]
TOY: dict[str, dict[str, Any]] = {"stml": {"neighbours": 1}}
"""Where the toy set is not what an objective is made for: its images have no neighbours of their kind."""


def toy(step: int, m: int = 16) -> Batch:
    """Two noisy views each of 16 fixed patterns."""
    patterns = torch.rand(m, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, m, 3, 8, 8, generator=torch.Generator().manual_seed(step + 1))
    views = (patterns + 0.05 * noise).clamp(0, 1)
    return Batch((views[0], views[1]), torch.arange(m), torch.arange(m) % 2 == 1)


@pytest.fixture
def make(make: Make) -> Make:
    """With columns for who asks for them, as `learn` gives them."""
    return lambda name, seed=0, **options: make(name, seed, columns=True, **options)


def steps(objective: Any, count: int, lr: float = 3e-3) -> list[float]:
    groups = getattr(objective, "parameter_groups", lambda: list(objective.parameters()))()
    optimiser = torch.optim.Adam(groups, lr=lr)
    losses = []
    for step in range(count):
        loss = objective.train()(toy(step))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        getattr(objective, "after_step", lambda: None)()
        losses.append(float(loss.total.detach()))
    return losses


def mean_cosine(objective: Any) -> float:
    objective.eval()
    with torch.no_grad():
        rows = objective.head(objective.encoder(toy(0).views[0]))
    similar = rows @ rows.T
    return float((similar.sum() - similar.trace()) / (len(rows) * (len(rows) - 1)))


def test_both_are_found() -> None:
    assert {"cbswr", "sme"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_finite_and_the_gradient_reaches_the_encoder(name: str, precision: str, make: Make) -> None:
    objective = make(name).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = objective(toy(0))
    loss.total.backward()
    assert loss.total.shape == ()
    assert loss.total.dtype is torch.float32
    assert float(loss.total.detach()) == pytest.approx(
        sum(float(value.detach()) for value in loss.terms.values()), rel=1e-5
    )
    for value in {**loss.terms, **loss.stats}.values():
        assert torch.isfinite(value).all()
    assert not any(value.requires_grad for value in loss.stats.values())
    for parameter in [*objective.encoder.parameters(), *objective.head.parameters()]:
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_head_gives_unit_rows(name: str, make: Make) -> None:
    objective = make(name, dim=5).eval()
    rows = objective.head(objective.encoder(toy(0).views[0]))
    assert rows.shape == (16, 5)
    assert rows.dtype is torch.float32
    assert torch.allclose(rows.norm(dim=1), torch.ones(16), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_and_nothing_collapses(name: str, make: Make) -> None:
    objective = make(name)
    losses = steps(objective, 200)
    assert sum(losses[-20:]) < sum(losses[:20]) - 0.05 * abs(sum(losses[:20]))
    assert mean_cosine(objective) < 0.9


@pytest.mark.parametrize("name", NAMES)
def test_state_survives_a_checkpoint(name: str, make: Make, tmp_path: Path) -> None:
    """Ten steps, saved, loaded into a fresh one: the same loss, and the same eleventh step."""
    first, second = make(name, 0), make(name, 1)
    pair = []
    for objective in (first, second):
        groups = getattr(objective, "parameter_groups", lambda o=objective: list(o.parameters()))()
        pair.append(torch.optim.AdamW(groups, lr=3e-3))

    def step(objective: Any, optimiser: torch.optim.Optimizer, number: int) -> float:
        torch.manual_seed(number)
        loss = objective.train()(toy(number))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        return float(loss.total.detach())

    for number in range(10):
        step(first, pair[0], number)
    checkpoint.save(tmp_path / "last.safetensors", first, pair[0], {"step": 10})
    assert checkpoint.load(tmp_path / "last.safetensors", second, pair[1]) == {"step": 10}
    for number in range(10, 32):  # beyond the next look at the gradients, every 20 steps
        assert step(first, pair[0], number) == step(second, pair[1], number)
    for name_of, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name_of]), name_of


@pytest.mark.parametrize("name", NAMES)
def test_config(name: str) -> None:
    """Frozen, simple values, every field explained, unknown options refused by name."""
    config = plugins.configure("objectives", name)
    assert dataclasses.is_dataclass(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dim = 3
    described = inspect.getdoc(type(config)) or ""
    for field in dataclasses.fields(config):
        assert re.search(rf"`{field.name}`", described), f"{name}.{field.name} is not explained"
        assert isinstance(field.default, (int, float, str, bool, type(None))), field.name
    with pytest.raises(ConfigError, match=f'{name} has no option "dims"') as caught:
        plugins.configure("objectives", name, {"dims": 3})
    assert "dim" in caught.value.hint


@pytest.mark.parametrize("name", NAMES)
def test_published_settings_can_be_used(name: str) -> None:
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    for title, setting in plugins.get("objectives", name).SETTINGS.items():
        assert set(setting) <= {
            "encoder", "encoder_options", "size", "views", "fit", "objective_options", "training",
        }, title  # fmt: skip
        assert set(setting["training"]) <= known
        TrainConfig(**setting["training"])
        plugins.configure("objectives", name, setting.get("objective_options"))
        plugins.configure("encoders", setting["encoder"], setting.get("encoder_options"))
        assert setting["views"] in PRESETS


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_the_paper(name: str) -> None:
    """First line says what it is, then who published it and where."""
    text = plugins.get("objectives", name).__doc__ or ""
    assert text.splitlines()[0].endswith(".")
    assert re.search(r"arXiv \d{4}\.\d{4,5}", text)


@pytest.mark.parametrize("name", NAMES)
def test_other_views_of_the_same_images_are_what_is_compared(name: str, make: Make) -> None:
    """Embeddings that match across views lose less than embeddings that do not."""
    objective = make(name, seed=3, **TOY.get(name, {}))
    good = toy(0)
    wrong = Batch((good.views[0], good.views[1].roll(1, 0)), good.ids)
    steps(objective, 15)
    torch.manual_seed(0)
    right = float(objective(good).total.detach())
    torch.manual_seed(0)
    assert right < float(objective(wrong).total.detach())
    assert F.cosine_similarity(good.views[0].flatten(1), good.views[1].flatten(1)).min() > 0.9
