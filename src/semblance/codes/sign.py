"""The signs of the embedding's own coordinates about their mean: codes that the embedding already is.

For embeddings that were trained to be codes: the objectives `qsmi`, `classwise` and `orthohash` give as many
coordinates as bits, each drawn to one side or the other. Thresholds are the means, as after a batch
normalisation whose mean is taken anew. With fewer bits than dimensions those that vary most are taken.

When: after such a training. On other embeddings `pca` and `itq` keep more in every bit.

Cost: two passes, `n d^2` operations, for mean and variance; `n bits` operations to encode.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._rows import Labels, Rows, Wide, moments
from semblance.errors import ConfigError

__all__ = ["Coder", "Config"]


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code, at most the dimensions. `seed`: of nothing; coders have one."""

    bits: int = 64
    seed: int = 0


class Coder(ThresholdCoder):
    """Coordinates about their mean.

    >>> x = np.array([[1.0] * 8, [-1.0] * 4 + [3.0] * 4], dtype=np.float32)
    >>> Coder(Config(bits=8)).fit(x).encode(x).tolist()
    [[15], [240]]
    """

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """Which coordinates, in their order; thresholds come with every coder."""
        bits = self.config.bits
        if bits > x.shape[1]:
            raise ConfigError(
                f"sign gives at most {x.shape[1]} bits for {x.shape[1]}-dimensional embeddings, not {bits}",
                "fewer bits, or lsh and pca_rotation, which give any number",
            )
        varied = np.argsort(-np.diag(moments(x).covariance), kind="stable")[:bits]
        return {"places": np.sort(varied)}

    def values(self, x: Wide, arrays: Arrays) -> Wide:
        """Those coordinates."""
        return x[:, arrays["places"]]
