"""Deep metric learning meets deep clustering (CBSwR): images against the centroids of foreign clusters.

Nguyen et al., BMVC 2020 (arXiv 2009.04091). Two views of every image; a cluster head assigns the batch
to K clusters (regularised information maximisation); an image attracts its other view and repels the
centroid embeddings of the other clusters present; a decoder redraws each cluster from its mean feature
map. Use it where images come in groups and a batch holds several of each. Cost over SME: one small
head and one decoder pass per cluster present, not per image.

One code path, four variants (see `PRESETS`): `released` does what the published code does, faults
included; `paper` what the text says; `fixed` mends the terms that the released code left without effect
and keeps the clusters balanced; `plus`, the default, adds what measurably helps (docs/results/plus.md).
Symbols follow the paper: E feature maps, f unit embedding, p cluster probabilities, q hard assignment, r
mean map of a cluster, c its embedding, tau, alpha, beta, gamma, mu.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance import ranks
from semblance.contracts import Batch, Column, Encoder, Loss, View
from semblance.errors import ConfigError
from semblance.objectives._cbswr_config import PRESETS, SETTINGS, Config
from semblance.objectives._cbswr_head import ClusterHead
from semblance.objectives._cbswr_plus import (
    Beneath,
    Features,
    Measured,
    Memory,
    Teacher,
    Trust,
    contrast_loss,
    correlation_loss,
    soft_shares,
)
from semblance.objectives._cbswr_terms import (
    balance,
    entropy,
    instance_loss,
    metric_loss,
    reconstruction_loss,
    rim_loss,
)
from semblance.objectives._closing import whiten
from semblance.objectives._decoder import Decoder, doublings, redrawing_error
from semblance.objectives._levels import principal
from semblance.objectives._parts import Partners, UnitHead, spread, wide
from semblance.objectives._shared import recall

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

TERMS = ("metric", "rim", "decorrelation", "measured", "reconstruction")
EVERY = 20
ENOUGH = 10_000
"""Images that say how an embedding varies."""


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
        assert config.dim is not None
        self.head = UnitHead(encoder.dim, config.dim)
        self.cluster = ClusterHead(self.settings)
        self.partner = Partners(self.settings.partner or 0.0)
        s = self.settings
        k = s.clusters or 0
        self.trust = Trust(k, doubt=s.doubt or 0.0) if s.spare == "earned" else None
        self.memory = Memory(k, config.dim, s.memory) if s.memory else None
        self.teacher = Teacher(encoder, self.head, self.cluster, s.teacher) if s.teacher else None
        self.decoder = None
        self.features = Features(encoder.dim) if config.reconstruction and s.rebuild == "features" else None
        if config.reconstruction > 0 and s.rebuild == "pixels":
            full = doublings(encoder)
            stages = full if self.settings.drawing == "full" else max(1, min(full - 1, 3))
            self.decoder = Decoder(encoder.dim, encoder.channels, stages)
        self.register_buffer("gamma", torch.tensor(float(config.reconstruction)))
        self.register_buffer("norms", torch.zeros(len(TERMS)))
        self.register_buffer("steps", torch.tensor(0))
        self.count = 0  # `steps` where reading it does not wait for the device
        self.register_load_state_dict_post_hook(recall)  # type: ignore[no-untyped-call]
        self.views = (View(plain=s.plain or 0.0), View())
        self.measured: Measured | None = None
        if s.whiten:
            self.finish = self._finish
        if s.levels and hasattr(encoder, "levels"):
            self.read = self._read
        learns = any(weight.requires_grad for weight in cast(nn.Module, encoder).parameters())
        self.beneath: Beneath | None = None
        if s.beneath and learns and hasattr(encoder, "stages"):
            self.beneath = Beneath(cast(Any, encoder).level_dims[:-2:2])
        if s.measured and s.plain and learns:
            self.take_columns = self._take_columns

    def joined(self) -> None:
        """In a sum the earlier stages of the encoder are out of sight."""
        self.beneath = None

    def _finish(self, embed: Callable[..., Tensor], head: nn.Module) -> None:
        """Whiten the own head: not of the paper, see docs/results/sweep.md."""
        whiten(self.head.linear, embed(ENOUGH))

    def _read(self, levels: Tensor) -> nn.Module:
        """The head to keep: the leading directions of all levels, or the own one where nothing varies."""
        assert self.config.dim is not None
        read = principal(levels, cast(Any, self.encoder).level_dims, self.config.dim)
        return self.head if read is None else read

    def _take_columns(self, columns: Mapping[str, Column]) -> None:
        """Learn to predict those that are measured."""
        self.measured = Measured(int(self.encoder.dim), columns)

    def before_epoch(self, embed: Callable[[], Tensor]) -> None:
        """Look up neighbours where `partner` asks for them."""
        if self.partner.share:
            self.partner.find(embed)

    def partners(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """`(m,)` ids -> the ids that the second view shows."""
        return self.partner.draw(ids, generator)

    def check_batch(self, batch: int) -> None:
        """Raise `ConfigError` where more clusters were asked for than images are in a batch, unless their
        centroids are kept from batch to batch, and where no term is on."""
        mended = self.config.variant in ("fixed", "plus") and not self.config.memory
        if mended and (self.config.clusters or 0) > batch:
            raise ConfigError(
                f"cbswr.clusters is {self.config.clusters}, a batch has {batch} images",
                f"at most {batch} clusters, or a larger batch and more images",
            )
        s = self.settings
        given = (s.metric, s.rim, s.decorrelate, self.features, self.decoder, self.beneath, self.measured)
        if not any(given):
            raise ConfigError("every term of cbswr is off: nothing is left to learn", "turn one of them on")

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All parameters; the cluster head's have the weight decay R(theta)."""
        head = list(self.cluster.parameters())
        known = {id(p) for p in head}
        rest = [p for p in self.parameters() if id(p) not in known]
        return [{"params": rest}, {"params": head, "weight_decay": self.settings.head_decay}]

    def forward(self, batch: Batch) -> Loss:
        """`L = alpha L_m + beta L_rim + gamma L_rec` of one batch, and what `plus` adds to it. Without
        columns, or on a frozen encoder, nothing measured is predicted."""
        images = torch.cat(batch.views)
        if self.beneath is None:
            stages = [self.encoder.maps(images)]
        else:
            stages = cast(Any, self.encoder).stages(images)
        with torch.autocast(images.device.type, enabled=False):
            return self._loss(images, stages, batch)

    def _loss(self, images: Tensor, stages: list[Tensor], batch: Batch) -> Loss:
        s, maps = self.settings, stages[-1]
        features = wide(maps).mean((2, 3))
        assert s.clusters is not None
        first, second = (ranks.gather(view) for view in self.head(features).chunk(2))
        f = torch.cat([first, second])
        t = 1.0 if self.trust is None else self.trust().mean().to(f.dtype)
        noisy, clean = self.cluster(f if self.trust is None else t * f + (1 - t) * f.detach())
        p = torch.softmax(noisy, 1)
        m = len(first)
        clean = clean if self.teacher is None else self.teacher(images)
        q = self._assign(noisy[:m], clean[:m]).repeat(2)
        if self.trust is not None and self.training:
            self.trust.see(q[:m], self._assign(noisy[m:], clean[m:]))
        belongs = F.one_hot(q, s.clusters)
        if s.assign == "soft":
            belongs = soft_shares(clean[:m] / self.cluster.scale).repeat(2, 1)
        counts = belongs.sum(0)
        here = self._slice(belongs, m)
        pooled = ranks.total(here.to(features.dtype).T @ features) / counts.clamp(min=1e-6)[:, None]
        c = self.head(pooled if s.through else pooled.detach())
        c, present = c if s.through else c.detach(), counts > 0
        if self.memory is not None:
            c, present = self.memory(c, present)
        terms: dict[str, Tensor] = {}
        if s.metric:
            terms["metric"] = s.metric * self._metric(f, c, q, present, t)
        if s.rim:
            terms["rim"] = s.rim * rim_loss(p, s.entropies or "clusters", s.mu)
        if s.decorrelate:
            terms["decorrelation"] = s.decorrelate * correlation_loss(f)
        if self.measured is not None and batch.plain is not None:
            told = self.measured(features[: len(batch.ids)], batch.ids, batch.plain)
            terms["measured"] = (s.measured or 0.0) * told
        if self.beneath is not None:
            terms["beneath"] = (s.beneath or 0.0) * self.beneath(stages[:-1], s.tau)
        error = None
        if self.features is not None:
            error = self.features(features, here, counts)
        elif self.decoder is not None:
            error = redrawing_error(self.decoder, images, maps, here, counts, s)
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

    def _metric(self, f: Tensor, c: Tensor, q: Tensor, present: Tensor, t: Tensor | float) -> Tensor:
        """`L_m` against foreign centroids, as far as they are trusted, and against instances if asked for."""
        s = self.settings
        loss = torch.zeros((), device=f.device, dtype=f.dtype)
        if s.central:
            first, second = f.chunk(2)
            loss = s.central * t * metric_loss(f, torch.cat([second, first]).detach(), c, q, present, s)
        if s.negatives == "instances" and s.spare == "all":
            return loss + instance_loss(f, q, s.tau)
        if s.negatives == "instances":
            trust = self.trust() if self.trust is not None else f.new_zeros(len(c))
            return loss + contrast_loss(f, q, trust.to(f.dtype), s.tau)
        return loss

    def after_step(self) -> None:
        """The teacher, where there is one, follows."""
        if self.teacher is not None:
            self.teacher.follow(self.encoder, self.head, self.cluster)

    def _assign(self, noisy: Tensor, clean: Tensor) -> Tensor:
        if self.settings.assign == "dropout":
            return noisy.detach().argmax(1)
        if self.settings.assign in ("balanced", "soft"):
            return balance(clean / self.cluster.scale)
        return clean.argmax(1)

    @staticmethod
    def _slice(rows: Tensor, m: int) -> Tensor:
        """This rank's rows of both views, of global rows `(2m, ...)`."""
        if ranks.count() == 1:
            return rows
        own = slice(ranks.index() * m // ranks.count(), (ranks.index() + 1) * m // ranks.count())
        return torch.cat([rows[:m][own], rows[m:][own]])

    def _weigh(self, terms: dict[str, Tensor], error: Tensor | None, maps: Tensor) -> None:
        """Every 20 steps: the norm of each term's gradient at E, and gamma from their ratio."""
        if not self.training or self.count % EVERY or not maps.requires_grad:
            return
        parts = terms if error is None else {**terms, "reconstruction": error}
        for index, name in enumerate(TERMS):
            if name in parts and parts[name].requires_grad:
                (slope,) = torch.autograd.grad(parts[name], maps, retain_graph=True)
                self.norms[index] = ranks.total(slope.square().sum()).sqrt()
        lead = next((self.norms[TERMS.index(name)] for name in terms if name in TERMS), None)
        if error is not None and self.settings.share and lead is not None:
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
            **({} if self.trust is None else {"trust": self.trust().mean()}),
            **{f"share.{name}": share for name, share in zip(TERMS, shares, strict=True)},
        }
