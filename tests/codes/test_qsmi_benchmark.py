"""The demo's setting in `benchmarks/qsmi.py`: its network, its files, and its score where the images are."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
IMAGES = ROOT / ".data" / "fashion-mnist"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    path = ROOT / "benchmarks" / "qsmi.py"
    spec = importlib.util.spec_from_file_location("qsmi_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


def test_the_demo_runs_on_files_of_its_format(benchmark: Any, tmp_path: Path) -> None:
    """Three classes of bright squares in three places are told apart at once."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 300), ("t10k", 30)):
        y = rng.integers(0, 3, n).astype(np.uint8)
        images = rng.integers(0, 60, (n, 28, 28), dtype=np.uint8)
        for i in range(n):
            images[i, 8 * y[i] : 8 * y[i] + 10, 4:20] += 150
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", y)
        assert np.array_equal(benchmark.read_idx(tmp_path / f"{part}-images-idx3-ubyte.gz"), images)
    found = benchmark.fashion(tmp_path, bits=12, epochs=3)
    assert found["map11"] > 0.9
    assert found["precision@radius2"] > 0.9


def test_the_demo_network(benchmark: Any) -> None:
    """1x28x28 -> 32x12x12 -> 64x4x4 -> bits; 856 + 51,264 + 24 (1024 + 1) parameters."""
    net = benchmark.demo_network(24)
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 24)
    assert sum(weight.numel() for weight in net.parameters()) == 32 * 26 + 64 * 801 + 24 * 1025


def test_codes_filled_up_to_bytes_keep_their_distances(benchmark: Any) -> None:
    bits = np.random.default_rng(0).random((20, 12)) < 0.5
    codes = benchmark.packed(bits)
    assert codes.shape == (20, 2)
    far = np.unpackbits(codes[:, None] ^ codes[None], axis=2).sum(2)
    assert np.array_equal(far, (bits[:, None] != bits[None]).sum(2))


@pytest.mark.skipif(not IMAGES.is_dir(), reason="Fashion-MNIST is not in .data/fashion-mnist")
def test_fashion_mnist(benchmark: Any) -> None:
    assert benchmark.fashion(IMAGES)["map11"] >= 0.86
