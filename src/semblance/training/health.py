"""Label-free signs of life of an embedding, and the decision that it has collapsed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from semblance.errors import TrainingCollapsed

__all__ = ["check", "effective_rank", "mean_cosine", "measure"]

Array = np.ndarray[Any, np.dtype[np.float32]]

FLAT_COSINE = 0.985
FLAT_RANK = 1.5


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


def measure(rows: Array) -> dict[str, float]:
    """`effective_rank` and `mean_cosine` of unit embeddings `(n, d)`."""
    return {"effective_rank": effective_rank(rows), "mean_cosine": mean_cosine(rows)}


def check(history: list[dict[str, Any]], patience: int, objective: str) -> None:
    """Raise `TrainingCollapsed` when the last `patience` epochs had no spread left.

    No spread: mean pairwise cosine above 0.985 or effective rank below 1.5.
    """
    recent = [epoch["health"] for epoch in history[-patience:]]
    if not patience or len(recent) < patience:
        return
    if all(h["mean_cosine"] > FLAT_COSINE or h["effective_rank"] < FLAT_RANK for h in recent):
        last = recent[-1]
        raise TrainingCollapsed(
            f"the embedding collapsed: mean cosine {last['mean_cosine']:.3f}, "
            f"effective rank {last['effective_rank']:.1f} after epoch {history[-1]['epoch']}",
            f"lower --training.lr, strengthen --views, or try another --objective than {objective}",
        )
