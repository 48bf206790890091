"""`import semblance`: what it offers, and that it opens at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import semblance


def test_everything_offered_is_there() -> None:
    for name in semblance.__all__:
        assert getattr(semblance, name) is not None
    assert set(semblance.__all__) <= set(dir(semblance))
    with pytest.raises(AttributeError, match="nothing"):
        semblance.nothing  # noqa: B018


def test_nothing_heavy_is_imported() -> None:
    program = "import sys, semblance; semblance.InputError; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert "semblance" in loaded
    assert not {"torch", "numpy", "pyarrow", "sklearn", "PIL"} & set(loaded)


def test_run_writes_the_report(tmp_path: Path) -> None:
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (24, 10, 10, 3), dtype=np.uint8)
    options = {"encoder": "resnet", "encoder_options": {"depth": 10, "width": 4}, "size": 32, "epochs": 1}
    collection = semblance.run(images, tmp_path / "x.smb", **options)
    assert "<html" in (collection.path / "report.html").read_text(encoding="utf-8")
    assert semblance.open(collection.path).info == collection.info
    assert semblance.load(collection.path).identity == collection.info["model"]
    (collection.path / "report.html").unlink()
    assert semblance.run(images, tmp_path / "x.smb").outcome == "up to date"
