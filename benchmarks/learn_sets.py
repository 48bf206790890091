"""The four image sets of `benchmarks/learn.py`: which images train, which score, at which size.

No label reaches a training: `train` is an array of pixels. `score` and `validation` carry labels and are
disjoint from `train` in classes (omniglot, cub100) or in images (cifar10, galaxyzoo1-small, where the
same classes are seen). Knobs are tuned on `validation`, with `tuning` as the training pixels, never on
`score`.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semblance.images.decode import decode

__all__ = ["SEEN", "SETS", "ImageSet", "bank_labels", "labelled", "open_set"]

SETS = {"cifar10": 32, "omniglot": 32, "cub100": 32, "galaxyzoo1-small": 32}
EPOCHS = {"cifar10": 2, "omniglot": 3, "cub100": 4, "galaxyzoo1-small": 2}
SEEN = ("cifar10", "galaxyzoo1-small", "clothing-small")
"""Sets whose training images are of the classes that score; clothing-small: `benchmarks/sweep.py` only."""
Array = np.ndarray[Any, np.dtype[Any]]
Row = dict[str, str]


@dataclass(frozen=True)
class ImageSet:
    """Pixels `(n, size, size, 3)` uint8 and integer labels; `split` is a hash of all paths and roles."""

    name: str
    size: int
    epochs: int
    train: Array
    tuning: Array
    score: Array
    labels: Array
    validation: Array
    validation_labels: Array
    split: str


def rows_of(root: Path, name: str) -> list[Row]:
    """The pack's label table."""
    with (root / name / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels_of(root: Path, name: str, rows: list[Row], size: int, cache: Path) -> Array:
    """Decoded pixels of `rows`, kept in `cache` between runs."""
    key = hashlib.blake2b("\n".join([name, str(size), *(r["path"] for r in rows)]).encode(), digest_size=8)
    path = cache / f"{name}-{key.hexdigest()}.npy"
    if not path.exists():
        made = np.stack([decode((root / name / r["path"]).read_bytes(), size, "squash").pixels for r in rows])
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, made)
    return np.load(path, mmap_mode="r")


def parts(name: str, rows: list[Row]) -> dict[str, list[Row]]:
    """train, score and validation rows of a set, shuffled once with a fixed seed."""
    rng = np.random.default_rng(20260101)
    rows = [rows[i] for i in rng.permutation(len(rows))]
    if name == "cifar10":
        train = [r for r in rows if r["split"] == "train"]
        test = [r for r in rows if r["split"] == "test"]
        return {
            "train": train[:10_000],
            "tuning": train[:10_000],
            "score": test[:5000],
            "validation": train[10_000:13_000],
        }
    if name == "clothing-small":
        named = {"train": "train", "tuning": "train", "score": "test", "validation": "validation"}
        return {part: [r for r in rows if r["split"] == split] for part, split in named.items()}
    if name == "galaxyzoo1-small":
        return {
            "train": rows[2400:],
            "tuning": rows[2400:],
            "score": rows[:1600],
            "validation": rows[1600:2400],
        }
    if name == "omniglot":
        background = [r for r in rows if r["split"] == "background"]
        held = set(sorted({r["alphabet"] for r in background})[::6])
        asked = set(sorted({r["class"] for r in rows if r["split"] == "evaluation"})[::2])
        return {
            "train": background[:4000],
            "tuning": [r for r in background if r["alphabet"] not in held][:4000],
            "score": [r for r in rows if r["split"] == "evaluation" and r["class"] in asked],
            "validation": [r for r in background if r["alphabet"] in held],
        }
    seen = [r for r in rows if r["class_split"] == "seen"]
    held = set(sorted({r["class"] for r in seen})[::5])
    return {
        "train": seen,
        "tuning": [r for r in seen if r["class"] not in held],
        "score": [r for r in rows if r["class_split"] == "unseen"],
        "validation": [r for r in seen if r["class"] in held],
    }


def open_set(root: Path, name: str) -> ImageSet:
    """One of the sets, from the unpacked folder `root/name`."""
    size, cache = SETS.get(name, 32), root / "learn-cache"
    split = parts(name, rows_of(root, name))
    text = "\n".join(f"{part} {r['path']}" for part in sorted(split) for r in split[part])
    made = {part: pixels_of(root, name, rows, size, cache) for part, rows in split.items()}
    return ImageSet(
        name=name,
        size=size,
        epochs=EPOCHS.get(name, 2),
        train=made["train"],
        tuning=made["tuning"],
        score=made["score"],
        labels=_numbers(split["score"]),
        validation=made["validation"],
        validation_labels=_numbers(split["validation"]),
        split=hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
    )


def bank_labels(root: Path, name: str) -> tuple[Array, Array]:
    """Labels of `train` and of `score` by one numbering: a classifier by neighbours needs both."""
    split = parts(name, rows_of(root, name))
    numbers = _numbers([*split["train"], *split["score"]])
    return numbers[: len(split["train"])], numbers[len(split["train"]) :]


def labelled(root: Path, target: str) -> tuple[Array, Array]:
    """Images and labels of *other* sets, 32 px, on which the start of setting (b) is trained.

    For cifar10: cub100's seen birds, clothing-small and galaxyzoo1-small. For the rest: 20,000 of cifar10.
    """
    cache = root / "learn-cache"
    if target != "cifar10":
        rows = [r for r in rows_of(root, "cifar10") if r["split"] == "train"]
        rows = [rows[i] for i in np.random.default_rng(7).permutation(len(rows))[:20_000]]
        return pixels_of(root, "cifar10", rows, 32, cache), _numbers(rows)
    images, classes = [], []
    for name in ("cub100", "clothing-small", "galaxyzoo1-small"):
        rows = [r for r in rows_of(root, name) if r.get("class_split", "seen") == "seen"]
        images.append(pixels_of(root, name, rows, 32, cache))
        classes += [f"{name}/{r['class']}" for r in rows]
    _, numbers = np.unique(classes, return_inverse=True)
    return np.concatenate(images), numbers


def _numbers(rows: list[Row]) -> Array:
    return np.unique([r["class"] for r in rows], return_inverse=True)[1]
