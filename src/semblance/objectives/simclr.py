"""SimCLR (NT-Xent): a view must find its other view among all other images of the batch.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020 (arXiv
2002.05709); decoupled form: Yeh et al., "Decoupled Contrastive Learning", ECCV 2022 (arXiv 2110.06848). Two
views, no memory, no teacher; the loss costs one (2m, 2m) product. The positive in the denominator makes
gradients fade as soon as a batch is easy, the more the smaller it is; `decoupled` takes it out.
Use it as the rival that every table shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from semblance.contracts import Batch, Encoder, Loss
from semblance.errors import ConfigError
from semblance.objectives._parts import UnitHead, encode, gather_views, nt_xent, projector, spread, wide

__all__ = ["SETTINGS", "Config", "Objective", "nt_xent"]

SETTINGS: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Config:
    """`dim`: embedding size. `tau`: temperature. `decoupled`: the positive is no rival of itself.
    `hidden`: width of a projector between embedding and loss; 0 = the loss sees the embedding itself."""

    dim: int = 128
    tau: float = 0.1
    decoupled: bool = False
    hidden: int = 0

    def __post_init__(self) -> None:
        if self.tau <= 0 or self.dim < 2 or self.hidden < 0:
            raise ConfigError("simclr needs tau > 0, dim >= 2 and hidden >= 0")


class Objective(nn.Module):
    """NT-Xent on any encoder; the head is one linear layer and L2 normalisation."""

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = UnitHead(encoder.dim, config.dim)
        self.projector = projector(config.dim, config.hidden)

    def forward(self, batch: Batch) -> Loss:
        """The one term `contrast`."""
        embeddings = self.head(encode(self.encoder, batch.views))
        z = wide(self.projector(embeddings))
        with torch.autocast(z.device.type, enabled=False):
            first, second = F.normalize(gather_views(z, 2), dim=2)
            contrast = nt_xent(first, second, self.config.tau, self.config.decoupled)
        return Loss(contrast, {"contrast": contrast}, spread(first, second))
