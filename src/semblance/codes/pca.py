"""PCA and a threshold (PCAH): bit i is the side of the mean along principal direction i.

Wang, Kumar, Chang (CVPR 2010) as the baseline that hashing papers call PCAH. The directions are uncorrelated
and go by falling variance, so the last bits of a long code are those that say least; each counts as much as
the first.

When: as the row that stands in every table. `itq` and `pca_rotation` keep more neighbours, because a rotation
shares the variance among the bits: one or two of a hundred at 16 bits, more the longer the code
(`docs/results/codes.md`).

At most as many bits as the embeddings have directions; more raise `ConfigError`.

Cost: one pass for the covariance, `d^3` once; `n d bits` operations to encode; `d bits` numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._linear import principal
from semblance.codes._rows import Labels, Rows
from semblance.errors import ConfigError

__all__ = ["Coder", "Config"]


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: unused, nothing here is random."""

    bits: int = 64
    seed: int = 0


class Coder(ThresholdCoder):
    """Signs of the leading principal components."""

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """The leading directions `(d, bits)`."""
        found, bits = principal(x), self.config.bits
        rank = len(found.variances)
        if bits > rank:
            raise ConfigError(
                f"pca gives at most {rank // 8 * 8} bits here: the {x.shape[1]}-dimensional embeddings "
                f"differ in {rank} directions",
                "take fewer bits, or itq, pca_rotation or lsh",
            )
        return {"weights": found.directions[:, :bits]}
