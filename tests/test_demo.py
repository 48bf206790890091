from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parent.parent


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`examples/demo.py`, its training cut to one epoch, in an empty current folder."""
    spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("semblance.collection.settings.choose_epochs", lambda images: 1)
    return module


def test_the_digits_are_real_and_their_names_say_nothing(demo: ModuleType, tmp_path: Path) -> None:
    labels = demo.write_digits(tmp_path / "digits")
    with labels.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    digits = load_digits()
    assert [int(row["class"]) for row in rows] == digits.target.tolist()
    assert [row["path"] for row in rows] == [f"{i:04}.png" for i in range(1797)]
    assert {path.name for path in (tmp_path / "digits").iterdir()} == {row["path"] for row in rows}
    for index in (0, 5, 1796):
        image = Image.open(tmp_path / "digits" / f"{index:04}.png")
        assert (image.mode, image.size) == ("L", (32, 32))
        small = np.asarray(image, dtype=np.float64).reshape(8, 4, 8, 4).mean((1, 3))
        assert np.corrcoef(small.ravel(), digits.images[index].ravel())[0, 1] > 0.98
    before = labels.stat().st_mtime_ns
    assert demo.write_digits(tmp_path / "digits").stat().st_mtime_ns == before


@pytest.mark.parametrize("classes", [True, False])
def test_a_folder_of_ones_own(
    classes: bool, demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for index in range(24):
        path = tmp_path / "mine" / (f"kind{index % 2}" if classes else "") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 127, (16, 16, 3), dtype=np.uint8) + np.uint8(index % 2 * 120)).save(
            path
        )
    demo.main(tmp_path / "mine")
    printed = capsys.readouterr().out
    scored = [
        line.split("  ")[0]
        for line in printed.splitlines()
        if line.startswith(("raw", "whitened", "untrained", "learned"))
    ]
    assert scored == (["raw pixels", "whitened pixels", "untrained encoder", "learned"] if classes else [])
    report = printed.splitlines()[-1].partition("open ")[2]
    assert (tmp_path / report).read_text(encoding="utf-8").startswith("<!")
