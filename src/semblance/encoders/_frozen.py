"""An encoder that stays as it is: no gradient, fixed statistics, for a training of the head alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Frozen"]


class Frozen(nn.Module):
    """`trunk` as an encoder that training cannot change; a step costs its forward pass alone.

    Views go through it as through any encoder. Its weights take no gradient, it records none, and it is
    in evaluation mode throughout, so that batch statistics stay what they were.
    """

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False)
        self.dim, self.channels, self.config = trunk.dim, trunk.channels, trunk.config
        self.train()

    def train(self, mode: bool = True) -> Frozen:
        """Itself, its trunk in evaluation mode whatever `mode` is."""
        super().train(mode)
        self.trunk.eval()
        return self

    def normalise(self, x: Tensor) -> Tensor:
        """As the trunk does."""
        normal: Tensor = self.trunk.normalise(x)
        return normal

    @torch.no_grad()
    def maps(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` in [0, 1] -> feature maps `(n, dim, h', w')` without a gradient."""
        maps: Tensor = self.trunk.maps(x)
        return maps

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` in [0, 1] -> features `(n, dim)` without a gradient."""
        features: Tensor = self.trunk(x)
        return features
