"""Residual networks: sizes and costs as published, stems, statistics, and a plain second forward pass."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from semblance import plugins, ranks
from semblance.encoders import resnet
from semblance.encoders.resnet import Config, build
from semblance.errors import ConfigError


def multiply_adds(encoder: torch.nn.Module, side: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.eval()(torch.zeros(1, 3, side, side, device="meta"))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("depth", "width", "stem", "side", "millions"),
    [
        (18, 64, "32", 32, 555),
        (18, 32, "32", 32, 139),
        (18, 16, "32", 32, 35),
        (10, 32, "32", 32, 64),
        (18, 64, "64", 32, 139),
        (18, 64, "64", 64, 557),
        (18, 64, "128", 32, 37),
        (18, 64, "128", 64, 148),
        (18, 64, "128", 128, 592),
        (10, 32, "128", 64, 21),
    ],
)
def test_cost_is_as_measured_elsewhere(depth: int, width: int, stem: Any, side: int, millions: int) -> None:
    with torch.device("meta"):
        encoder = build(Config(depth=depth, width=width, stem=stem))
    assert round(multiply_adds(encoder, side) / 1e6) == millions


@pytest.mark.parametrize(
    ("depth", "parameters", "dim"),
    # torchvision's counts less its classifier: 11,689,512 - 513,000 and so on.
    [(18, 11_176_512, 512), (34, 21_284_672, 512), (50, 23_508_032, 2048)],
)
def test_parameters_are_those_of_the_paper(depth: int, parameters: int, dim: int) -> None:
    with torch.device("meta"):
        encoder = build(Config(depth=depth, stem="128"))
    assert sum(weight.numel() for weight in encoder.parameters()) == parameters
    assert encoder.dim == dim


@pytest.mark.parametrize(("stem", "shrinks"), [("32", 8), ("64", 16), ("128", 32)])
@torch.no_grad()
def test_maps_have_the_promised_size(stem: Any, shrinks: int) -> None:
    encoder = build(Config(depth=10, width=4, stem=stem)).eval()
    for h, w in ((64, 96), (128, 32)):
        assert encoder.maps(torch.rand(1, 3, h, w)).shape == (1, 32, h // shrinks, w // shrinks)
    for side in (2, 3, 5, 37, 101):
        assert encoder(torch.rand(2, 3, side, side)).shape == (2, 32)


def test_auto_stem_goes_by_size() -> None:
    stems = [Config(size=size).stem_for_size() for size in (8, 40, 41, 96, 97, 224)]
    assert stems == ["32", "32", "64", "64", "128", "128"]


def norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    shape = (1, -1, 1, 1)
    centred = x - w[f"{name}.running_mean"].view(shape)
    scaled = centred / (w[f"{name}.running_var"] + 1e-5).sqrt().view(shape)
    return scaled * w[f"{name}.weight"].view(shape) + w[f"{name}.bias"].view(shape)


def plain_forward(x: Tensor, w: dict[str, Tensor], counts: tuple[int, ...]) -> Tensor:
    """The network of He et al. written out from its weights: stem "32", basic or bottleneck blocks."""
    x = F.relu(norm(F.conv2d((x - 0.5) / 0.25, w["stem.0.weight"], padding=1), w, "stem.1"))
    number = 0
    for stage, count in enumerate(counts):
        for position in range(count):
            name = f"blocks.{number}"
            stride = 2 if stage and not position else 1
            side = x
            if f"{name}.shortcut.0.weight" in w:
                side = norm(
                    F.conv2d(x, w[f"{name}.shortcut.0.weight"], stride=stride), w, f"{name}.shortcut.1"
                )
            if f"{name}.third.weight" in w:
                y = F.relu(norm(F.conv2d(x, w[f"{name}.first.weight"]), w, f"{name}.norm"))
                y = F.conv2d(y, w[f"{name}.second.weight"], stride=stride, padding=1)
                y = F.conv2d(F.relu(norm(y, w, f"{name}.norm2")), w[f"{name}.third.weight"])
            else:
                y = F.conv2d(x, w[f"{name}.first.weight"], stride=stride, padding=1)
                y = F.conv2d(F.relu(norm(y, w, f"{name}.norm")), w[f"{name}.second.weight"], padding=1)
            x = F.relu(norm(y, w, f"{name}.last") + side)
            number += 1
    return x.flatten(2).sum(2) / (x.shape[2] * x.shape[3])


@pytest.mark.parametrize(
    ("depth", "counts"),
    [(10, (1, 1, 1, 1)), (18, (2, 2, 2, 2)), (34, (3, 4, 6, 3)), (50, (3, 4, 6, 3))],
)
@torch.no_grad()
def test_forward_is_the_paper_written_out(depth: int, counts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    encoder = build(Config(depth=depth, width=4, stem="32")).double()
    for name, value in encoder.state_dict().items():
        if "norm" in name or "last" in name or "shortcut.1" in name or "stem.1" in name:
            value.copy_(torch.rand(value.shape) + 0.5)
    x = torch.rand(2, 3, 20, 20, dtype=torch.double)
    expected = plain_forward(x, encoder.state_dict(), counts)
    torch.testing.assert_close(encoder.eval()(x), expected, rtol=1e-9, atol=1e-9)


def test_normalise_uses_the_statistics_given() -> None:
    encoder = build(Config(depth=10, width=4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.1)))
    x = torch.full((1, 3, 1, 1), 0.6)
    torch.testing.assert_close(encoder.normalise(x).flatten(), torch.tensor([1.0, 1.6, 3.0]))
    encoder.set_statistics([0.6], [0.2])
    assert encoder.normalise(x).abs().max() < 1e-6
    assert encoder.config.mean == (0.6,)
    assert encoder.config.std == (0.2,)
    encoder.set_statistics([0.5], [0.0])
    assert encoder.config.std == (1 / 255,)
    assert not {"mean", "std"} & {name for name, _ in encoder.named_parameters()}


def test_statistics_must_fit_the_channels() -> None:
    encoder = build(Config(depth=10, width=4))
    with pytest.raises(ConfigError, match="2 values"):
        encoder.set_statistics([0.5, 0.5], [0.5])


@pytest.mark.parametrize(("channels", "stem", "pairs"), [(3, "64", 8), (1, "32", 8), (1, "64", 8)])
@torch.no_grad()
def test_the_first_layer_whitens_patches(channels: int, stem: Any, pairs: int) -> None:
    """Its outputs on the patches it was made from: uncorrelated, of deviation 1, and their negatives."""
    torch.manual_seed(0)
    encoder = build(Config(depth=10, width=16, channels=channels, stem=stem))
    images = torch.rand(64, channels, 24, 24).cumsum(3) / 24  # neighbours alike, as in images
    encoder.look_at(images)
    assert encoder.normalise(images).mean((0, 2, 3)).abs().max() < 1e-3
    first = encoder.stem[0].weight
    side = first.shape[-1]
    x = encoder.normalise(images).numpy()
    cut = range(0, 24 - side + 1, side)
    patches = np.stack([x[:, :, i : i + side, j : j + side].reshape(64, -1) for i in cut for j in cut], 1)
    out = patches.reshape(-1, patches.shape[2]) @ first.flatten(1).numpy().T
    assert out[:, pairs : 2 * pairs] == pytest.approx(-out[:, :pairs], abs=1e-5)
    values = np.linalg.eigvalsh(np.cov(patches.reshape(-1, patches.shape[2]).T))[::-1]
    held = np.maximum(values[:pairs], 1e-3 * values[0])
    assert np.cov(out[:, :pairs].T) == pytest.approx(np.diag(values[:pairs] / held), abs=2e-2)
    assert np.linalg.norm(first[:pairs].flatten(1), axis=1) ** -2 == pytest.approx(held, rel=1e-3)


@torch.no_grad()
def test_images_that_show_nothing_leave_the_first_layer_random() -> None:
    encoder = build(Config(depth=10, width=16)).eval()
    before = encoder.stem[0].weight.clone()
    for images in (torch.full((5, 3, 8, 8), 0.5), torch.rand(1, 3, 4, 4)):
        encoder.look_at(images)
        assert torch.equal(encoder.stem[0].weight, before)
        assert torch.isfinite(encoder(images)).all()


@torch.no_grad()
def test_zero_init_begins_as_shortcuts() -> None:
    encoder = build(Config(depth=18, width=4, zero_init=True)).eval()
    block = encoder.blocks[1]  # its shortcut is the identity
    x = torch.rand(1, 4, 6, 6)
    assert torch.equal(block(x), x)
    assert not torch.equal(build(Config(depth=18, width=4)).eval().blocks[1](x), x)


def test_grey_images_and_shared_norms() -> None:
    encoder = build(Config(depth=10, width=4, channels=1))
    assert encoder(torch.rand(2, 1, 16, 16)).shape == (2, 32)
    norms = [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(module, ranks.BatchNorm2d) for module in norms)


def test_he_initialisation_keeps_the_scale() -> None:
    torch.manual_seed(0)
    weight = build(Config()).blocks[0].first.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_options_are_read_from_text() -> None:
    options = {"depth": "34", "width": "16", "stem": "64", "mean": "0.1,0.2,0.3", "zero_init": "yes"}
    config = plugins.configure("encoders", "resnet", options)
    assert config == Config(depth=34, width=16, stem="64", mean=(0.1, 0.2, 0.3), zero_init=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"depth": 12}, "10, 18, 34, 50"),
        ({"stem": "16"}, "auto, 32, 64, 128"),
        ({"width": 0}, "at least 1"),
        ({"mean": (0.5, 0.5)}, "2 values"),
        ({"std": (0.0,)}, "above 0"),
    ],
)
def test_impossible_networks_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resnet.Config(**options)


def test_narrow_networks_keep_to_their_memory() -> None:
    """A strided 1x1 convolution of 8 channels wrote beyond its memory; the C library sees that."""
    steps = """
import torch
from semblance.encoders.resnet import Config, build
network = build(Config(depth=10, width=8, stem="32")).to(memory_format=torch.channels_last)
for count in (29, 13, 1) * 10:
    network.train(count > 1)
    network(torch.rand(count, 3, 16, 16)).square().mean().backward()
"""
    environment = os.environ | {"MALLOC_CHECK_": "3"}
    subprocess.run([sys.executable, "-c", steps], env=environment, check=True, timeout=300)


@pytest.mark.parametrize(
    ("depth", "dims"), [(10, (8, 8, 16, 16, 32, 32, 64, 64)), (50, (32, 32, 64, 64, 128, 128, 256, 256))]
)
@torch.no_grad()
def test_levels_are_taken_after_every_stage(depth: int, dims: tuple[int, ...]) -> None:
    encoder = build(Config(depth=depth, width=8, size=32)).eval()
    assert encoder.level_dims == dims
    x = torch.rand(2, 3, 32, 32)
    seen: list[np.ndarray[Any, Any]] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda *given: seen.append(given[2].double().numpy()))
    levels = encoder.levels(x)
    ends = np.cumsum(resnet.STAGES[depth]) - 1
    wanted = [each for end in ends for each in (seen[end].mean((2, 3)), seen[end].std((2, 3)))]
    np.testing.assert_allclose(levels.numpy(), np.concatenate(wanted, 1), rtol=1e-4, atol=1e-5)
