"""Models of `transformers`, tiny and randomly initialised, saved to disk and read back without a network."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from semblance import plugins, ranks
from semblance.encoders.pretrained import Config, build
from semblance.errors import ConfigError, MissingExtra

transformers = pytest.importorskip("transformers")

TOKENS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
KINDS: dict[str, dict[str, Any]] = {
    "vit": {**TOKENS, "intermediate_size": 32},
    "dinov2_with_registers": {**TOKENS, "num_register_tokens": 3},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "swin": {
        "image_size": 32,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    },
    "clip_vision_model": {**TOKENS, "intermediate_size": 32},
}
MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.25, 0.2]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """Writes a model of a kind to disk: `(folder, model)`."""

    def save(kind: str, preprocessor: dict[str, Any] | None = None) -> tuple[Path, Any]:
        torch.manual_seed(7)
        model = transformers.AutoModel.from_config(transformers.CONFIG_MAPPING[kind](**KINDS[kind])).eval()
        for name, value in model.named_parameters():
            if name.endswith(("register_tokens", "cls_token")):
                torch.nn.init.normal_(value)
        folder = tmp_path / "models" / kind
        model.save_pretrained(folder)
        if preprocessor is not None:
            (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        return folder, model

    return save


def images(side: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def scaled(x: torch.Tensor) -> torch.Tensor:
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@pytest.mark.parametrize(("kind", "before_patches"), [("vit", 1), ("dinov2_with_registers", 4)])
@torch.no_grad()
def test_class_token_is_the_feature_and_patches_are_the_map(
    saved: Callable[..., tuple[Path, Any]], kind: str, before_patches: int
) -> None:
    folder, model = saved(kind, {"image_mean": MEAN, "image_std": STD, "size": {"height": 32, "width": 32}})
    encoder = build(Config(name=str(folder))).eval()
    tokens = model(pixel_values=scaled(images())).last_hidden_state
    torch.testing.assert_close(encoder(images()), tokens[:, 0])
    maps = encoder.maps(images())
    assert maps.shape == (2, 16, 4, 4)
    patches = tokens[:, before_patches:]
    shift = tokens[:, 0] - patches.mean(1)
    for row in range(4):
        for column in range(4):
            torch.testing.assert_close(maps[:, :, row, column], patches[:, 4 * row + column] + shift)
    mean = build(Config(name=str(folder), pool="mean")).eval()
    torch.testing.assert_close(mean(images()), patches.mean(1))


@torch.no_grad()
def test_convolutions_give_their_last_map(saved: Callable[..., tuple[Path, Any]]) -> None:
    folder, model = saved("resnet", {"image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": 32}})
    encoder = build(Config(name=str(folder))).eval()
    expected = model(pixel_values=scaled(images()))
    torch.testing.assert_close(encoder.maps(images()), expected.last_hidden_state)
    torch.testing.assert_close(encoder(images()), expected.pooler_output.flatten(1))
    norms = [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(module, ranks.BatchNorm2d) for module in norms)


@torch.no_grad()
def test_merged_patches_and_clips_last_norm(saved: Callable[..., tuple[Path, Any]]) -> None:
    folder, model = saved("swin")
    encoder = build(Config(name=str(folder))).eval()
    tokens = model(pixel_values=(images() - 0.5) / 0.5).last_hidden_state
    assert encoder.maps(images()).shape == (2, 16, 8, 8)
    torch.testing.assert_close(encoder(images()), tokens.mean(1))
    folder, model = saved("clip_vision_model")
    encoder = build(Config(name=str(folder))).eval()
    expected = model(pixel_values=(images() - 0.5) / 0.5).pooler_output
    torch.testing.assert_close(encoder(images()), expected)


@torch.no_grad()
def test_it_is_rebuilt_without_the_folder(saved: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = saved("vit", {"image_mean": MEAN, "image_std": STD})
    encoder = build(Config(name=str(folder))).eval()
    described = json.loads(json.dumps(dataclasses.asdict(encoder.config)))
    assert str(tmp_path) not in json.dumps(described)
    save_file(encoder.state_dict(), tmp_path / "kept.safetensors")
    shutil.rmtree(folder)
    again = build(plugins.configure("encoders", "pretrained", described)).eval()
    assert not torch.equal(again(images()), encoder(images()))
    again.load_state_dict(load_file(tmp_path / "kept.safetensors"))
    assert torch.equal(again(images()), encoder(images()))


@torch.no_grad()
def test_other_sizes_are_resized_to_what_it_was_trained_for(saved: Callable[..., tuple[Path, Any]]) -> None:
    folder, model = saved("vit")
    own = build(Config(name=str(folder))).eval()
    assert own.config.size == 32
    assert own.maps(images(20)).shape == own.maps(images(48)).shape == (2, 16, 4, 4)
    grey = torch.full((2, 3, 50, 50), 0.7)
    torch.testing.assert_close(own(grey), own(torch.full((2, 3, 32, 32), 0.7)))
    large = build(Config(name=str(folder), size=64)).eval()  # position embeddings are stretched
    assert large.maps(images(64)).shape == (2, 16, 8, 8)
    expected = model(pixel_values=(images(64) - 0.5) / 0.5, interpolate_pos_encoding=True)
    torch.testing.assert_close(large(images(64)), expected.last_hidden_state[:, 0])


def test_freeze_and_weights_that_features_ignore(saved: Callable[..., tuple[Path, Any]]) -> None:
    folder, _ = saved("vit", {"do_normalize": False, "image_mean": MEAN})
    encoder = build(Config(name=str(folder)))
    still = [name for name, weight in encoder.named_parameters() if not weight.requires_grad]
    assert still == ["model.pooler.dense.weight", "model.pooler.dense.bias"]
    assert torch.equal(encoder.normalise(images()), images())
    frozen = build(Config(name=str(folder), freeze=True)).train()
    assert not any(weight.requires_grad for weight in frozen.parameters())
    assert frozen.training
    assert not frozen.model.training


def test_missing_weights_are_an_error(saved: Callable[..., tuple[Path, Any]]) -> None:
    folder, _ = saved("vit")
    weights = load_file(folder / "model.safetensors")
    pooler = [name for name in weights if name.startswith("pooler")]
    save_file(
        {k: v for k, v in weights.items() if k not in pooler}, folder / "model.safetensors", {"format": "pt"}
    )
    build(Config(name=str(folder)))  # features do not need it
    lost = "embeddings.patch_embeddings.projection.weight"
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=f"no weights for 1 tensors, first {lost}"):
        build(Config(name=str(folder)))


def test_what_cannot_be_had_is_a_clear_error(
    saved: Callable[..., tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="name a folder"):
        build(Config())
    with pytest.raises(ConfigError, match="there is no folder"):
        build(Config(name=str(tmp_path / "nowhere")))
    folder, model = saved("vit")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        build(Config(name=str(folder)))
    with pytest.raises(ConfigError, match="describes no model"):
        build(Config(hf_config='{"model_type": "no-such-network"}'))
    with pytest.raises(ConfigError, match="describes no model"):
        build(Config(hf_config="{"))
    masked = {"model_type": "vit_mae", **TOKENS, "intermediate_size": 32}
    with pytest.raises(ConfigError, match="not a grid of patches"):
        build(Config(hf_config=json.dumps(masked)))
    words = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(ConfigError, match="not a vision model"):
        build(Config(hf_config=json.dumps({**words, "vocab_size": 20})))
    swin = {"model_type": "swin", **KINDS["swin"]}
    with pytest.raises(ConfigError, match="no class token"):
        build(Config(hf_config=json.dumps(swin), pool="token"))
    with pytest.raises(ConfigError, match="2 values"):
        build(Config(hf_config=json.dumps(model.config.to_dict()), mean=(0.5, 0.5)))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra) as caught:
        build(Config(name="anyone/anything"))
    assert caught.value.hint == 'pip install "semblance[pretrained]"'
