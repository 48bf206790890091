"""A training that begins with another collection's model, and one that leaves the encoder as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semblance.collection.begin import beginning, fill_head
from semblance.collection.build import learn
from semblance.collection.model import Model
from semblance.collection.settings import Options, resolve
from semblance.collection.store import Collection
from semblance.encoders._frozen import Frozen
from semblance.errors import CollectionError, ConfigError, InputError
from semblance.objectives._parts import UnitHead

SHORT: dict[str, Any] = {"epochs": 1, "device": "cpu", "precision": "32"}


@pytest.fixture(scope="module")
def continued(built: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    place = tmp_path_factory.mktemp("continued")
    return learn(digits, place / "next.smb", start_from=built, objective="sme+cbswr", **SHORT)


@pytest.fixture(scope="module")
def frozen(built: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    place = tmp_path_factory.mktemp("frozen")
    options = {**SHORT, "objective": "sme", "objective_options": {"dim": 16}}
    return learn(digits, place / "next.smb", start_from=built, freeze=True, **options)


def parts(model: Model, part: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.weights().items() if name.startswith(part)}


def test_it_goes_on_where_the_other_stopped(continued: Collection, built: Path) -> None:
    other = Collection.open(built).model
    start = continued.model.start_weights()
    assert all(
        torch.equal(start[name.removeprefix("encoder.")], value)
        for name, value in parts(other, "encoder.").items()
    )
    assert continued.model.identity != other.identity
    for name in ("size", "fit"):
        assert continued.model.facts[name] == other.facts[name]
    assert continued.model.encoder.config.width == other.encoder.config.width == 4
    assert continued.info["config"]["training"]["lr"] == 3e-4
    assert continued.info["config"]["weights"] == other.identity


def test_the_card_says_where_it_came_from_and_what_was_summed(continued: Collection, built: Path) -> None:
    card = (continued.path / "model" / "card.md").read_text(encoding="utf-8")
    identity = Collection.open(built).model.identity
    assert (
        f"| started from | the model {identity} of photos.smb, encoder; its head does not fit and is new |"
        in card
    )
    assert "# Image embedding by sme+cbswr" in card
    assert "sme (dim 128" in card


def test_head_and_all_come_along(frozen: Collection) -> None:
    other = frozen.model
    begin = beginning(None, frozen.path, None, {})
    assert begin is not None
    head = UnitHead(other.encoder.dim, other.dim)
    assert fill_head(head, begin)
    assert torch.equal(head.linear.weight, other.head.linear.weight)
    small = UnitHead(other.encoder.dim, 3)
    was = small.linear.weight.detach().clone()
    assert not fill_head(small, begin)
    assert torch.equal(small.linear.weight, was)


def test_a_frozen_encoder_stays_as_it_was(frozen: Collection, built: Path) -> None:
    """Weights and batch statistics, bit for bit; the head is new and has learned."""
    other = Collection.open(built).model
    assert {n: v.tolist() for n, v in parts(frozen.model, "encoder.").items()} == {
        n: v.tolist() for n, v in parts(other, "encoder.").items()
    }
    assert frozen.model.dim == 16
    assert not any("trunk" in name for name in frozen.model.weights())
    card = (frozen.path / "model" / "card.md").read_text(encoding="utf-8")
    assert "encoder; its head does not fit and is new" in card
    assert "the head alone: the encoder is as it was" in card
    assert frozen.info["config"]["freeze"] is True
    assert frozen.info["config"]["training"]["lr"] is None  # nothing that has learned is thrown about
    assert np.isfinite(np.asarray(frozen.embeddings)).all()


def test_other_options_are_a_conflict(frozen: Collection, digits: Path, built: Path) -> None:
    again = learn(digits, frozen.path, start_from=built, freeze=True, objective="sme", device="cpu")
    assert again.outcome == "up to date"
    with pytest.raises(CollectionError, match=r"weights is .*, asked for"):
        learn(digits, frozen.path, start_from=frozen.path, device="cpu")


def test_frozen_encoder_gives_the_same_without_a_gradient(built: Path) -> None:
    trunk = Collection.open(built).model.encoder
    encoder = Frozen(trunk).train()
    x = torch.rand(4, 3, 32, 32)
    assert not any(module.training for module in trunk.modules())
    assert encoder.training
    for one in (encoder(x), encoder.maps(x)):
        assert not one.requires_grad
    assert torch.equal(encoder(x), trunk.eval()(x))
    assert torch.equal(encoder.normalise(x), trunk.normalise(x))
    assert (encoder.dim, encoder.channels) == (trunk.dim, trunk.channels)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"freeze": True}, "learned nothing.*--from"),
        ({"start_from": "photos.smb", "weights": "some.safetensors"}, "both given"),
        ({"start_from": "photos.smb", "encoder": "googlenet"}, "has the encoder resnet, asked for googlenet"),
        ({"start_from": "photos.smb", "encoder_options": {"width": "8"}}, "has width 4, asked for 8"),
        ({"start_from": "photos.smb", "encoder_options": {"widht": 8}}, 'no option "widht"'),
        ({"weights": "nowhere.safetensors"}, "do not exist"),
    ],
)
def test_what_contradicts_is_one_line(options: dict[str, Any], says: str, built: Path) -> None:
    if "start_from" in options:
        options = {**options, "start_from": built.parent / options["start_from"]}
    with pytest.raises(ConfigError, match=says) as caught:
        resolve(Options.read(options), 60, 32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "optimiser", "lr"),
    [({}, "adamw", 3e-4), ({"optimiser": "adamw"}, "adamw", 3e-4), ({"optimiser": "sgd"}, "sgd", None)],
)
def test_what_has_learned_is_trained_gently(
    asked: dict[str, str], optimiser: str, lr: float | None, built: Path
) -> None:
    options = Options(start_from=built, training_options=asked)
    training = resolve(options, 60, 32).training
    assert (training.optimiser, training.lr) == (optimiser, lr)


def test_images_of_other_channels_are_one_line(built: Path, tmp_path: Path) -> None:
    """A model of pictures does not go on with images of five channels."""
    folder = tmp_path / "five"
    folder.mkdir()
    for i in range(4):
        image = np.random.default_rng(i).normal(size=(12, 12, 5)).astype(np.float32)
        np.save(folder / f"{i}.npy", image)
    with pytest.raises(InputError, match=r"none of 4 files.*this collection has 8-bit pictures") as caught:
        learn(folder, tmp_path / "out.smb", start_from=built, epochs=1)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="holds no model"):
        beginning(None, tmp_path, None, {})


def test_options_that_agree_are_no_contradiction(built: Path) -> None:
    begin = beginning(None, built, "resnet", {"width": "4"})
    assert begin is not None
    assert begin.settings["size"] == 32
    assert beginning(None, None, "resnet", {}) is None
