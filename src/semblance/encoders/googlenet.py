"""Inception-v1 as Caffe had it: no batch normalisation, two local response norms, 1024 features.

Szegedy et al., "Going Deeper with Convolutions", CVPR 2015 (arXiv 1409.4842), up to inception 5b, without the
auxiliary classifiers: the encoder of the CBSwR and SME papers. Biases on every convolution, 5x5 branches
that really are 5x5, pools that round up, so that 224 and 227 px both end in 1024 maps of 7 x 7. Use it
with weights trained elsewhere to follow those papers; learning from scratch works (He initialisation), but a
`resnet` of the same cost learns faster for want of normalisation here.

Cost: 5.974 M parameters; 1.582 G multiply-adds and 35 MB of float32 activations per image of 224 px.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance.errors import ConfigError

__all__ = ["Config", "GoogLeNet", "build", "local_response_norm"]

# Per block: in, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection (table 1 of the paper).
BLOCKS = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
SMALLEST = 31


@dataclass(frozen=True)
class Config:
    """What the network expects.

    `size`: the side of the images, at least 31 (the papers: 224). `mean`: of red, green and blue in [0, 255],
    subtracted; the default is what the papers' weights were trained with.
    """

    size: int = 224
    mean: tuple[float, ...] = (122.7717, 115.9465, 102.9801)

    def __post_init__(self) -> None:
        """Raises `ConfigError` for images that four pools would leave nothing of."""
        if self.size < SMALLEST:
            raise ConfigError(f"googlenet.size is {self.size}", f"at least {SMALLEST}, or use resnet")
        if len(self.mean) != 3:
            raise ConfigError(f"googlenet.mean has {len(self.mean)} values", "expected red,green,blue")


def local_response_norm(x: Tensor, alpha: float = 1e-4, k: float = 1.0) -> Tensor:
    """`x / (k + alpha/5 * S)^0.75`, S the sum of squares over 5 neighbouring channels; the same shape.

    Krizhevsky et al. 2012, section 3.3, with Caffe's `alpha/5`; equals `torch.nn.LocalResponseNorm(5)`. Five
    shifted slices are added, which costs less than that module's three-dimensional pooling. Float32 inside.

    >>> local_response_norm(torch.ones(1, 1, 1, 1), alpha=5.0)
    tensor([[[[0.5946]]]])
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    channels = x.shape[1]
    squares = wide * wide
    edge = torch.zeros_like(squares[:, :1]).expand(-1, 2, -1, -1)
    squares = torch.cat((edge, squares, edge), 1)
    window = squares[:, 0:channels]
    for shift in range(1, 5):
        window = window + squares[:, shift : shift + channels]
    root = (k + alpha / 5 * window).rsqrt()
    # s^-0.75 = s^-0.5 * sqrt(s^-0.5): two roots are several times cheaper than a power.
    return (wide * root * root.sqrt()).to(x.dtype)


class GoogLeNet(nn.Module):
    """`(n, 3, h, w)` RGB in [0, 1], sides of at least 31 -> features `(n, 1024)`."""

    mean: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.channels = 3
        self.dim = 1024
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.conv2_reduce = nn.Conv2d(64, 64, 1)
        self.conv2 = nn.Conv2d(64, 192, 3, padding=1)
        self.inception = nn.ModuleDict({name: _Inception(*widths) for name, widths in BLOCKS.items()})
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def normalise(self, x: Tensor) -> Tensor:
        """`x * 255 - mean`, channels then in the order blue, green, red (Caffe); the same shape."""
        return (x * 255 - self.mean)[:, [2, 1, 0]]

    def maps(self, x: Tensor) -> Tensor:
        """`(n, 3, h, w)` RGB in [0, 1] -> `(n, 1024, h', w')`, not below zero; 224 px give 7 x 7."""
        if min(x.shape[-2:]) < SMALLEST:
            least = f"GoogLeNet leaves nothing of {x.shape[-1]} pixels"
            raise ConfigError(least, f"views of at least {SMALLEST}: a larger --size, or another encoder")
        y = local_response_norm(_pool(self.conv1(self.normalise(x)).relu()))
        y = self.conv2(self.conv2_reduce(y).relu()).relu()
        y = _pool(local_response_norm(y))
        for name, block in self.inception.items():
            if name in ("4a", "5a"):
                y = _pool(y)
            y = block(y)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """`(n, 3, h, w)` RGB in [0, 1] -> the mean of the maps, `(n, 1024)`, float32 under autocast too."""
        y = self.maps(x)
        return y.mean((2, 3), dtype=torch.promote_types(y.dtype, torch.float32))


def build(config: Config) -> GoogLeNet:
    """A freshly initialised network; torch's global generator decides the weights."""
    return GoogLeNet(config)


class _Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3, 5x5 and a pooled 1x1, concatenated."""

    def __init__(
        self, inside: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int
    ) -> None:
        super().__init__()
        self.one = nn.Conv2d(inside, one, 1)
        self.three_reduce = nn.Conv2d(inside, reduce3, 1)
        self.three = nn.Conv2d(reduce3, three, 3, padding=1)
        self.five_reduce = nn.Conv2d(inside, reduce5, 1)
        self.five = nn.Conv2d(reduce5, five, 5, padding=2)
        self.pool = nn.Conv2d(inside, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.one(x),
            self.three(self.three_reduce(x).relu()),
            self.five(self.five_reduce(x).relu()),
            self.pool(F.max_pool2d(x, 3, 1, 1)),
        )
        return torch.cat(branches, 1).relu()


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)
