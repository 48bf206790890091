"""Inception-v1: size, cost, shapes and norms of the published network, and findings B4 and B13."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance.encoders.googlenet import Config, GoogLeNet, build, local_response_norm
from semblance.errors import ConfigError


def plain_norm(x: Tensor, keep_first: bool = False) -> Tensor:
    """The textbook formula, channel by channel; with `keep_first`, channel 0 never leaves the window."""
    result = torch.empty_like(x)
    for c in range(x.shape[1]):
        window = {i for i in range(c - 2, c + 3) if 0 <= i < x.shape[1]} | ({0} if keep_first else set())
        squares = sum(x[:, i] ** 2 for i in window)
        result[:, c] = x[:, c] / (1 + 1e-4 / 5 * squares) ** 0.75
    return result


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
def test_norm_is_the_textbook_formula(channels: int) -> None:
    x = torch.randn(2, channels, 3, 4, dtype=torch.double) * 100
    torch.testing.assert_close(local_response_norm(x), plain_norm(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(local_response_norm(x), nn.LocalResponseNorm(5)(x), rtol=1e-12, atol=0)


def test_b4_crossmap_norm_of_torch_keeps_channel_zero() -> None:
    """`CrossMapLRN2d`, which the released code used, is wrong from channel 3 on; ours is not."""
    x = torch.randn(2, 9, 3, 3, dtype=torch.double) * 100
    theirs, ours = nn.CrossMapLRN2d(5)(x), local_response_norm(x)
    torch.testing.assert_close(theirs[:, :3], ours[:, :3])
    assert (theirs[:, 3:] - ours[:, 3:]).abs().max() > 1
    torch.testing.assert_close(theirs, plain_norm(x, keep_first=True))


def test_norm_has_the_right_gradient_and_stays_float32_inside() -> None:
    x = (torch.randn(1, 6, 2, 2, dtype=torch.double) * 100).requires_grad_()
    assert torch.autograd.gradcheck(local_response_norm, (x,))
    low = torch.full((1, 5, 1, 1), 200.0, dtype=torch.float16)  # squares overflow half precision
    assert local_response_norm(low).dtype == torch.float16
    torch.testing.assert_close(local_response_norm(low).double(), plain_norm(low.double()), rtol=1e-3, atol=0)


@pytest.fixture(scope="module")
def weightless() -> GoogLeNet:
    with torch.device("meta"):
        return build(Config()).eval()


def test_parameters_and_multiply_adds(weightless: GoogLeNet) -> None:
    """5.974 M parameters and 1.582 G multiply-adds at 224, counted by hooks on the convolutions."""
    assert sum(weight.numel() for weight in weightless.parameters()) == 5_973_552
    total = 0

    def add(layer: nn.Conv2d, _: object, y: Tensor) -> None:
        nonlocal total
        taps = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        total += taps * y.shape[1] * y.shape[2] * y.shape[3]

    layers = [layer for layer in weightless.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    weightless.maps(torch.empty(1, 3, 224, 224, device="meta"))
    for hook in hooks:
        hook.remove()
    assert len(layers) == 57
    assert all(layer.bias is not None for layer in layers)
    assert total == pytest.approx(1.5816e9, rel=1e-3)


@pytest.mark.parametrize(("side", "map_side"), [(224, 7), (227, 7), (256, 8), (64, 2), (32, 1), (31, 1)])
def test_pools_round_up(weightless: GoogLeNet, side: int, map_side: int) -> None:
    assert weightless.maps(torch.empty(1, 3, side, side, device="meta")).shape == (
        1,
        1024,
        map_side,
        map_side,
    )


def test_normalise_is_caffes() -> None:
    encoder = build(Config(size=32))
    red_green_blue = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    blue_green_red = encoder.normalise(red_green_blue).flatten().tolist()
    assert blue_green_red == pytest.approx([-102.9801, 127.5 - 115.9465, 255 - 122.7717], rel=1e-5)


@torch.no_grad()
def test_first_layers_are_in_the_papers_order() -> None:
    """conv 7x7/2, pool, norm, conv 1x1, conv 3x3, norm, pool; then 3a's branches side by side."""
    torch.manual_seed(0)
    encoder = build(Config(size=32)).double()
    w = encoder.state_dict()
    seen: list[Tensor] = []
    encoder.inception["3a"].register_forward_hook(lambda _, given, made: seen.extend((given[0], made)))
    x = torch.rand(1, 3, 40, 40, dtype=torch.double)
    encoder(x)
    y = F.relu(F.conv2d(encoder.normalise(x), w["conv1.weight"], w["conv1.bias"], 2, 3))
    y = plain_norm(F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=0.0), 3, 2))  # 20 px: rounding up needs one more
    y = F.relu(F.conv2d(y, w["conv2_reduce.weight"], w["conv2_reduce.bias"]))
    y = F.relu(F.conv2d(y, w["conv2.weight"], w["conv2.bias"], padding=1))
    y = F.max_pool2d(F.pad(plain_norm(y), (0, 1, 0, 1), value=0.0), 3, 2)
    torch.testing.assert_close(seen[0], y)

    def layer(name: str, given: Tensor, padding: int = 0) -> Tensor:
        at = f"inception.3a.{name}"
        return F.relu(F.conv2d(given, w[f"{at}.weight"], w[f"{at}.bias"], padding=padding))

    branches = [
        layer("one", y),
        layer("three", layer("three_reduce", y), 1),
        layer("five", layer("five_reduce", y), 2),
        layer("pool", F.max_pool2d(y, 3, 1, 1)),
    ]
    assert [branch.shape[1] for branch in branches] == [64, 128, 32, 32]
    torch.testing.assert_close(seen[1], torch.cat(branches, 1))


def test_b13_it_learns_from_scratch() -> None:
    """The released code raised without pretrained weights; here the loss on a toy set falls."""
    torch.manual_seed(0)
    encoder, head = build(Config(size=32)), nn.Linear(1024, 2)
    x = torch.rand(8, 3, 32, 32)
    labels = torch.tensor([0, 1] * 4)
    x[labels == 1, 0] *= 0.3
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-4)
    losses = []
    for _ in range(8):
        loss = F.cross_entropy(head(10 * F.normalize(encoder(x))), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.693, abs=0.1)
    assert losses[-1] < 0.4


def test_impossible_configs_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 31"):
        Config(size=30)
    with pytest.raises(ConfigError, match="1 values"):
        Config(mean=(0.5,))


def test_views_that_are_too_small_are_one_line(weightless: GoogLeNet) -> None:
    with pytest.raises(ConfigError, match="leaves nothing of 28 pixels"):
        weightless.maps(torch.zeros(1, 3, 28, 28))
