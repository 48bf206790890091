"""What every encoder promises (the contract of `semblance.contracts.Encoder`), found by name."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from semblance import plugins

TINY_VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
# Small options, so that the suite stays quick; an encoder that is not listed is built as it comes.
OPTIONS: dict[str, dict[str, Any]] = {
    "resnet": {"depth": 10, "width": 8},
    "googlenet": {"size": 32},
    "pretrained": {"hf_config": json.dumps(TINY_VIT)},
}
NAMES = plugins.names("encoders")


def make(name: str, seed: int = 0) -> Any:
    if name == "pretrained":
        pytest.importorskip("transformers")
    torch.manual_seed(seed)
    return plugins.get("encoders", name).build(plugins.configure("encoders", name, OPTIONS.get(name))).eval()


def images(encoder: Any, count: int = 3, seed: int = 1) -> torch.Tensor:
    side = getattr(encoder.config, "size", None) or 32
    return torch.rand(count, encoder.channels, side, side, generator=torch.Generator().manual_seed(seed))


def unit(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(x.double(), dim=1)


def test_the_three_encoders_are_found() -> None:
    assert {"resnet", "googlenet", "pretrained"} <= set(NAMES)
    assert not [name for name in NAMES if name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_config_is_a_frozen_dataclass(name: str) -> None:
    config = plugins.configure("encoders", name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, None)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pretrained"])
@torch.no_grad()
def test_levels_are_the_mean_and_deviation_of_what_layers_make(name: str) -> None:
    encoder = make(name)
    if not hasattr(encoder, "levels"):
        pytest.skip(f"{name} has no levels")
    x = images(encoder)
    levels = encoder.levels(x)
    assert levels.shape == (3, sum(encoder.level_dims))
    assert levels.dtype == torch.float32
    last = encoder.maps(x).double().numpy().reshape(3, encoder.dim, -1)
    groups = np.split(levels.numpy(), np.cumsum(encoder.level_dims)[:-1], 1)
    np.testing.assert_allclose(groups[-2], last.mean(2), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(groups[-1], last.std(2), rtol=1e-4, atol=1e-5)
    alone = torch.cat([encoder.levels(one[None]) for one in x])
    torch.testing.assert_close(levels, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_features_are_the_mean_of_maps(name: str) -> None:
    encoder = make(name)
    x = images(encoder)
    maps, features = encoder.maps(x), encoder(x)
    assert encoder.normalise(x).shape == x.shape
    assert maps.dim() == 4
    assert features.shape == (3, encoder.dim) == maps.shape[:2]
    assert features.dtype == torch.float32
    reference = maps.double().numpy().reshape(3, encoder.dim, -1).mean(2)
    np.testing.assert_allclose(features.numpy(), reference, rtol=1e-4, atol=1e-5 * np.abs(reference).max())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_same_seed_same_weights_same_features(name: str) -> None:
    one, two, other = make(name, 3), make(name, 3), make(name, 4)
    x = images(one)
    assert torch.equal(one(x), one(x))
    assert torch.equal(one(x), two(x))
    assert not torch.equal(one(x), other(x))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_an_image_does_not_see_its_batch(name: str) -> None:
    encoder = make(name)
    x = images(encoder)
    alone = torch.cat([encoder(x[i : i + 1]) for i in range(3)])
    assert (unit(alone) - unit(encoder(x))).abs().max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_memory_format_changes_nothing(name: str) -> None:
    encoder = make(name)
    x = images(encoder)
    before = encoder(x)
    encoder.to(memory_format=torch.channels_last)
    after = encoder(x.contiguous(memory_format=torch.channels_last))
    assert (unit(before) - unit(after)).abs().max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_save_is_load(name: str, tmp_path: Path) -> None:
    """Config through JSON and weights through safetensors give the same features, bit for bit."""
    encoder = make(name)
    save_file(encoder.state_dict(), tmp_path / "weights.safetensors")
    described = json.loads(json.dumps(dataclasses.asdict(encoder.config)))
    again = plugins.get("encoders", name).build(plugins.configure("encoders", name, described)).eval()
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = images(encoder)
    assert torch.equal(encoder(x), again(x))
    assert again.config == encoder.config
    assert (again.dim, again.channels) == (encoder.dim, encoder.channels)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_trainable_weight(name: str) -> None:
    encoder = make(name).train()
    encoder(images(encoder)).square().sum().backward()
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    assert weights
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in weights)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_stays_close_and_pools_in_float32(name: str) -> None:
    encoder = make(name)
    x = images(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        low = encoder(x)
    assert low.dtype == torch.float32
    assert (unit(low) * unit(encoder(x))).sum(1).min() > 0.99
    low.sum().backward()
    first = next(weight for weight in encoder.parameters() if weight.requires_grad)
    assert torch.isfinite(first.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_onnx_is_torch(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    encoder = make(name)
    path = tmp_path / "encoder.onnx"
    with warnings.catch_warnings():
        # The TorchScript exporter says that it is old; `transformers` branches on shapes while it records.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            encoder,
            (images(encoder, 2),),
            str(path),
            input_names=["images"],
            output_names=["features"],
            dynamic_axes={"images": {0: "n"}, "features": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 5):  # neither is the count that was recorded
        x = images(encoder, count, seed=count)
        (found,) = session.run(None, {"images": x.numpy()})
        with torch.no_grad():
            assert (unit(torch.from_numpy(found)) - unit(encoder(x))).abs().max() < 1e-4
