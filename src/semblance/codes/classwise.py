"""Class-wise hashing: outputs gather around learned class centres in Hamming space, centres keep apart.

Deep class-wise hashing (DCWH) with what its authors added. The loss is a softmax over Gaussian likelihoods
of the classes' centres m_c, s = 1 / sigma^2,

    L_cw = -mean_i log( exp(-s/2 |u_i - m_yi|^2) / sum_c exp(-s/2 |u_i - m_c|^2) ),

and a penalty holds outputs in the cube [-1.1, 1.1]. IDCWH (Zhang and Yan, arXiv 2103.09442) makes the centres
learnable and adds a centre similarity of two steps, of which only the abstract could be read. Realised here
is that of DCDH by the same authors, which is public as code: centres repel each other,

    L_center = mean_{c != c'} log(1 + exp( (bits / 2) cos(m_c, m_c') )),

and outputs are drawn to discrete codes, B = sign(Y W + eta U) with W the ridge regression of sign(U) on the
batch's labels Y.

When: many classes; the centres order themselves, so that similar classes can get similar codes.

Cost: `batch classes bits` operations a step; at most 3,000 steps, seconds on a processor. Rows with several
classes, which the papers do not treat, spread their target evenly over them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance.codes import _head
from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._rows import Labels, Rows, Wide
from semblance.errors import ConfigError

__all__ = [
    "Coder",
    "Config",
    "center_loss",
    "classwise_loss",
    "cube_loss",
    "discrete_codes",
    "shares",
    "terms",
]

CUBE = 1.1
RIDGE = 1.0
MANY = 256
"""Of more classes than these only the centres of those in the batch repel each other in a step."""


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: of weights, centres and batches. `s`: 1 / sigma^2 of the Gaussians.
    `center`: weight of the repulsion of centres. `cube`: of leaving [-1.1, 1.1]. `eta`: of the distance to
    the discrete codes, and of the outputs in these. `hidden`: width of the hidden layer, 0 for a linear map.
    `epochs`, `batch`, `lr`: of the training.
    """

    bits: int = 64
    seed: int = 0
    s: float = 0.25
    center: float = 0.1
    cube: float = 10.0
    eta: float = 0.01
    hidden: int = 128
    epochs: int = 60
    batch: int = 128
    lr: float = 1e-3

    def __post_init__(self) -> None:
        _head.check_training(self)
        if self.s <= 0 or min(self.center, self.cube, self.eta) < 0:
            raise ConfigError(
                f"s={self.s}, center={self.center}, cube={self.cube}, eta={self.eta}",
                "classwise needs s > 0 and no weight below 0",
            )


def shares(y: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Y / |Y| `(n, classes)`: rows sum to 1. `y`: `(n,)` int64 or `(n, classes)` bool."""
    whole = F.one_hot(y, classes).to(dtype) if y.dim() == 1 else y.to(dtype)
    return whole / whole.sum(1, keepdim=True)


def classwise_loss(u: Tensor, share: Tensor, centers: Tensor, s: float) -> Tensor:
    """L_cw of outputs `(n, bits)`, `share` of each class `(n, c)` and `centers` `(c, bits)`."""
    squares = u.square().sum(1)[:, None] + centers.square().sum(1)[None, :] - 2 * u @ centers.T
    return F.cross_entropy(-s / 2 * squares, share)


def center_loss(centers: Tensor) -> Tensor:
    """L_center of `(c, bits)`: the mean over pairs of different centres; 0 where there is one."""
    c, bits = centers.shape
    unit = F.normalize(centers, dim=1)
    pairs = F.softplus(bits / 2 * (unit @ unit.T))
    return (pairs.sum() - pairs.diagonal().sum()) / max(c * (c - 1), 1)


def cube_loss(u: Tensor) -> Tensor:
    """By how much outputs `(n, bits)` lie outside [-1.1, 1.1], summed over bits, mean over rows."""
    return F.relu(u.abs() - CUBE).sum(1).mean()


@torch.no_grad()
def discrete_codes(u: Tensor, y: Tensor, eta: float) -> Tensor:
    """B `(n, bits)` of -1 and 1 for outputs `(n, bits)` and labels Y `(n, c)` of 0 and 1.

    W = (Y^T Y + I)^-1 Y^T sign(U), B = sign(Y W + eta U); nothing flows back through it. Y W is computed as
    Y Y^T (Y Y^T + I)^-1 sign(U), the same and n by n: classes may be many.
    """
    y = y.to(u.dtype)
    shared = y @ y.T
    ridge = shared + RIDGE * torch.eye(len(y), dtype=u.dtype, device=u.device)
    return _signs(shared @ torch.linalg.solve(ridge, _signs(u)) + eta * u)


def terms(
    u: Tensor,
    y: Tensor,
    centers: Tensor,
    *,
    s: float = 0.25,
    center: float = 0.1,
    cube: float = 10.0,
    eta: float = 0.01,
) -> dict[str, Tensor]:
    """The summands of the loss: `classes`, `centres`, `cube` and `quantisation`.

    `u` `(n, bits)`; `y` `(n,)` int64 or `(n, c)` bool; `centers` `(c, bits)`; the rest as in `Config`.
    """
    share = shares(y, len(centers), u.dtype)
    codes = discrete_codes(u, share > 0, eta)
    repelled = centers if len(centers) <= MANY else centers[(share > 0).any(0)]
    return {
        "classes": classwise_loss(u, share, centers, s),
        "centres": center * center_loss(repelled),
        "cube": cube * cube_loss(u),
        "quantisation": eta * (u - codes).square().sum(1).mean(),
    }


def _signs(u: Tensor) -> Tensor:
    return torch.where(u >= 0, 1.0, -1.0).to(u.dtype)


class Coder(ThresholdCoder):
    """A small network and class centres, trained together; the sign of the network's outputs.

    >>> x, y = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    >>> code = Coder(Config(bits=8, hidden=0)).fit(x, y).encode(x)
    >>> bool((code[0] == code[1]).all()), bool((code[0] == code[2]).all())
    (True, False)
    """

    labels = True

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """The layers of the network; bits are its signs."""
        config: Config = self.config
        options = {name: getattr(config, name) for name in ("s", "center", "cube", "eta")}
        stream = torch.Generator().manual_seed(config.seed)
        count = 0 if y is None else len(y.names)
        centers = nn.Parameter(torch.randn(count, config.bits, generator=stream))

        def loss(u: Tensor, classes: Tensor) -> Tensor:
            return torch.stack([*terms(u, classes, centers, **options).values()]).sum()

        return {**_head.train(x, y, config, loss, own=[centers]), "threshold": np.zeros(config.bits)}

    def values(self, x: Wide, arrays: Arrays) -> Wide:
        """The outputs of the network."""
        return _head.forward(x, arrays)
