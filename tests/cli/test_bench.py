"""`semblance bench`: what it prints, what it keeps, what it says where something is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from semblance.cli.main import semblance
from semblance.collection import bench

RECIPE = """# semblance bench mine.toml
size = 16
epochs = 1
batch = 16
device = "cpu"
precision = "32"

[objective]
name = "sme"
dim = 16

[encoder]
name = "resnet"
depth = 10
width = 4

[data]
folder = "photos"
held_out = 0.5

[get]
data = "photos go here"
"""


def call(*words: str) -> Result:
    return CliRunner().invoke(semblance, ["bench", *words])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe and the images of its four classes, in the current folder."""
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "photos" / "abcd"[i % 4] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 60 * (i % 4 + 1), (12, 12, 3), dtype=np.uint8)).save(path)
    (tmp_path / "mine.toml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_seeds_are_added_and_not_repeated(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = call("mine.toml")
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    assert lines[0].startswith("mine (")
    assert "20 images learn, 20 of 4 classes are scored" in lines[0]
    assert lines[1].split() == ["R@1", "MAP@R", "NMI", "AMI", "kNN@20"]
    names = [line.split("  ")[0] for line in lines[2:6]]
    assert names == ["raw pixels", "whitened pixels", "untrained encoder", "learned"]
    kept = rows(desk / "bench" / "results.jsonl")
    assert [row["seed"] for row in kept] == [0]
    assert f"{kept[0]['rows']['learned']['recall@1']:.4f}" in lines[5]
    more = call("mine.toml", "--seeds", "2")
    assert more.exit_code == 0, more.output
    assert "mine, seed 1: " in more.stderr
    assert "mine, seed 0: " not in more.stderr
    assert "±" in more.stdout
    assert "over 2 seeds" in more.stdout
    monkeypatch.delattr(bench, "run_seed")
    again = call("mine.toml", "--seeds", "2", "--json")
    assert again.exit_code == 0, again.output
    said = json.loads(again.stdout)
    assert (said["recipe"], said["seeds"]) == ("mine", [0, 1])
    values = [row["rows"]["learned"]["map@r"] for row in rows(desk / "bench" / "results.jsonl")]
    assert said["rows"]["learned"]["map@r"]["mean"] == pytest.approx(np.mean(values))


def test_the_line_may_change_the_recipe(desk: Path) -> None:
    words = ["--objective.dim", "8", "--images", "12", "--epochs", "2", "--out", "here.jsonl", "--json"]
    done = call("mine.toml", *words)
    assert done.exit_code == 0, done.output
    [row] = rows(desk / "here.jsonl")
    assert (row["trained"], row["images"], row["epochs"]) == (12, 12, 2)
    assert list(desk.glob("mine-*.smb"))
    assert not (desk / "bench").exists()


def test_a_dry_run_does_nothing(desk: Path) -> None:
    before = sorted(desk.iterdir())
    done = call("mine.toml", "--seeds", "3", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "seeds to run: 0, 1, 2, 0 of 3 are in" in done.stdout
    assert "1 epoch of 16 images a step" in done.stdout
    told = json.loads(call("mine.toml", "--dry-run", "--json").stdout)
    assert told["images"] == {"train": 20, "bank": 20, "score": 20}
    assert told["settings"]["objective"]["name"] == "sme"
    assert told["seeds"] == [0]
    assert sorted(desk.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "code", "wanted"),
    [
        (["mine.toml", "--data", "x", "--dry-run"], 3, ["not in x", "hint: photos go here; --data FOLDER"]),
        (["mine.toml", "--weights", "x.st", "--dry-run"], 3, ["x.st are missing", "--weights FILE"]),
        (["main.toml"], 3, ["no recipe main.toml", "mine.toml"]),
        (["mine.toml", "--objective.dimm", "8"], 2, ['sme has no option "dimm"', "known: dim"]),
        (["mine.toml", "--coder.bits", "8"], 2, ["a recipe has no coder"]),
        (["mine.toml", "--seeds", "0"], 2, ["--seeds"]),
        (["mine.toml", "--epochs", "x"], 2, ["--epochs"]),
        (["mine.toml", "--size", "4", "--dry-run"], 2, ["size is 4"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_line(desk: Path, words: list[str], code: int, wanted: list[str]) -> None:
    done = call(*words)
    assert done.exit_code == code
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert all(word in done.stderr for word in wanted)
    assert not (desk / "bench").exists()


def test_stopped_in_the_middle(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench.run_seed

    def stops_at_one(task: Any, out: Path, seed: int, progress: Any) -> dict[str, Any]:
        if seed:
            raise KeyboardInterrupt
        return real(task, out, seed, progress)

    with monkeypatch.context() as patch:
        patch.setattr(bench, "run_seed", stops_at_one)
        assert call("mine.toml", "--seeds", "2").exit_code == 130
    assert [row["seed"] for row in rows(desk / "bench" / "results.jsonl")] == [0]
    assert call("mine.toml", "--seeds", "2").exit_code == 0
    assert [row["seed"] for row in rows(desk / "bench" / "results.jsonl")] == [0, 1]
