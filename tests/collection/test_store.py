"""The collection on disk: it can be moved, and it refuses parts that are not its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from semblance.collection.build import learn
from semblance.collection.model import load
from semblance.collection.store import Collection
from semblance.errors import CollectionError, InputError, ModelMismatch


def test_moved_with_its_images(pair: tuple[Path, Path], tmp_path: Path) -> None:
    photos, out = pair
    place = tmp_path / "else" / "where"
    place.mkdir(parents=True)
    shutil.move(photos, place)
    shutil.move(out, place)
    moved = Collection.open(place / out.name)
    assert moved.source == place / photos.name
    assert moved.file(moved.paths[0]).is_file()
    query = place / photos.name / moved.paths[0]
    assert moved.search(query, k=1).paths == ((moved.paths[0],),)
    assert learn(place / photos.name, place / out.name).outcome == "up to date"


def test_moved_without_its_images(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "a" / "moved.smb")
    moved = Collection.open(tmp_path / "a" / "moved.smb")
    assert moved.source == built.parent / "photos"  # by its absolute path
    moved.info["source"]["root"] = "/nowhere"
    assert moved.source is None
    with pytest.raises(InputError, match="not where they were"):
        moved.file(moved.paths[0])
    assert moved.search(0, k=2).ids.shape == (1, 2)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _not_json(path: Path) -> None:
    path.write_text("{")


def _weights(path: Path) -> None:
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] + 1
    save_file(tensors, path)


def _size(path: Path) -> None:
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "size": 64}))


def _format(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))


def _other_rows(path: Path) -> None:
    rows = np.load(path)
    np.save(path, rows[::-1].copy())


def _fewer_rows(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize(
    ("name", "spoil", "kind", "said"),
    [
        ("collection.json", _not_json, CollectionError, "damaged"),
        ("collection.json", _format, CollectionError, "99 is not known"),
        ("collection.json", Path.unlink, CollectionError, "not a collection"),
        ("images.parquet", _cut, ModelMismatch, "images.parquet"),
        ("images.parquet", Path.unlink, CollectionError, "lacks images.parquet"),
        ("pixels.npy", _cut, CollectionError, "pixels.npy"),
        ("pixels.npy", _fewer_rows, ModelMismatch, "pixels.npy"),
        ("pixels.npy", _other_rows, ModelMismatch, "pixels.npy"),
        ("embeddings.npy", _other_rows, ModelMismatch, "embeddings.npy"),
        ("embeddings.npy", _cut, ModelMismatch, "embeddings.npy"),
        ("model/model.json", _size, ModelMismatch, "do not belong together"),
        ("model/model.json", _not_json, CollectionError, "damaged"),
        ("model/model.json", _format, CollectionError, "99 is not known"),
        ("model/model.safetensors", _weights, ModelMismatch, "do not belong together"),
        ("model/model.safetensors", _cut, CollectionError, "damaged"),
        ("model/model.safetensors", Path.unlink, CollectionError, "cannot be read"),
        ("model/start.safetensors", _weights, ModelMismatch, "does not belong"),
    ],
)
def test_spoilt_parts(
    pair: tuple[Path, Path], name: str, spoil: Callable[[Path], None], kind: type[Exception], said: str
) -> None:
    _, out = pair
    spoil(out / name)

    def read_everything() -> None:
        opened = Collection.open(out)
        opened.verify()
        opened.model.start_weights()

    with pytest.raises(kind, match=said) as caught:
        read_everything()
    assert "\n" not in str(caught.value)


def test_another_model_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = pair
    model = load(out)
    model.facts["training"]["epochs"] = 99
    other = type(model)(model.encoder, model.head, model.facts)
    assert other.identity != model.identity
    shutil.rmtree(out / "model")
    other.save(out / "model")
    with pytest.raises(ModelMismatch, match=f"was made with the model {model.identity}"):
        Collection.open(out)


@pytest.mark.parametrize("place", ["nothing.smb", "."])
def test_no_collection(place: str, tmp_path: Path) -> None:
    with pytest.raises(CollectionError):
        Collection.open(tmp_path / place)
    with pytest.raises(CollectionError):
        load(tmp_path / place)


def test_ids_rows_and_paths_agree(built: Path) -> None:
    opened = Collection.open(built)
    for row in opened.images.to_pylist():
        if row["row"] >= 0:
            assert opened.ids[row["row"]] == row["id"]
            assert opened.paths[row["row"]] == row["path"]
            assert opened.hashes[row["row"]] == row["hash"]
    assert repr(opened).startswith("Collection(")
    assert len(opened) == len(opened.pixels)
