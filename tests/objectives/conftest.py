"""A tiny encoder and batches for it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F

from semblance import plugins
from semblance.contracts import Batch, Column
from semblance.images.formats import PHOTO
from semblance.images.measure import measure_store


class Tiny(nn.Module):
    """`(n, 3, 8, 8)` -> maps `(n, dim, 2, 2)`: two convolutions, no state."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.dim, self.channels, self.config = dim, 3, SimpleNamespace(size=8)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, dim, 3, stride=2, padding=1)

    def normalise(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25

    def maps(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(self.normalise(x)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).mean((2, 3))


@pytest.fixture(scope="session")
def tiny() -> type[Tiny]:
    return Tiny


def toy_columns() -> dict[str, Column]:
    """What is measured on the 16 images that the contract tests learn from."""
    patterns = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return measure_store((patterns * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy(), PHOTO)


@pytest.fixture
def make() -> Callable[..., Any]:
    """`make("cbswr", seed=0, dim=8, ...)`: the objective around a tiny encoder."""

    def build(name: str = "cbswr", seed: int = 0, columns: bool = False, **options: Any) -> Any:
        torch.manual_seed(seed)
        config = plugins.configure("objectives", name, {"dim": 8, **options})
        objective = plugins.get("objectives", name).Objective(config, Tiny())
        if (columns and hasattr(objective, "take_columns")) or "measure" in name:
            objective.take_columns(toy_columns())
        if hasattr(objective, "take_labels"):
            objective.take_labels(torch.arange(16) // 4)
        return objective

    return build


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """`batch(m, seed)`: two independent random views of `m` images, `(m, 3, 8, 8)` each."""

    def draw(m: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        stream = torch.Generator().manual_seed(seed)
        views = torch.rand(2, m, 3, 8, 8, generator=stream, dtype=torch.float64).to(dtype)
        return Batch((views[0], views[1]), torch.arange(m))

    return draw


@pytest.fixture(scope="session")
def natural() -> Tensor:
    """48 squares of 32 pixels out of the two photographs that come with scikit-learn."""
    photographs = [np.asarray(image) for image in load_sample_images().images]
    chance = np.random.default_rng(0)
    squares = []
    for i in range(48):
        photograph = photographs[i % 2]
        top, left = (int(chance.integers(0, side - 128)) for side in photograph.shape[:2])
        squares.append(photograph[top : top + 128, left : left + 128].reshape(32, 4, 32, 4, 3).mean((1, 3)))
    return torch.from_numpy(np.stack(squares) / 255).permute(0, 3, 1, 2).float()
