"""Schedules by hand, devices and precisions, what a checkpoint must agree with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from semblance.errors import ConfigError
from semblance.training import config as training
from semblance.training.config import TrainConfig, choose_device, choose_precision, learning_rate


def rates(config: TrainConfig, steps: int, epochs: int) -> list[float]:
    return [learning_rate(config, step, steps, epochs) for step in range(steps * epochs)]


def test_cosine_after_a_warm_up() -> None:
    """Ten steps, a fifth of them warm-up: half, whole, then half a cosine that would reach 0 at step 10."""
    found = rates(TrainConfig(lr=2.0, warmup=0.2), 5, 2)
    expected = [1.0, 2.0, *(1 + math.cos(math.pi * i / 8) for i in range(8))]
    assert found == pytest.approx(expected)
    assert found[2] == 2.0
    assert found[6] == pytest.approx(1.0)


def test_cosine_without_warm_up_starts_at_the_peak() -> None:
    found = rates(TrainConfig(lr=1.0, warmup=0.0), 4, 1)
    assert found == pytest.approx([1.0, 0.5 + 0.5 * math.sqrt(0.5), 0.5, 0.5 - 0.5 * math.sqrt(0.5)])


def test_constant() -> None:
    assert rates(TrainConfig(lr=0.5, schedule="constant", warmup=0.0), 3, 2) == [0.5] * 6
    warm = rates(TrainConfig(lr=0.5, schedule="constant", warmup=0.5), 2, 2)
    assert warm == [0.25, 0.5, 0.5, 0.5]


def test_steps_of_the_paper() -> None:
    """SME on birds: a tenth from epoch 20, a hundredth from epoch 40."""
    config = TrainConfig(lr=1e-3, schedule="steps", milestones=(20, 40), factors=(0.1, 0.01), warmup=0.0)
    found = rates(config, 2, 60)
    assert found == pytest.approx([1e-3] * 40 + [1e-4] * 40 + [1e-5] * 40)


def test_one_step_is_a_whole_training() -> None:
    for schedule in ("cosine", "constant", "steps"):
        given: Any = {"milestones": (1,), "factors": (0.1,)} if schedule == "steps" else {}
        assert rates(TrainConfig(lr=1.0, schedule=schedule, **given), 1, 1) == [1.0]


@pytest.mark.parametrize(("optimiser", "peak"), [("muon", 2e-3), ("adamw", 2e-3), ("sgd", 0.03)])
def test_default_rates(optimiser: Any, peak: float) -> None:
    assert TrainConfig(optimiser=optimiser).base_lr() == peak
    assert TrainConfig(optimiser=optimiser, lr=0.5).base_lr() == 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch": 1},
        {"budget": 0.0},
        {"optimiser": "lion"},
        {"schedule": "linear"},
        {"milestones": (1,)},
        {"warmup": 1.0},
        {"schedule": "steps"},
        {"schedule": "steps", "milestones": (40, 20), "factors": (0.1, 0.01)},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"weight_decay": -0.1},
        {"momentum": 1.0},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrainConfig(**options)


def test_identity() -> None:
    """A checkpoint may move to another device, be given more patience or more time, and nothing else."""
    base = TrainConfig(budget=60.0)
    assert base.identity() == TrainConfig(budget=90.0, device="cpu", patience=0, epochs=3).identity()
    assert TrainConfig().identity() != TrainConfig(epochs=3).identity()
    for change in ({"seed": 1}, {"lr": 0.1}, {"batch": 32}, {"warmup": 0.0}, {"precision": "32"}):
        assert TrainConfig(**change).identity() != TrainConfig().identity()  # type: ignore[arg-type]


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match='no device "gpu"') as caught:
        choose_device("gpu")
    assert "cuda" in caught.value.hint
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="not available here"):
            choose_device("cuda")


@pytest.mark.parametrize("has", [True, False])
def test_precision_follows_the_processor(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "cpu_has_bf16", lambda: has)
    assert choose_precision("auto", torch.device("cpu")) == ("bf16" if has else "32")
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
    assert choose_precision("32", torch.device("cpu")) == "32"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_bf16": False}, False)],
)
def test_processors(capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert training.cpu_has_bf16() is expected
