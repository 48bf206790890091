"""Labels on their way to a training: read, in row order, made numbers, refused where they do not fit."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semblance.collection import labelled
from semblance.collection.build import learn
from semblance.collection.estimator import Embedder
from semblance.collection.plan import plan
from semblance.collection.store import Collection
from semblance.errors import ConfigError, InputError

TINY: dict[str, Any] = {
    "encoder": "resnet",
    "encoder_options": {"depth": 10, "width": 4},
    "size": 16,
    "epochs": 1,
    "device": "cpu",
    "precision": "32",
    "objective": "orthohash",
    "objective_options": {"dim": 16},
}


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Twelve images in one folder and one that cannot be read; beside it `labels.csv` for ten of them."""
    folder = tmp_path / "flat"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    (folder / "05b.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "kind", "tags"])
        rows.writerows([f"{i:02}.png", f"k{i % 3}", "a|b" if i % 2 else "b"] for i in range(10))
        rows.writerow(["05b.png", "k7", "c"])
    return folder


def spied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `taught.npy` holds while a training runs."""
    seen: list[Any] = []
    read = labelled.read
    monkeypatch.setattr(labelled, "read", lambda folder: (seen.append(read(folder)), read(folder))[1])
    return seen


def test_targets() -> None:
    found, names = labelled.targets(["b", None, "a", float("nan"), "", "b", 3, -1])
    assert names == ["3", "a", "b"]
    assert found.tolist() == [2, -1, 1, -1, -1, 2, 0, -1]
    for several in (["a|b", "b", None], [["a", "b"], "b", []], [("a", "b"), {"b"}, ""]):
        found, names = labelled.targets(several)
        assert names == ["a", "b"]
        assert found.dtype == np.bool_
        assert found.tolist() == [[True, True], [False, True], [False, False]]
    matrix = np.array([[True, True, False], [False, False, True], [False, False, False]])
    assert labelled.targets(list(matrix))[0].tolist() == matrix.tolist()
    assert labelled.targets(list(np.array([2, -1, 0])))[0].tolist() == [1, -1, 0]


def test_a_table(flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in the order of the store, without the unreadable one; said in the configuration and the card."""
    seen = spied(monkeypatch)
    table = tmp_path / "labels.csv"
    made = learn(flat, tmp_path / "a.smb", labels=table, column="kind", **TINY)
    assert seen[0].tolist() == [0, 1, 2] * 3 + [0, -1, -1]
    assert made.info["config"]["labels"].startswith("kind of labels.csv (")
    assert not (made.path / labelled.TAUGHT).exists()
    text = (made.path / "model" / "card.md").read_text()
    assert "Learned from labels, kind of labels.csv" in text
    assert "without labels" not in text
    scores = made.evaluate(table, "kind")
    assert scores["taught"] == made.info["config"]["labels"]
    assert learn(flat, tmp_path / "a.smb", labels=table, column="kind", **TINY).outcome == "up to date"
    assert learn(flat, tmp_path / "a.smb", **TINY).outcome == "up to date"
    with pytest.raises(InputError, match=r"asked for tags of labels\.csv"):
        learn(flat, tmp_path / "a.smb", labels=table, column="tags", **TINY)
    several = learn(flat, tmp_path / "b.smb", labels=table, column="tags", **TINY)
    assert seen[-1].shape == (12, 2)
    assert seen[-1].tolist()[:2] == [[False, True], [True, True]]
    assert several.info["model"] != made.info["model"]


def test_folders_mappings_lists_and_a_manifest(
    flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spied(monkeypatch)
    wanted = [0, 1, 2] * 3 + [0, -1, -1]
    mapping = {f"{i:02}.png": f"k{i % 3}" for i in range(10)}
    learn(flat, tmp_path / "a.smb", labels=mapping, **TINY)
    assert seen[-1].tolist() == wanted
    learn(flat, tmp_path / "b.smb", labels=[*mapping.values(), None, None], **TINY)
    assert seen[-1].tolist() == wanted
    manifest = flat / "manifest.csv"
    manifest.write_text("path,kind\n" + "".join(f"{name},{kind}\n" for name, kind in mapping.items()))
    done = learn(manifest, tmp_path / "c.smb", column="kind", **TINY)
    assert seen[-1].tolist() == wanted[:10]
    assert done.info["config"]["labels"].startswith("kind of manifest.csv")
    for name, kind in mapping.items():
        (flat / kind).mkdir(exist_ok=True)
        (flat / name).rename(flat / kind / name)
    for left in flat.glob("*.*"):
        left.unlink()
    done = learn(flat, tmp_path / "d.smb", **TINY)
    assert sorted(seen[-1].tolist()) == sorted(wanted[:10])
    assert done.info["config"]["labels"] == "names of folders"


def test_what_does_not_fit(flat: Path, tmp_path: Path) -> None:
    """One line, before anything is decoded."""
    table, out = tmp_path / "labels.csv", tmp_path / "a.smb"
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ConfigError, "orthohash learns from labels, and all images lie in one folder", {}),
        (ConfigError, "a column was named without a table", {"column": "kind"}),
        (ConfigError, "sme learns without labels", {"objective": "sme", "labels": table}),
        (ConfigError, "sme learns without labels", {"objective": "sme", "column": "kind"}),
        (ConfigError, 'no column "kin"', {"labels": table, "column": "kin"}),
        (ConfigError, "several columns", {"labels": table}),
        (InputError, "do not exist", {"labels": tmp_path / "none.csv", "column": "kind"}),
        (InputError, "name 1 classes", {"labels": {"01.png": "a", "02.png": "a"}}),
        (InputError, "none of the labels belongs", {"labels": {"x.png": "a"}}),
    ]
    for kind, message, options in cases:
        plain = {"objective_options": {}} if "objective" in options else {}
        for make in (learn, plan):
            with pytest.raises(kind, match=message):
                make(flat, out, **{**TINY, **plain, **options})
        assert not out.exists()
    with pytest.raises(InputError, match="3 labels for 12 readable images"):
        learn(flat, out, labels=["a", "b", "a"], **TINY)


def test_a_bill(flat: Path, tmp_path: Path) -> None:
    """The trial learns from labels of as many classes; so does a sum."""
    found = plan(flat, labels=tmp_path / "labels.csv", column="kind", **TINY)
    assert found.objective == "orthohash"
    assert found.total_seconds > 0
    options = {**TINY, "objective": "sme+qsmi", "objective_options": {"sme.dim": 8, "qsmi.dim": 8}}
    done = learn(flat, tmp_path / "s.smb", labels=tmp_path / "labels.csv", column="kind", **options)
    assert Collection.open(done.path).model.dim == 8


def test_the_estimator_takes_y(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)
    options = {name: value for name, value in TINY.items() if name != "precision"}
    y = np.array([0, 1, 2] * 3 + [-1] * 3)
    made = Embedder(**options, out=tmp_path / "x.smb").fit(pixels, y)
    assert made.embedding_.shape == (12, 16)
    assert Collection.open(tmp_path / "x.smb").info["config"]["labels"].startswith("labels given (")
    with pytest.raises(ConfigError, match="orthohash learns from labels"):
        Embedder(**options).fit(pixels)


def test_codes_of_several_labels(flat: Path, tmp_path: Path) -> None:
    """A coder takes them too."""
    made = learn(flat, tmp_path / "a.smb", labels=tmp_path / "labels.csv", column="kind", **TINY)
    packed = made.encode("csq", 16, tmp_path / "labels.csv", "tags", epochs=2)
    assert packed.shape == (12, 2)
