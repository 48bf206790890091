"""What is done to a head when training is over, in closed form: centre it, whiten it, erase from it.

Erasing: Belrose et al., "LEACE: Perfect linear concept erasure in closed form" (NeurIPS 2023, arXiv
2306.03819): no linear reader does better than a constant if and only if embeddings and concept are
uncorrelated, and the smallest change that makes them so, in the metric of the embeddings' own spread, is

    x' = x - W^+ P W (x - mean),    W = Sigma_xx^(-1/2),    P the projection onto the columns of W Sigma_xz.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Erased", "centre", "erase_from", "erasure", "whiten"]

TINY = 1e-6


def erasure(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """`(d, d)` matrix A and `(d,)` mean m in float64: `x - (x - m) @ A.T` is uncorrelated with `z`.

    `x` `(n, d)`, `z` `(n, k)`; a NaN in `z` counts as its column's mean. Directions in which `x` hardly
    varies are left alone.
    """
    x, z = x.double(), z.double()
    there = torch.isfinite(z)
    mean = torch.where(there, z, 0).sum(0) / there.sum(0).clamp(min=1)
    z = torch.where(there, z - mean, 0)
    centre = x.mean(0)
    apart = x - centre
    sizes, axes = torch.linalg.eigh(apart.T @ apart / len(x))
    good = sizes > TINY * sizes[-1].clamp(min=1e-30)
    sizes, axes = sizes[good], axes[:, good]
    whiten, back = (axes / sizes.sqrt()) @ axes.T, (axes * sizes.sqrt()) @ axes.T
    directions, strength, _ = torch.linalg.svd(whiten @ (apart.T @ z / len(x)), full_matrices=False)
    used = directions[:, strength > TINY]
    return back @ used @ used.T @ whiten, centre


class Erased(nn.Module):
    """Unit rows `(n, d)` -> unit rows from which something was erased; nothing was before `fit`.

    For heads side by side: what is erased from each leaves little in it, but their lengths depend on what was
    erased in ways of their own, and from where they differ a linear reader learns it all the same.
    """

    matrix: Tensor
    mean: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.zeros(dim, dim))
        self.register_buffer("mean", torch.zeros(dim))

    @torch.no_grad()
    def fit(self, rows: Tensor, z: Tensor) -> None:
        """Erase from rows like `rows` `(n, d)` what tells of `z` `(n, k)`."""
        matrix, mean = erasure(rows, z)
        self.matrix.copy_(matrix)
        self.mean.copy_(mean)

    def forward(self, rows: Tensor) -> Tensor:
        """`(n, d)` -> `(n, d)`, every row of length 1."""
        return F.normalize(rows - (rows - self.mean) @ self.matrix.T, dim=1)


@torch.no_grad()
def centre(linear: nn.Linear, features: Tensor) -> None:
    """Change the bias of a linear layer so that what it makes of `features` `(n, dim)` has a mean of zero."""
    mean = features.double().mean(0)
    linear.bias.copy_(-(linear.weight.double() @ mean))


@torch.no_grad()
def whiten(linear: nn.Linear, features: Tensor, shrink: float = 1.0) -> None:
    """Change a linear layer so that what it makes of `features` `(n, dim)` has a mean of zero and directions
    whose spreads are nearer to each other: `y' = s (Sigma + shrink mean(diag Sigma) I)^(-1/2) (y - mean)`,
    with s such that the variances keep their sum.

    Without shrinking, what hardly varies, noise too, would count as much as the rest. Where nothing varies
    the layer stays.
    """
    weight, bias = linear.weight.double(), linear.bias.double()
    y = features.double() @ weight.T + bias
    mean = y.mean(0)
    sizes, axes = torch.linalg.eigh((y - mean).T @ (y - mean) / len(y))
    if not sizes.mean() > 1e-12 * y.square().mean():
        return
    sizes, level = sizes.clamp(min=0), shrink * sizes.mean()
    scale = (sizes.sum() / (sizes / (sizes + level)).sum()).sqrt()
    turn = (axes * (scale / (sizes + level).sqrt())) @ axes.T
    linear.weight.copy_(turn @ weight)
    linear.bias.copy_(turn @ (bias - mean))


@torch.no_grad()
def erase_from(linear: nn.Linear, features: Tensor, z: Tensor) -> None:
    """Change a linear layer so that what it makes of `features` `(n, dim)` tells a linear reader nothing of
    `z` `(n, k)`, and nearly nothing once its rows are scaled to length 1.

    Lengths depend on z too. They matter least about a mean of zero, to which the bias is set; what unit rows
    still tell is erased once more.
    """
    weight, bias = linear.weight.double(), linear.bias.double()
    for scaled in (False, True):
        y = features.double() @ weight.T + bias
        matrix, _ = erasure(F.normalize(y, dim=1) if scaled else y, z)
        weight, bias = weight - matrix @ weight, bias - matrix @ bias
        bias = bias - (features.double() @ weight.T + bias).mean(0)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
