"""QSMI end to end: an encoder whose signs carry quadratic spherical mutual information about labels.

Passalis and Tefas (arXiv 1901.05135); formulas and choices in `semblance.codes.qsmi`. Needs labels, one or
several an image; images without any are left out of the loss. The embedding is the code before its sign,
brought to length 1: `dim` is the number of bits, and its signs are the code.

Use it where images are found by class and the classes are known; what it keeps is these classes, so look at
classes it never saw before trusting it with others. Cost over the encoder: `batch^2 dim` operations a step.
Where a batch would hold fewer than `together` images of a class, they are brought together. No published
setting: the paper's networks are not among the encoders here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from semblance.codes.qsmi import agreement, terms
from semblance.contracts import Batch, Encoder, Loss, View
from semblance.errors import ConfigError
from semblance.objectives._labelled import Answers, CodeHead, in_groups, look, pair_stats

__all__ = ["SETTINGS", "Config", "Objective"]

SETTINGS: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Config:
    """`dim`: bits of the code, length of the embedding. `alpha`: weight of the regulariser, for sums over the
    batch. `m`: number of equally likely classes, 0 to estimate it from every batch. `priors`: weigh pairs by
    the class shares of the batch instead. `together`: images of a class that follow each other where
    classes are too many for a batch, 0 for never."""

    dim: int = 64
    alpha: float = 0.01
    m: float = 0.0
    priors: bool = False
    together: int = 4

    def __post_init__(self) -> None:
        if self.dim < 2 or self.alpha < 0 or (self.m != 0 and self.m < 1) or self.together < 0:
            raise ConfigError(
                f"dim={self.dim}, alpha={self.alpha}, m={self.m}, together={self.together}",
                "qsmi needs dim >= 2, alpha and together of at least 0, and m = 0 or at least 1",
            )


class Objective(nn.Module):
    """QSMI on any encoder; the head is one linear layer."""

    labels = True
    views = (View(),)

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.head = CodeHead(encoder.dim, config.dim)
        self.answers = Answers()
        self.ordered: tuple[Tensor, Tensor] | None = None

    def take_labels(self, labels: ArrayLike) -> None:
        """Labels of the store's rows, as `Answers.take` has them."""
        self.answers.take(labels)

    def check_batch(self, batch: int) -> None:
        """Raise `ConfigError` where there are no labels."""
        self.answers.check("qsmi")

    def order(self, shuffled: Tensor, batch: int) -> Tensor:
        """An epoch's ids `(n,)`, images of a class together where a batch would hold too few."""
        together, y = self.config.together, self.answers.y.cpu()
        if together < 2 or y.dim() == 2 or batch >= together * self.answers.classes:
            return shuffled
        if self.ordered is None or not torch.equal(self.ordered[0], shuffled):
            self.ordered = shuffled, in_groups(shuffled, y, together)
        return self.ordered[1]

    def forward(self, batch: Batch) -> Loss:
        """Terms `information` and `quantisation` of one batch, sums over pairs divided by their number."""
        self.check_batch(len(batch.ids))
        u, y = look(self, batch)
        with torch.autocast(u.device.type, enabled=False):
            if not len(u):
                return Loss(u.sum(), {"information": u.sum()})
            config = self.config
            found = terms(u, y, alpha=config.alpha, m=config.m, priors=config.priors)
            return Loss(torch.stack([*found.values()]).sum(), found, pair_stats(u, agreement(y)))
