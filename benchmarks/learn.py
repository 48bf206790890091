"""Does it learn? CBSwR, its parts and its rivals, from scratch and from a pretrained encoder.

    python benchmarks/learn.py run --data .data            # adds to docs/results/learn.jsonl, resumes
    python benchmarks/learn.py run --part 1/2              # every second run: for a second process
    python benchmarks/learn_table.py                       # writes docs/results/learn.md

Every arm has the same encoder, views, epochs, images and optimiser; 3 seeds; the last epoch; no label
in training. Setting (a) starts from random weights, (b) from an encoder trained with labels on other sets.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch.nn import functional as F

from learn_sets import SETS, ImageSet, labelled, open_set
from semblance import plugins
from semblance.evaluation.baselines import pca_pixels, raw_pixels
from semblance.evaluation.metrics import score, unit
from semblance.images.formats import PHOTO
from semblance.images.measure import measure_store
from semblance.images.views import PRESETS, apply, draw
from semblance.native import processor
from semblance.training.checkpoint import stream
from semblance.training.config import TrainConfig
from semblance.training.embed import embed
from semblance.training.loop import train

ENCODER = {"depth": 10, "width": 16, "stem": "64"}
VIEWS = {"cifar10": "photo", "omniglot": "document", "cub100": "photo", "galaxyzoo1-small": "sky"}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "only L_rim": ("cbswr", {"variant": "fixed", "metric": 0.0, "reconstruction": 0.0}),
    "SME": ("sme", {}),
    "CBS released": ("cbswr", {"variant": "released", "clusters": 32, "partner": 0.0, "reconstruction": 0.0}),
    "CBSwR released": ("cbswr", {"variant": "released", "clusters": 32, "partner": 0.0}),
    "CBSwR paper": ("cbswr", {"variant": "paper"}),
    "CBSwR fixed": ("cbswr", {"variant": "fixed"}),
}
FIXED = {"variant": "fixed"}
ABLATION: dict[str, tuple[str, dict[str, Any]]] = {
    "fixed, no reconstruction": ("cbswr", {**FIXED, "reconstruction": 0.0}),
    "fixed, no L_rim": ("cbswr", {**FIXED, "rim": 0.0, "reconstruction": 0.0}),
    "fixed, plain argmax": ("cbswr", {**FIXED, "assign": "clean"}),
    "fixed, softmax attraction": ("cbswr", {**FIXED, "positive": "softmax"}),
    "fixed, centroids alone as negatives": ("cbswr", {**FIXED, "negatives": "centroids"}),
    "fixed, K = 64 = batch": ("cbswr", {**FIXED, "clusters": 64}),
}
"""What stands between `fixed` and SME: `run --arms ablation`."""
Array = np.ndarray[Any, np.dtype[Any]]


def encoder(name: str) -> torch.nn.Module:
    """The one encoder of every arm, for the set's size."""
    return plugins.get("encoders", "resnet").build(
        plugins.configure("encoders", "resnet", {**ENCODER, "size": SETS[name]})
    )


def pretrained(root: Path, target: str) -> dict[str, torch.Tensor]:
    """Weights of the start of setting (b): cross-entropy on `learn_sets.labelled`, kept on disk."""
    path = root / "learn-cache" / f"start-{'cifar10' if target == 'cifar10' else 'other'}.pt"
    if not path.exists():
        pixels, labels = labelled(root, target)
        torch.manual_seed(0)
        net = encoder(target)
        head = torch.nn.Linear(net.dim, int(labels.max()) + 1)
        epochs, batch = 8, 128
        params = [*net.parameters(), *head.parameters()]
        total = epochs * (len(pixels) // batch)
        optimiser = torch.optim.AdamW(params, lr=2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=total)
        for epoch in range(epochs):
            order = torch.randperm(len(pixels), generator=stream(0, epoch))
            for i in range(len(pixels) // batch):
                ids = order[i * batch : (i + 1) * batch].numpy()
                x = apply(
                    torch.from_numpy(pixels[ids]), draw(PRESETS["photo"], batch, stream(0, epoch, i)), 32
                )
                loss = F.cross_entropy(head(net(x)), torch.from_numpy(labels[ids]))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
            print(f"start for {target}: epoch {epoch + 1}/{epochs}, loss {loss.item():.3f}", flush=True)
        torch.save(net.state_dict(), path)
    return torch.load(path, weights_only=True)


def one_run(
    data: ImageSet,
    objective: str,
    options: dict[str, Any],
    start: dict[str, torch.Tensor] | None,
    seed: int,
    pixels: Array,
    **knobs: Any,
) -> tuple[torch.nn.Module, list[dict[str, Any]], float]:
    """Train one arm once; returns the objective, its history and the seconds it took."""
    torch.manual_seed(seed)
    net = encoder(data.name)
    if start is not None:
        net.load_state_dict(start)
    learner = plugins.get("objectives", objective).Objective(
        plugins.configure("objectives", objective, options), net
    )
    config = TrainConfig(
        **{
            "epochs": data.epochs,
            "batch": 64,
            "optimiser": "adamw",
            "lr": 2e-3,
            "seed": seed,
            "patience": 0,
            "views": PRESETS[VIEWS[data.name]],
        }
        | knobs
    )
    begin = time.monotonic()
    if hasattr(learner, "take_columns"):
        learner.take_columns(measure_store(pixels, PHOTO))
    with tempfile.TemporaryDirectory() as folder:
        result = train(pixels, learner, config, Path(folder), data.size)
    return learner, result.history, time.monotonic() - begin


def baselines(data: ImageSet, start: dict[str, torch.Tensor] | None) -> dict[str, Array]:
    """Embeddings of the rows that need no training; the encoder's features are 128-d as the heads are."""
    net = encoder(data.name)
    if start is not None:
        net.load_state_dict(start)
    return {
        "raw pixels": raw_pixels(data.score),
        "PCA of pixels": pca_pixels(data.score, 128),
        "encoder before training": embed(net, None, data.score, data.size),
    }


def scored(rows: Array, labels: Array) -> dict[str, Any]:
    """The metrics of one embedding, and two of them per class for the bootstrap."""
    scores = score(unit(rows), labels, balanced=True)
    by_class = {
        name: [
            round(float(scores.per_query[name][scores.classes == c].mean()), 4)
            for c in np.unique(scores.classes)
        ]
        for name in ("recall@1", "map@r")
    }
    return {"scores": {k: round(v, 5) for k, v in scores.summary.items()}, "by_class": by_class}


def jobs(sets: list[str], settings: str, seeds: int, arms: list[str]) -> list[tuple[int, str, str, str]]:
    """(seed, set, setting, row), seed by seed, so that a run cut short still has whole tables."""
    found = [(0, name, setting, "baselines") for name in sets for setting in settings]
    return found + [
        (s, n, setting, arm) for s in range(seeds) for n in sets for setting in settings for arm in arms
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["run"])
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/learn.jsonl"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--settings", default="ab", help="a: from scratch, b: pretrained")
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--part", default="0/1")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    part, parts = map(int, wanted.part.split("/"))
    arms = list(ABLATION) if wanted.arms == ["ablation"] else wanted.arms
    for index, (seed, name, setting, row) in enumerate(
        jobs(wanted.sets, wanted.settings, wanted.seeds, arms)
    ):
        if index % parts != part or (seed, name, setting, row) in done(wanted.out):
            continue
        data = open_set(wanted.data, name)
        start = pretrained(wanted.data, name) if setting == "b" else None
        base = {"seed": seed, "set": name, "setting": setting, "row": row, "split": data.split}
        base |= {"machine": machine(), "images": len(data.train), "epochs": data.epochs}
        if row == "baselines":
            torch.manual_seed(0)
            for kind, rows in baselines(data, start).items():
                write(wanted.out, base | {"row": kind} | scored(rows, data.labels))
            write(wanted.out, base | {"scores": {}})
            continue
        objective, options = (ARMS | ABLATION)[row]
        learner, history, seconds = one_run(data, objective, options, start, seed, data.train)
        rows = embed(learner.encoder, learner.head, data.score, data.size)
        health = history[-1]["health"]
        write(
            wanted.out,
            base
            | scored(rows, data.labels)
            | {"seconds": round(seconds, 1), "health": health, "terms": history[-1]["terms"]},
        )


def done(path: Path) -> set[tuple[int, str, str, str]]:
    """What is in the result file already."""
    if not path.exists():
        return set()
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(r["seed"], r["set"], r["setting"], r["row"]) for r in records}


def write(path: Path, record: dict[str, Any]) -> None:
    """Append one line and show it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    shown = {k: record["scores"].get(k) for k in ("recall@1", "map@r", "ami")}
    print(
        record["set"],
        record["setting"],
        record["seed"],
        record["row"],
        shown,
        record.get("seconds"),
        flush=True,
    )


def machine() -> str:
    """Processor and library, as they stand beside every number."""
    return f"{processor()}, 1 thread, torch {torch.__version__}"


if __name__ == "__main__":
    main()
