"""What the variant `plus` of CBSwR adds: pure functions first, then what remembers something over batches.

`f` unit embeddings `(n, d)`, two views stacked; `q` hard assignment `(n,)`; `c` centroid embeddings `(K, d)`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance import ranks
from semblance.contracts import Column
from semblance.objectives._cbswr_terms import sinkhorn
from semblance.objectives._heads import Heads
from semblance.objectives._parts import UnitHead, gather_views, log_one_minus_softmax, nt_xent
from semblance.objectives._shared import follow
from semblance.objectives._targets import prepare

__all__ = [
    "Beneath",
    "Features",
    "Measured",
    "Memory",
    "Moments",
    "Teacher",
    "Trust",
    "contrast_loss",
    "correlation_loss",
    "soft_shares",
]
HIDDEN = 128
FLOOR = 1e-5
MANY = 64


def contrast_loss(f: Tensor, q: Tensor, trust: Tensor, tau: float) -> Tensor:
    """Instances against instances, sparing those of one's own cluster as far as it is trusted.

    `trust` `(K,)` in [0, 1]; `w_ij = 1 - trust_q(i)` where q(i) = q(j), else 1. Attraction without the pair
    in its denominator (decoupled: Yeh et al., ECCV 2022, Eq. 4), repulsion as in SME (Ye et al., CVPR 2019):
    `mean_i [log sum_j w_ij exp(f_i.f_j / tau) - f_i.f_pair / tau - sum_j w_ij log(1 - P_ij)]` over the
    j that are neither i nor its pair, P a softmax over all but i; right-hand side detached.
    """
    n = len(f)
    rows = torch.arange(n, device=f.device)
    pair = (rows + n // 2) % n
    itself = rows[:, None] == rows[None, :]
    foreign = ~itself & (pair[:, None] != rows[None, :])
    w = torch.where(q[:, None] == q[None, :], 1 - trust[q][:, None], torch.ones_like(trust[:1])) * foreign
    logits = f @ f.detach().T / tau
    log_not, _ = log_one_minus_softmax(logits, ~itself)
    tiny = torch.finfo(logits.dtype).tiny
    attraction = torch.logsumexp(logits + w.clamp(min=tiny).log(), 1) - logits[rows, pair]
    repulsion: Tensor = -(log_not * w).sum(1)
    return (attraction + repulsion).mean()


def correlation_loss(f: Tensor) -> Tensor:
    """`1/d sum_{a != b} C_ab^2`, C the correlations between the d numbers of the rows `f` `(n, d)`.

    The redundancy term of Zbontar et al. (ICML 2021, arXiv 2103.03230, Eq. 1) within one view, as the
    covariance term of Bardes et al. (ICLR 2022, arXiv 2105.04906, Eq. 4) is. A constant column correlates
    with none.
    """
    n, d = f.shape
    x = f * d**0.5
    x = x - x.mean(0)
    covariance = x.T @ x / (n - 1)
    spread = covariance.diagonal().clamp(min=1e-6).sqrt()
    c = covariance / (spread[:, None] * spread[None, :])
    loss: Tensor = (c.square().sum() - c.diagonal().square().sum()) / d
    return loss


def soft_shares(cosines: Tensor) -> Tensor:
    """Shares `(m, K)` of every row in the clusters, rows summing to 1, clusters filled nearly evenly."""
    return sinkhorn(cosines).exp()


class Trust(nn.Module):
    """How far each cluster has earned it that its members are spared: `forward() -> (K,)` in [0, 1].

    A cluster is worth what its assignments are worth: the share of its images whose other view lands in it
    too, beyond what chance would give, over about the last 1 / (1 - rate) batches; trust is what of that
    lies beyond `doubt`, as a share of what there is beyond it. It starts at 0.
    """

    hits: Tensor
    tries: Tensor

    def __init__(self, clusters: int, rate: float = 0.95, doubt: float = 0.0) -> None:
        super().__init__()
        self.rate, self.doubt = rate, doubt
        self.register_buffer("hits", torch.zeros(clusters))
        self.register_buffer("tries", torch.zeros(clusters))

    @torch.no_grad()
    def see(self, first: Tensor, second: Tensor) -> None:
        """Take in one batch's labels of both views, `(m,)` each."""
        k = len(self.hits)
        one_hot = F.one_hot(first, k).to(self.hits.dtype)
        agree = (first == second).to(self.hits.dtype)
        self.tries.mul_(self.rate).add_(one_hot.sum(0))
        self.hits.mul_(self.rate).add_(agree @ one_hot)

    def forward(self) -> Tensor:
        """Agreement above chance and beyond doubt; fewer than ten images of a cluster count as ten."""
        chance = 1 / len(self.hits)
        agreement = self.hits / self.tries.clamp(min=10)
        beyond = (agreement - chance) / (1 - chance)
        return ((beyond - self.doubt) / (1 - self.doubt)).clamp(min=0)


class Memory(nn.Module):
    """Centroid embeddings that outlive their batch: a moving mean, back on the sphere."""

    centroids: Tensor
    seen: Tensor

    def __init__(self, clusters: int, dim: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("centroids", torch.zeros(clusters, dim))
        self.register_buffer("seen", torch.zeros(clusters, dtype=torch.bool))

    def forward(self, c: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """A batch's centroids `(K, d)` and which are present `(K,)` -> all that were ever, and which."""
        rate = torch.where(self.seen, self.rate, 0.0).to(c.dtype)[:, None]
        moved = F.normalize(rate * self.centroids.to(c.dtype) + (1 - rate) * c, dim=1)
        moved = torch.where(present[:, None], moved, self.centroids.to(c.dtype))
        seen = self.seen | present
        if self.training:
            self.centroids.copy_(moved.detach())
            self.seen.copy_(seen)
        return moved, seen


class Teacher(nn.Module):
    """A copy of encoder, head and cluster head that follows them slowly and says who belongs where."""

    def __init__(self, encoder: Any, head: nn.Module, cluster: nn.Module, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.copies = nn.ModuleList(copy.deepcopy(part) for part in (encoder, head, cluster))
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Teacher:
        """Itself; batch statistics are the student's, averaged."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images `(n, c, h, w)` of this rank, both views stacked -> cluster logits of all ranks' rows."""
        encoder, head, cluster = self.copies
        views = head(encoder(images)).chunk(2)
        clean: Tensor = cluster(torch.cat([ranks.gather(view) for view in views]))[1]
        return clean

    def follow(self, *parts: Any) -> None:
        """Move every weight and statistic a step of 1 - rate towards those of `parts`."""
        follow(list(self.copies), parts, self.rate)


class Features(nn.Module):
    """Reconstruction in feature space: from a cluster's mean features, the features of its members.

    `sum_i |u_i - D(r_q(i))|^2 / n` with u the unit features, detached, and D one linear layer: like the pixel
    form it equals, up to a constant, drawing each cluster once against its members' mean.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, features: Tensor, belongs: Tensor, counts: Tensor) -> Tensor:
        """`features` `(n, dim)` of this rank, `belongs` `(n, K)`, `counts` `(K,)` over all ranks -> error."""
        share = belongs.to(features.dtype)
        most = counts.to(features.dtype).clamp(min=1e-6)[:, None]
        mean = ranks.total(share.T @ features) / most
        u = F.normalize(features, dim=1).detach()
        members = ranks.total(share.T @ u) / most
        drawn = self.linear(F.normalize(mean, dim=1))
        fit = (counts[:, None] * (drawn - members).square()).sum()
        inside = ranks.total(u.square().sum()) - (counts[:, None] * members.square()).sum()
        error: Tensor = (fit + inside) / counts.sum()
        return error


class Moments(torch.autograd.Function):
    """Maps `(n, c, h, w)` -> mean and deviation over places, `(n, c)` each, float32 at least.

    Autograd would keep a copy of the maps in float32 and bring back gradients laid out unlike the maps: both
    cost more than the sums, which in 16 bits are rounded to these. The deviation has a floor, for a gradient
    where a map is the same everywhere. Few places are taken in float32: there the rounding would show.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, and what the way back needs."""
        kind = torch.promote_types(maps.dtype, torch.float32)
        ctx.shape, ctx.kind = maps.permute(0, 2, 3, 1).shape, maps.dtype
        places = maps.permute(0, 2, 3, 1).flatten(1, 2)  # a view where channels come last
        places = places.to(kind) if places.shape[1] < MANY else places
        mean = places.sum(1) / places.shape[1]
        apart = places - mean[:, None]
        deviation = ((apart * apart).sum(1).to(kind) / places.shape[1] + FLOOR).sqrt()
        ctx.save_for_backward(places, mean, deviation)
        return mean.to(kind), deviation

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        """`g_mean / k + g_deviation (x - mean) / (k deviation)` at each of the k places."""
        places, mean, deviation = ctx.saved_tensors
        steep = slopes[1] / (places.shape[1] * deviation)
        level = slopes[0] / places.shape[1] - mean.to(steep.dtype) * steep
        slope = torch.addcmul(level.to(places.dtype)[:, None], places, steep.to(places.dtype)[:, None])
        return slope.to(ctx.kind).view(ctx.shape).permute(0, 3, 1, 2)


class Beneath(nn.Module):
    """What the earlier stages of an encoder are trained for: each to tell images apart by itself.

    On mean and deviation of the maps of every stage but the last, batch-normalised, a head and NT-Xent
    (decoupled) of its own: deep supervision (Lee et al., AISTATS 2015, arXiv 1409.5185), for an embedding
    that is read off all levels. All are thrown away when training is over.
    """

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ranks.BatchNorm1d(2 * dim, affine=False) for dim in dims)
        self.heads = nn.ModuleList(UnitHead(2 * dim, HIDDEN) for dim in dims)

    def forward(self, stages: Sequence[Tensor], tau: float) -> Tensor:
        """Sum over `stages`, maps `(2m, c, h, w)` of this rank, both views stacked; 0 for a single image,
        which has no rivals."""
        losses = [stages[0].new_zeros((), dtype=torch.float32)]
        for maps, norm, head in zip(stages, self.norms, self.heads, strict=True):
            moments = torch.cat(Moments.apply(maps), 1)  # type: ignore[no-untyped-call]
            first, second = gather_views(head(norm(moments)), 2)
            if len(first) > 1:
                losses.append(nt_xent(first, second, tau, decoupled=True))
        return torch.stack(losses).sum()


class Measured(nn.Module):
    """What is measured on every image, as normal scores of the ranks, and one hidden layer that predicts it.

    What views are to ignore (brightness, colour, size) the features keep as far as this needs it: the pretext
    of `measure`, without roles. What only a file says (its format, its shape) stays out.
    """

    values: Tensor

    def __init__(self, dim: int, columns: Mapping[str, Column]) -> None:
        super().__init__()
        kept = {name: one for name, one in columns.items() if one.source == "measured" and not one.levels}
        targets = prepare(kept, "rank", {})
        self.heads = Heads(dim, targets, HIDDEN) if len(targets) else None
        self.register_buffer("values", torch.from_numpy(targets.values), persistent=False)

    def forward(self, features: Tensor, ids: Tensor, plain: Tensor) -> Tensor:
        """Mean Huber loss over columns and the images at `plain` `(m,)` bool of all ranks: `features`
        `(m, dim)` of their first views, `ids` `(m,)`."""
        rows = ranks.gather(plain.to(torch.uint8)).nonzero()[:, 0]
        e, ids = ranks.gather(features)[rows], ranks.gather(ids)[rows]
        if self.heads is None or len(ids) < 2:  # of one row nothing can be normalised
            return features.new_zeros(())
        codes = ids.new_zeros(len(ids), 0)
        return self.heads.losses(e, self.values[ids], codes).mean()
