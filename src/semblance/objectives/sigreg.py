"""SIGReg (LeJEPA): all views of an image in one place, all images together a standard Gaussian.

Balestriero and LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics", 2025
(arXiv 2511.08544). Two global and `local` local views; no negatives, no teacher, no prototypes. The rows of
a batch are compared with a Gaussian along lines, by the characteristic function (the test of Epps and Pulley,
Biometrika 1983): along `directions` random ones, new in every step, as published, which is linear in the
batch; or, with 0, along all there are, in closed form, which has no noise and costs one (m, m) product a
view: less than 256 directions do in batches below a thousand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance.contracts import Batch, Encoder, Loss
from semblance.errors import ConfigError
from semblance.objectives._parts import (
    UnitHead,
    encode,
    gather_views,
    multi_crop,
    projector,
    spread,
    wide,
)

__all__ = ["SETTINGS", "Config", "Objective", "epps_pulley", "every_direction", "invariance"]

SETTINGS: dict[str, dict[str, Any]] = {}
REACH = 5.0
KNOTS = 8
"""Knots t = 5/8, 10/8, ... 5: with their mirror images and 0, where both sides are 1, the usual 17."""


@dataclass(frozen=True)
class Config:
    """`dim`: embedding size. `weight`: lambda, the Gaussian's share of the loss, 0 to 1. `directions`: how
    many random lines a step looks along; 0 = along all, exactly. `local`: how many local views, of `size`
    times the side and `area` times the area of a whole one. `hidden`: width of a projector between
    embedding and loss; 0 = the loss sees the embedding itself."""

    dim: int = 128
    weight: float = 0.05
    directions: int = 0
    local: int = 0
    size: float = 0.5
    area: float = 0.3
    hidden: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1 or self.directions < 0 or self.dim < 2 or self.hidden < 0:
            raise ConfigError("sigreg needs 0 < weight < 1, directions >= 0, dim >= 2 and hidden >= 0")
        if self.local < 0 or not 0 < self.size <= 1 or not 0 < self.area <= 1:
            raise ConfigError("sigreg needs local >= 0, 0 < size <= 1 and 0 < area <= 1")


def invariance(z: Tensor) -> Tensor:
    """Mean square distance, per dimension, of the views `(v, m, d)` of an image from the centre of its
    two global ones, the first two."""
    return (z - z[:2].mean(0)).square().mean()


def epps_pulley(x: Tensor) -> Tensor:
    """How far samples are from a standard Gaussian: `(..., n, k)`, n samples each -> `(..., k)`, 0 at best.

    `n * integral |ecf(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt` over [-5, 5] by the trapezoidal rule, with
    `ecf(t)` the mean of `exp(i t x)`; samples of a Gaussian come to about 1.06 on average, however many.
    """
    distance = torch.zeros_like(x[..., 0, :])
    for knot in range(1, KNOTS + 1):
        t = REACH * knot / KNOTS
        gauss = math.exp(-t * t / 2)
        step = REACH / KNOTS * (2 if knot < KNOTS else 1)
        real, imaginary = (t * x).cos().mean(-2), (t * x).sin().mean(-2)
        distance = distance + step * gauss * ((real - gauss).square() + imaginary.square())
    return x.shape[-2] * distance


def every_direction(z: Tensor) -> Tensor:
    """The mean of `epps_pulley` over all directions, exactly: `(v, n, d)` -> `(v,)`.

    With t over the whole line and directions a ~ N(0, I / d), whose length is 1 in the mean square, every
    integral is one of a Gaussian: `E exp(-(a.u)^2 / 2) = (1 + |u|^2 / d)^(-1/2)`.
    """
    n, d = z.shape[1:]
    square = z.square().sum(2)
    apart = (square[:, :, None] + square[:, None] - 2 * z @ z.mT).clamp(min=0)
    pairs = torch.rsqrt(1 + apart / d).sum((1, 2)) / n
    single = torch.rsqrt(1 + square / (2 * d)).sum(1)
    return math.sqrt(2 * math.pi) * (pairs - math.sqrt(2) * single + n / math.sqrt(3))


class Objective(nn.Module):
    """LeJEPA on any encoder; the head is one linear layer and L2 normalisation, after the loss."""

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.views = multi_crop(config.local, config.size, config.area)
        self.head = UnitHead(encoder.dim, config.dim)
        self.projector = projector(config.dim, config.hidden)

    def forward(self, batch: Batch) -> Loss:
        """`(1 - lambda) L_inv + lambda L_sig`, the latter a mean over the views."""
        z = wide(self.projector(self.head.free(encode(self.encoder, batch.views))))
        with torch.autocast(z.device.type, enabled=False):
            z = gather_views(z, len(batch.views))
            if self.config.directions:
                lines = torch.randn(z.shape[2], self.config.directions, dtype=z.dtype).to(z.device)
                distance = epps_pulley(z @ F.normalize(lines, dim=0)).mean()
            else:
                distance = every_direction(z).mean()
            terms = {
                "invariance": (1 - self.config.weight) * invariance(z),
                "gaussian": self.config.weight * distance,
            }
            first, second = F.normalize(z[:2], dim=2)
        return Loss(terms["invariance"] + terms["gaussian"], terms, spread(first, second))
