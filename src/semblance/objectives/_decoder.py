"""The decoder D of CBSwR: feature maps of a cluster -> its image, and the segment means it is fed."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance.contracts import Encoder

__all__ = ["Decoder", "doublings", "segment_means"]

WIDTHS = (128, 64, 32, 16, 16)


class WeightedNorm(nn.Module):
    """Batch normalisation over weighted rows: as if row j stood in the batch `weight[j]` times (F.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """`(r, c, h, w)` and `(r,)` -> `(r, c, h, w)`."""
        share = (weight.to(x.dtype) / weight.sum())[:, None]
        mean = (share * x.mean((2, 3))).sum(0)[:, None, None]
        centred = x - mean
        variance = (share * centred.square().mean((2, 3))).sum(0)[:, None, None]
        scale = self.weight.to(x.dtype)[:, None, None] * torch.rsqrt(variance + 1e-5)
        return centred * scale + self.bias.to(x.dtype)[:, None, None]


class Decoder(nn.Module):
    """Convolution, normalisation, ReLU and doubling, until the image's side; sigmoid at the end (A.2).

    From 7 to 224 pixels these are the paper's six convolutions (1.280 M parameters from 1024 channels);
    smaller images take fewer doublings. Nothing runs between rows but the normalisation, which weights
    every row by its cluster's members: decoding each present cluster once equals decoding every member.
    """

    def __init__(self, dim: int, channels: int, stages: int) -> None:
        super().__init__()
        widths = WIDTHS[: max(1, min(stages, len(WIDTHS)))]
        pairs = list(zip((dim, *widths[:-1]), widths, strict=True))
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(WeightedNorm(b) for _, b in pairs)
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1, bias=False)

    def forward(self, maps: Tensor, weight: Tensor, side: int) -> Tensor:
        """Mean maps `(r, dim, h, w)`, `weight` `(r,)` members -> images `(r, c, side, side)` in (0, 1)."""
        x = maps
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.interpolate(F.relu(norm(convolution(x), weight)), scale_factor=2, mode="nearest")
        x = torch.sigmoid(self.last(x))
        return x if x.shape[-1] == side else F.interpolate(x, size=(side, side), mode="bilinear")


def segment_means(rows: Tensor, one_hot: Tensor, counts: Tensor) -> Tensor:
    """Mean of `rows` `(n, ...)` per cluster, `one_hot` `(n, k)`, `counts` `(k,)` -> `(k, ...)`.

    One matrix product: no loop over clusters, no wait for the device, the same bits at every run.
    """
    flat = rows.reshape(len(rows), -1)
    means = (one_hot.to(flat.dtype).T @ flat) / counts.clamp(min=1).to(flat.dtype)[:, None]
    return means.view(-1, *rows.shape[1:])


@torch.no_grad()
def doublings(encoder: Encoder) -> int:
    """How often the encoder's maps must double to reach its image side: 5 for GoogLeNet at 224."""
    module = cast(nn.Module, encoder)
    side = int(getattr(getattr(encoder, "config", None), "size", 0) or 64)
    was, like = module.training, next(module.parameters())
    module.eval()
    maps = encoder.maps(torch.zeros(1, encoder.channels, side, side, device=like.device, dtype=like.dtype))
    module.train(was)
    return max(1, round(math.log2(side / maps.shape[-1])))
