from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORDS = ["--epochs", "16", "--batch", "16", "--size", "16", "--encoder", "resnet", "--encoder.width", "8"]
WORDS += ["--objective.clusters", "8", "--device", "cpu"]


def start(place: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "semblance.cli.main", "learn", "photos", *WORDS]
    return subprocess.Popen(words, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_is_safe_and_the_same_command_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(48):
        noise = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{index:02}.png")
    first = start(tmp_path)
    checkpoint = tmp_path / ".photos.smb.building" / "checkpoint" / "last.safetensors"
    until = time.monotonic() + 120
    while not checkpoint.exists() and first.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 130, err
    assert err.splitlines()[-1] == "stopped; run the same command to go on"
    assert "Traceback" not in err
    assert out == ""
    assert checkpoint.exists()
    assert not (tmp_path / "photos.smb").exists()
    seen = [line for line in err.splitlines() if line.startswith("epoch ")]
    second = start(tmp_path)
    out, err = second.communicate(timeout=240)
    assert second.returncode == 0, err
    assert out == "photos.smb\n"
    shown = [line for line in err.splitlines() if line.startswith("epoch ")]
    assert 0 < len(shown) < 16
    assert shown[-1].startswith("epoch 16: ")
    assert int(shown[0].split()[1].rstrip(":")) > len(seen)
    assert any(line.startswith("resumed: 48 files") for line in err.splitlines())
    assert len((tmp_path / "photos.smb" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 16
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
