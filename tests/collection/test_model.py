"""The model: every way in gives the same embedding; save and load; the card."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semblance.collection.model import Model, load
from semblance.collection.store import Collection
from semblance.errors import InputError
from semblance.images.decode import decode


@pytest.fixture(scope="module")
def model(built: Path) -> Model:
    return load(built)


def test_embedding_is_encoder_then_head(model: Model, built: Path) -> None:
    pixels = np.array(Collection.open(built).pixels[:5])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        wanted = model.head(model.encoder.levels(x)).numpy()
    np.testing.assert_allclose(model.embed(pixels), wanted, atol=1e-5)
    assert wanted.shape == (5, model.dim)


def test_the_precision_asked_for_is_that_of_embeddings_too(
    model: Model, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "semblance.collection.model.embed", lambda *given, **how: asked.append(how) or given[2]
    )
    model.embed_pixels(np.array(Collection.open(built).pixels[:2]))
    assert [how["precision"] for how in asked] == ["32"]


def test_every_form_of_an_image_is_the_same_image(model: Model, built: Path, digits: Path) -> None:
    collection = Collection.open(built)
    path = digits / collection.paths[7]
    wanted = np.array(collection.embeddings[7:8])
    image = Image.open(path)
    forms: list[Any] = [
        path,
        str(path),
        [path],
        path.read_bytes(),
        image,
        [image.convert("RGBA")],
        np.asarray(image),
        np.asarray(image.convert("RGB")),
        np.asarray(image.convert("RGB"))[None],
        [np.asarray(image)[..., None]],
        str(digits / "*" / path.name),
    ]
    for form in forms:
        np.testing.assert_allclose(model.embed(form), wanted, atol=1e-5, err_msg=repr(form)[:60])


def test_other_sizes_and_modes_go_through_decode(model: Model) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (3, 50, 41, 4), dtype=np.uint8)
    for mode in ("CMYK", "RGBA", "LA", "1", "F", "HSV"):
        image = Image.fromarray(array[0]).convert("RGB").convert(mode)
        assert model.embed(image).shape == (1, model.dim)
    out = io.BytesIO()
    Image.fromarray(array[1]).save(out, "PNG")
    wanted = decode(out.getvalue(), 32).pixels[None]
    np.testing.assert_allclose(model.embed(array)[1:2], model.embed(wanted), atol=1e-6)


def test_a_folder_has_names_and_problems(model: Model, built: Path, digits: Path) -> None:
    found = model.embed_named(digits)
    collection = Collection.open(built)
    assert found.paths == collection.paths
    np.testing.assert_allclose(found.embeddings, collection.embeddings, atol=1e-5)
    assert [path for path, _ in found.problems] == ["broken.png"]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("nowhere.png", "nowhere.png"),
        (["nowhere.png"], "nowhere.png"),
        (b"not an image", "not an image"),
        (np.zeros((2, 4, 4, 3), np.float32), "float32"),
        (np.zeros((2, 4, 4, 5), np.uint8), r"\(2, 4, 4, 5\)"),
        (12, "int"),
        ([3.5], "float"),
        ([], "no images"),
    ],
)
def test_what_is_no_image(model: Model, images: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        model.embed(images)


def test_save_and_load(model: Model, built: Path, tmp_path: Path) -> None:
    again = load(model.save(tmp_path / "model"))
    assert again.identity == model.identity
    assert again.facts == model.facts
    wanted = model.weights()
    assert all((again.weights()[name] == value).all() for name, value in wanted.items())
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "model.json", "model.safetensors", "start.safetensors", "card.md",
    }  # fmt: skip
    assert repr(model) == f"Model(resnet, cbswr, 32 px, 120-d, {model.identity})"


def test_the_card_says_what_was_measured(built: Path) -> None:
    card = (built / "model" / "card.md").read_text()
    last = Collection.open(built).metrics()[-1]
    assert card.startswith("---\nlibrary_name: semblance\n")
    assert "on 60 images" in card
    assert f"| effective rank | {last['health']['effective_rank']:.4g} |" in card
    assert f"| loss | {last['loss']:.4g} |" in card


def test_loading_leaves_the_random_numbers_alone(built: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load(built)
    assert (torch.rand(3) == wanted).all()
