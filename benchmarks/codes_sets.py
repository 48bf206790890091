"""The one embedding per image set that every coder of `benchmarks/codes.py` is given.

Learned here without any label: SME on the images of `split` train (cifar10) or background (omniglot), a
resnet of depth 10 and width 16 from random weights, 128 dimensions, seed 0. The images that ask and those
that are asked for (test, evaluation) are in no training. Kept in `.data/learn-cache`.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from learn_sets import pixels_of, rows_of
from semblance import plugins
from semblance.images.views import PRESETS
from semblance.training.config import TrainConfig
from semblance.training.embed import embed
from semblance.training.loop import train

__all__ = ["SETS", "Embedded", "open_embedded"]

Array = np.ndarray[Any, np.dtype[Any]]
SETS: dict[str, tuple[str, str, int]] = {
    "cifar10": ("train", "photo", 6),
    "omniglot": ("background", "document", 12),
}
"""Name -> the split that trains, its views, epochs."""
OBJECTIVE = "sme"


@dataclass(frozen=True)
class Embedded:
    """`x` `(n, 128)` float32, rows of length 1; `labels` `(n,)` int64; `trained` `(n,)`, True where the image
    was seen by the training of the embedding. `about`: how it was made."""

    name: str
    x: Array
    labels: Array
    trained: Array
    about: str


def open_embedded(root: Path, name: str) -> Embedded:
    """The embedding of all images of `name`, from the cache or learned now (minutes)."""
    part, views, epochs = SETS[name]
    rows = rows_of(root, name)
    labels = np.unique([row["class"] for row in rows], return_inverse=True)[1].astype(np.int64)
    trained = np.array([row["split"] == part for row in rows])
    path = root / "learn-cache" / f"codes-{name}-{OBJECTIVE}-{epochs}.npy"
    about = (
        f"{OBJECTIVE}, resnet depth 10 width 16, {epochs} epochs on {int(trained.sum()):,} unlabelled images "
        f"of the {part} split, 128 dimensions"
    )
    if not path.exists():
        pixels = pixels_of(root, name, rows, 32, root / "learn-cache")
        x = learn(pixels, np.flatnonzero(trained), views, epochs)
        np.save(path, x)
    return Embedded(name, np.load(path), labels, trained, about)


def learn(pixels: Array, seen: Array, views: str, epochs: int) -> Array:
    """Embeddings `(n, 128)` of `pixels`, learned on the rows `seen`."""
    torch.manual_seed(0)
    net = plugins.get("encoders", "resnet").build(
        plugins.configure("encoders", "resnet", {"depth": 10, "width": 16, "stem": "64", "size": 32})
    )
    learner = plugins.get("objectives", OBJECTIVE).Objective(
        plugins.configure("objectives", OBJECTIVE, {}), net
    )
    config = TrainConfig(
        epochs=epochs, batch=64, optimiser="adamw", lr=2e-3, patience=0, views=PRESETS[views]
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        train(np.asarray(pixels[seen]), learner, config, Path(folder), 32)
    print(f"embedding learned in {time.monotonic() - began:.0f} s", flush=True)
    return embed(learner.encoder, learner.head, pixels, 32).astype(np.float32)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for one in SETS:
        found = open_embedded(Path(".data"), one)
        print(one, found.x.shape, found.about)
