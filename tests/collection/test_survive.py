"""Killed at any moment, or with a full disk: the next run completes, and the old collection stays."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.collection.conftest import TINY

from semblance.collection import disk, plan
from semblance.collection.build import learn
from semblance.collection.store import Collection
from semblance.errors import CollectionError

Snapshot = Callable[[Path], dict[str, Any]]
posix = pytest.mark.skipif(os.name == "nt", reason="forks and signals")


LIMITS = (500, 100_000, 200_000)
RENAMES = (1, 2)
OVERWRITE = {**TINY, "seed": 1, "overwrite": True}


@pytest.fixture(scope="module")
def stage(
    built: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, list[dict[str, Any]]]]:
    """(the collection, what each attempt came to) of a scene; all are played in one process, see `killer`."""
    scenes: dict[str, dict[str, Any]] = {
        "random": {
            "kind": "random",
            "attempts": 6,
            "seed": 0,
            "options": {**TINY, "epochs": 3, "overwrite": True},
        }
    }
    scenes |= {f"rename {n}": {"kind": "rename", "n": n, "options": OVERWRITE} for n in RENAMES}
    scenes |= {f"limit {b}": {"kind": "limit", "bytes": b, "options": OVERWRITE} for b in LIMITS}
    for name, scene in scenes.items():
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(digits, folder / "photos")
        if scene["kind"] != "random":
            shutil.copytree(built, folder / "photos.smb")
            (folder / "photos.smb" / "labels.sqlite").write_bytes(b"said")
        scene |= {"source": str(folder / "photos"), "out": str(folder / "photos.smb")}
    run = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "killer.py")],
        input=json.dumps(list(scenes.values())),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    told = dict(zip(scenes, json.loads(run.stdout), strict=True))
    return lambda name: (Path(scenes[name]["out"]), told[name])


Stage = Callable[[str], tuple[Path, list[dict[str, Any]]]]


@posix
def test_killed_at_random_moments(stage: Stage, snapshot: Snapshot) -> None:
    out, (whole, *tries, last) = stage("random")
    assert whole == {"code": 0, "outcome": "built"}
    assert sum(one["code"] == -9 for one in tries) >= 3
    assert {one["code"] for one in tries} <= {-9, 0}
    assert last["code"] == 0
    assert snapshot(out) == snapshot(out.with_name("photos.smb.whole.smb"))
    assert {path.name for path in out.parent.iterdir()} == {"photos", "photos.smb", "photos.smb.whole.smb"}


@posix
@pytest.mark.parametrize("n", RENAMES)
def test_killed_in_the_middle_of_the_swap(stage: Stage, built: Path, snapshot: Snapshot, n: int) -> None:
    out, (first, second) = stage(f"rename {n}")
    assert first["code"] == 77
    assert second["code"] == 0
    after = snapshot(out)
    assert after["model"] != snapshot(built)["model"]
    assert (out / "labels.sqlite").read_bytes() == b"said"
    assert {path.name for path in out.parent.iterdir()} == {"photos", "photos.smb"}
    assert not {"building.json", "checkpoint", "checkpoint.of"} & {path.name for path in out.iterdir()}


@posix
@pytest.mark.parametrize("limit", LIMITS)
def test_disk_full(stage: Stage, built: Path, snapshot: Snapshot, limit: int) -> None:
    out, (first, second) = stage(f"limit {limit}")
    assert (first["code"], first["error"]) == (3, "CollectionError")
    assert "disk is full" in first["message"]
    assert "\n" not in first["message"] + first["hint"]
    assert second["code"] == 0
    assert snapshot(out)["model"] != snapshot(built)["model"]
    assert {path.name for path in out.parent.iterdir()} == {"photos", "photos.smb"}


@posix
def test_disk_full_leaves_the_old_collection(
    pair: tuple[Path, Path], snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = pair
    before = snapshot(out)
    Image.new("RGB", (9, 9), "red").save(photos / "new.png")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "embeddings.npy")

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(CollectionError, match="disk is full"):
        learn(photos, out)
    monkeypatch.undo()
    assert snapshot(out) == before
    assert learn(photos, out).outcome.startswith("updated: 1 new")


def test_too_small_a_disk_is_told_before_anything_is_made(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(CollectionError, match=r"needs about .* MB and 1 MB are free"):
        learn(digits, tmp_path / "out.smb", **TINY)
    assert not (tmp_path / "out.smb").exists()


@pytest.mark.parametrize(
    ("there", "whole", "left"), [(True, True, "t"), (False, True, "b"), (False, False, "o")]
)
def test_recover(tmp_path: Path, there: bool, whole: bool, left: str) -> None:
    target = tmp_path / "x.smb"
    folders = {"t": target, "b": disk.building_folder(target), "o": tmp_path / ".x.smb.old"}
    for name, folder in folders.items():
        if name != "t" or there:
            folder.mkdir()
            (folder / "mark").write_text(name)
    disk.recover(target, lambda folder: whole)
    assert (target / "mark").read_text() == left
    assert not folders["o"].exists()


def test_images_that_came_while_a_build_was_stopped(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of other images is of no use; it must not end up in the model."""
    photos, _ = pair
    out = photos.parent / "late.smb"

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "learn" and done * 2 > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(photos, out, progress=stop, **TINY)
    assert (disk.building_folder(out) / "checkpoint").is_dir()
    (photos / "0" / "0000.png").unlink()
    late = learn(photos, out, **TINY)
    assert late.outcome == "resumed"
    fresh = learn(photos, photos.parent / "fresh.smb", **TINY)
    assert late.info["model"] == fresh.info["model"]
    assert Collection.open(out).info["counts"]["readable"] == 59
