"""The bill: what it counts, what it costs to make, that it holds for a small run."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.collection.conftest import COUNT, TINY

from semblance.collection import memory, plan, trial
from semblance.collection.build import run
from semblance.collection.settings import Options
from semblance.errors import InputError

SHORT = {**TINY, "training_options": {"batch": 16}}


def test_counts_and_choices(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bill = plan.plan(digits, **SHORT)
    assert (bill.images, bill.unreadable, bill.checked) == (COUNT + 1, 1, "every file was decoded")
    assert (bill.encoder, bill.size, bill.batch, bill.epochs, bill.steps) == ("resnet", 32, 16, 2, 6)
    assert bill.seconds.keys() == {"decode", "train", "embed", "encode", "report"}
    assert bill.total_seconds == pytest.approx(sum(bill.seconds.values()))
    assert json.loads(json.dumps(bill.record()))["encoder_options"]["width"] == 4
    assert list(tmp_path.iterdir()) == []


def test_disk_is_what_is_taken(digits: Path, tmp_path: Path) -> None:
    bills: list[plan.Plan] = []
    collection = run(digits, tmp_path / "x.smb", on_plan=bills.append, **TINY)
    taken = sum(path.stat().st_size for path in collection.path.rglob("*") if path.is_file())
    assert collection.info["actual"]["disk"] <= taken
    assert taken <= bills[0].disk <= taken + (3 << 20)


def test_a_sample_of_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SAMPLE", 40)
    monkeypatch.setattr(trial, "DECODE_SECONDS", 1e6)
    rng = np.random.default_rng(0)
    for i in range(200):
        if i % 10 == 3:
            (tmp_path / f"{i:03}.jpg").write_bytes(b"no image at all")
        else:
            Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(tmp_path / f"{i:03}.png")
    bill = plan.plan(tmp_path, **SHORT)
    assert (bill.images, bill.unreadable) == (200, 20)
    assert bill.checked == "estimated: 40 files decoded, the first bytes of all read"


def test_nothing_readable(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(b"no image at all")
    with pytest.raises(InputError, match="none of 3 files"):
        plan.plan(tmp_path, **TINY)


def test_survey_takes_the_median_short_side(tmp_path: Path) -> None:
    for i, shape in enumerate([(30, 90), (200, 50), (70, 70)]):
        Image.new("RGB", shape, "blue").save(tmp_path / f"{i}.png")
    assert plan.survey(plan.scan(tmp_path), Options()).side == 50
    assert plan.survey(plan.scan(np.zeros((3, 9, 7, 3), np.uint8)), Options()).side == 7


def test_peak_memory_can_be_begun_again() -> None:
    with mmap.mmap(-1, 100_000_000) as held:  # a peak well above what stays resident
        held.write(b"x" * len(held))
    if not memory.forget_peak():
        pytest.skip("this system does not let a process begin its peak again")
    before = memory.peak_memory()
    with mmap.mmap(-1, 50_000_000) as block:  # not from the C library, which may hold freed memory ready
        block.write(b"x" * len(block))
        grown = memory.peak_memory()
    assert 45e6 < grown - before < 80e6
    memory.forget_peak()
    assert memory.peak_memory() < grown - 40e6


def test_runs_are_neighbours_from_everywhere() -> None:
    assert trial.runs(10, 20).tolist() == list(range(10))
    rows = trial.runs(1_000, 64)
    assert len(rows) == 64
    assert (rows[0], rows[-1]) == (0, 999)
    assert (np.diff(rows) == 1).sum() == 56
    for n, most in [(33, 32), (100, 99), (41, 40)]:
        assert len(set(trial.runs(n, most).tolist())) <= most


def test_a_first_look_at_nothing_but_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "FEW", 8)
    for i in range(80):
        if i % 10 in (3, 4, 5):  # between the eight runs of one file each
            Image.new("RGB", (9, 9), (i, 2 * i, 3 * i)).save(tmp_path / f"{i:02}.png")
        else:
            (tmp_path / f"{i:02}.png").write_bytes(b"")
    looked = [i for i in trial.runs(80, 8).tolist() if i % 10 in (3, 4, 5)]
    for i in looked:
        (tmp_path / f"{i:02}.png").write_bytes(b"")
    bill = plan.plan(tmp_path, **SHORT)
    assert (bill.images, bill.unreadable) == (80, 56 + len(looked))
