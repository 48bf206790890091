"""VICReg: two views alike, every dimension spread out, no two dimensions the same; no negatives.

Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", ICLR
2022 (arXiv 2105.04906). Two views, no negatives, no teacher; the loss costs one (d, d) covariance per view.
Use it where images of a batch are often of one kind, so that none should be pushed away from another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance.contracts import Batch, Encoder, Loss
from semblance.errors import ConfigError
from semblance.objectives._parts import UnitHead, encode, gather_views, projector, spread, wide

__all__ = ["SETTINGS", "Config", "Objective", "covariance", "variance"]

SETTINGS: dict[str, dict[str, Any]] = {}
GAMMA = 1.0
EPSILON = 1e-4


@dataclass(frozen=True)
class Config:
    """`dim`: embedding size. `invariance`, `variance`, `covariance`: weights of the three terms. `hidden`:
    width of a projector between embedding and loss; 0 = the loss sees the embedding itself."""

    dim: int = 128
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    hidden: int = 0

    def __post_init__(self) -> None:
        if min(self.invariance, self.variance, self.covariance) < 0 or self.dim < 2 or self.hidden < 0:
            raise ConfigError("vicreg needs weights that are not negative, dim >= 2 and hidden >= 0")


def variance(z: Tensor) -> Tensor:
    """`v(Z) = 1/d sum_j max(0, gamma - sqrt(Var(z^j) + epsilon))` of rows `(n, d)` (Eq. 1-2)."""
    return F.relu(GAMMA - (z.var(0) + EPSILON).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """`c(Z) = 1/d sum_{i != j} C(Z)_ij^2` of rows `(n, d)`, C with n - 1 (Eq. 3-4)."""
    centred = z - z.mean(0)
    c = centred.T @ centred / (len(z) - 1)
    return (c.square().sum() - c.diagonal().square().sum()) / len(c)


class Objective(nn.Module):
    """VICReg on any encoder; the head is one linear layer and L2 normalisation, after the loss."""

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = UnitHead(encoder.dim, config.dim)
        self.projector = projector(config.dim, config.hidden)

    def forward(self, batch: Batch) -> Loss:
        """`lambda s(Z, Z') + mu (v(Z) + v(Z')) / 2 + nu (c(Z) + c(Z'))` (Eq. 6 in its authors' scale)."""
        z = wide(self.projector(self.head.free(encode(self.encoder, batch.views))))
        with torch.autocast(z.device.type, enabled=False):
            x, y = gather_views(z, 2)
            c = self.config
            terms = {
                "invariance": c.invariance * F.mse_loss(x, y),
                "variance": c.variance * (variance(x) + variance(y)) / 2,
                "covariance": c.covariance * (covariance(x) + covariance(y)),
            }
            stats = spread(F.normalize(x, dim=1), F.normalize(y, dim=1))
        return Loss(terms["invariance"] + terms["variance"] + terms["covariance"], terms, stats)
