"""A residual network of depth 10, 18, 34 or 50, any width, with stems for small and large images.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385); in the bottleneck
of depth 50 the stride sits on the 3x3 convolution. Use it to learn from scratch: `width` 16 or 32 for a few
thousand images, 64 for tens of thousands. Fully convolutional, so it takes any image size; the stem
says how early resolution is given up:

    stem   first layers                                image sides   map for its own size
    "32"   3x3, stride 1                               up to 40      4 x 4 for 32
    "64"   4x4, stride 2                               41 to 96      4 x 4 for 64
    "128"  7x7, stride 2, then 3x3 max-pool stride 2   above 96      4 x 4 for 128

Cost of one image with width 64, depth 18 in multiply-adds: 555 M at 32 px (stem "32"), 557 M at 64 px
(stem "64"), 592 M at 128 px (stem "128"); it falls with the square of the width (139 M at 32, 35 M at 16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance.errors import ConfigError
from semblance.ranks import BatchNorm2d

__all__ = ["Config", "ResNet", "build"]

STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
SMALLEST_STD = 1 / 255
WEAKEST = 1e-6
"""Variance of a component that is rounding, in those of the strongest."""


@dataclass(frozen=True)
class Config:
    """What the network looks like.

    `depth`: 10, 18, 34 (two 3x3 convolutions a block) or 50 (bottlenecks). `width`: channels of the first
    stage; the features have 8 x width (32 x width for depth 50). `stem`: see the module; "auto" goes by
    `size`, the side of the training images. `mean`, `std`: of pixels in [0, 1], one for all channels or one
    each. `zero_init`: start every residual branch at zero, so that the network begins as its shortcuts.
    """

    depth: int = 18
    width: int = 64
    stem: Literal["auto", "32", "64", "128"] = "auto"
    size: int = 32
    channels: int = 3
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    zero_init: bool = False

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a network that cannot be built."""
        if self.depth not in STAGES:
            known = ", ".join(str(depth) for depth in STAGES)
            raise ConfigError(f"resnet.depth is {self.depth}", f"expected one of {known}")
        if self.stem not in ("auto", "32", "64", "128"):
            raise ConfigError(f"resnet.stem is {self.stem!r}", "expected one of auto, 32, 64, 128")
        for name in ("width", "size", "channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"resnet.{name} is {getattr(self, name)}", "expected at least 1")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise ConfigError(
                    f"resnet.{name} has {len(getattr(self, name))} values",
                    f"expected 1 or one for each of the {self.channels} channels",
                )
        if min(self.std) <= 0:
            raise ConfigError(f"resnet.std is {self.std}", "expected values above 0")

    def stem_for_size(self) -> str:
        """The stem that is built: "32", "64" or "128".

        >>> Config(size=64).stem_for_size(), Config(size=64, stem="32").stem_for_size()
        ('64', '32')
        """
        if self.stem != "auto":
            return self.stem
        return "32" if self.size <= 40 else "64" if self.size <= 96 else "128"


class ResNet(nn.Module):
    """`(n, channels, h, w)` in [0, 1] -> features `(n, dim)`.

    `h` and `w` may be anything (at least 2 for stem "64"); the maps are 8 times smaller than the image for
    stem "32", 16 times for "64", 32 times for "128", rounded up or, for "64", down.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.channels = config.channels
        self.dim = config.width * (32 if config.depth == 50 else 8)
        block = _Bottleneck if config.depth == 50 else _Basic
        self.stem = _stem(config.stem_for_size(), config.channels, config.width)
        blocks: list[nn.Module] = []
        self.ends: list[int] = []
        inside = config.width
        for stage, count in enumerate(STAGES[config.depth]):
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                made = block(inside, config.width * 2**stage, stride)
                inside = made.outside
                blocks.append(made)
            self.ends.append(len(blocks) - 1)
        self.level_dims = tuple(self.dim >> stage for stage in (3, 3, 2, 2, 1, 1, 0, 0))
        self.blocks = nn.Sequential(*blocks)
        self.register_buffer("mean", torch.zeros(1, config.channels, 1, 1))
        self.register_buffer("std", torch.ones(1, config.channels, 1, 1))
        self.set_statistics(config.mean, config.std)
        self._initialise(config.zero_init)

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise with these from now on: one value, or one per channel, of pixels in [0, 1].

        A standard deviation below 1/255 (images of one colour) is raised to that. `config` follows.
        """
        raised = tuple(max(float(value), SMALLEST_STD) for value in std)
        self.config = replace(self.config, mean=tuple(float(value) for value in mean), std=raised)
        with torch.no_grad():
            self.mean.copy_(torch.tensor(self.config.mean).view(1, -1, 1, 1))
            self.std.copy_(torch.tensor(self.config.std).view(1, -1, 1, 1))

    @torch.no_grad()
    def look_at(self, images: Tensor) -> None:
        """Start from what `images` `(n, channels, h, w)` in [0, 1] look like, before anything is learned.

        They are normalised per channel, and the first layer begins as the strongest principal components of
        their patches, of deviation 1 (but at most 30 times as large as the first), beside their negatives:
        patch whitening, Jordan 2024 (arXiv 2404.00498). Filters beyond twice the components stay random.
        """
        values = images.transpose(0, 1).flatten(1).double()
        mean, std = values.mean(1).round(decimals=4), values.std(1).round(decimals=4)
        self.set_statistics(mean.tolist(), std.tolist())
        first = next(layer for layer in self.stem if isinstance(layer, nn.Conv2d))
        weight, side = first.weight, first.weight.shape[-1]
        patches = F.unfold(self.normalise(images), side, stride=side).transpose(1, 2).flatten(0, 1).double()
        if len(patches) < 2:
            return
        variances, directions = torch.linalg.eigh(torch.cov(patches.T))
        variances, directions = variances.flip(0), directions.flip(1)
        if variances[0] < WEAKEST:
            return
        pairs = min(len(weight) // 2, int((variances > WEAKEST * variances[0]).sum()))
        scale = variances[:pairs].clamp(min=1e-3 * float(variances[0])).rsqrt()
        filters = (directions[:, :pairs] * scale).T.reshape(pairs, *weight.shape[1:]).to(weight.dtype)
        weight[: 2 * pairs] = torch.cat([filters, -filters])

    def normalise(self, x: Tensor) -> Tensor:
        """`(x - mean) / std`, the same shape."""
        return (x - self.mean) / self.std

    def stages(self, x: Tensor) -> list[Tensor]:
        """`(n, c, h, w)` in [0, 1] -> the maps that each of the four stages ends with, none below zero."""
        found = []
        y = self.stem(self.normalise(x))
        for number, block in enumerate(self.blocks):
            y = block(y)
            if number in self.ends:
                found.append(y)
        return found

    def maps(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` in [0, 1] -> `(n, dim, h', w')`, not below zero."""
        y: Tensor = self.blocks(self.stem(self.normalise(x)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` in [0, 1] -> the mean of the maps, `(n, dim)`, float32 under autocast too."""
        y = self.maps(x)
        return y.mean((2, 3), dtype=torch.promote_types(y.dtype, torch.float32))

    def levels(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` in [0, 1] -> `(n, sum(level_dims))` float32: of each of the four stages the mean of
        its maps over places, then their standard deviation (Huang and Belongie, ICCV 2017, Eq. 5 and 6)."""
        found = []
        for y in self.stages(x):
            values = y.to(torch.promote_types(y.dtype, torch.float32))
            mean = values.mean((2, 3), keepdim=True)
            found += [mean.flatten(1), (values - mean).square().mean((2, 3)).sqrt()]
        return torch.cat(found, 1)

    def _initialise(self, zero_init: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init:
            for module in self.blocks:
                if isinstance(module, (_Basic, _Bottleneck)):
                    nn.init.zeros_(module.last.weight)


def build(config: Config) -> ResNet:
    """A freshly initialised network; torch's global generator decides the weights."""
    return ResNet(config)


class _Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.outside = width
        self.first = _conv(inside, width, 3, stride)
        self.norm = BatchNorm2d(width)
        self.second = _conv(width, width, 3)
        self.last = BatchNorm2d(width)
        self.shortcut = _shortcut(inside, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu_()
        y = self.last(self.second(y))
        y += self.shortcut(x)
        result: Tensor = y.relu_()
        return result


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; four times as wide at the end."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.outside = 4 * width
        self.first = _conv(inside, width, 1)
        self.norm = BatchNorm2d(width)
        self.second = _conv(width, width, 3, stride)
        self.norm2 = BatchNorm2d(width)
        self.third = _conv(width, self.outside, 1)
        self.last = BatchNorm2d(self.outside)
        self.shortcut = _shortcut(inside, self.outside, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu_()
        y = self.norm2(self.second(y)).relu_()
        y = self.last(self.third(y))
        y += self.shortcut(x)
        result: Tensor = y.relu_()
        return result


def _stem(name: str, channels: int, width: int) -> nn.Sequential:
    kernel, stride, padding = {"32": (3, 1, 1), "64": (4, 2, 1), "128": (7, 2, 3)}[name]
    first = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
    layers: list[nn.Module] = [first, BatchNorm2d(width), nn.ReLU(inplace=True)]
    if name == "128":
        layers.append(nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*layers)


def _shortcut(inside: int, outside: int, stride: int) -> nn.Module:
    if stride == 1 and inside == outside:
        return nn.Identity()
    conv = _conv(inside, outside, 1, stride) if stride == 1 or inside >= 16 else _Picked(inside, outside)
    return nn.Sequential(conv, BatchNorm2d(outside))


class _Picked(nn.Conv2d):
    """A 1x1 convolution of stride 2 on the pixels that it reads.

    The stride stays outside of the convolution: that of oneDNN (as torch 2.13 brings it) writes beyond its
    memory in the gradient for the weights, where fewer than 16 channels come in.
    """

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(inside, outside, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :, ::2, ::2])


def _conv(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
