"""Equal neighbours after equal epochs? SimCLR by our loop and by lightly, on 10,000 images of cifar10.

    python benchmarks/lightly_knn.py --peer VENV/bin/python    # adds to docs/results/lightly.jsonl, resumes

`VENV` has lightly and torchvision (`lightly_speed.py` says how). Same encoder, loss, temperature, head,
optimiser, schedule, ranges of views, epochs and batch; each side with its own views, loop and precision: ours
bf16 where the processor has it, lightly's float32. The features of the last epoch, in float32 on both sides:
the vote of 20 and of 200 neighbours among the training images, on 5,000 test images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from learn_sets import bank_labels, open_set
from lightly_speed import BATCH, VIEWS, encoder, write
from semblance import plugins
from semblance.evaluation.metrics import unit, weighted_knn
from semblance.training.config import TrainConfig
from semblance.training.embed import embed
from semblance.training.loop import train

__all__ = ["done", "ours", "theirs"]

RATE = 0.12
"""lightly's own for cifar10: 0.06 at a batch of 128, in proportion to the batch."""
Array = np.ndarray[Any, np.dtype[Any]]


def ours(pixels: Array, width: int, epochs: int, seed: int) -> tuple[Any, float]:
    """(the trained encoder, seconds)."""
    torch.manual_seed(seed)
    learner = plugins.get("objectives", "simclr").Objective(
        plugins.configure("objectives", "simclr", {"tau": 0.1}), encoder(width)
    )
    config = TrainConfig(
        epochs=epochs, batch=BATCH, optimiser="sgd", lr=RATE, weight_decay=5e-4, seed=seed, views=VIEWS
    )
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        train(pixels, learner, config, Path(folder), 32)
    return learner.encoder, time.monotonic() - begin


def theirs(peer: str, stores: dict[str, Path], width: int, epochs: int, seed: int) -> tuple[Any, float]:
    """(features by store, seconds) of the peer, in its own process and as many threads as here."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "features.npz"
        command = [peer, str(Path(__file__).with_name("lightly_port.py")), "train"]
        command += ["--width", str(width), "--epochs", str(epochs), "--seed", str(seed), "--workers", "0"]
        command += ["--threads", str(torch.get_num_threads())]
        command += ["--rate", str(RATE), "--out", str(out)]
        command += ["--pixels", str(stores["train"]), "--score", str(stores["score"])]
        source = {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, **source}
        )
        found = np.load(out)
        return {name: found[name] for name in stores}, json.loads(done.stdout.splitlines()[-1])["seconds"]


def votes(found: dict[str, Array], bank: Array, labels: Array) -> dict[str, float]:
    """Accuracy of the vote of 20 and 200 neighbours."""
    summary: dict[str, float] = {}
    for k in (20, 200):
        scored = weighted_knn(unit(found["train"]), bank, unit(found["score"]), labels, k=k)
        summary |= {key: round(float(value), 4) for key, value in scored.summary.items()}
    return summary


def done(path: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind in the result file."""
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == kind]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", required=True, help="a Python that has lightly and torchvision")
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/lightly.jsonl"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--sides", nargs="*", default=["ours", "lightly", "untrained"])
    wanted = parser.parse_args()
    data, (bank, labels) = open_set(wanted.data, "cifar10"), bank_labels(wanted.data, "cifar10")
    there = {(r["side"], r["seed"]) for r in done(wanted.out, "knn")}
    pixels = {"train": np.array(data.train), "score": np.array(data.score)}
    facts = {"kind": "knn", "epochs": wanted.epochs, "width": wanted.width, "split": data.split}

    def rows(net: Any) -> dict[str, Array]:
        return {name: embed(net, None, part, 32, precision="32") for name, part in pixels.items()}

    with tempfile.TemporaryDirectory() as folder:
        stores = {name: Path(folder) / f"{name}.npy" for name in pixels}
        for name, part in pixels.items():
            np.save(stores[name], part)
        for seed in wanted.seeds:
            for side in wanted.sides:
                if (side, seed) in there:
                    continue
                seconds = 0.0
                if side == "ours":
                    net, seconds = ours(pixels["train"], wanted.width, wanted.epochs, seed)
                    found = rows(net)
                elif side == "lightly":
                    found, seconds = theirs(wanted.peer, stores, wanted.width, wanted.epochs, seed)
                else:
                    torch.manual_seed(seed)
                    found = rows(encoder(wanted.width))
                scores = votes(found, bank, labels)
                write(
                    wanted.out, {**facts, "side": side, "seed": seed, **scores, "seconds": round(seconds, 1)}
                )


if __name__ == "__main__":
    sys.exit(main())
