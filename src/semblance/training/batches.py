"""What a training step is shown: which images, and which views of them.

Everything is derived from (seed, epoch, step), so that a training which goes on sees what it would have seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from semblance import ranks
from semblance.contracts import PAIR, Batch
from semblance.errors import ConfigError
from semblance.images.views import apply, centre, draw
from semblance.training import checkpoint
from semblance.training.config import TrainConfig
from semblance.training.embed import pixels_to_tensor
from semblance.training.machine import resident
from semblance.training.positives import Positives, check_views

__all__ = ["Batches", "spread_evenly"]

Array = np.ndarray[Any, np.dtype[Any]]


class Batches:
    """`batches(epoch, step)` is this rank's share of a batch of `batch` images, `size` pixels a side.

    `positives` says whose images make the second views, in place of what the objective says. Raises
    `ConfigError` for views that are plain for a share of a batch and not the first.
    """

    def __init__(
        self,
        pixels: Array,
        objective: Any,
        config: TrainConfig,
        size: int,
        batch: int,
        device: torch.device,
        positives: Positives | None,
    ) -> None:
        self.pixels, self.objective, self.config, self.size = pixels, objective, config, size
        self.batch, self.device, self.positives = batch, device, positives
        self.views = getattr(objective, "views", PAIR)
        if any(0 < view.plain < 1 for view in self.views[1:]):
            raise ConfigError("only a first view may be plain for a share of a batch")
        if positives is not None:
            check_views(self.views)
        self.ranges = [config.views.narrowed(view.area) for view in self.views]
        self.plain = spread_evenly(batch, self.views[0].plain)
        self.shuffled: tuple[int, Tensor] | None = None
        self.store = resident(pixels, device)

    def __call__(self, epoch: int, step: int) -> Batch:
        """The batch of one step; sets the seed of what the step itself draws."""
        order = self._order(epoch)[step * self.batch : (step + 1) * self.batch]
        stream = checkpoint.stream(self.config.seed, epoch, step)
        draw_partners = self.positives.draw if self.positives else getattr(self.objective, "partners", None)
        partners = order if draw_partners is None else draw_partners(order, stream)
        torch.manual_seed(torch.randint(2**62, (), generator=stream).item())
        share = self.batch // ranks.count()
        here = slice(ranks.index() * share, (ranks.index() + 1) * share)
        sources = [self._take(ids[here]) for ids in (order, partners)]
        views = tuple(self._view(number, sources, stream, here) for number in range(len(self.views)))
        plain = self.plain[here].to(self.device) if self.views[0].plain else None
        return Batch(views, order[here].to(self.device), plain)

    def _order(self, epoch: int) -> Tensor:
        if self.shuffled is None or self.shuffled[0] != epoch:
            stream = checkpoint.stream(self.config.seed, epoch)
            self.shuffled = epoch, torch.randperm(len(self.pixels), generator=stream)
        order: Tensor = getattr(self.objective, "order", lambda ids, _: ids)(self.shuffled[1], self.batch)
        return order

    def _take(self, ids: Tensor) -> Tensor:
        if self.store is not None:
            rows = ids.to(self.device)
            if self.store.dtype is torch.uint16:  # which CUDA does not index
                return self.store.view(torch.int16)[rows].view(torch.uint16)
            return self.store[rows]
        return pixels_to_tensor(self.pixels, ids.numpy(), self.device)

    def _view(self, number: int, sources: list[Tensor], stream: torch.Generator, here: slice) -> Tensor:
        """One view of this rank's images; the partners' are the second source."""
        view, crop = self.views[number], self.config.views.crop
        side = max(1, round(view.size * self.size))
        if view.plain == 1:
            return centre(sources[0], side, crop)
        drawn = draw(self.ranges[number], self.batch, stream)
        if view.plain:
            drawn = drawn.still(self.plain, crop)
        return apply(sources[number % 2], drawn[here], side)


def spread_evenly(n: int, share: float) -> Tensor:
    """`(n,)` bool, true at `share` of the places, evenly spread.

    >>> spread_evenly(4, 0.5).tolist()
    [False, True, False, True]
    """
    steps = (torch.arange(n + 1, dtype=torch.float64) * share + 1e-9).floor()  # 100 * 0.29 is below 29
    return steps[1:] > steps[:-1]
