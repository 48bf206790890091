"""A folder of handwritten digits and a collection made from it, once for all tests of this room."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from semblance.collection.build import learn
from semblance.collection.store import Collection

COUNT = 60
TINY: dict[str, Any] = {
    "encoder": "resnet",
    "encoder_options": {"depth": 10, "width": 4},
    "size": 32,
    "epochs": 2,
    "device": "cpu",
    "precision": "32",
}


def write_digits(folder: Path, first: int, count: int) -> None:
    """Digits `first` to `first + count - 1` as PNG files in a folder per class."""
    digits = load_digits()
    for i in range(first, first + count):
        place = folder / str(digits.target[i])
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.round(digits.images[i] * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(place / f"{i:04}.png")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "photos"
    write_digits(folder, 0, COUNT)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return folder


@pytest.fixture(scope="session")
def built(digits: Path) -> Path:
    """The collection made from `digits`; do not change it."""
    return learn(digits, digits.parent / "photos.smb", **TINY).path


@pytest.fixture
def pair(built: Path, digits: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the images and of their collection, side by side, free to be changed."""
    for name in (digits.name, built.name):
        shutil.copytree(built.parent / name, tmp_path / name)
    return tmp_path / digits.name, tmp_path / built.name


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, Any]]:
    """What must be equal in two builds of the same images: identity, ids, pixels, embeddings."""

    def take(path: Path) -> dict[str, Any]:
        opened = Collection.open(path)
        opened.verify()
        return {
            "model": opened.info["model"],
            "images": opened.images.select(["id", "row", "path", "hash", "status"]).to_pylist(),
            "pixels": np.asarray(opened.pixels).tobytes(),
            "embeddings": np.asarray(opened.embeddings).tobytes(),
            "metrics": [{k: v for k, v in one.items() if k != "seconds"} for one in opened.metrics()],
        }

    return take
