"""SwAV: the cluster that one view is given must be told from every other view; prototypes learn along.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS 2020
(arXiv 2006.09882). Two global and `local` local views (multi-crop); no negatives, no teacher. Sinkhorn's
rounds fill the clusters evenly over the batch, so that not all images fall into one. The loss costs one
(rows x prototypes) product. Use it where clusters are wanted too: the nearest prototype is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance.contracts import Batch, Encoder, Loss
from semblance.errors import ConfigError
from semblance.objectives._cbswr_terms import sinkhorn
from semblance.objectives._parts import (
    UnitHead,
    encode,
    gather_views,
    multi_crop,
    projector,
    spread,
    wide,
)

__all__ = ["SETTINGS", "Config", "Objective", "swapped"]

SETTINGS: dict[str, dict[str, Any]] = {}
ROUNDS = 3


@dataclass(frozen=True)
class Config:
    """`dim`: embedding size. `prototypes`: K, how many clusters. `tau`: temperature of what is predicted,
    `epsilon` of what is assigned. `local`: how many local views, of `size` times the side and `area` times
    the area of a whole one. `hidden`: width of a projector between embedding and loss; 0 = the loss sees
    the embedding itself."""

    dim: int = 128
    prototypes: int = 64
    tau: float = 0.1
    epsilon: float = 0.05
    local: int = 0
    size: float = 0.5
    area: float = 0.3
    hidden: int = 0

    def __post_init__(self) -> None:
        if self.prototypes < 2 or min(self.tau, self.epsilon) <= 0 or self.dim < 2 or self.hidden < 0:
            raise ConfigError("swav needs prototypes >= 2, tau and epsilon > 0, dim >= 2 and hidden >= 0")
        if self.local < 0 or not 0 < self.size <= 1 or not 0 < self.area <= 1:
            raise ConfigError("swav needs local >= 0, 0 < size <= 1 and 0 < area <= 1")


def swapped(scores: Tensor, codes: Tensor, tau: float) -> Tensor:
    """Mean of `-sum_k q_s^k log p_t^k` over global views s and all other views t (Eq. 2, 6).

    `scores` `(v, m, K)`: cosines of all views with the prototypes; `p = softmax(scores / tau)`. `codes`
    `(2, m, K)`: shares q of the two global views, the first two.
    """
    log_p = F.log_softmax(scores / tau, dim=2)
    swaps = -torch.einsum("smk,tmk->st", codes, log_p) / scores.shape[1]
    return (swaps.sum() - swaps.diagonal().sum()) / (swaps.numel() - len(codes))


class Objective(nn.Module):
    """SwAV on any encoder; the head is one linear layer and L2 normalisation."""

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.views = multi_crop(config.local, config.size, config.area)
        self.head = UnitHead(encoder.dim, config.dim)
        self.projector = projector(config.dim, config.hidden)
        self.prototypes = nn.Linear(config.hidden or config.dim, config.prototypes, bias=False)

    def forward(self, batch: Batch) -> Loss:
        """The one term `swapped`."""
        z = wide(self.projector(self.head(encode(self.encoder, batch.views))))
        with torch.autocast(z.device.type, enabled=False):
            z = F.normalize(gather_views(z, len(batch.views)), dim=2)
            scores = z @ F.normalize(self.prototypes.weight, dim=1).T
            codes = torch.stack([sinkhorn(view, ROUNDS, self.config.epsilon).exp() for view in scores[:2]])
            loss = swapped(scores, codes, self.config.tau)
            used = F.one_hot(codes[0].argmax(1), codes.shape[2]).any(0).sum() / min(codes.shape[1:])
        stats = {**spread(z[0], z[1]), "used_clusters": used}
        return Loss(loss, {"swapped": loss}, stats)
