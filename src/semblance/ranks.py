"""What several ranks must agree on, and the identity where there is only one.

Loss code is written for the whole batch. Each rank encodes its slice, `gather`s the rows and computes
the same loss; the gradients that flow back are summed over ranks, and the data-parallel wrapper's mean
over ranks then gives exactly the gradient that one process would have had on the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["BatchNorm1d", "BatchNorm2d", "count", "gather", "index", "total"]


def count() -> int:
    """How many ranks train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def index() -> int:
    """Which of them this process is."""
    return dist.get_rank() if count() > 1 else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(count())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        whole = slope.contiguous().clone()
        dist.all_reduce(whole)
        return whole.chunk(count())[index()]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        summed = slope.contiguous().clone()
        dist.all_reduce(summed)
        return summed


def gather(x: Tensor) -> Tensor:
    """Rows of every rank, in rank order: `(n, ...)` -> `(ranks * n, ...)`. Differentiable."""
    if count() == 1:
        return x
    rows: Tensor = _Gather.apply(x.contiguous())  # type: ignore[no-untyped-call]
    return rows


def total(x: Tensor) -> Tensor:
    """The sum of `x` over ranks. Differentiable."""
    if count() == 1:
        return x
    summed: Tensor = _Total.apply(x.contiguous())  # type: ignore[no-untyped-call]
    return summed


def _normalise(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    axes = [axis for axis in range(x.dim()) if axis != 1]
    shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
    wide = x.float()
    size = total(torch.tensor(float(x.numel() // x.shape[1]), device=x.device))
    mean = total(wide.sum(axes)) / size
    variance = total((wide - mean.view(shape)).square().sum(axes)) / size
    if layer.track_running_stats and layer.running_mean is not None and layer.running_var is not None:
        with torch.no_grad():
            rate = layer.momentum or 0.1
            layer.running_mean.lerp_(mean, rate)
            layer.running_var.lerp_(variance * size / (size - 1).clamp(min=1), rate)
    y = (wide - mean.view(shape)) * torch.rsqrt(variance.view(shape) + layer.eps)
    if layer.weight is not None:
        y = y * layer.weight.view(shape) + layer.bias.view(shape)
    return y.to(x.dtype)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose training statistics are those of the global batch, on any device
    (torch's own synchronised layer runs on CUDA only)."""

    def forward(self, input: Tensor) -> Tensor:
        """`(n, c, h, w)` -> the same shape."""
        return _normalise(self, input) if self.training and count() > 1 else super().forward(input)


class BatchNorm1d(nn.BatchNorm1d):
    """The same for rows `(n, d)`: what a projector is built of."""

    def forward(self, input: Tensor) -> Tensor:
        """`(n, d)` -> the same shape."""
        return _normalise(self, input) if self.training and count() > 1 else super().forward(input)
