"""Where does the time of a training step go? The default on one core: views, encoder, loss, optimiser.

    python benchmarks/step.py [--rounds 3]      # writes docs/results/step.md

A round is a training of one epoch of 2,560 images of cifar10 after one that warms up: the encoder, batch and
optimiser of `benchmarks/sweep.py`. Parts are timed where they are called; the backward pass and the loop are
the rest. Beside it the same with AdamW, with drawn views only, with nothing measured and with nothing asked
of the earlier stages: what Muon, plain first views, the prediction of measurements and those contrasts cost.
Time it while nothing else runs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from learn import machine
from learn_sets import open_set
from semblance import plugins
from semblance.images.formats import PHOTO
from semblance.images.measure import measure_store
from semblance.images.views import PRESETS
from semblance.training import loop
from semblance.training.batches import Batches
from semblance.training.config import TrainConfig
from sweep import PACE_IMAGES, encoder

WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "the default": ({}, "muon"),
    "AdamW": ({}, "adamw"),
    "drawn views only": ({"plain": 0.0}, "muon"),
    "nothing measured": ({"measured": 0.0}, "muon"),
    "last stage alone": ({"beneath": 0.0}, "muon"),
}
PARTS = ("views", "encoder, forward", "loss, forward", "backward", "optimiser")
Array = np.ndarray[Any, np.dtype[Any]]


def epoch(pixels: Array, options: dict[str, Any], optimiser: str) -> dict[str, float]:
    """Seconds of an epoch, whole and by part."""
    torch.manual_seed(0)
    config = plugins.configure("objectives", "cbswr", options)
    learner = plugins.get("objectives", "cbswr").Objective(config, encoder(pixels))
    if hasattr(learner, "take_columns"):
        learner.take_columns(measure_store(pixels, PHOTO))
    spent: dict[str, float] = defaultdict(float)

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                spent[part] += time.perf_counter() - begin

        return run

    def made(*given: Any) -> Any:
        found = real(*given)
        found.step = timed("optimiser", found.step)
        return found

    def ended(training: Any, number: int) -> None:
        kept.update(spent, whole=time.perf_counter() - begun)  # what comes after is no part of it
        close(training, number)

    kept: dict[str, float] = {}
    real, close = loop.optimiser_for, loop._Training._end_epoch
    how = TrainConfig(epochs=1, batch=128, optimiser=optimiser, lr=2e-3, patience=0, views=PRESETS["photo"])
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(mock.patch.object(Batches, "__call__", timed("views", Batches.__call__)))
        stack.enter_context(mock.patch.object(loop, "optimiser_for", made))
        way = "maps" if learner.beneath is None else "stages"
        through = timed("encoder, forward", getattr(learner.encoder, way))
        stack.enter_context(mock.patch.object(learner.encoder, way, through))
        stack.enter_context(mock.patch.object(learner, "forward", timed("forward", learner.forward)))
        stack.enter_context(mock.patch.object(loop._Training, "_end_epoch", ended))
        begun = time.perf_counter()
        loop.train(pixels, learner, how, Path(folder), 32)
    kept["loss, forward"] = kept.pop("forward") - kept["encoder, forward"]
    kept["backward"] = kept["whole"] - sum(kept[part] for part in PARTS if part != "backward")
    return kept


def page(found: dict[str, list[dict[str, float]]], images: int) -> Iterator[str]:
    """docs/results/step.md, line by line."""
    rounds = len(found["the default"])
    yield "# Where does the time of a training step go?\n"
    yield f"Made by `benchmarks/step.py` on {machine()}, {rounds} rounds; median (least to most)."
    yield "ResNet-10, width 32, 32 px, batches of 128.\n"
    yield "| | images/s | " + " | ".join(f"{part}, %" for part in PARTS) + " |"
    yield "| --- " * (len(PARTS) + 2) + "|"
    for name, times in found.items():
        rates = [images / one["whole"] for one in times]
        shares = [spread([100 * one[part] / one["whole"] for one in times], 1) for part in PARTS]
        yield f"| {name} | {spread(rates, 0)} | " + " | ".join(shares) + " |"
    yield "\nGoal: views at most 10 % of a step."


def spread(values: list[float], digits: int) -> str:
    """Median (least to most)."""
    middle, low, high = float(np.median(values)), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/step.md"))
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    pixels = open_set(wanted.data, "cifar10").train[:PACE_IMAGES]
    epoch(pixels, *WAYS["the default"])
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(wanted.rounds):
        for name, way in WAYS.items():
            found[name].append(epoch(pixels, *way))
    lines = list(page(found, PACE_IMAGES))
    wanted.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
