"""What CBSwR can be told: every knob, and the four variants as the values they give to the knobs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from semblance.errors import ConfigError

__all__ = ["PRESETS", "SETTINGS", "Config"]

PLAIN: dict[str, Any] = {
    "dim": 128,
    "central": 1.0,
    "spare": "all",
    "memory": 0.0,
    "teacher": 0.0,
    "rebuild": "pixels",
    "decorrelate": 0.0,
    "whiten": False,
    "levels": False,
    "plain": 0.0,
    "measured": 0.0,
    "beneath": 0.0,
    "doubt": 0.0,
}
"""Nothing of what `plus` adds."""
RELEASED: dict[str, Any] = {
    **PLAIN,
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
}
PAPER: dict[str, Any] = {
    **PLAIN,
    "clusters": 32,
    "logits": "raw",
    "scale": 1.0,
    "entropies": "plain",
    "head_decay": 0.0001,
    "assign": "clean",
    "positive": "softmax",
    "negatives": "centroids",
    "drawing": "full",
    "target": "image",
    "pixels": "sum",
    "share": 0.0,
    "partner": 0.0,
}
FIXED: dict[str, Any] = {
    **PLAIN,
    "clusters": 32,
    "logits": "cosine",
    "scale": 10.0,
    "entropies": "clusters",
    "head_decay": 0.0001,
    "assign": "balanced",
    "positive": "decoupled",
    "negatives": "instances",
    "drawing": "half",
    "target": "image",
    "pixels": "mean",
    "share": 0.1,
    "partner": 0.0,
}
PLUS: dict[str, Any] = {
    **FIXED,
    "dim": 256,
    "spare": "earned",
    "rebuild": "nothing",
    "decorrelate": 0.1,
    "whiten": True,
    "levels": True,
    "plain": 0.5,
    "measured": 4.0,
    "beneath": 0.3,
    "doubt": 0.5,
}
PRESETS = {"released": RELEASED, "paper": PAPER, "fixed": FIXED, "plus": PLUS}

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


@dataclass(frozen=True)
class Config:
    """Every knob of CBSwR; what is left at None takes the value of `variant` (table `PRESETS`).

    `dim` embedding size: 256 for `plus`, else 128. `clusters` K. `tau` temperature. `metric`, `rim`,
    `reconstruction`: alpha, beta, gamma (0 removes the term). `mu` weight of H(Y). `foreign` a, weight of the
    repulsion. `dropout` of the cluster head. `logits`: L2-normalised (`unit`), `raw`, or cosines times
    `scale`. `entropies`: H(Y|X) / ln n and H(Y) / ln K (`mixed`), unscaled (`plain`), both / ln K
    (`clusters`). `head_decay`: weight decay of the cluster head, R(theta). `assign`: with dropout on,
    `clean`, or `balanced` (Sinkhorn over the batch). `positive`: numerator outside (`ratio`) or inside
    (`softmax`) the denominator, or outside and against the mean rival instead of their sum (`decoupled`: the
    gradient of `ratio`, which does not fade, with a value that does not grow with K; Yeh et al. 2022).
    `through`: gradient reaches the centroids. `target`: mean-subtracted or plain image. `pixels`: squared
    error averaged or summed over pixels. `share`: where above 0, gamma is set so that the reconstruction's
    gradient at E is this share of the first term's (the metric one's, where it is on). `partner`: chance that
    the second view shows the image's nearest neighbour. `negatives`: centroids only, or also the `instances`
    of other clusters (attraction and repulsion of SME that spares one's own cluster). `drawing`: the
    decoder's side, that of the images or at most half of it and three doublings, against images averaged over
    areas.

    The knobs of `plus`: `central`: weight of L_m, the term against foreign centroids, beside that
    against instances. `spare`: instances of one's own cluster are no negatives at all (`all`), or like all
    others (`never`), or less as far as the cluster has `earned` it; then the trust in the clusters also
    scales `central` and what L_rim does to the embedding (see `_cbswr_plus.Trust`). In the latter two the
    attraction among instances is decoupled. `doubt`: the agreement from which on a cluster earns any trust.
    `memory`: centroids move by 1 - memory per batch and are rivals
    where no image of theirs is in the batch; 0: those of the batch. `teacher`: momentum of a copy of encoder
    and heads that assigns; 0: none. `assign` = `soft`: balanced shares in every cluster instead of one.
    `rebuild`: what is drawn from a cluster's mean map, its images, the `features` of its members, or nothing.
    `decorrelate`: weight of the squared correlations between the numbers of an embedding. `whiten`: when
    training is over, the head is changed so that an embedding's directions vary alike (`_closing.whiten`).
    `levels`: the embedding that is kept is read off all levels of the encoder instead, where it has some and
    learns and nothing else is summed with this (`_levels.principal`).
    `plain`: of what share of a batch the first view is the image itself. `measured`: weight of predicting
    from these, by one hidden layer on the features, what is measured on an image (`images/measure.py`).
    `beneath`: weight of contrasts on the earlier stages of an encoder that has some and learns, where nothing
    else is summed with this (`_cbswr_plus.Beneath`).
    """

    variant: Literal["released", "paper", "fixed", "plus"] = "plus"
    dim: int | None = None
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
    assign: Literal["dropout", "clean", "balanced", "soft"] | None = None
    positive: Literal["ratio", "softmax", "decoupled"] | None = None
    through: bool = False
    target: Literal["centred", "image"] | None = None
    pixels: Literal["mean", "sum"] | None = None
    share: float | None = None
    partner: float | None = None
    negatives: Literal["centroids", "instances"] | None = None
    drawing: Literal["full", "half"] | None = None
    central: float | None = None
    spare: Literal["all", "earned", "never"] | None = None
    memory: float | None = None
    teacher: float | None = None
    rebuild: Literal["pixels", "features", "nothing"] | None = None
    decorrelate: float | None = None
    whiten: bool | None = None
    levels: bool | None = None
    plain: float | None = None
    measured: float | None = None
    beneath: float | None = None
    doubt: float | None = None

    def __post_init__(self) -> None:
        if self.variant not in PRESETS:
            raise ConfigError(f'cbswr has no variant "{self.variant}"', f"known: {', '.join(PRESETS)}")
        if self.dim is None:  # what others ask of a configuration
            object.__setattr__(self, "dim", PRESETS[self.variant]["dim"])
        if self.clusters is not None and self.clusters < 2:
            raise ConfigError(f"cbswr.clusters is {self.clusters}", "at least 2 clusters are needed")
        if self.tau <= 0 or (self.dim or 0) < 2 or not 0 <= self.dropout < 1:
            raise ConfigError("cbswr needs tau > 0, dim >= 2 and 0 <= dropout < 1")
        if not all(0 <= (rate or 0) < 1 for rate in (self.memory, self.teacher, self.doubt)):
            raise ConfigError("cbswr needs 0 <= memory < 1, 0 <= teacher < 1 and 0 <= doubt < 1")
        if not 0 <= (self.plain or 0) < 1 or min(self.measured or 0, self.beneath or 0) < 0:
            raise ConfigError("cbswr needs 0 <= plain < 1, measured >= 0 and beneath >= 0")

    def resolved(self) -> Config:
        """The same with every None replaced by the variant's value."""
        preset = PRESETS[self.variant]
        return replace(
            self, **{f.name: preset[f.name] for f in fields(self) if getattr(self, f.name) is None}
        )
