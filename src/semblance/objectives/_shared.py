"""What several objectives have in common: one pass of one encoder, and heads side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Joined", "Shared", "follow", "recall"]


class Joined(nn.Module):
    """Several heads as one: their unit embeddings side by side, over the root of their number."""

    def __init__(self, heads: Sequence[nn.Module], erased: nn.Module | None = None) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.erased = erased

    def forward(self, features: Tensor) -> Tensor:
        """`(n, dim)` -> `(n, d_1 + d_2 + ...)`, every row of length 1; a cosine is the mean of the heads'
        cosines, unless something is erased from all of them together."""
        rows: Tensor = torch.cat([head(features) for head in self.heads], 1) / len(self.heads) ** 0.5
        return rows if self.erased is None else self.erased(rows)


class Shared:
    """The encoder as each objective sees it: views whose maps are there already are not encoded again."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._seen: list[tuple[Tensor, Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def look(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Encode `views`, those of one size together, and remember; the maps of each size."""
        self._seen, found = [], []
        for side in dict.fromkeys(view.shape[-1] for view in views):
            group = [view for view in views if view.shape[-1] == side]
            maps = self._encoder.maps(torch.cat(group))
            found.append(maps)
            self._seen += zip(group, maps.chunk(len(group)), strict=True)
        return found

    def forget(self) -> None:
        """Let go of the last step's maps."""
        self._seen = []

    def maps(self, x: Tensor) -> Tensor:
        """As the encoder's; any row of views that were looked at comes from memory."""
        m = len(self._seen[0][0]) if self._seen else 0
        if m == 0 or len(x) % m:
            maps: Tensor = self._encoder.maps(x)
            return maps
        parts = [
            next((maps for view, maps in self._seen if view is part or _same(view, part)), None)
            for part in ([x] if len(x) == m else x.chunk(len(x) // m))
        ]
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else self._encoder.maps(x)

    def __call__(self, x: Tensor) -> Tensor:
        """Features: the maps averaged over their places, which is what every encoder's are."""
        return self.maps(x).mean((2, 3))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def recall(module: Any, keys: Any) -> None:
    """After a state was loaded: `count` is the buffer `steps` where reading it does not wait for a device."""
    module.count = int(module.steps)


@torch.no_grad()
def follow(copies: Sequence[Any], parts: Sequence[Any], rate: float) -> None:
    """Move every weight and statistic of `copies` a step of `1 - rate` towards those of `parts`."""
    for own, theirs in zip(copies, parts, strict=True):
        for mine, new in zip(own.state_dict().values(), theirs.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(new.to(mine.dtype), 1 - rate)
            else:
                mine.copy_(new)
