"""The decoder D of CBSwR: feature maps of a cluster -> its image, the means it is fed, and its error."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance import ranks
from semblance.contracts import Encoder
from semblance.objectives._cbswr_config import Config
from semblance.objectives._cbswr_terms import reconstruction_loss

__all__ = ["Decoder", "centred", "doublings", "redrawing_error", "segment_means", "shrunk"]

WIDTHS = (128, 64, 32, 16, 16)


class WeightedNorm(nn.Module):
    """Batch normalisation over weighted rows: as if row j stood in the batch `weight[j]` times."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """`(r, c, h, w)` and `(r,)` -> `(r, c, h, w)`; statistics in float32 whatever the type of `x`."""
        kind = torch.promote_types(x.dtype, torch.float32)
        share = (weight.to(kind) / weight.sum())[:, None]
        mean = (share * x.mean((2, 3), dtype=kind)).sum(0)
        # Squared length of every map in one pass: no copy of `x` in float32.
        length = torch.linalg.vector_norm(x, dim=(2, 3), dtype=kind)
        power = (share * length.square()).sum(0) / x[0, 0].numel()
        variance = (power - mean.square()).clamp(min=0)
        scale = self.weight.to(kind) * torch.rsqrt(variance + 1e-5)
        shift = self.bias.to(kind) - mean * scale
        row = (-1, 1, 1)
        return torch.addcmul(shift.to(x.dtype).view(row), x, scale.to(x.dtype).view(row))


class Decoder(nn.Module):
    """Convolution, normalisation, ReLU and doubling, until the image's side; sigmoid at the end.

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
        """Mean maps `(r, dim, h, w)`, `weight` `(r,)` members -> images `(r, c, side, side)` in (0, 1).

        Convolutions run in the type of `maps`; statistics and the drawing are float32 (or wider).
        """
        x = maps
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            kernel = cast(nn.Conv2d, convolution).weight.to(x.dtype)
            x = norm(F.conv2d(x, kernel, padding=1), weight)
            x = F.interpolate(x.relu_(), scale_factor=2, mode="nearest")
        x = F.conv2d(x, self.last.weight.to(x.dtype), padding=1)
        x = torch.sigmoid(x.to(torch.promote_types(x.dtype, torch.float32)))
        return x if x.shape[-1] == side else F.interpolate(x, size=(side, side), mode="bilinear")


def segment_means(rows: Tensor, one_hot: Tensor, counts: Tensor) -> Tensor:
    """Mean of `rows` `(n, ...)` per cluster, `one_hot` `(n, k)`, `counts` `(k,)` -> `(k, ...)`.

    One matrix product: no loop over clusters, no wait for the device, the same bits at every run.
    """
    last = rows.dim() == 4 and rows.is_contiguous(memory_format=torch.channels_last)
    ordered = rows.permute(0, 2, 3, 1) if last else rows  # as it lies in memory: nothing is copied
    flat = ordered.reshape(len(rows), -1)
    means = (one_hot.to(flat.dtype).T @ flat) / counts.clamp(min=1e-6).to(flat.dtype)[:, None]
    means = means.view(-1, *ordered.shape[1:])
    return means.permute(0, 3, 1, 2) if last else means


def shrunk(images: Tensor, side: int) -> Tensor:
    """`(n, c, h, h)` -> `(n, c, side, side)`, each pixel the mean of what it covers."""
    c, h, w = images.shape[1:]
    if h % side or h != w:
        return F.adaptive_avg_pool2d(images, side)
    by = h // side
    # As a convolution: several times as fast as pooling where channels are few and lie last.
    same = torch.eye(c, dtype=images.dtype, device=images.device)[:, :, None, None]
    return F.conv2d(images, same.expand(c, c, by, by) / by**2, stride=by)


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


def redrawing_error(
    decoder: Decoder, images: Tensor, maps: Tensor, here: Tensor, counts: Tensor, settings: Config
) -> Tensor:
    """L_rec of this rank's rows: `images` `(2m, c, s, s)` and `maps` `(2m, dim, h, w)` of both views, `here`
    `(2m, K)` their shares in the clusters, `counts` `(K,)` those of all ranks."""
    target = images if settings.target == "image" else centred(images)
    if settings.drawing == "half":
        target = shrunk(target, maps.shape[-1] << len(decoder.norms))
    weights = counts
    mean_maps = ranks.total(segment_means(maps, here, counts))
    mean_images = ranks.total(segment_means(target, here, counts))
    if maps.device.type == "cpu":
        keep = counts.nonzero()[:, 0]
        mean_maps, mean_images, weights = mean_maps[keep], mean_images[keep], counts[keep]
    drawn = decoder(mean_maps, weights, target.shape[-1])
    return reconstruction_loss(target, drawn, mean_images, weights, settings.pixels or "mean")


def centred(images: Tensor) -> Tensor:
    """The released target: mean-subtracted, channels reversed, as fed to the Caffe network, over 255."""
    if images.shape[1] != 3:
        return images - 0.45
    means = torch.tensor([122.7717, 115.9465, 102.9801], device=images.device, dtype=images.dtype) / 255
    return (images - means.view(1, 3, 1, 1)).flip(1)
