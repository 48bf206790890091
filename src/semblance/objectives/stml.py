"""Self-taught metric learning (STML): a teacher says how alike two images are, by their neighbours in common.

Kim et al., "Self-Taught Metric Learning without Labels", CVPR 2022 (arXiv 2205.01903). A batch is queries
and their nearest neighbours, two views each. A momentum teacher gives every pair a similarity: half from
distance, half from how many mutual neighbours the two share. The student brings similar pairs together and
keeps others `delta` apart, on a wide head g and on the head f that is kept; f also learns g's distances. Use
it from an encoder that has learned something: neighbours of a random network teach little. Beside the
student's two forward passes a step costs one for the teacher, and an epoch one pass over the collection and
its exact neighbours.

Differences from the paper: features are the encoder's own (one pooling, not the sum of two); embeddings are
kept at length 1, the losses see them as they are before; heads have no bias, which distances cannot see.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance import ranks
from semblance.contracts import Batch, Encoder, Loss
from semblance.errors import ConfigError
from semblance.objectives._parts import spread, wide
from semblance.objectives._shared import follow

__all__ = [
    "SETTINGS",
    "Config",
    "Objective",
    "batches",
    "contextualised_similarity",
    "distillation",
    "least",
    "relaxed_contrastive",
    "relative_distances",
]

_IMAGENET = {"batch": 120, "optimiser": "adamw", "lr": 1e-4, "weight_decay": 0.01}
SETTINGS: dict[str, dict[str, Any]] = {
    "unseen": {
        "encoder": "googlenet",
        "size": 256,
        "views": "photo",
        "training": {**_IMAGENET, "epochs": 90, "schedule": "cosine", "warmup": 0.0},
    },
    "scratch": {
        "encoder": "resnet",
        "encoder_options": {"depth": 18, "width": 64},
        "size": 224,
        "views": "photo",
        "objective_options": {"momentum": 0.9, "neighbours": 2, "delta": 0.9},
        "training": {**_IMAGENET, "lr": 5e-4, "epochs": 180, "schedule": "constant", "warmup": 0.0},
    },
}


@dataclass(frozen=True)
class Config:
    """`dim`, `background`: sizes of the heads f and g. `neighbours`: k, images in a batch for each query,
    itself included. `sigma`: width of the similarity. `delta`: margin. `momentum`: of the teacher; nearer to
    0.9 for trainings of a few hundred steps."""

    dim: int = 128
    background: int = 1024
    neighbours: int = 5
    sigma: float = 3.0
    delta: float = 1.0
    momentum: float = 0.999

    def __post_init__(self) -> None:
        if self.dim < 2 or self.background < 2 or self.neighbours < 1:
            raise ConfigError("stml needs dim >= 2, background >= 2 and neighbours >= 1")
        if self.sigma <= 0 or self.delta <= 0 or not 0 <= self.momentum < 1:
            raise ConfigError("stml needs sigma > 0, delta > 0 and 0 <= momentum < 1")


def contextualised_similarity(t: Tensor, k: int, sigma: float) -> Tensor:
    """`W` `(N, N)` in [0, 1] of teacher embeddings `t` `(N, d)`, two views stacked.

    `W = (W^P + W^C) / 2`; `W^P_ij = exp(-|t_i - t_j|^2 / sigma)`; `W^C` is the share of mutual neighbours,
    2k around every row, that two rows have in common, averaged over each row's k nearest and made symmetric.
    """
    n = len(t)
    rows = torch.arange(n, device=t.device)
    pairwise = torch.exp(-torch.cdist(t, t).square() / sigma)
    near = pairwise.clone()
    near[rows, rows] = near[rows, (rows + n // 2) % n] = 1.0  # views of one image are nearest to each other
    order = near.topk(min(2 * k, n), dim=1).indices
    listed = torch.zeros_like(pairwise).scatter_(1, order, 1.0)
    mutual = listed * listed.T
    shared = mutual @ mutual.T / mutual.sum(1, keepdim=True).clamp(min=1) * mutual
    expanded = shared[order[:, : min(k, n)]].mean(1)
    return 0.5 * (pairwise + 0.5 * (expanded + expanded.T))


def relative_distances(s: Tensor) -> Tensor:
    """`S` `(N, N)`: distances between rows `s` `(N, d)` over each row's mean, that to itself included."""
    distance = torch.cdist(s, s, compute_mode="donot_use_mm_for_euclid_dist")
    return distance / distance.mean(1, keepdim=True).clamp(min=1e-12)


def relaxed_contrastive(relative: Tensor, w: Tensor, delta: float) -> Tensor:
    """`1 / (N (N - 1)) sum_{i != j} W_ij S_ij^2 + (1 - W_ij) max(0, delta - S_ij)^2`."""
    n = len(relative)
    each = w * relative.square() + (1 - w) * F.relu(delta - relative).square()
    return (each.sum() - each.diagonal().sum()) / (n * (n - 1))


def least(w: Tensor, delta: float) -> Tensor:
    """What `relaxed_contrastive` cannot fall below: every pair at `S_ij = (1 - W_ij) delta`."""
    n = len(w)
    each = w * (1 - w) * delta**2
    return (each.sum() - each.diagonal().sum()) / (n * (n - 1))


def distillation(teaching: Tensor, learning: Tensor) -> Tensor:
    """`mean_i KL(softmax_j(-S^g_ij) || softmax_j(-S^f_ij))`, S^g without gradient."""
    wanted = F.log_softmax(-teaching.detach(), 1)
    return F.kl_div(F.log_softmax(-learning, 1), wanted, reduction="batchmean", log_target=True)


def batches(shuffled: Tensor, neighbours: Tensor, batch: int) -> Tensor:
    """The ids of an epoch, batch after batch: queries without replacement, each among its nearest.

    `shuffled` `(n,)` ids in random order, `neighbours` `(n, k)` with itself first -> `(n // batch * batch,)`.
    Where k does not divide the batch, its rest are further images of `shuffled`.
    """
    k = neighbours.shape[1]
    steps, queries = len(shuffled) // batch, batch // k
    rest = batch - queries * k
    asked = shuffled[: steps * queries].view(steps, queries)
    others = shuffled[len(shuffled) - steps * rest :].view(steps, rest)
    return torch.cat([neighbours[asked].view(steps, queries * k), others], 1).view(-1)


class Rows(nn.Module):
    """One linear layer, orthogonal at first, and L2 normalisation: `(n, dim)` -> unit `(n, d)` float32."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out, bias=False)
        nn.init.orthogonal_(self.linear.weight)

    def project(self, features: Tensor) -> Tensor:
        """Before normalisation, as the losses see it, in float32."""
        with torch.autocast(features.device.type, enabled=False):
            x = wide(features)
            return F.linear(x, self.linear.weight.to(x.dtype))

    def forward(self, features: Tensor) -> Tensor:
        """`(n, dim)` -> `(n, d)`, every row of length 1."""
        return F.normalize(self.project(features), dim=1)


class Objective(nn.Module):
    """STML on any encoder: `head` is f, `background` is g."""

    neighbours: Tensor

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = Rows(encoder.dim, config.dim)
        self.background = Rows(encoder.dim, config.background)
        student: tuple[Any, Any] = (encoder, self.background)
        self.teacher = nn.ModuleList(copy.deepcopy(part) for part in student)
        self.teacher.requires_grad_(False)
        self.register_buffer("neighbours", torch.empty(0, dtype=torch.int64))

    def train(self, mode: bool = True) -> Objective:
        """Itself; the teacher stays in evaluation mode, with the student's statistics averaged."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def before_epoch(self, embed: Callable[[], Tensor], block: int = 1024) -> None:
        """Find every image's k nearest, itself first, by the student's g."""
        rows = self.background(embed())
        found = []
        for start in range(0, len(rows), block):
            similar = rows[start : start + block] @ rows.T
            similar.diagonal(start).fill_(2.0)
            found.append(similar.topk(min(self.config.neighbours, len(rows)), dim=1).indices)
        self.neighbours = torch.cat(found)

    def order(self, shuffled: Tensor, batch: int) -> Tensor:
        """An epoch's ids, shuffled, as batches of queries and their neighbours."""
        if not len(self.neighbours) or self.neighbours.shape[1] > batch:
            return shuffled
        return batches(shuffled, self.neighbours.to(shuffled.device), batch)

    def after_step(self) -> None:
        """The teacher follows the student: every weight and statistic."""
        follow(list(self.teacher), (self.encoder, self.background), self.config.momentum)

    def forward(self, batch: Batch) -> Loss:
        """`(L_RC(f) + L_RC(g)) / 2 + L_KL` of one batch, L_RC above the least that W allows.

        That is a constant to the student; with it the value would tell more of the batch than of learning.
        """
        images = torch.cat(batch.views)
        with torch.no_grad():
            taught = self.teacher[1](self.teacher[0](images))
        features = self.encoder(images)
        f, g = self.head.project(features), self.background.project(features)
        with torch.autocast(f.device.type, enabled=False):
            t, f, g = (torch.cat([ranks.gather(view) for view in rows.chunk(2)]) for rows in (taught, f, g))
            w = contextualised_similarity(t, self.config.neighbours, self.config.sigma)
            distances = [relative_distances(rows) for rows in (f, g)]
            terms = {
                name: 0.5 * (relaxed_contrastive(one, w, self.config.delta) - least(w, self.config.delta))
                for name, one in zip(("embedding", "background"), distances, strict=True)
            }
            terms["distillation"] = distillation(distances[1], distances[0])
            first, second = F.normalize(f, dim=1).chunk(2)
            stats = {**spread(first, second), "similarity": w.mean()}
        return Loss(sum(terms.values(), torch.zeros((), device=f.device)), terms, stats)
