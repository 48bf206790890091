"""QSMI: codes that carry as much quadratic spherical mutual information about the classes as they can.

Passalis and Tefas (arXiv 1901.05135; Signal Processing: Image Communication 2021). The similarity of two
outputs is their shifted cosine, S = (cos + 1) / 2, which for codes is 1 - (Hamming distance) / bits: what is
trained is what is searched. Mutual information between codes and classes rises where S is large inside
classes and small between them; squares in place of the linear form ("clamping") keep all outputs from
falling onto few codes, which the linear form makes them do.

When: labels or clusters (`pseudo_labels`) of few to some hundred classes, also several labels a row. Class
centres (`orthohash`, `csq`) are easier to learn where classes are very many.

Cost: `batch^2 bits` operations a step; at most 3,000 steps, seconds on a processor. One hidden layer.

What the source leaves open is chosen so: with `priors` each pair is weighted by its exact share under
unequal classes instead of 1/M; where squares are used a weight below 0 (two rare classes) counts as 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from semblance.codes import _head
from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._rows import Labels, Rows, Wide
from semblance.errors import ConfigError

__all__ = [
    "Coder",
    "Config",
    "agreement",
    "gaussian",
    "information_loss",
    "pair_weight",
    "regulariser",
    "spherical",
    "terms",
]

EPS = 1e-8


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: of weights and batches. `alpha`: weight of the regulariser, for sums
    over the batch. `m`: number of equally likely classes, 0 to estimate it from every batch. `priors`: weigh
    pairs by the class shares of the batch instead. `clamp`: squares; without them codes collapse. `kernel`:
    spherical, or gaussian of width `sigma` (0: the batch's mean distance). `hidden`: width of the hidden
    layer, 0 for a linear map. `epochs`, `batch`, `lr`: of the training. `together`: rows of a class that a
    batch holds at least; where classes are too many for that, batches are drawn class by class.
    """

    bits: int = 64
    seed: int = 0
    alpha: float = 0.01
    m: float = 0.0
    priors: bool = False
    clamp: bool = True
    kernel: Literal["spherical", "gaussian"] = "spherical"
    sigma: float = 0.0
    hidden: int = 128
    epochs: int = 60
    batch: int = 128
    lr: float = 1e-3
    together: int = 4

    def __post_init__(self) -> None:
        _head.check_training(self)
        if self.alpha < 0 or self.sigma < 0 or (self.m != 0 and self.m < 1) or self.together < 0:
            raise ConfigError(
                f"alpha={self.alpha}, sigma={self.sigma}, m={self.m}, together={self.together}",
                "qsmi needs alpha, sigma and together of at least 0 and m = 0 or at least 1",
            )


def agreement(y: Tensor) -> Tensor:
    """D `(n, n)`: 1 where rows i and j have a class in common, 0 elsewhere; the diagonal is 1.

    `y`: `(n,)` int64, or `(n, classes)` bool with at least one True in each row.
    """
    if y.dim() == 1:
        return torch.eq(y[:, None], y[None, :]).float()
    whole = y.float()
    return torch.gt(whole @ whole.T, 0).float()


def spherical(u: Tensor) -> Tensor:
    """S `(n, n)` of outputs `(n, bits)`: (cosine + 1) / 2, in [0, 1]."""
    unit = u / (torch.linalg.vector_norm(u, dim=1, keepdim=True) + EPS)
    similar: Tensor = (unit @ unit.T + 1) / 2
    return similar


def gaussian(u: Tensor, sigma: float = 0.0) -> Tensor:
    """G `(n, n)` of outputs `(n, bits)`: exp(-|u_i - u_j|^2 / (2 sigma^2)).

    `sigma` 0: the mean distance of two different rows, taken as a constant.
    """
    squares = u.square().sum(1)
    distance = (squares[:, None] + squares[None, :] - 2 * u @ u.T).clamp(min=0)
    if sigma:
        return torch.exp(-distance / (2 * sigma**2))
    n = len(u)
    width = distance.detach().sqrt().sum() / max(n * (n - 1), 1)
    return torch.exp(-distance / (2 * width.square()).clamp(min=EPS))


def pair_weight(y: Tensor, agree: Tensor, m: float = 0.0, priors: bool = False) -> Tensor:
    """What every pair costs, next to the gain of 1 of a pair that agrees: a scalar or `(n, n)`.

    Equally likely classes: 1/M with M = `m`, or, for 0, M = n^2 / sum D. With `priors` pi_i + pi_j - sum_p
    pi_p^2, where pi_i is the share of row i's class in the batch (the mean over its classes, where it has
    several): the exact quadratic mutual information is mean(S (D - this)).
    """
    if not priors:
        return 1 / torch.as_tensor(m, device=agree.device) if m else agree.mean()
    member = y[:, None] == torch.arange(int(y.max()) + 1, device=y.device) if y.dim() == 1 else y
    member = member.to(agree.dtype)
    member = member / member.sum(1, keepdim=True)
    share = member.mean(0)
    own = member @ share
    return own[:, None] + own[None, :] - share.square().sum()


def information_loss(similar: Tensor, agree: Tensor, weight: Tensor, clamp: bool = True) -> Tensor:
    """To be minimised, a sum over all pairs: `sum (D S - 1)^2 + w S^2`, or, unclamped, `-sum (D - w) S`.

    `similar` S and `agree` D, `(n, n)`; `weight` w as from `pair_weight`. A pair that agrees is at rest at
    S = 1 / (1 + w); pairs that do not add a constant 1 each.
    """
    if clamp:
        return ((agree * similar - 1).square() + weight.clamp(min=0) * similar.square()).sum()
    return -((agree - weight) * similar).sum()


def regulariser(u: Tensor) -> Tensor:
    """R, the sum of ||u_ik| - 1| over outputs `(n, bits)` as they are, not normalised."""
    return (u.abs() - 1).abs().sum()


def terms(
    u: Tensor,
    y: Tensor,
    *,
    alpha: float = 0.01,
    m: float = 0.0,
    priors: bool = False,
    clamp: bool = True,
    kernel: str = "spherical",
    sigma: float = 0.0,
) -> dict[str, Tensor]:
    """The summands of the loss over n^2: `information` and `quantisation`.

    `u` `(n, bits)` as they come out of the network; `y` as for `agreement`; the rest as in `Config`. The loss
    is L + alpha R, both sums over the batch; one division by the number of pairs makes it independent of
    the batch's size and changes nothing between the two.
    """
    agree = agreement(y).to(u.dtype)
    similar = spherical(u) if kernel == "spherical" else gaussian(u, sigma)
    pairs = len(u) ** 2
    return {
        "information": information_loss(similar, agree, pair_weight(y, agree, m, priors), clamp) / pairs,
        "quantisation": alpha * regulariser(u) / pairs,
    }


class Coder(ThresholdCoder):
    """A small network trained for quadratic spherical mutual information; the sign of its outputs.

    >>> x, y = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    >>> code = Coder(Config(bits=8, hidden=0)).fit(x, y).encode(x)
    >>> bool((code[0] == code[1]).all()), bool((code[0] == code[2]).all())
    (True, False)
    """

    labels = True

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """The layers of the network; bits are its signs."""
        config: Config = self.config
        names = ("alpha", "m", "priors", "clamp", "kernel", "sigma")
        options = {name: getattr(config, name) for name in names}

        def loss(u: Tensor, classes: Tensor) -> Tensor:
            return torch.stack([*terms(u, classes, **options).values()]).sum()

        arrays = _head.train(x, y, config, loss, together=config.together)
        return {**arrays, "threshold": np.zeros(config.bits)}

    def values(self, x: Wide, arrays: Arrays) -> Wide:
        """The outputs of the network."""
        return _head.forward(x, arrays)
