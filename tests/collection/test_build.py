"""Building: what comes out, what a second run does, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.collection.conftest import COUNT, TINY, write_digits

from semblance.collection import build, disk
from semblance.collection.build import learn, run, target_of
from semblance.collection.store import Collection
from semblance.errors import CollectionError, ConfigError, InputError

Snapshot = Callable[[Path], dict[str, Any]]


def test_everything_is_there_and_agrees(built: Path, digits: Path) -> None:
    collection = Collection.open(built)
    collection.verify()
    assert collection.info["counts"] == {
        "images": COUNT + 1,
        "readable": COUNT,
        "unreadable": 1,
        "duplicates": 0,
    }
    assert collection.pixels.shape == (COUNT, 32, 32, 3)
    assert collection.embeddings.shape == (COUNT, 120)
    np.testing.assert_allclose(np.linalg.norm(collection.embeddings, axis=1), 1, rtol=1e-5)
    status = dict(zip(*(collection.images.column(c).to_pylist() for c in ("path", "status")), strict=True))
    assert status.pop("broken.png").startswith("unreadable: ")
    assert set(status.values()) == {"ok"}
    assert collection.paths == tuple(sorted(p.relative_to(digits).as_posix() for p in digits.glob("*/*.png")))
    assert [one["epoch"] for one in collection.metrics()] == [1, 2]
    assert [one["event"] for one in collection.log()] == [
        "start",
        "decoded",
        "learned",
        "embedded",
        "encoded",
    ]
    assert collection.info["actual"]["seconds"].keys() == {"decode", "train", "embed", "encode", "total"}
    assert collection.info["actual"]["peak_memory"] > 1e8
    assert {path.name for path in built.iterdir()} == {
        *("collection.json", "images.parquet", "pixels.npy", "embeddings.npy", "metrics.jsonl", "log.jsonl"),
        *("codes.npy", "coder.safetensors", "model", "measured.parquet"),
    }
    assert {p.name for p in built.parent.iterdir()} == {"photos", "photos.smb"}


def test_the_same_again_gives_the_same(built: Path, digits: Path, tmp_path: Path, snapshot: Snapshot) -> None:
    again = learn(digits, tmp_path / "again.smb", **TINY)
    assert again.outcome == "built"
    assert snapshot(again.path) == snapshot(built)


def test_up_to_date(pair: tuple[Path, Path]) -> None:
    photos, out = pair
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for options in ({}, TINY, {"views": "auto", "seed": 0}):
        assert learn(photos, out, **options).outcome == "up to date"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_update_embeds_only_what_is_new(
    pair: tuple[Path, Path], snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = pair
    old = Collection.open(out)
    ids = dict(zip(*(old.images.column(name).to_pylist() for name in ("path", "id")), strict=True))
    rows = dict(zip(old.paths, np.array(old.embeddings), strict=True))
    (out / "labels.sqlite").write_bytes(b"what a person said")
    (photos / "0" / "0000.png").unlink()
    shutil.copy(photos / "1" / "0001.png", photos / "1" / "copy.png")
    write_digits(photos, COUNT, 2)
    changed = photos / "2" / "0002.png"
    Image.new("RGB", (20, 30), "red").save(changed)
    embedded: list[int] = []
    original = type(old.model).embed_pixels

    def watch(self: Any, pixels: Any, **options: Any) -> Any:
        embedded.append(len(pixels))
        return original(self, pixels, **options)

    monkeypatch.setattr(type(old.model), "embed_pixels", watch)
    new = learn(photos, out)
    assert new.outcome.startswith("updated: 3 new, 1 changed, 1 removed; the model was kept")
    assert embedded == [3]
    assert new.info["model"] == old.info["model"]
    assert new.info["counts"] == {"images": 63, "readable": 62, "unreadable": 1, "duplicates": 1}
    now = dict(zip(new.paths, np.array(new.embeddings), strict=True))
    for path, row in now.items():
        if path in rows and path != "2/0002.png":
            assert (row == rows[path]).all()
    assert (now["1/copy.png"] == now["1/0001.png"]).all()
    assert (now["2/0002.png"] != rows["2/0002.png"]).any()
    new_ids = dict(zip(*(new.images.column(name).to_pylist() for name in ("path", "id")), strict=True))
    assert all(new_ids[path] == one for path, one in ids.items() if path in new_ids)
    assert (out / "labels.sqlite").read_bytes() == b"what a person said"
    assert [one["event"] for one in new.log()][-2:] == ["update", "updated"]
    new.verify()
    assert learn(photos, out).outcome == "up to date"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "sme"}, "objective.name is cbswr, asked for sme"),
        ({"epochs": 3}, "training.epochs is 2, asked for 3"),
        ({"seed": 1}, "training.seed is 0, asked for 1"),
        ({"size": 64}, "size is 32, asked for 64"),
        ({"fit": "crop"}, "fit is squash, asked for crop"),
        ({"views": "photo"}, "views.name is auto, asked for photo"),
        ({"encoder_options": {"width": "8"}}, "encoder.config.width is 4, asked for 8"),
        ({"objective_options": {"tau": "0.2"}}, "objective.config.tau is 0.1, asked for 0.2"),
        ({"setting": "released"}, "encoder.name is resnet, asked for googlenet"),
    ],
)
def test_other_settings_are_refused(built: Path, digits: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(CollectionError) as caught:
        learn(digits, built, **options)
    assert said in caught.value.message
    assert "--overwrite" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"objective_options": {"clustres": 3}}, "clusters"),
        ({"training_options": {"lrr": 1}}, "lr"),
        ({"encoder_options": {"widht": 8}}, "width"),
        ({"setting": "relaesed"}, "released"),
    ],
)
def test_unknown_options_are_refused_where_nothing_is_to_do(
    built: Path, digits: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        learn(digits, built, **options)
    assert says in caught.value.hint


def test_other_images_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    photos, out = pair
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    with pytest.raises(CollectionError, match="it was made from"):
        learn(other, out)


def test_overwrite_learns_again_and_keeps_what_a_person_said(pair: tuple[Path, Path]) -> None:
    photos, out = pair
    before = Collection.open(out).info["model"]
    (out / "labels.sqlite").write_bytes(b"said")
    (out / "groups.parquet").write_bytes(b"of the old model")
    new = learn(photos, out, overwrite=True, **{**TINY, "objective": "sme"})
    assert new.info["model"] != before
    assert new.info["config"]["objective"]["name"] == "sme"
    assert (out / "labels.sqlite").read_bytes() == b"said"
    assert not (out / "groups.parquet").exists()


def test_a_folder_that_is_no_collection_is_never_touched(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.smb").mkdir()
    (tmp_path / "notes.smb" / "diary.txt").write_text("mine")
    with pytest.raises(CollectionError, match="is not a collection"):
        learn(digits, tmp_path / "notes.smb", overwrite=True, **TINY)
    assert (tmp_path / "notes.smb" / "diary.txt").read_text() == "mine"


def test_a_build_cut_off_goes_on_with_more_patience_and_counts_its_seconds(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "again.smb"

    def stopped(*given: Any, **options: Any) -> Any:
        time.sleep(0.2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "learn_model", stopped)
        with pytest.raises(KeyboardInterrupt):
            learn(digits, out, **TINY)
    building = json.loads((disk.building_folder(out) / "building.json").read_text(encoding="utf-8"))
    assert building["seconds"]["train"] >= 0.2
    pixels = (disk.building_folder(out) / "pixels.npy").stat().st_ino
    done = learn(digits, out, **TINY, training_options={"patience": 5})
    assert done.outcome == "resumed"
    assert (out / "pixels.npy").stat().st_ino == pixels
    assert done.info["actual"]["seconds"]["train"] >= building["seconds"]["train"]
    assert done.info["config"]["training"]["patience"] == 5


def test_one_builder_at_a_time(pair: tuple[Path, Path]) -> None:
    photos, out = pair
    with (
        disk.hold_lock(out),
        pytest.raises(CollectionError, match=rf"another process \(number {os.getpid()}\)"),
    ):
        learn(photos, out)
    assert learn(photos, out).outcome == "up to date"
    assert not (out.parent / ".photos.smb.lock").exists()


def test_a_lock_left_by_a_dead_process_is_no_lock(pair: tuple[Path, Path]) -> None:
    photos, out = pair
    (out.parent / ".photos.smb.lock").write_text("999999\n")
    assert learn(photos, out).outcome == "up to date"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda i: None, "no files found"),
        (lambda i: Image.new("L", (8, 8), 7) if i == 0 else None, "1 readable image"),
        (lambda i: Image.new("L", (8, 8), 7), "are the same file"),
        (lambda i: Image.new("L", (8 + i, 8), 7), "one flat colour"),
    ],
)
def test_images_that_teach_nothing(make: Callable[[int], Any], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        image = make(i)
        if image is not None:
            image.save(folder / f"{i}.png")
    with pytest.raises(InputError, match=said):
        learn(folder, tmp_path / "out.smb", **TINY)
    assert not (tmp_path / "out.smb").exists()


def test_two_images_are_enough(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), dtype=np.uint8)
    collection = learn(noise, tmp_path / "two.smb", **{**TINY, "epochs": 1})
    assert collection.embeddings.shape == (2, 120)
    assert np.isfinite(collection.embeddings).all()


def test_arrays_are_compared_by_content(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (40, 12, 12), dtype=np.uint8)
    options = {**TINY, "epochs": 1}
    first = learn(images, tmp_path / "a.smb", **options)
    assert first.source is None
    before = np.array(first.embeddings)
    assert learn(images, tmp_path / "a.smb").outcome == "up to date"
    images[3] = 255 - images[3]
    second = learn(images, tmp_path / "a.smb")
    assert second.outcome.startswith("updated")
    same = (before == np.array(second.embeddings)).all(1)
    assert not same[3]
    assert same.sum() == 39


def test_manifest_with_where(digits: Path, tmp_path: Path) -> None:
    paths = sorted(path.relative_to(digits).as_posix() for path in digits.glob("*/*.png"))
    lines = [f"{path},{'a' if i % 2 else 'b'}" for i, path in enumerate(paths)]
    table = digits / "list.csv"
    table.write_text("\n".join(["path,part", *lines]))
    try:
        collection = learn(table, tmp_path / "half.smb", where={"part": "a"}, **{**TINY, "epochs": 1})
        assert collection.paths == tuple(paths[1::2])
        assert collection.info["config"]["where"] == {"part": "a"}
        with pytest.raises(CollectionError, match="where is"):
            learn(table, tmp_path / "half.smb", where={"part": "b"})
    finally:
        table.unlink()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objektive": "sme"}, 'no option "objektive"'),
        ({"objective": "cbswrr"}, "cbswr"),
        ({"encoder": "resnett"}, "resnet"),
        ({"objective_options": {"taw": 1}}, "tau"),
        ({"views": "foto"}, "photo"),
        ({"views_options": {"scale": "1,0"}}, "scale"),
        ({"training_options": {"epochs": 3}}, "option of its own"),
        ({"training_options": {"lrr": 3}}, "lr"),
        ({"fit": "stretch"}, "squash"),
        ({"size": 4}, "at least 8"),
        ({"weights": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"device": "abacus"}, "abacus"),
        ({"where": {"a": 1}}, "manifest"),
        ({"setting": "seeen", "objective": "sme"}, "seen"),
    ],
)
def test_wrong_options(digits: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        learn(digits, tmp_path / "out.smb", **options)
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_start_a_training(built: Path, digits: Path, tmp_path: Path) -> None:
    weights = built / "model" / "model.safetensors"
    collection = learn(digits, tmp_path / "next.smb", weights=weights, **{**TINY, "epochs": 1})
    start = collection.model.start_weights()
    before = Collection.open(built).model.encoder.state_dict()
    assert start.keys() == before.keys()
    assert all((start[name] == before[name]).all() for name in start)
    assert collection.model.facts["training"]["start"] == "model.safetensors"


def test_report_and_bill_are_made_before_the_swap(digits: Path, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def report(collection: Collection) -> None:
        seen["folder"] = collection.path.name
        seen["rows"] = len(collection.embeddings)
        (collection.path / "report.html").write_text("report")

    plans: list[Any] = []
    collection = run(digits, tmp_path / "r.smb", report=report, on_plan=plans.append, **{**TINY, "epochs": 1})
    assert seen == {"folder": ".r.smb.building", "rows": COUNT}
    assert (collection.path / "report.html").read_text() == "report"
    assert collection.info["bill"] == json.loads(json.dumps(plans[0].record()))
    assert collection.info["bill"]["unreadable"] == 1


@pytest.mark.parametrize(
    ("source", "out", "name"),
    [
        ("some/photos", None, "photos.smb"),
        ("some/photos/*/a.png", None, "photos.smb"),
        ("list.csv", None, "list.smb"),
        ("photos", "x/y.smb", "y.smb"),
        (np.zeros((1, 2, 2), np.uint8), None, "images.smb"),
    ],
)
def test_default_place(source: Any, out: str | None, name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("path\n")
    target = target_of(source, out)
    assert target.name == name
    assert target.is_absolute()


def test_a_published_setting(digits: Path, tmp_path: Path) -> None:
    """`setting` is a default for everything: here the paper's crop of stored images."""
    options = {**TINY, "epochs": 1, "size": 34, "objective_options": {"reconstruction": 0}}
    collection = learn(digits, tmp_path / "r.smb", setting="released", **options)
    config = collection.info["config"]
    assert config["objective"]["config"]["variant"] == "released"
    assert config["views"]["chosen"] == "released"
    assert config["training"]["optimiser"] == "sgd"
    assert collection.pixels.shape[1:3] == (34, 34)
    assert collection.model.facts["crop"] == 30 / 34  # 224 of 256, in whole pixels
