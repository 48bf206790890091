"""OrthoHash: one cosine loss to fixed, nearly orthogonal class codes; normalisation balances the bits.

Hoe et al. (NeurIPS 2021, arXiv 2109.14449). Outputs v = BatchNorm(W x); class codes c are drawn once, rows of
a Hadamard matrix or random rows kept apart; the loss is a softmax over s (cos(v, c) - m [own class]). A row
with several classes spreads its target evenly over them. With Hadamard codes this is also how to force
features onto a fixed orthogonal basis (the orthogonal loss of Cancela et al., known by its abstract alone).

When: labels of any number of classes; the one to try first. s = sqrt(bits) as published; sqrt(2) log(classes
- 1) is often better, and long codes gain from a larger margin.

Cost: `batch classes bits` operations a step; at most 3,000 steps, seconds on a processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.codes import _head
from semblance.codes._codebook import codebook
from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._rows import Labels, Rows, Wide
from semblance.errors import ConfigError

__all__ = ["Coder", "Config", "orthohash_loss"]


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: of weights, class codes and batches. `codes`: of the classes,
    hadamard, bernoulli or the first of them that there is. `s`: scale of the cosines, 0 for sqrt(bits). `m`:
    margin. `hidden`: width of the hidden layer, 0 for a linear map. `epochs`, `batch`, `lr`: of the training.
    """

    bits: int = 64
    seed: int = 0
    codes: Literal["auto", "hadamard", "bernoulli"] = "auto"
    s: float = 0.0
    m: float = 0.2
    hidden: int = 128
    epochs: int = 60
    batch: int = 128
    lr: float = 1e-3

    def __post_init__(self) -> None:
        _head.check_training(self)
        if self.s < 0 or not 0 <= self.m < 2:
            raise ConfigError(f"s={self.s}, m={self.m}", "orthohash needs s >= 0 and 0 <= m < 2")


def orthohash_loss(v: Tensor, y: Tensor, codes: Tensor, s: float = 0.0, m: float = 0.2) -> Tensor:
    """The mean over rows of the cross-entropy of softmax_c s (cos(v, c) - m [c is a class of the row]).

    `v` `(n, bits)` after normalisation; `y` `(n,)` int64 or `(n, c)` bool; `codes` `(c, bits)` of -1 and 1.
    """
    bits = v.shape[1]
    own = F.one_hot(y, len(codes)).to(v.dtype) if y.dim() == 1 else y.to(v.dtype)
    cosines = F.normalize(v, dim=1) @ codes.to(v.dtype).T / math.sqrt(bits)
    logits = (s or math.sqrt(bits)) * (cosines - m * own)
    return F.cross_entropy(logits, own / own.sum(1, keepdim=True))


class Coder(ThresholdCoder):
    """A small network that ends in batch normalisation, trained to fixed class codes; its signs.

    >>> x, y = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    >>> code = Coder(Config(bits=8, hidden=0)).fit(x, y).encode(x)
    >>> bool((code[0] == code[1]).all()), bool((code[0] == code[2]).all())
    (True, False)
    """

    labels = True

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """The layers of the network, the normalisation folded in; bits are its signs."""
        config: Config = self.config
        count = 2 if y is None else len(y.names)
        codes = torch.from_numpy(codebook(count, config.bits, config.codes, config.seed))

        def loss(v: Tensor, classes: Tensor) -> Tensor:
            return orthohash_loss(v, classes, codes, config.s, config.m)

        return {**_head.train(x, y, config, loss, norm=True), "threshold": np.zeros(config.bits)}

    def values(self, x: Wide, arrays: Arrays) -> Wide:
        """The outputs of the network."""
        return _head.forward(x, arrays)
