"""Instance discrimination with spreading (SME, also ISIF or InvaSpread): each image against all others.

Ye et al., "Unsupervised Embedding Learning via Invariant and Spreading Instance Feature", CVPR 2019
(arXiv 1904.03436). Two views of one image attract, all other images of the batch repel, each as a binary
decision. One forward pass of two views, no memory, no teacher; the loss costs one (2m, 2m) product.
Use it as the baseline beside CBSwR, or where every image is its own kind.

`SETTINGS` are the paper's two: `unseen` (GoogLeNet from ImageNet weights, bird and car retrieval) and
`seen` (ResNet-18 from scratch, CIFAR-10 and STL-10).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from semblance import ranks
from semblance.contracts import Batch, Encoder, Loss
from semblance.errors import ConfigError
from semblance.objectives._parts import Partners, UnitHead, log_one_minus_softmax, spread, wide

__all__ = ["SETTINGS", "Config", "Objective", "sme_loss"]

SETTINGS: dict[str, dict[str, Any]] = {
    "unseen": {
        "encoder": "googlenet",
        "size": 256,
        "views": "released",
        "objective_options": {"partner": 0.5},
        "training": {
            "batch": 64,
            "epochs": 60,
            "optimiser": "sgd",
            "lr": 1e-3,
            "weight_decay": 5e-4,
            "schedule": "steps",
            "milestones": (20, 40),
            "factors": (0.1, 0.01),
        },
    },
    "seen": {
        "encoder": "resnet",
        "encoder_options": {"depth": 18, "width": 64, "stem": "32"},
        "size": 32,
        "views": "photo",
        "training": {
            "batch": 128,
            "epochs": 301,
            "optimiser": "sgd",
            "lr": 0.03,
            "weight_decay": 5e-4,
            "schedule": "steps",
            "milestones": (120, 160, 200),
            "factors": (0.1, 0.05, 0.01),
        },
    },
}


@dataclass(frozen=True)
class Config:
    """`dim`: embedding size. `tau`: temperature. `partner`: chance that the second view shows the
    image's nearest neighbour instead of itself (the paper's bird setting: 0.5)."""

    dim: int = 128
    tau: float = 0.1
    partner: float = 0.0

    def __post_init__(self) -> None:
        if self.tau <= 0 or self.dim < 2 or not 0 <= self.partner <= 1:
            raise ConfigError("sme needs tau > 0, dim >= 2 and 0 <= partner <= 1")


def sme_loss(first: Tensor, second: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """The two terms of J (Eq. 5-7 over all 2m rows): `(m, d)` unit views -> (attraction, spreading).

    `P_ij = exp(f_i.f_j / tau) / sum_{k != i} exp(f_i.f_k / tau)`, right-hand features detached;
    attraction `-mean log P_i,pair(i)`, spreading `-mean sum_{j != i, pair(i)} log(1 - P_ij)`.
    """
    m = len(first)
    f = torch.cat([first, second])
    rows = torch.arange(2 * m, device=f.device)
    pair = (rows + m) % (2 * m)
    logits = f @ f.detach().T / tau
    keep = rows[:, None] != rows[None, :]
    log_not, whole = log_one_minus_softmax(logits, keep)
    attraction = (whole - logits[rows, pair]).mean()
    negatives = keep & (pair[:, None] != rows[None, :])
    return attraction, -(log_not * negatives).sum(1).mean()


class Objective(nn.Module):
    """SME on any encoder; the head is one linear layer and L2 normalisation."""

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = UnitHead(encoder.dim, config.dim)
        self.partner = Partners(config.partner)

    def before_epoch(self, embed: Callable[[], Tensor]) -> None:
        """Look up neighbours where `partner` asks for them."""
        if self.config.partner:
            self.partner.find(embed)

    def partners(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """`(m,)` ids -> the ids that the second view shows."""
        return self.partner.draw(ids, generator)

    def forward(self, batch: Batch) -> Loss:
        """J of one batch: terms `attraction` and `spreading`."""
        f = wide(self.head(self.encoder(torch.cat(batch.views))))
        with torch.autocast(f.device.type, enabled=False):
            first, second = (ranks.gather(view) for view in f.chunk(2))
            attraction, spreading = sme_loss(first, second, self.config.tau)
        terms = {"attraction": attraction, "spreading": spreading}
        return Loss(attraction + spreading, terms, spread(first, second))
