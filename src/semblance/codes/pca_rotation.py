"""PCA, then a random rotation, then the sign: the honest floor for embeddings that are already good.

The form of Hashing-Baseline (2025): principal components, as many as bits; a random orthogonal rotation,
which shares the variance evenly among the bits; threshold 0 about the mean. Known to us through its public
code, where the mean over ten rotations is reported; here `seed` draws one.

More bits than directions r: independent rotations of all r components stand side by side, r bits each, the
last cut off; that is super-bit LSH (Ji et al., NIPS 2012), whose estimate of the angle varies less than that
of `lsh`.

When: more bits than dimensions, where it keeps what `itq` keeps; below that `itq` keeps one to three of a
hundred neighbours more.

Cost: that of `pca`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._linear import frame, principal
from semblance.codes._rows import Labels, Rows

__all__ = ["Coder", "Config"]


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: of the rotation."""

    bits: int = 64
    seed: int = 0


class Coder(ThresholdCoder):
    """Signs of randomly rotated principal components."""

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """Leading directions times the rotation, `(d, bits)`."""
        directions = principal(x).directions[:, : self.config.bits]
        turn = frame(directions.shape[1], self.config.bits, np.random.default_rng(self.config.seed))
        return {"weights": directions @ turn}
