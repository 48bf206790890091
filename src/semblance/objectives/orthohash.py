"""OrthoHash end to end: one cosine loss to fixed, nearly orthogonal class codes.

Hoe et al. (NeurIPS 2021, arXiv 2109.14449); formulas and choices in `semblance.codes.orthohash`. Needs
labels; images without any are left out of the loss. The head is a linear layer without bias and batch
normalisation over all processes; the embedding is its output brought to length 1: `dim` is the number of
bits.

Use it where images are found by class and the classes are known; the one of its kind to try first. Cost over
the encoder: `batch classes dim` operations a step. No published setting: the paper starts from weights that
do not come along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from semblance.codes._codebook import codebook
from semblance.codes.orthohash import orthohash_loss
from semblance.codes.qsmi import agreement
from semblance.contracts import Batch, Encoder, Loss, View
from semblance.errors import ConfigError
from semblance.objectives._labelled import Answers, CodeHead, look, pair_stats

__all__ = ["SETTINGS", "Config", "Objective"]

SETTINGS: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Config:
    """`dim`: bits of the code, length of the embedding. `codes`: of the classes, hadamard, bernoulli or the
    first of them that there is. `s`: scale of the cosines, 0 for sqrt(dim). `m`: margin."""

    dim: int = 64
    codes: Literal["auto", "hadamard", "bernoulli"] = "auto"
    s: float = 0.0
    m: float = 0.2

    def __post_init__(self) -> None:
        if self.dim < 2 or self.s < 0 or not 0 <= self.m < 2:
            raise ConfigError(
                f"dim={self.dim}, s={self.s}, m={self.m}", "orthohash needs dim >= 2, s >= 0 and 0 <= m < 2"
            )


class Objective(nn.Module):
    """OrthoHash on any encoder."""

    labels = True
    views = (View(),)
    codes: Tensor

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.head = CodeHead(encoder.dim, config.dim, norm=True)
        self.answers = Answers()

    def take_labels(self, labels: ArrayLike) -> None:
        """Labels of the store's rows, as `Answers.take` has them; one code is drawn for each class."""
        self.answers.take(labels)
        drawn = int(torch.randint(2**31, ()))
        rows = codebook(self.answers.classes, self.config.dim, self.config.codes, drawn)
        self.register_buffer("codes", torch.from_numpy(rows))

    def check_batch(self, batch: int) -> None:
        """Raise `ConfigError` where there are no labels."""
        self.answers.check("orthohash")

    def forward(self, batch: Batch) -> Loss:
        """The one term `cosine` of one batch."""
        self.check_batch(len(batch.ids))
        v, y = look(self, batch)
        with torch.autocast(v.device.type, enabled=False):
            if not len(v):
                return Loss(v.sum(), {"cosine": v.sum()})
            value = orthohash_loss(v, y, self.codes, self.config.s, self.config.m)
            return Loss(value, {"cosine": value}, pair_stats(v, agreement(y)))
