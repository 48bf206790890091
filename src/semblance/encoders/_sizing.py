"""Which encoder suits a collection, and what it costs.

The rule: as wide a residual network as the number of images can feed and the device can train. Small data
wants small networks (Brigato & Iocchi, arXiv 2003.12843): under 5,000 images at most 1.5 M parameters, under
20,000 at most 3 M. One epoch of two views may cost the multiply-adds of `BUDGET` (forward pass): on a CPU
about a minute of float32 training on one core with AVX-512, on an accelerator six hundred times as many.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from semblance.encoders import resnet

__all__ = ["Choice", "Cost", "choose", "cost"]

# Depth and width, from the strongest to the cheapest.
NETWORKS = ((18, 64), (18, 32), (10, 32), (18, 16), (10, 16))
PARAMETERS = ((5_000, 1_500_000), (20_000, 3_000_000))
BUDGET = {"cpu": 2e12, "other": 1.2e15}


@dataclass(frozen=True)
class Choice:
    """An encoder's name and options, the side of the training images, and why, in one line.

    `options` leaves `size` out, and with it the stem: both follow from the side trained at in the end.
    """

    encoder: str
    options: dict[str, Any]
    size: int
    reason: str


@dataclass(frozen=True)
class Cost:
    """What an encoder costs: parameters, and multiply-adds of one image's forward pass."""

    parameters: int
    multiply_adds: int


def choose(count: int, median_side: int, device: str = "cpu") -> Choice:
    """The encoder for `count` images whose median shorter side is `median_side` pixels.

    Images up to 40 px are trained at 32, up to 96 at 64, larger ones at 128 on an accelerator and at 96 or 64
    on a CPU, whichever its budget allows. It depends on nothing but its arguments.

    >>> choice = choose(1797, 8)
    >>> choice.options, choice.size
    ({'depth': 10, 'width': 32}, 32)
    """
    cpu = device == "cpu"
    budget = BUDGET["cpu" if cpu else "other"] / (2 * max(count, 1))
    most = next((limit for below, limit in PARAMETERS if count < below), None)
    sizes = (32,) if median_side <= 40 else (64,) if median_side <= 96 else (96, 64) if cpu else (128,)
    for size in sizes:
        fitting = [
            (depth, width)
            for depth, width in NETWORKS
            if most is None or _cost(depth, width, size).parameters <= most
        ]
        affordable = [net for net in fitting if _cost(*net, size).multiply_adds <= budget]
        # Better fewer pixels than only the weakest network.
        if affordable and affordable[0] != NETWORKS[-1]:
            break
    depth, width = affordable[0] if affordable else fitting[-1]
    if not affordable:
        why = "the cheapest there is"
    elif affordable[0] != fitting[0]:
        why = f"what a {'CPU' if cpu else device} can train in time"
    else:
        why = "the widest on offer" if most is None else "wider ones want more images"
    spent = _cost(depth, width, size)
    reason = (
        f"resnet {depth}, width {width}, {size} px for {count:,} images: "
        f"{spent.parameters / 1e6:.1f} M parameters, {spent.multiply_adds / 1e6:.0f} M multiply-adds; {why}"
    )
    return Choice("resnet", {"depth": depth, "width": width}, size, reason)


def cost(encoder: nn.Module, size: int) -> Cost:
    """Parameters and multiply-adds of convolutions and linear layers for one image of `size` px.

    Runs one image through the encoder where its weights lie; on `torch.device("meta")` it costs nothing.
    """
    total = 0

    def add(module: Any, _: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    layers = [module for module in encoder.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    training, where = encoder.training, next(encoder.parameters()).device
    channels: Any = encoder.channels
    try:
        with torch.no_grad():
            encoder.eval()(torch.zeros(1, channels, size, size, device=where))
    finally:
        encoder.train(training)
        for hook in hooks:
            hook.remove()
    return Cost(sum(weight.numel() for weight in encoder.parameters()), total)


@cache
def _cost(depth: int, width: int, size: int) -> Cost:
    with torch.device("meta"):
        return cost(resnet.build(resnet.Config(depth=depth, width=width, size=size)), size)
