"""Central similarity quantisation: every class has a fixed code far from the others', bits are learned alone.

Yuan et al. (CVPR 2020, arXiv 1908.00347). Class codes are rows of a Hadamard matrix and their opposites, or
random rows kept apart where bits are no power of two or classes more than 2 bits; each bit of an output is
trained by binary cross-entropy to the bit of its class's code, and a small penalty holds outputs near -1 and
1. A row with several classes has the sign of the sum of their codes, ties broken at random once for all.

When: many classes, single or several a row, and no need that similar classes have similar codes.

Cost: `batch bits` operations a step beside the network; at most 3,000 steps, seconds on a processor.

How random codes are kept apart is told in general terms only; here a row is kept if it is at least bits / 3
from all before, one bit less after 64 failures. The penalty is taken on tanh(u), as in the public code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.codes import _head
from semblance.codes._codebook import codebook, set_codes
from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._rows import Labels, Rows, Wide
from semblance.errors import ConfigError, InputError

__all__ = ["Coder", "Config", "terms"]


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: of weights, class codes and batches. `codes`: of the classes,
    hadamard, bernoulli or the first of them that there is. `weight`: of the penalty that holds outputs near
    -1 and 1. `hidden`: width of the hidden layer, 0 for a linear map. `epochs`, `batch`, `lr`: of the
    training.
    """

    bits: int = 64
    seed: int = 0
    codes: Literal["auto", "hadamard", "bernoulli"] = "auto"
    weight: float = 1e-4
    hidden: int = 128
    epochs: int = 60
    batch: int = 128
    lr: float = 1e-3

    def __post_init__(self) -> None:
        _head.check_training(self)
        if self.weight < 0:
            raise ConfigError(f"weight is {self.weight}", "csq needs a weight of at least 0")


def terms(u: Tensor, target: Tensor, weight: float = 1e-4) -> dict[str, Tensor]:
    """The summands of the loss: `central` and `quantisation`.

    `u` `(n, bits)` before the tanh, `target` `(n, bits)` of -1 and 1. Cross-entropy between
    (tanh(u) + 1) / 2, which is sigmoid(2 u), and (target + 1) / 2.
    """
    return {
        "central": F.binary_cross_entropy_with_logits(2 * u, (target + 1) / 2),
        "quantisation": weight * (u.tanh().abs() - 1).square().mean(),
    }


class Coder(ThresholdCoder):
    """A small network trained to the codes of its rows' classes; the sign of its outputs.

    >>> x, y = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    >>> code = Coder(Config(bits=8, hidden=0)).fit(x, y).encode(x)
    >>> bool((code[0] == code[1]).all()), bool((code[0] == code[2]).all())
    (True, False)
    """

    labels = True

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """The layers of the network; bits are its signs."""
        config: Config = self.config
        if y is None:
            raise InputError("this coder learns from labels and was given none", "give y")
        rows = codebook(len(y.names), config.bits, config.codes, config.seed)
        codes = torch.from_numpy(rows)

        def loss(u: Tensor, classes: Tensor) -> Tensor:
            if classes.dim() == 1:
                target = codes[classes]
            else:
                target = torch.from_numpy(set_codes(rows, classes.numpy(), config.seed))
            return torch.stack([*terms(u, target, config.weight).values()]).sum()

        return {**_head.train(x, y, config, loss), "threshold": np.zeros(config.bits)}

    def values(self, x: Wide, arrays: Arrays) -> Wide:
        """The outputs of the network."""
        return _head.forward(x, arrays)
