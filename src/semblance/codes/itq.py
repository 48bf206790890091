"""Iterative quantisation (ITQ): principal components turned so that the signs lose as little as they can.

Gong and Lazebnik (CVPR 2011). V: the centred rows on their `bits` leading principal directions. Beginning
with a random rotation R, B = sign(V R) and the R nearest to it take turns; neither step ever raises
Q(B, R) = |B - V R|^2, the quantisation loss. 50 rounds in the paper; reruns with 3 lose little.

More bits than directions r, for which the paper has no answer: the first r bits are those of ITQ, the others
of random rotations as in `pca_rotation`. To learn those too, together or one by one, gives bits that repeat
one another and keeps no more neighbours (256 bits on 128 dimensions) or fewer (512).

When: the default among label-free coders: at no length from 16 to 512 bits has another been seen to keep more
neighbours (`docs/results/codes.md`). Cost: that of `pca`, and `rounds` products of `rows` x bits x bits:
seconds. The rotation is learned on at most `rows` rows drawn by the seed, mean and directions on all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._linear import frame, principal, procrustes
from semblance.codes._rows import Floats, Labels, Rows, Wide, sample
from semblance.errors import ConfigError

__all__ = ["Coder", "Config", "loss", "turn"]


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: of the first rotation and of the rows. `rounds`: how often B and R
    are set anew. `rows`: at most so many rows teach the rotation."""

    bits: int = 64
    seed: int = 0
    rounds: int = 50
    rows: int = 20_000

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a number below 1."""
        if self.rounds < 1 or self.rows < 2:
            raise ConfigError(f"rounds={self.rounds}, rows={self.rows}", "at least 1 round and 2 rows")


def loss(v: Wide | Floats, r: Wide) -> float:
    """Q(B, R) = |B - V R|^2 with B = sign(V R), the quantisation loss."""
    values = v @ r
    return float(np.square(np.where(values >= 0, 1.0, -1.0) - values).sum())


def turn(v: Wide | Floats, r: Wide, rounds: int) -> Wide:
    """The rotation `(k, k)` after `rounds` rounds that begin with `r`, for rows `v` `(n, k)`."""
    for _ in range(rounds):
        b = np.where(v @ r.astype(v.dtype) >= 0, v.dtype.type(1), v.dtype.type(-1))
        r = procrustes((v.T @ b).astype(np.float64))
    return r


class Coder(ThresholdCoder):
    """Signs of rotated principal components, the rotation learned."""

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """Leading directions times the rotation, `(d, bits)`."""
        found, bits, seed = principal(x), self.config.bits, self.config.seed
        directions = found.directions[:, :bits]
        k = directions.shape[1]
        v = (np.asarray(x[sample(x, self.config.rows, seed)]) - found.mean) @ directions
        whole = frame(k, bits, np.random.default_rng(seed))
        whole[:, :k] = turn(v.astype(np.float32), whole[:, :k], self.config.rounds)
        return {"weights": directions @ whole}
