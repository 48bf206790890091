"""Whose image makes the second view: another of the same object or folder, or a neighbour in time.

What belongs together in the world is a freer and stronger positive than two views of one image: frames of a
clip (Knights et al., "Temporally Coherent Embeddings", arXiv 2004.02753), slices of a stack, photographs of
one thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semblance.contracts import View
from semblance.errors import ConfigError

__all__ = ["Positives", "by_group", "by_time", "check_views"]


def check_views(views: Sequence[View]) -> None:
    """Raise `ConfigError` where no view of an objective's could show a partner."""
    if not any(view.plain < 1 for view in views[1::2]):
        raise ConfigError(
            "positives choose what a second view shows, and this objective has one view of an image",
            "leave --positives out, or take an objective that compares two views",
        )


class Positives:
    """`order[first[i] : first[i] + count[i]]` are the rows that may stand in for image i. `name` says why."""

    def __init__(self, name: str, order: Tensor, first: Tensor, count: Tensor) -> None:
        self.name, self.order, self.first, self.count = name, order, first, count

    def draw(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """`(m,)` ids -> `(m,)` ids of their partners, each candidate as likely; without any, the image
        itself."""
        chance = torch.rand(len(ids), generator=generator, dtype=torch.float64)
        count = self.count[ids]
        place = (chance * count).long().clamp(max=(count - 1).clamp(min=0))
        found = self.order[(self.first[ids] + place).clamp(max=len(self.order) - 1)]
        return torch.where(count > 0, found, ids)

    @property
    def alone(self) -> int:
        """How many images have no partner but themselves."""
        return int((self.count == 0).sum())


def by_group(name: str, groups: NDArray[Any]) -> Positives:
    """Any other image with the same value of `groups` `(n,)`; NaN and None belong to no group.

    >>> partners = by_group("folder", np.array(["a", "b", "a"]))
    >>> partners.draw(torch.tensor([0, 1, 2]), torch.Generator().manual_seed(0)).tolist()
    [2, 1, 0]
    """
    order: list[int] = []
    first, count = np.zeros(len(groups), np.int64), np.zeros(len(groups), np.int64)
    members: dict[Any, list[int]] = {}
    for row, value in enumerate(groups.tolist()):
        if value is not None and value == value:
            members.setdefault(value, []).append(row)
    for rows in members.values():
        # Written twice in a row, the others of the i-th are the run that starts behind it.
        for place, row in enumerate(rows):
            first[row], count[row] = len(order) + place + 1, len(rows) - 1
        order += rows + rows
    return Positives(name, *(torch.tensor(part, dtype=torch.int64) for part in (order or [0], first, count)))


def by_time(name: str, times: NDArray[np.float64], groups: NDArray[Any]) -> Positives:
    """The image just before or just after in the same group, by `times` `(n,)`; NaN has no neighbours. Images
    of one moment are in row order."""
    first, count = np.zeros(len(times), np.int64), np.zeros(len(times), np.int64)
    order: list[int] = []
    members: dict[Any, list[int]] = {}
    for row in np.lexsort((np.arange(len(times)), times)).tolist():
        if np.isfinite(times[row]):
            members.setdefault(groups[row], []).append(row)
    for rows in members.values():
        for place, row in enumerate(rows):
            near = [rows[k] for k in (place - 1, place + 1) if 0 <= k < len(rows)]
            first[row], count[row] = len(order), len(near)
            order += near
    return Positives(name, *(torch.tensor(part, dtype=torch.int64) for part in (order or [0], first, count)))
