"""ONNX: what ONNX Runtime gives is what torch gives, cropped models too."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semblance.collection import export
from semblance.collection.export import export_onnx
from semblance.collection.model import Model, load
from semblance.collection.store import Collection
from semblance.errors import CollectionError, MissingExtra

pytest.importorskip("onnxruntime")


def run(path: Path, images: Any) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def test_equals_torch_for_any_number_of_images(built: Path, tmp_path: Path) -> None:
    collection = Collection.open(built)
    path = collection.export_onnx(tmp_path / "deep" / "model.onnx")
    for n in (1, 3, 60):
        images = np.array(collection.pixels[:n])
        np.testing.assert_allclose(run(path, images), collection.embeddings[:n], atol=1e-4)
    import onnx

    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert facts["semblance.identity"] == collection.model.identity


@pytest.mark.parametrize("crop", [24 / 32, 23 / 32])
def test_the_crop_is_inside(built: Path, tmp_path: Path, crop: float) -> None:
    model = load(built)
    cropped = Model(model.encoder, model.head, {**model.facts, "crop": crop})
    path = export_onnx(cropped, tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    wanted = cropped.embed_pixels(images)
    assert np.abs(wanted - model.embed_pixels(images)).max() > 1e-3
    np.testing.assert_allclose(run(path, images), wanted, atol=1e-4)


def test_nothing_is_replaced_or_kept_by_mistake(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = load(built), tmp_path / "model.onnx"
    path.write_text("mine")
    with pytest.raises(CollectionError, match="exists"):
        export_onnx(model, path)
    monkeypatch.setattr(export, "_run", lambda data, images: np.full((len(images), model.dim), np.nan))
    with pytest.raises(CollectionError, match="not kept"):
        export_onnx(model, path, overwrite=True)
    assert path.read_text() == "mine"
    monkeypatch.undo()
    export_onnx(model, path, overwrite=True)
    assert path.stat().st_size > 10_000
    assert list(tmp_path.iterdir()) == [path]


def test_without_onnx(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="onnx"):
        export_onnx(load(built), tmp_path / "model.onnx")
