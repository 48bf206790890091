"""Heads that predict targets from features, and a gradient that is turned round (Ganin et al., JMLR 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance.objectives._targets import Targets

__all__ = ["Heads", "masked_huber", "reverse"]

MOST = 256
"""A category with more levels is learned against moving centroids instead of one weight vector each."""
SIDE = 64
TEMPERATURE, MOMENTUM = 0.07, 0.9


def masked_huber(predicted: Tensor, wanted: Tensor) -> Tensor:
    """`(k,)` mean Huber loss (delta 1) of every column of `(m, k)`, over the targets that are not NaN; 0
    where none is there."""
    there = torch.isfinite(wanted)
    error = F.smooth_l1_loss(predicted, torch.where(there, wanted, predicted.detach()), reduction="none")
    return (error * there).sum(0) / there.sum(0).clamp(min=1)


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return -ctx.strength * slope, None


def reverse(x: Tensor, strength: float) -> Tensor:
    """`x`; its gradient comes back times `-strength`."""
    y: Tensor = _Reverse.apply(x, strength)  # type: ignore[no-untyped-call]
    return y


class Heads(nn.Module):
    """Predicts targets from features `(n, dim)`: one hidden layer, or none, for all of them together."""

    codes: Tensor
    values: Tensor

    def __init__(self, dim: int, targets: Targets, hidden: int, unit: bool = False) -> None:
        super().__init__()
        small = [one for one in targets.categories if one.levels <= MOST]
        self.numbers = len(targets.names)
        self.widths = [one.levels for one in small]
        large = [one for one in targets.categories if one.levels > MOST]
        # Gathered rows: every rank sees the same. Of unit rows the length is known; normalising each of their
        # columns would let all of them gather in one narrow cone.
        self.norm = None if unit else nn.BatchNorm1d(dim, affine=False)
        self.scale = dim**0.5
        inside = hidden or dim
        self.trunk = nn.Sequential(nn.Linear(dim, hidden), nn.GELU()) if hidden else nn.Identity()
        outside = self.numbers + sum(self.widths)
        self.out = nn.Linear(inside, outside) if outside else None
        self.many = nn.ModuleList(_Centroids(inside, one.levels) for one in large)
        self.order = [targets.categories.index(one) for one in (*small, *large)]

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Numbers `(n, k)`, logits of every category with few levels, and what those with many are read
        from."""
        y = self.trunk(self.norm(x) if self.norm is not None else self.scale * x)
        every = y[:, :0] if self.out is None else self.out(y)
        numbers, rest = every.split([self.numbers, sum(self.widths)], 1)
        return numbers, list(rest.split(self.widths, 1)) if self.widths else [], y

    def losses(self, x: Tensor, values: Tensor, codes: Tensor) -> Tensor:
        """`(k,)` the loss of every column: numbers, then categories, of gathered rows."""
        numbers, logits, y = self(x)
        found = [masked_huber(numbers, values)]
        for place, one in zip(self.order, [*logits, *self.many], strict=True):
            wanted = codes[:, place]
            if isinstance(one, Tensor):
                loss = F.cross_entropy(one, wanted, ignore_index=-1, reduction="sum")
                loss = loss / (wanted >= 0).sum().clamp(min=1)
            else:
                loss = one(y, wanted)
            found.append(loss[None])
        return torch.cat(found)


class _Centroids(nn.Module):
    """Cross-entropy of cosines to the levels' centroids, which follow the projected rows (momentum 0.9)."""

    centroids: Tensor
    seen: Tensor

    def __init__(self, dim: int, levels: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, SIDE)
        self.register_buffer("centroids", torch.zeros(levels, SIDE))
        self.register_buffer("seen", torch.zeros(levels, dtype=torch.bool))

    def forward(self, y: Tensor, wanted: Tensor) -> Tensor:
        """The mean loss of rows whose level has a centroid; 0 where none has."""
        z = F.normalize(self.project(y), dim=1)
        seen = self.seen.clone()
        logits = (z @ F.normalize(self.centroids.clone(), dim=1).T / TEMPERATURE).masked_fill(
            ~seen, -torch.inf
        )
        known = (wanted >= 0) & seen[wanted.clamp(min=0)]
        if self.training:
            self._follow(z.detach(), wanted)
        if not bool(known.any()):
            return 0 * z.sum()
        return F.cross_entropy(logits[known], wanted[known])

    @torch.no_grad()
    def _follow(self, z: Tensor, wanted: Tensor) -> None:
        there = wanted >= 0
        levels, place = torch.unique(wanted[there], return_inverse=True)
        mean = torch.zeros(len(levels), SIDE, device=z.device).index_add_(0, place, z[there])
        mean = mean / torch.bincount(place, minlength=len(levels))[:, None]
        kept = MOMENTUM * self.seen[levels].to(mean.dtype)[:, None]
        self.centroids[levels] = kept * self.centroids[levels] + (1 - kept) * mean
        self.seen[levels] = True
