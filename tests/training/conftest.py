"""A tiny store of images and objectives small enough to train in a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from semblance import plugins
from semblance.images.views import PRESETS
from semblance.training.config import TrainConfig

Array = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="session")
def store() -> Callable[..., Array]:
    """`store(n)`: `n` images of 8 x 8 pixels, each four squares of its own colours."""

    def make(n: int = 20, seed: int = 0) -> Array:
        colours = np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 3), dtype=np.uint8)
        return colours.repeat(4, 1).repeat(4, 2)

    return make


@pytest.fixture(scope="session")
def objective() -> Callable[..., Any]:
    """`objective("sme", seed=0, ...)` around a residual network of width 2, BatchNorm included."""

    def make(name: str = "sme", seed: int = 0, **options: Any) -> Any:
        torch.manual_seed(seed)
        encoder = plugins.configure("encoders", "resnet", {"depth": 10, "width": 2, "size": 8})
        config = plugins.configure("objectives", name, {"dim": 4, **options})
        built = plugins.get("encoders", "resnet").build(encoder)
        return plugins.get("objectives", name).Objective(config, built)

    return make


@pytest.fixture(scope="session")
def config() -> Callable[..., TrainConfig]:
    """`config(epochs=2, ...)`: on the CPU in float32, batches of 8."""

    def make(**options: Any) -> TrainConfig:
        plain = {"epochs": 2, "batch": 8, "device": "cpu", "precision": "32", "views": PRESETS["photo"]}
        return TrainConfig(**{**plain, **options})

    return make
