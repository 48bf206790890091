"""Deep metric learning meets deep clustering (CBSwR): images against the centroids of foreign clusters.

Nguyen et al., BMVC 2020 (arXiv 2009.04091). Two views of every image; a cluster head assigns the batch
to K clusters (regularised information maximisation); an image attracts its other view and repels the
centroid embeddings of the other clusters present; a decoder redraws each cluster from its mean feature
map. Use it where images come in groups and a batch holds several of each. Cost over SME: one small
head and one decoder pass per cluster present, not per image.

One code path, three variants (see `PRESETS`): `released` does what the published code does, faults
included; `paper` what the text says; `fixed` mends the terms that the released code left without effect
and keeps the clusters balanced. Symbols follow the paper: E feature maps, f unit embedding, p cluster
probabilities, q hard assignment, r mean map of a cluster, c its embedding, tau, alpha, beta, gamma, mu.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance import ranks
from semblance.contracts import Batch, Encoder, Loss
from semblance.errors import ConfigError
from semblance.objectives._cbswr_terms import (
    balance,
    entropy,
    instance_loss,
    metric_loss,
    reconstruction_loss,
    rim_loss,
)
from semblance.objectives._decoder import Decoder, doublings, segment_means, shrunk
from semblance.objectives._parts import Partners, UnitHead, spread, wide

__all__ = [
    "PRESETS",
    "SETTINGS",
    "Config",
    "Objective",
    "balance",
    "instance_loss",
    "metric_loss",
    "reconstruction_loss",
    "rim_loss",
]

PRESETS: dict[str, dict[str, Any]] = {
    "released": {
        "clusters": 100,
        "logits": "unit",
        "scale": 1.0,
        "entropies": "mixed",
        "head_decay": 0.0,
        "assign": "dropout",
        "positive": "ratio",
        "negatives": "centroids",
        "drawing": "full",
        "target": "centred",
        "pixels": "mean",
        "share": 0.0,
        "partner": 0.5,
    },
    "paper": {
        "clusters": 32,
        "logits": "raw",
        "scale": 1.0,
        "entropies": "plain",
        "head_decay": 1e-4,
        "assign": "clean",
        "positive": "softmax",
        "negatives": "centroids",
        "drawing": "full",
        "target": "image",
        "pixels": "sum",
        "share": 0.0,
        "partner": 0.0,
    },
    "fixed": {
        "clusters": 32,
        "logits": "cosine",
        "scale": 10.0,
        "entropies": "clusters",
        "head_decay": 1e-4,
        "assign": "balanced",
        "positive": "decoupled",
        "negatives": "instances",
        "drawing": "half",
        "target": "image",
        "pixels": "mean",
        "share": 0.1,
        "partner": 0.0,
    },
}

SETTINGS: dict[str, dict[str, Any]] = {
    "released": {
        "encoder": "googlenet",
        "size": 256,
        "views": "released",
        "objective_options": {"variant": "released"},
        "training": {
            "batch": 64,
            "epochs": 30,
            "optimiser": "sgd",
            "lr": 1e-3,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "schedule": "constant",
        },
    },
}

TERMS = ("metric", "rim", "reconstruction")
EVERY = 20


@dataclass(frozen=True)
class Config:
    """Every knob of CBSwR; what is left at None takes the value of `variant` (table `PRESETS`).

    `dim` embedding size. `clusters` K. `tau` temperature. `metric`, `rim`, `reconstruction`: alpha, beta,
    gamma (0 removes the term). `mu` weight of H(Y). `foreign` a, weight of the repulsion. `dropout` of
    the cluster head. `logits`: L2-normalised (`unit`), `raw`, or cosines times `scale`. `entropies`:
    H(Y|X) / ln n and H(Y) / ln K (`mixed`), unscaled (`plain`), both / ln K (`clusters`). `head_decay`:
    weight decay of the cluster head, R(theta). `assign`: with dropout on, `clean`, or `balanced`
    (Sinkhorn over the batch). `positive`: numerator outside (`ratio`) or inside (`softmax`) the
    denominator, or outside and against the mean rival instead of their sum (`decoupled`: the gradient of
    `ratio`, which does not fade, with a value that does not grow with K; Yeh et al. 2022).
    `through`: gradient reaches the centroids. `target`: mean-subtracted or plain image. `pixels`: squared
    error averaged or summed over pixels. `share`: where above 0, gamma is set so that the
    reconstruction's gradient at E is this share of the metric term's. `partner`: chance that the second
    view shows the image's nearest neighbour. `negatives`: centroids only, or also the `instances`
    of other clusters (attraction and repulsion of SME that spares one's own cluster).
    `drawing`: the decoder's side, that of the images or at most half of it and three doublings, against
    images averaged over areas (F.2.2).
    """

    variant: Literal["released", "paper", "fixed"] = "fixed"
    dim: int = 128
    clusters: int | None = None
    tau: float = 0.1
    metric: float = 0.9
    rim: float = 0.3
    reconstruction: float = 0.001
    mu: float = 1.0
    foreign: float = 1.0
    dropout: float = 0.6
    logits: Literal["unit", "raw", "cosine"] | None = None
    scale: float | None = None
    entropies: Literal["mixed", "plain", "clusters"] | None = None
    head_decay: float | None = None
    assign: Literal["dropout", "clean", "balanced"] | None = None
    positive: Literal["ratio", "softmax", "decoupled"] | None = None
    through: bool = False
    target: Literal["centred", "image"] | None = None
    pixels: Literal["mean", "sum"] | None = None
    share: float | None = None
    partner: float | None = None
    negatives: Literal["centroids", "instances"] | None = None
    drawing: Literal["full", "half"] | None = None

    def __post_init__(self) -> None:
        if self.variant not in PRESETS:
            raise ConfigError(f'cbswr has no variant "{self.variant}"', f"known: {', '.join(PRESETS)}")
        if self.clusters is not None and self.clusters < 2:
            raise ConfigError(f"cbswr.clusters is {self.clusters}", "at least 2 clusters are needed")
        if self.tau <= 0 or self.dim < 2 or not 0 <= self.dropout < 1:
            raise ConfigError("cbswr needs tau > 0, dim >= 2 and 0 <= dropout < 1")

    def resolved(self) -> Config:
        """The same with every None replaced by the variant's value."""
        preset = PRESETS[self.variant]
        return replace(
            self, **{f.name: preset[f.name] for f in fields(self) if getattr(self, f.name) is None}
        )


class ClusterHead(nn.Module):
    """BatchNorm, dropout and one linear layer: unit embeddings `(n, d)` -> cluster logits `(n, K)`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        assert config.clusters is not None
        assert config.scale is not None
        self.config = config
        self.scale = config.scale
        self.norm = nn.BatchNorm1d(config.dim)
        self.linear = nn.Linear(config.dim, config.clusters, bias=config.logits != "cosine")

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Logits with dropout, as trained, and without, for assignment."""
        z = self.norm(f)  # gathered rows: every rank sees the same, so plain statistics are global ones
        noisy = F.dropout(z, self.config.dropout, self.training)
        return self._logits(noisy), self._logits(z.detach()).detach()

    def _logits(self, z: Tensor) -> Tensor:
        if self.config.logits == "cosine":
            return self.scale * F.linear(F.normalize(z, dim=1), F.normalize(self.linear.weight, dim=1))
        logits = self.linear(z)
        return self.scale * F.normalize(logits, dim=1) if self.config.logits == "unit" else logits


class Objective(nn.Module):
    """CBSwR on any encoder that gives feature maps."""

    gamma: Tensor
    norms: Tensor
    steps: Tensor

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.settings = config.resolved()
        self.encoder = encoder
        self.head = UnitHead(encoder.dim, config.dim)
        self.cluster = ClusterHead(self.settings)
        self.partner = Partners(self.settings.partner or 0.0)
        self.decoder = None
        if config.reconstruction > 0:
            full = doublings(encoder)
            stages = full if self.settings.drawing == "full" else max(1, min(full - 1, 3))
            self.decoder = Decoder(encoder.dim, encoder.channels, stages)
        self.register_buffer("gamma", torch.tensor(float(config.reconstruction)))
        self.register_buffer("norms", torch.zeros(len(TERMS)))
        self.register_buffer("steps", torch.tensor(0))
        self.count = 0  # `steps` where reading it does not wait for the device
        self.register_load_state_dict_post_hook(_recall)  # type: ignore[no-untyped-call]

    def before_epoch(self, embed: Callable[[], Tensor]) -> None:
        """Look up neighbours where `partner` asks for them."""
        if self.partner.share:
            self.partner.find(embed)

    def partners(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """`(m,)` ids -> the ids that the second view shows."""
        return self.partner.draw(ids, generator)

    def check_batch(self, batch: int) -> None:
        """Raise `ConfigError` where more clusters were asked for than images are in a batch (A.8)."""
        if self.config.variant == "fixed" and (self.config.clusters or 0) > batch:
            raise ConfigError(
                f"cbswr.clusters is {self.config.clusters}, a batch has {batch} images",
                f"at most {batch} clusters, or a larger batch and more images",
            )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All parameters; the cluster head's have the weight decay R(theta)."""
        head = list(self.cluster.parameters())
        known = {id(p) for p in head}
        rest = [p for p in self.parameters() if id(p) not in known]
        return [{"params": rest}, {"params": head, "weight_decay": self.settings.head_decay}]

    def forward(self, batch: Batch) -> Loss:
        """`L = alpha L_m + beta L_rim + gamma L_rec` of one batch (A.3)."""
        images = torch.cat(batch.views)
        maps = self.encoder.maps(images)
        with torch.autocast(maps.device.type, enabled=False):
            return self._loss(images, maps, wide(maps).mean((2, 3)))

    def _loss(self, images: Tensor, maps: Tensor, features: Tensor) -> Loss:
        s = self.settings
        assert s.clusters is not None
        f_local = self.head(features)
        first, second = (ranks.gather(view) for view in f_local.chunk(2))
        f = torch.cat([first, second])
        noisy, clean = self.cluster(f)
        p = torch.softmax(noisy, 1)
        m = len(first)
        q = self._assign(noisy[:m], clean[:m]).repeat(2)
        one_hot = F.one_hot(q, s.clusters)
        counts = one_hot.sum(0)
        present = counts > 0
        here = self._slice(one_hot, m)
        pooled = ranks.total(here.to(features.dtype).T @ features) / counts.clamp(min=1)[:, None]
        c = self.head(pooled if s.through else pooled.detach())
        c = c if s.through else c.detach()
        terms: dict[str, Tensor] = {}
        if s.metric:
            metric = metric_loss(f, torch.cat([second, first]).detach(), c, q, present, s)
            if s.negatives == "instances":
                metric = metric + instance_loss(f, q, s.tau)
            terms["metric"] = s.metric * metric
        if s.rim:
            terms["rim"] = s.rim * rim_loss(p, s.entropies or "clusters", s.mu)
        error = self._reconstruct(images, maps, here, counts) if self.decoder is not None else None
        self._weigh(terms, error, maps)
        if error is not None:
            terms["reconstruction"] = error * self.gamma.clone()
        self.steps += self.training
        self.count += self.training
        return Loss(
            sum(terms.values(), torch.zeros((), device=f.device)),
            terms,
            self._stats(first, second, p, counts),
        )

    def _assign(self, noisy: Tensor, clean: Tensor) -> Tensor:
        if self.settings.assign == "dropout":
            return noisy.detach().argmax(1)
        if self.settings.assign == "balanced":
            return balance(clean / self.cluster.scale)
        return clean.argmax(1)

    @staticmethod
    def _slice(rows: Tensor, m: int) -> Tensor:
        """This rank's rows of both views, of global rows `(2m, ...)`."""
        if ranks.count() == 1:
            return rows
        own = slice(ranks.index() * m // ranks.count(), (ranks.index() + 1) * m // ranks.count())
        return torch.cat([rows[:m][own], rows[m:][own]])

    def _reconstruct(self, images: Tensor, maps: Tensor, one_hot: Tensor, counts: Tensor) -> Tensor:
        assert self.decoder is not None
        target = images if self.settings.target == "image" else _centred(images)
        if self.settings.drawing == "half":
            target = shrunk(target, maps.shape[-1] << len(self.decoder.norms))
        weights = counts
        mean_maps = ranks.total(segment_means(maps, one_hot, counts))
        mean_images = ranks.total(segment_means(target, one_hot, counts))
        if maps.device.type == "cpu":
            keep = counts.nonzero()[:, 0]
            mean_maps, mean_images, weights = mean_maps[keep], mean_images[keep], counts[keep]
        drawn = self.decoder(mean_maps, weights, target.shape[-1])
        return reconstruction_loss(target, drawn, mean_images, weights, self.settings.pixels or "mean")

    def _weigh(self, terms: dict[str, Tensor], error: Tensor | None, maps: Tensor) -> None:
        """Every 20 steps: the norm of each term's gradient at E, and gamma from their ratio (F.4.1)."""
        if not self.training or self.count % EVERY or not maps.requires_grad:
            return
        parts = terms if error is None else {**terms, "reconstruction": error}
        for index, name in enumerate(TERMS):
            if name in parts and parts[name].requires_grad:
                (slope,) = torch.autograd.grad(parts[name], maps, retain_graph=True)
                self.norms[index] = ranks.total(slope.square().sum()).sqrt()
        if error is not None and self.settings.share and terms:
            lead = self.norms[TERMS.index(next(iter(terms)))]
            wanted = (self.settings.share * lead / self.norms[-1].clamp(min=1e-12)).clamp(max=1e3)
            self.gamma.copy_(wanted if self.count == 0 else 0.5 * (self.gamma + wanted))

    @torch.no_grad()
    def _stats(self, first: Tensor, second: Tensor, p: Tensor, counts: Tensor) -> dict[str, Tensor]:
        k = math.log(len(counts))
        strength = self.norms.clone()
        strength[-1] *= self.gamma
        shares = strength / strength.sum().clamp(min=1e-20)
        used = (counts > 0).sum().float()
        return {
            **spread(first, second),
            "used_clusters": used / min(len(counts), len(first)),
            "confidence": p.max(1).values.mean(),
            "conditional_entropy": entropy(p).mean() / k,
            "marginal_entropy": entropy(p.mean(0)) / k,
            "degenerate": (used < 2).float(),
            "gamma": self.gamma.clone(),
            **{f"share.{name}": share for name, share in zip(TERMS, shares, strict=True)},
        }


def _recall(module: Objective, keys: Any) -> None:
    module.count = int(module.steps)


def _centred(images: Tensor) -> Tensor:
    """The released target: mean-subtracted, channels reversed, as fed to the Caffe network, over 255."""
    if images.shape[1] != 3:
        return images - 0.45
    means = torch.tensor([122.7717, 115.9465, 102.9801], device=images.device, dtype=images.dtype) / 255
    return (images - means.view(1, 3, 1, 1)).flip(1)
