"""Locality-sensitive hashing: each bit is the side of a random hyperplane; nothing is learned but the mean.

Charikar (STOC 2002): two vectors at the angle a differ in a bit with probability a / pi. Here the angle is
seen from the mean of the embeddings, so that every hyperplane parts them, also where they lie in a narrow
cone as seen from 0. Any number of bits; the more, the nearer Hamming distance is to the angle.

When: as the row that everything learned must beat, or where nothing may depend on the data but its mean.

Cost: one pass for the mean; `n d bits` operations to encode; `d bits` numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._rows import Labels, Rows

__all__ = ["Coder", "Config"]


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: of the hyperplanes."""

    bits: int = 64
    seed: int = 0


class Coder(ThresholdCoder):
    """Random hyperplanes through the mean.

    >>> x = np.eye(3, dtype=np.float32)
    >>> Coder(Config(bits=8)).fit(x).encode(x).shape
    (3, 1)
    """

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """The normals of the hyperplanes, `(d, bits)`, each coordinate standard normal."""
        rng = np.random.default_rng(self.config.seed)
        return {"weights": rng.standard_normal((x.shape[1], self.config.bits))}
