"""Bi-half layer: a linear map trained with bits that are each set for half of every batch.

Li and van Gemert (AAAI 2021), "Deep unsupervised image hashing by maximizing bit entropy". In each batch the
larger half of every column of U = X W becomes +1 and the rest -1: the codes nearest to U whose bits have
entropy 1. The loss compares the cosine of two codes with that of their embeddings; its gradient passes the
layer as it is, plus gamma (U - B) / |B|, which draws U to its bits.

Known to us through its public code, where the layer ends a VGG-16. Realised here on embeddings: one linear
layer, as there, on centred embeddings, trained by Adam at its usual rate (SGD there), from a random rotation
of the principal components; each threshold is the median, so that bits are halved beyond the batch too.

When: the groups that neighbours belong to matter more than the neighbours. At the paper's gamma of 6 the
pull outweighs the slope of the loss several times: bits gather on the directions along which the
embeddings fall into groups. The longer the training, the fewer neighbours are kept and the closer come
codes of one group; with gamma of 1 or less the loss itself falls, and little changes from `pca_rotation`.

Cost: `epochs` passes over `rows` rows, seconds; to encode, that of `pca`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._linear import frame, principal
from semblance.codes._rows import Labels, Rows, sample
from semblance.errors import ConfigError

__all__ = ["BiHalf", "Coder", "Config", "halves", "loss"]


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: of the first weights, the rows and their order. `gamma`: pull of
    the bits on the values. `epochs`, `batch`, `lr`: of the training on at most `rows` rows."""

    bits: int = 64
    seed: int = 0
    gamma: float = 6.0
    epochs: int = 5
    batch: int = 256
    lr: float = 1e-3
    rows: int = 50_000

    def __post_init__(self) -> None:
        """Raises `ConfigError` for numbers that no training can use."""
        if min(self.epochs, self.batch // 4, self.rows // 4) < 1 or self.lr <= 0 or self.gamma < 0:
            sizes = f"epochs={self.epochs}, batch={self.batch}, rows={self.rows}"
            raise ConfigError(
                f"{sizes}, lr={self.lr}, gamma={self.gamma}",
                "at least 1 epoch, batches of 4 and 4 rows, lr above 0, gamma from 0",
            )


def halves(u: Tensor) -> Tensor:
    """The codes `(m, bits)` nearest to `u`: +1 for the larger half of each column, -1 for the rest.

    Of an odd number the smaller half is +1. Equal values go by row.

    >>> halves(torch.tensor([[0.1], [0.9], [0.5], [-2.0]])).flatten().tolist()
    [-1.0, 1.0, 1.0, -1.0]
    """
    order = u.argsort(dim=0, descending=True, stable=True)
    signs = torch.full_like(u, -1.0)
    return signs.scatter(0, order[: len(u) // 2], 1.0)


class BiHalf(torch.autograd.Function):
    """`halves` forward; backward the slope plus gamma (U - B) / (number of bits in the batch)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, gamma: float) -> Tensor:
        """B."""
        b = halves(u)
        ctx.save_for_backward(u, b)
        ctx.gamma = gamma
        return b

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        """The slope with respect to U."""
        u, b = ctx.saved_tensors
        return slope + ctx.gamma * (u - b) / b.numel(), None


def loss(b: Tensor, x: Tensor) -> Tensor:
    """Mean squared difference of cosines, between the first half of the batch and the second."""
    half = len(b) // 2
    return F.mse_loss(
        F.cosine_similarity(b[:half], b[half : 2 * half]), F.cosine_similarity(x[:half], x[half : 2 * half])
    )


class Coder(ThresholdCoder):
    """A trained linear map; each bit is set for half of the training rows."""

    level = "median"

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """The map `(d, bits)`."""
        config = self.config
        found = principal(x)
        directions = found.directions[:, : config.bits]
        start = directions @ frame(directions.shape[1], config.bits, np.random.default_rng(config.seed))
        rows = np.asarray(x[sample(x, config.rows, config.seed)]) - found.mean
        scale = 1 / np.sqrt(np.square(rows @ start).mean())
        w = torch.tensor(start * scale, dtype=torch.float32, requires_grad=True)
        data = torch.from_numpy(rows.astype(np.float32))
        optimiser = torch.optim.Adam([w], lr=config.lr)
        generator = torch.Generator().manual_seed(config.seed)
        batch = min(config.batch, len(data))
        for _ in range(config.epochs):
            order = torch.randperm(len(data), generator=generator)
            for first in range(0, len(data) - batch + 1, batch):
                part = data[order[first : first + batch]]
                optimiser.zero_grad()
                loss(BiHalf.apply(part @ w, config.gamma), part).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        return {"weights": w.detach().numpy().astype(np.float64)}
