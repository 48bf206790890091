"""The formulas of CBSwR: pure functions on tensors, with the paper's symbols.

`f` unit embeddings `(n, d)`, two views stacked; `c` centroid embeddings `(K, d)`; `p` cluster probabilities
`(n, K)`; `q` hard assignment `(n,)`. Nguyen et al., BMVC 2020 (arXiv 2009.04091); where text and released
code disagree, `semblance.objectives.cbswr.PRESETS` says which form a variant takes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from semblance import ranks
from semblance.objectives._parts import log_one_minus_softmax

if TYPE_CHECKING:
    from semblance.objectives._cbswr_config import Config

__all__ = [
    "balance",
    "entropy",
    "instance_loss",
    "metric_loss",
    "reconstruction_loss",
    "rim_loss",
    "sinkhorn",
]


def rim_loss(p: Tensor, entropies: str, mu: float) -> Tensor:
    """`R = H(Y|X) - mu H(Y)` of cluster probabilities `p` `(n, K)`; the scaled forms add 1."""
    conditional, marginal = entropy(p).mean(), entropy(p.mean(0))
    n, k = p.shape
    if entropies == "plain":
        return conditional - mu * marginal
    return conditional / math.log(n if entropies == "mixed" else k) + 1 - mu * marginal / math.log(k)


def entropy(p: Tensor) -> Tensor:
    """Of the last axis, in nats; a probability of exactly 0 adds 0 and has a finite gradient."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(-1)


def metric_loss(f: Tensor, pair: Tensor, c: Tensor, q: Tensor, present: Tensor, config: Config) -> Tensor:
    """`L_m`: `f` `(n, d)` against the other view `pair` `(n, d)` and centroids `c` `(K, d)`.

    `q` `(n,)` own cluster, `present` `(K,)` bool. With fewer than two clusters present the term is 0:
    there is nothing foreign. L_m of the paper, l as in the released code.
    """
    s = f @ c.T / config.tau
    positive = (f * pair).sum(1) / config.tau
    own = F.one_hot(q, len(c)).bool()
    foreign = present[None, :] & ~own
    enough = (present.sum() >= 2).to(f.dtype)
    rivals = torch.where(foreign, s, torch.finfo(s.dtype).min)
    if config.positive == "softmax":
        rivals = torch.cat([positive[:, None], rivals], 1)
    attraction = torch.logsumexp(rivals, 1) - positive
    if config.positive == "decoupled":
        attraction = attraction - foreign.sum(1).clamp(min=1).to(s.dtype).log()
    log_not, _ = log_one_minus_softmax(s, present[None, :].expand_as(s))
    repulsion = -(log_not * foreign).sum(1)
    terms = attraction + config.foreign * repulsion
    return torch.where(enough > 0, terms, torch.zeros_like(terms)).mean()


def instance_loss(f: Tensor, q: Tensor, tau: float) -> Tensor:
    """Attraction and repulsion among instances (SME) that spares those of one's own cluster.

    `f` `(n, d)`: two views stacked. `-mean_i [log P_i,pair + sum_j log(1 - P_ij)]` over the j of other
    clusters, P a softmax over the pair and those j; right-hand side detached.
    """
    n = len(f)
    rows = torch.arange(n, device=f.device)
    pair = (rows + n // 2) % n
    is_pair = pair[:, None] == rows[None, :]
    keep = (q[:, None] != q[None, :]) | is_pair
    logits = f @ f.detach().T / tau
    log_not, whole = log_one_minus_softmax(logits, keep)
    return (whole - logits[rows, pair] - (log_not * ~is_pair).sum(1)).mean()


def reconstruction_loss(
    images: Tensor, drawn: Tensor, mean_images: Tensor, counts: Tensor, pixels: str
) -> Tensor:
    """`L_rec` over all n images from one drawing per cluster, exact by an identity.

    `sum_i |I_i - D_q(i)|^2 = sum_j n_j |D_j - mean I_j|^2 + sum_i |I_i|^2 - sum_j n_j |mean I_j|^2`.
    `images` `(n, c, h, w)` of this rank, `drawn` and `mean_images` `(K, c, h, w)`, `counts` `(K,)`.
    """
    weight = counts.to(drawn.dtype)[:, None]
    fit = (weight * (drawn - mean_images).flatten(1).square()).sum()
    inside = ranks.total(images.square().sum()) - (weight * mean_images.flatten(1).square()).sum()
    error = (fit + inside) / counts.sum()
    return error / images[0].numel() if pixels == "mean" else error


def balance(cosines: Tensor) -> Tensor:
    """Sinkhorn assignment: `(m, K)` cosines -> `(m,)` labels, clusters filled nearly evenly."""
    return sinkhorn(cosines).argmax(1)


def sinkhorn(cosines: Tensor, rounds: int = 3, temperature: float = 0.1) -> Tensor:
    """Logarithms of balanced shares `(m, K)`: every row sums to 1, the columns nearly to m / K.

    Rows and columns of `exp(cosines / temperature)` are scaled in turn to equal sums (Cuturi 2013; used for
    online clustering by Caron et al. 2020), in the log domain.
    """
    log_q = cosines.detach() / temperature
    for _ in range(rounds):
        log_q = log_q - torch.logsumexp(log_q, 0, keepdim=True)
        log_q = log_q - torch.logsumexp(log_q, 1, keepdim=True)
    return log_q
