"""Which network a collection gets, and that its cost is counted right."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from semblance import plugins
from semblance.encoders import googlenet, resnet
from semblance.encoders._sizing import BUDGET, Cost, choose, cost


@pytest.mark.parametrize(
    ("count", "side", "device", "depth", "width", "size"),
    [
        (1797, 8, "cpu", 10, 32, 32),
        (10_000, 32, "cpu", 10, 32, 32),
        (5_000, 32, "cpu", 18, 32, 32),
        (20_000, 32, "cpu", 18, 16, 32),
        (1_000_000, 32, "cpu", 10, 16, 32),
        (3_000, 64, "cpu", 10, 32, 64),
        (3_000, 300, "cpu", 10, 32, 96),
        (20_000, 300, "cpu", 18, 16, 64),
        (1_000_000, 300, "cpu", 10, 16, 64),
        (3_000, 300, "cuda", 10, 32, 128),
        (10_000, 300, "cuda", 18, 32, 128),
        (60_000, 300, "cuda", 18, 64, 128),
    ],
)
def test_choice(count: int, side: int, device: str, depth: int, width: int, size: int) -> None:
    choice = choose(count, side, device)
    assert (choice.options["depth"], choice.options["width"], choice.size) == (depth, width, size)
    assert choice == choose(count, side, device)


@cache
def spent_by(depth: int, width: int, stem: Any, size: int) -> Cost:
    with torch.device("meta"):
        return cost(resnet.build(resnet.Config(depth=depth, width=width, stem=stem)), size)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_choice_keeps_the_rule(device: str) -> None:
    for count in (0, 1, 100, 4_999, 5_000, 19_999, 20_000, 70_000, 3_000_000):
        for side in (1, 28, 40, 41, 96, 97, 1024):
            choice = choose(count, side, device)
            config = plugins.configure("encoders", choice.encoder, {**choice.options, "size": choice.size})
            spent = spent_by(config.depth, config.width, config.stem_for_size(), choice.size)
            assert spent.parameters <= (1.5e6 if count < 5_000 else 3e6 if count < 20_000 else 12e6)
            budget = BUDGET["cpu" if device == "cpu" else "other"]
            weakest = (config.depth, config.width) == (10, 16)
            assert weakest or 2 * count * spent.multiply_adds <= budget
            assert choice.size <= max(32, 64 if side > 40 else 0, 128 if side > 96 else 0)
            assert choice.reason.count("\n") == 0
            assert f"{count:,} images" in choice.reason


def test_cost_equals_torchs_own_counter() -> None:
    with torch.device("meta"):
        networks = [(resnet.build(resnet.Config(depth=50, width=8, stem="128")), 64)]
        networks.append((googlenet.build(googlenet.Config()), 64))
    for network, side in networks:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.empty(1, 3, side, side, device="meta"))
        assert cost(network, side).multiply_adds == counter.get_total_flops() / 2


def test_cost_leaves_the_encoder_as_it_was() -> None:
    network = resnet.build(resnet.Config(depth=10, width=4)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    spent = cost(network, 16)
    assert network.training
    assert spent.parameters == sum(value.numel() for _, value in network.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
