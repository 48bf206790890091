"""Weights go in completely or not at all (finding B13: the released code skipped them silently)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from semblance.encoders._weights import load_weights
from semblance.encoders.resnet import Config, ResNet, build
from semblance.errors import ConfigError, InputError


def network(seed: int, width: int = 4) -> ResNet:
    torch.manual_seed(seed)
    return build(Config(depth=10, width=width)).eval()


def written(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "encoder."])
@torch.no_grad()
def test_loaded_is_saved(tmp_path: Path, prefix: str) -> None:
    source, target = network(1), network(2)
    source.set_statistics([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    weights = {prefix + name: value for name, value in source.state_dict().items()}
    if prefix:
        weights["head.linear.weight"] = torch.zeros(8, 32)
    load_weights(target, written(tmp_path, weights))
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(source(x), target(x))
    assert target.config.mean == pytest.approx((0.1, 0.2, 0.3))
    assert target.config.std == pytest.approx((0.4, 0.5, 0.6))


@torch.no_grad()
def test_what_does_not_fit_is_named_and_nothing_changes(tmp_path: Path) -> None:
    target = network(2)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    weights = dict(network(1).state_dict())
    for name in ("stem.0.weight", "stem.1.bias", "blocks.0.first.weight", "blocks.0.last.bias"):
        del weights[name]
    weights["classifier.weight"] = torch.zeros(2, 2)
    weights["stem.1.weight"] = torch.zeros(5)
    with pytest.raises(ConfigError) as caught:
        load_weights(target, written(tmp_path, weights))
    message = caught.value.message
    assert "4 missing (stem.0.weight, stem.1.bias, blocks.0.first.weight, ...)" in message
    assert "1 unexpected (classifier.weight)" in message
    assert "1 of another shape (stem.1.weight is (5,) and should be (4,))" in message
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_a_head_beside_foreign_names_is_not_dropped(tmp_path: Path) -> None:
    weights = {f"encoder.{name}": value for name, value in network(1).state_dict().items()}
    weights["decoder.weight"] = torch.zeros(1)
    with pytest.raises(ConfigError, match=r"unexpected \(decoder.weight, encoder\."):
        load_weights(network(2), written(tmp_path, weights))


def test_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="of another shape"):
        load_weights(network(2, width=8), written(tmp_path, network(1).state_dict()))


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "googlenet.h5", "pytorch_model.bin"])
def test_only_safetensors(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ConfigError, match="save_file") as caught:
        load_weights(network(2), tmp_path / name)
    assert name in caught.value.message


def test_missing_damaged_or_not_finite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_weights(network(2), tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{not json")
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(network(2), broken)
    weights = {name: value.clone() for name, value in network(1).state_dict().items()}
    weights["stem.1.weight"][1] = float("nan")
    with pytest.raises(InputError, match=r"not finite, first in stem\.1\.weight"):
        load_weights(network(2), written(tmp_path, weights))
