"""A collection that exists only in memory, with everything the report can show."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

HOSTILE = [
    "empty\nfile.jpg",
    "\"quoted\" & 'single' <script>alert(1)</script>.png",
    "</script><script>alert(2)</script>",
    "völkl – 日本語 – 🙂.webp",
    "../up/\u202egpj.exe",
    "a" * 250 + ".jpg",
    "<!-- --><img src=x onerror=alert(3)>",
]


def make(
    n: int = 60,
    bad: int = 7,
    copies: int = 3,
    epochs: int = 5,
    labels: bool = False,
    evaluation: Any = None,
    embeddings: Any = None,
    side: int = 16,
    folder: str = "photos.smb",
    seed: int = 0,
) -> Any:
    """`n` readable images in three coloured groups, the last `copies` equal to the first."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 3
    pixels = rng.integers(0, 60, (n, side, side, 3), dtype=np.uint8)
    pixels[np.arange(n), :, :, group] += 160
    x = rng.normal(0, 0.3, (n, 8)) + np.eye(8)[group] * 2
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    duplicate_of: list[int | None] = [None] * (n + bad)
    for i in range(copies):
        pixels[n - 1 - i], x[n - 1 - i], duplicate_of[n - 1 - i + bad] = pixels[0], x[0], bad
    names = [HOSTILE[i % len(HOSTILE)] + ("" if i < len(HOSTILE) else f".{i}") for i in range(bad)]
    columns = {
        "id": list(range(n + bad)),
        "row": [-1] * bad + list(range(n)),
        "path": names + [f"{'rgb'[group[i]]}/{i:04d} & <b>.png" for i in range(n)],
        "duplicate_of": pa.array(duplicate_of, pa.int64()),
        "status": [f"unreadable: bad <chunk> {i}" for i in range(bad)] + ["ok"] * n,
    }
    if labels:
        columns["label"] = [None] * bad + [f"class {'rgb'[g]} <i>" for g in group]
    info = {
        "name": "photos",
        "model": "0123456789abcdef",
        "counts": {"images": n + bad, "unreadable": bad, "duplicates": copies},
        "config": {
            "objective": {"name": "cbswr", "config": {"clusters": 16}},
            "encoder": {"name": "resnet"},
            "size": side,
            "where": "</script><script>alert(4)</script>",
        },
        "bill": {
            "images": n + bad,
            "seconds": {"decode": 2.0, "train": 100.0, "report": 3.0},
            "memory": 10**9,
            "disk": 5 * 10**6,
        },
        "actual": {
            "seconds": {"decode": 1.0, "train": 150.0, "total": 151.0},
            "peak_memory": 12 * 10**8,
            "disk": 5 * 10**6,
        },
        "evaluation": evaluation,
        "created": "2026-03-01T12:30:05+00:00",
        "version": "0.1.0",
    }
    return SimpleNamespace(
        path=Path("/nowhere") / folder,
        info=info,
        images=pa.table(columns),
        pixels=pixels,
        embeddings=x if embeddings is None else np.asarray(embeddings, np.float32),
        metrics=lambda: [line(epoch) for epoch in range(1, epochs + 1)],
    )


def line(epoch: int) -> dict[str, Any]:
    """One line of `metrics.jsonl`."""
    fall = math.exp(-epoch / 3)
    return {
        "epoch": epoch,
        "seconds": 1.0,
        "lr": 1e-3 / epoch,
        "loss": 1 + 3 * fall,
        "terms": {"metric": 0.8 + 2 * fall, "<i>rim": 0.2 + fall},
        "stats": {},
        "health": {
            "effective_rank": 10 - 4 * fall,
            "positive_cosine": 0.9 - fall / 2,
            "mean_cosine": fall,
            "gradient_shares": {"metric": 0.8, "<i>rim": 0.2},
        },
    }


def evaluated() -> dict[str, Any]:
    """A table as `evaluate` returns it."""
    return {
        "rows": {
            "raw pixels": {"recall@1": 0.5, "r-precision": 0.3, "nmi": 0.2},
            "untrained encoder": {"recall@1": 0.4, "r-precision": 0.3, "nmi": 0.1},
            "learned": {"recall@1": 0.7, "r-precision": 0.1, "nmi": 0.4},
        },
        "intervals": {
            "raw pixels": {"recall@1": [0.45, 0.55], "nmi": None},
            "learned": {"recall@1": [0.65, 0.75]},
        },
        "differences": {
            "raw pixels": {"recall@1": {"mean": 0.1, "low": -0.1, "high": 0.3, "significant": False}},
            "learned": {
                "recall@1": {"mean": 0.3, "low": 0.2, "high": 0.4, "significant": True},
                "r-precision": {"mean": -0.2, "low": -0.3, "high": -0.1, "significant": True},
            },
        },
        "reference": "untrained encoder",
        "column": "class",
    }


@pytest.fixture
def collection() -> Any:
    """The usual one."""
    return make()


@pytest.fixture
def build() -> Any:
    """The maker itself, for other shapes."""
    return make


@pytest.fixture
def evaluation() -> dict[str, Any]:
    """The table of an evaluation."""
    return evaluated()


@pytest.fixture
def without_tsne(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra `map` were not installed: faster, and the other branch."""
    import sys

    monkeypatch.setitem(sys.modules, "openTSNE", None)
