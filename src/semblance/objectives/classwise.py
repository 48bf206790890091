"""Class-wise hashing end to end: outputs gather around learned class centres, centres keep apart.

DCWH with the centre similarity of IDCWH (Zhang and Yan, arXiv 2103.09442), realised as in DCDH by the same
authors; formulas and choices in `semblance.codes.classwise`. Needs labels; images without any are left out of
the loss. The embedding is the code before its sign, brought to length 1: `dim` is the number of bits.

Use it where classes are many and some are alike: centres order themselves. Cost over the encoder: `batch
classes dim` operations a step. No published setting: the papers start from weights that do not come along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from semblance.codes.classwise import terms
from semblance.codes.qsmi import agreement
from semblance.contracts import Batch, Encoder, Loss, View
from semblance.errors import ConfigError
from semblance.objectives._labelled import Answers, CodeHead, look, pair_stats

__all__ = ["SETTINGS", "Config", "Objective"]

SETTINGS: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Config:
    """`dim`: bits of the code, length of the embedding. `s`: 1 / sigma^2 of the Gaussians. `center`: weight
    of the repulsion of centres. `cube`: of leaving [-1.1, 1.1]. `eta`: of the distance to the discrete codes,
    and of the outputs in these."""

    dim: int = 64
    s: float = 0.25
    center: float = 0.1
    cube: float = 10.0
    eta: float = 0.01

    def __post_init__(self) -> None:
        if self.dim < 2 or self.s <= 0 or min(self.center, self.cube, self.eta) < 0:
            raise ConfigError(
                f"dim={self.dim}, s={self.s}, center={self.center}, cube={self.cube}, eta={self.eta}",
                "classwise needs dim >= 2, s > 0 and no weight below 0",
            )


class Objective(nn.Module):
    """Class-wise hashing on any encoder; the head is one linear layer, the centres are learned along."""

    labels = True
    views = (View(),)
    centers: Tensor

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.head = CodeHead(encoder.dim, config.dim)
        self.answers = Answers()

    def take_labels(self, labels: ArrayLike) -> None:
        """Labels of the store's rows, as `Answers.take` has them; one centre is drawn for each class."""
        self.answers.take(labels)
        self.centers = nn.Parameter(torch.randn(self.answers.classes, self.config.dim))

    def check_batch(self, batch: int) -> None:
        """Raise `ConfigError` where there are no labels."""
        self.answers.check("classwise")

    def forward(self, batch: Batch) -> Loss:
        """Terms `classes`, `centres`, `cube` and `quantisation` of one batch."""
        self.check_batch(len(batch.ids))
        u, y = look(self, batch)
        with torch.autocast(u.device.type, enabled=False):
            if not len(u):
                return Loss(u.sum(), {"classes": u.sum()})
            config = self.config
            options = {"s": config.s, "center": config.center, "cube": config.cube, "eta": config.eta}
            found = terms(u, y, self.centers.to(u.dtype), **options)
            return Loss(torch.stack([*found.values()]).sum(), found, pair_stats(u, agreement(y)))
