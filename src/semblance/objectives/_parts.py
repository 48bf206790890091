"""What several objectives are built from: heads, passes over many views, stable logarithms, partners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance import ranks
from semblance.contracts import PAIR, Encoder, View

__all__ = [
    "Partners",
    "UnitHead",
    "encode",
    "gather_views",
    "log_one_minus_softmax",
    "multi_crop",
    "nt_xent",
    "projector",
    "spread",
    "wide",
]


class UnitHead(nn.Module):
    """One linear layer and L2 normalisation: features `(n, dim)` -> unit embeddings `(n, d)` float32."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out)

    def forward(self, features: Tensor) -> Tensor:
        """`(n, dim)` -> `(n, d)`, every row of length 1."""
        return F.normalize(self.free(features), dim=1)

    def free(self, features: Tensor) -> Tensor:
        """`(n, dim)` -> `(n, d)` before they are brought to length 1."""
        kind = features.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self.free(features)
        x, weight, bias = wide(features), self.linear.weight, self.linear.bias
        return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))


def projector(inside: int, hidden: int) -> nn.Sequential:
    """Embeddings `(n, inside)` -> `(n, hidden)`; no layer at all where `hidden` is 0.

    With the embedding's own layer in front of it, it is the usual one of three layers, each `hidden` wide.
    Batch normalisation is over all ranks.
    """
    if not hidden:
        return nn.Sequential()
    return nn.Sequential(
        ranks.BatchNorm1d(inside),
        nn.ReLU(),
        nn.Linear(inside, hidden, bias=False),
        ranks.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden, bias=False),
    )


def multi_crop(local: int, size: float, area: float) -> tuple[View, ...]:
    """Two global views and `local` local ones, as an objective declares them."""
    return PAIR + (View(size, area),) * local


def encode(encoder: Encoder, views: Sequence[Tensor]) -> Tensor:
    """Features `(v * m, dim)` of `v` views `(m, c, h, w)`, one pass of the encoder for all of one size."""
    sizes = (list(same) for _, same in groupby(views, key=lambda view: view.shape[-1]))
    return torch.cat([encoder(torch.cat(same)) for same in sizes])


def nt_xent(first: Tensor, second: Tensor, tau: float, decoupled: bool = False) -> Tensor:
    """The mean over all 2m rows of `l(i, j) = -log exp(s_ij / tau) / sum_k exp(s_ik / tau)` (Eq. 1).

    `first`, `second`: unit rows `(m, d)` of two views; s are cosines, j is the other view of i; k runs over
    all rows but i and, where `decoupled`, but j (Eq. 6 of Yeh et al., ECCV 2022). Eq. 1 is that of Chen et
    al., ICML 2020.
    """
    m = len(first)
    z = torch.cat([first, second])
    rows = torch.arange(2 * m, device=z.device)
    pair = (rows + m) % (2 * m)
    s = z @ z.T / tau
    out = rows[:, None] == rows[None, :]
    if decoupled:
        out = out | (rows[:, None] == pair[None, :])
    return (torch.logsumexp(s.masked_fill(out, -torch.inf), 1) - s[rows, pair]).mean()


def gather_views(rows: Tensor, count: int) -> Tensor:
    """Rows `(count * m, d)` of all ranks, `(count, ranks * m, d)`: every view in the order of the batch."""
    return ranks.gather(rows.view(count, -1, rows.shape[1]).transpose(0, 1)).transpose(0, 1)


def wide(x: Tensor) -> Tensor:
    """`x` in float32 where it is narrower: losses are not taken in 16 bits."""
    return x if x.dtype is torch.float64 else x.float()


def log_one_minus_softmax(logits: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """`log(1 - softmax)` per entry and the row's log-sum-exp, both over the entries in `keep`.

    `logits` `(n, k)` float32, `keep` `(n, k)` bool -> `((n, k), (n,))`; entries not kept come out as 0.
    Stable however certain the softmax is: only a row's largest probability can exceed 1/2, and for that
    entry `log(1 - p) = LSE(all others) - LSE(all)` is used instead of a subtraction from 1. A row with a
    single kept entry would be `log(1 - 1)`; it comes out as -87, the smallest float's logarithm, constant.
    """
    masked = logits.masked_fill(~keep, -torch.inf)
    whole = torch.logsumexp(masked, 1)
    log_p = masked - whole[:, None]
    top = masked.argmax(1, keepdim=True)
    is_top = torch.zeros_like(keep).scatter_(1, top, True)
    others = masked.masked_fill(is_top, torch.finfo(logits.dtype).min)
    alone = keep.sum(1) < 2
    certain = torch.where(alone, -87.0, torch.logsumexp(others, 1) - whole)
    safe = log_p.masked_fill(is_top | ~keep, -1.0).clamp(max=-0.5)
    result = torch.where(is_top, certain[:, None], torch.log1p(-safe.exp()))
    return result.masked_fill(~keep, 0.0), whole


def spread(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Mean cosine of positives and of all pairs, of two views' unit embeddings `(m, d)`: 1 is collapse."""
    rows = torch.cat([first, second]).detach()
    n = len(rows)
    pairs = (rows.sum(0).square().sum() - n) / max(n * (n - 1), 1)
    return {"positive_cosine": (first * second).sum(1).mean().detach(), "mean_cosine": pairs}


class Partners(nn.Module):
    """The partner of an image: itself or, with probability `share`, its nearest neighbour.

    The neighbours are found once an epoch, exactly, among the L2-normalised features of the whole store.
    """

    neighbours: Tensor

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("neighbours", torch.empty(0, dtype=torch.int64))

    @torch.no_grad()
    def find(self, embed: Callable[[], Tensor], block: int = 1024) -> None:
        """Look up every image's nearest other image from `embed() -> (n, dim)`."""
        rows = F.normalize(embed().float(), dim=1)
        found = []
        for start in range(0, len(rows), block):
            similar = rows[start : start + block] @ rows.T
            similar.diagonal(start).fill_(-2.0)
            found.append(similar.argmax(1))
        self.neighbours = torch.cat(found)

    def draw(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """`(m,)` ids -> `(m,)` ids of the partners, one fair or loaded coin per image."""
        if not self.share or not len(self.neighbours):
            return ids
        coins = torch.rand(len(ids), generator=generator) < self.share
        return torch.where(coins, self.neighbours.cpu()[ids], ids)
