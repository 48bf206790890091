"""What objectives that learn from labels share: the labels of the store's rows, a head that makes codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from semblance import ranks
from semblance.contracts import Batch
from semblance.errors import ConfigError, InputError
from semblance.objectives._parts import wide

__all__ = ["Answers", "CodeHead", "in_groups", "look", "pair_stats"]


class Answers(nn.Module):
    """The labels of the store's rows: `y` `(n,)` int64, -1 where there is none, or `(n, classes)` bool."""

    y: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.classes = 0
        self.register_buffer("y", torch.empty(0, dtype=torch.int64))

    def take(self, labels: ArrayLike) -> None:
        """Keep labels `(n,)` whole numbers, -1 for none, or `(n, classes)` bool. Numbers become 0, 1, ...

        Raises `InputError` for another shape or type, or fewer than two classes.
        """
        given = np.asarray(labels)
        if given.ndim == 2 and given.dtype == np.bool_:
            kept = given[:, given.any(0)]
            self.classes = kept.shape[1]
        elif given.ndim == 1 and given.dtype.kind in "iu":
            known, place = np.unique(given, return_inverse=True)
            below = int((known < 0).sum())
            kept = np.maximum(place.reshape(-1) - below, -1).astype(np.int64)
            self.classes = len(known) - below
        else:
            raise InputError(
                f"labels of shape {given.shape} and type {given.dtype}", "give (n,) numbers or (n, c) bool"
            )
        if self.classes < 2:
            raise InputError(f"the labels name {self.classes} classes", "at least two are needed")
        self.y = torch.from_numpy(np.ascontiguousarray(kept))

    def check(self, name: str) -> None:
        """Raise `ConfigError` where none were taken."""
        if not self.classes:
            raise ConfigError(
                f"{name} learns from labels and was given none", "give --labels TABLE --column NAME"
            )

    def of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the rows `ids` `(m,)` have a label, `(m,)` bool, and the labels of those that do."""
        y = self.y[ids.to(self.y.device)]
        there = y.any(1) if y.dim() == 2 else y >= 0
        return there, y[there]


class CodeHead(nn.Module):
    """One linear layer whose signs are the bits of a code: features `(n, dim)` -> unit rows `(n, bits)`.

    `norm`: no bias, batch normalisation over all ranks in its place.
    """

    def __init__(self, dim: int, bits: int, norm: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, bits, bias=not norm)
        self.norm = ranks.BatchNorm1d(bits) if norm else None

    def values(self, features: Tensor) -> Tensor:
        """u `(n, bits)`, float32 or wider, not normalised."""
        kind = features.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self.values(features)
        x, bias = wide(features), self.linear.bias
        u = F.linear(x, self.linear.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        return u if self.norm is None else wide(self.norm(u))

    def forward(self, features: Tensor) -> Tensor:
        """Every row of length 1, with the signs of `values`."""
        return F.normalize(self.values(features), dim=1)


def look(objective: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """The outputs u `(n, bits)` of all views and ranks whose images have labels, and these."""
    features = objective.encoder(torch.cat(batch.views))
    u = objective.head.values(features)
    views = len(batch.views)
    u = torch.cat([ranks.gather(part) for part in u.chunk(views)])
    there, y = objective.answers.of(ranks.gather(batch.ids))
    return u[there.repeat(views)], torch.cat([y] * views)


@torch.no_grad()
def pair_stats(u: Tensor, agree: Tensor) -> dict[str, Tensor]:
    """Mean cosine of the pairs of different rows that `agree` `(n, n)`, and of all pairs; 0 without any."""
    unit = F.normalize(u.detach(), dim=1)
    cosines = unit @ unit.T
    others = 1 - torch.eye(len(u), dtype=u.dtype, device=u.device)
    same = agree.to(u.dtype) * others
    return {
        "positive_cosine": (cosines * same).sum() / same.sum().clamp(min=1),
        "mean_cosine": (cosines * others).sum() / others.sum().clamp(min=1),
    }


def in_groups(shuffled: Tensor, y: Tensor, together: int) -> Tensor:
    """Shuffled ids `(n,)` so that rows of a class come in runs of `together`: every id once, as before.

    `y` `(n,)` by id; rows without a label stay alone. The runs stand where their first row stood.
    """
    own = y[shuffled]
    n = len(shuffled)
    own = torch.where(own < 0, int(y.max()) + 1 + torch.arange(n), own)
    by_class = torch.argsort(own, stable=True)
    starts = torch.searchsorted(own[by_class], own[by_class])
    rank = torch.arange(n) - starts
    leader = by_class[torch.arange(n) - rank % together]
    place = torch.empty(n, dtype=torch.int64)
    place[by_class] = leader * together + rank % together
    return shuffled[torch.argsort(place, stable=True)]
