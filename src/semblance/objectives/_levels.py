"""An embedding read off all levels of an encoder: its leading directions, whitened.

Earlier layers tell images apart in ways that the last one has learned to ignore, and the last in ways that
the first cannot see; a vector of several layers holds both (hypercolumns: Hariharan et al., CVPR 2015, arXiv
1411.5752). Whitening keeps what many numbers say alike from counting many times (Jegou and Chum, ECCV 2012).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.linalg import eigh
from torch import Tensor

from semblance.errors import TrainingCollapsed
from semblance.objectives._parts import UnitHead

__all__ = ["Levels", "principal"]

BLOCK = 1024
TINY = 1e-12


class Levels(UnitHead):
    """A `UnitHead` on what `encoder.levels` gives: `(n, inside)` -> unit embeddings `(n, outside)`."""

    levels = True

    def __init__(self, inside: int, outside: int) -> None:
        with torch.random.fork_rng(devices=[]):  # its weights are never those that are drawn
            super().__init__(inside, outside)
        self.inside, self.outside = inside, outside


@torch.no_grad()
def principal(rows: Tensor, groups: Sequence[int], dim: int, shrink: float | None = None) -> Levels | None:
    """The head that gives the `dim` leading directions of `rows` `(n, sum(groups))` spreads nearly alike:
    `y_i = a_i . x / sqrt(v_i + shrink mean(v))`, with v and a the variances and axes of x: the rows less
    their mean, every group of columns scaled to a total variance of 1. The mean is over as many directions as
    n rows can have, n - 1 at most.

    Without shrinking, what hardly varies, noise too, would count as much as the rest, and a few rows would
    all be equally far from each other: None is 0.3, or 600 / n where that is more (by neighbours found among
    100 to 10,000 validation images). No more directions than columns. None where nothing varies. Raises
    `TrainingCollapsed` for rows that are not finite.
    """
    values, sizes = rows.cpu(), torch.tensor(groups)
    mean = values.mean(0, dtype=torch.float64)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for block in torch.split(values, BLOCK):
        apart = block.double() - mean
        covariance += apart.T @ apart / len(values)
    totals, squares = (
        torch.stack([part.sum() for part in torch.split(each, list(groups))])
        for each in (covariance.diagonal(), mean.square())
    )
    if not bool(torch.isfinite(totals + squares).all()):
        raise TrainingCollapsed("the encoder's levels are not finite", "a lower --training.lr")
    varies = totals > TINY * squares
    if not varies.any():
        return None
    scale = torch.where(varies, totals.rsqrt(), 0.0).repeat_interleave(sizes)
    scaled = scale[:, None] * covariance * scale
    ends = [max(0, len(mean) - dim), len(mean) - 1]
    variances, axes = map(torch.from_numpy, eigh(scaled.numpy(), subset_by_index=ends))
    shrink = max(0.3, 600 / len(values)) if shrink is None else shrink
    level = shrink * scaled.diagonal().sum() / min(len(mean), max(1, len(values) - 1))
    spread = (variances.clamp(min=0) + level).rsqrt()
    weight = ((axes * spread).T * scale).flip(0)
    head = Levels(len(mean), len(weight))
    head.linear.weight.copy_(weight)
    head.linear.bias.copy_(-weight @ mean)
    return head.to(rows.device)
