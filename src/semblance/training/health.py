"""Label-free signs of life of an embedding, and the decision that it has collapsed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from semblance.errors import TrainingCollapsed
from semblance.training.config import TrainConfig

__all__ = ["check", "effective_rank", "knob", "mean_cosine", "measure"]

Array = np.ndarray[Any, np.dtype[np.float32]]

FLAT_COSINE = 0.985
FLAT_RANK = 1.5
SPREADING = 1.05
"""Growth of 1 - mean cosine over the epochs that are looked at, beyond which they go apart."""
FEW = 8
"""So few images lie near a line whatever they are like: their rank says nothing."""
STEEP = 3.0
"""A learning rate that many times the usual one is the first to be suspected."""


def effective_rank(rows: Array) -> float:
    """Exponential of the entropy of the normalised singular values of centred rows `(n, d)`; 1 to d.

    RankMe (Garrido et al., ICML 2023, arXiv 2210.02885, Eq. 1) on centred embeddings, so that a constant
    offset does not count as a dimension; identical rows give 1.
    """
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False).astype(np.float64)
    if values.sum() <= 1e-6 * math.sqrt(len(rows)):
        return 1.0
    p = values / values.sum()
    return float(np.exp(-(p * np.log(np.maximum(p, 1e-12))).sum()))


def mean_cosine(rows: Array) -> float:
    """Mean cosine over all pairs of distinct unit rows `(n, d)`: 1 when they are all the same."""
    n = len(rows)
    return float((np.square(rows.sum(0, dtype=np.float64)).sum() - n) / max(n * (n - 1), 1))


def measure(rows: Array) -> dict[str, Any]:
    """`effective_rank` and `mean_cosine` of unit embeddings `(n, d)`, and `flat`: whether no spread is left,
    a mean pairwise cosine above 0.985 or, of 8 rows or more, an effective rank below 1.5."""
    rank, cosine = effective_rank(rows), mean_cosine(rows)
    thin = len(rows) >= FEW and rank < FLAT_RANK
    return {"effective_rank": rank, "mean_cosine": cosine, "flat": thin or cosine > FLAT_COSINE}


def check(history: list[dict[str, Any]], config: TrainConfig, objective: str) -> None:
    """Raise `TrainingCollapsed` when the last `config.patience` epochs were flat (see `measure`) and did not
    spread: a network begins nearly flat, and one that is on its way out of that is left to go on."""
    recent = history[-config.patience :]
    if not 0 < config.patience <= len(recent) or not all(epoch["health"]["flat"] for epoch in recent):
        return
    last = recent[-1]
    first_spread, last_spread = (1 - epoch["health"]["mean_cosine"] for epoch in (recent[0], last))
    if last_spread > SPREADING * first_spread and last["health"]["effective_rank"] >= FLAT_RANK:
        return
    raise TrainingCollapsed(
        f"the embedding collapsed: mean cosine {last['health']['mean_cosine']:.3f}, "
        f"effective rank {last['health']['effective_rank']:.1f} after epoch {last['epoch']}",
        knob(history, config, objective),
    )


def knob(history: list[dict[str, Any]], config: TrainConfig, objective: str) -> str:
    """What to change after a collapse: the learning rate where it is high or the loss rose under it, patience
    where nothing was apart to begin with."""
    rate, usual = config.base_lr(), dataclasses.replace(config, lr=None).base_lr()
    first, last = (history[i].get("loss", 0.0) for i in (0, -1))
    if rate > STEEP * usual:
        return f"lower --training.lr: it is {rate:g}, {usual:g} is usual"
    if history[0]["health"]["flat"]:
        return (
            "it was so from the start: where images hardly differ nothing will help; where they do, wait "
            f"longer with --training.patience (it is {config.patience}) or take a smaller --batch"
        )
    if last > first:
        return f"lower --training.lr: the loss rose from {first:.3g} to {last:.3g} under {rate:g}"
    return (
        f"the loss fell all the same: what holds images apart in {objective} is too weak for them; turn its "
        f"knobs (--objective.KEY) or try another --objective; then a lower --training.lr than {rate:g}"
    )
