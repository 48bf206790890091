"""Which objective learns most in the same minutes? One encoder, five sets, every rival at its best knobs.

    python benchmarks/sweep.py pace                  # images a second of every arm, alone on the machine
    python benchmarks/sweep.py tune [--arms ...]     # knobs, on validation classes or images only
    python benchmarks/sweep.py run --seeds 3         # the sweep itself
    python benchmarks/sweep_table.py                 # writes docs/results/sweep.md

All add to docs/results/sweep.jsonl and go on where they stopped; `--part 0/2` beside `--part 1/2` shares the
work. A training takes `--minutes` of one core: the pace of an arm, measured while nothing else ran, decides
how many epochs these are, so that a busy machine changes no result. The last epoch is scored. Labels reach no
training; `tune` scores validation classes (omniglot, cub100) or images, `run` images that no choice was made
on: R@1 where classes are unseen, the vote of 20 neighbours among the training images where they are seen.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from learn import machine
from learn_sets import SEEN, ImageSet, bank_labels, open_set
from lines import records
from semblance import plugins
from semblance.collection.learn import SAMPLE, spread_rows
from semblance.evaluation.baselines import pca_pixels, raw_pixels, whitened_pixels
from semblance.evaluation.metrics import score, unit, weighted_knn
from semblance.images.formats import PHOTO
from semblance.images.measure import measure_store
from semblance.images.views import PRESETS
from semblance.objectives._levels import principal
from semblance.training.config import TrainConfig
from semblance.training.embed import embed
from semblance.training.loop import READ, train
from sweep_arms import ARMS, CHOSEN, Arm

__all__ = ["BASELINES", "MAIN", "VIEWS"]

VIEWS = {
    "omniglot": "document",
    "cub100": "photo",
    "galaxyzoo1-small": "sky",
    "clothing-small": "photo",
    "cifar10": "photo",
}
ALIKE = {
    "simclr, decoupled, all levels": "simclr, decoupled",
    "plus, random first layer": "plus, last stage alone",
    "plus, clusters trusted sooner": "plus",
}
"""Arms that train as others do: they share a pace."""
ENCODER = {"depth": 10, "width": 32, "stem": "64", "size": 32}
BASELINES = (
    "raw pixels",
    "PCA of pixels",
    "whitened pixels",
    "untrained encoder",
    "untrained encoder, all levels",
)
MAIN = {name: "knn@20_balanced" if name in SEEN else "recall@1_balanced" for name in VIEWS}
PACE_IMAGES = 2_560
Array = np.ndarray[Any, np.dtype[Any]]


def encoder(pixels: Array, random: bool = False) -> torch.nn.Module:
    """The one encoder of every arm, as `semblance learn` starts it on `pixels`, or its first layer random."""
    net = plugins.get("encoders", "resnet").build(plugins.configure("encoders", "resnet", ENCODER))
    some = pixels[spread_rows(len(pixels), SAMPLE)].astype(np.float32) / 255
    was = net.stem[0].weight.detach().clone()
    net.look_at(torch.from_numpy(some).permute(0, 3, 1, 2))
    if random:
        net.stem[0].weight.data.copy_(was)
    return net


def learned(arm: Arm, pixels: Array, views: str, epochs: int, seed: int) -> tuple[Any, Any, float]:
    """(the objective after training, the last epoch's record, seconds with what is measured first)."""
    torch.manual_seed(seed)
    learner = plugins.get("objectives", arm.objective).Objective(
        plugins.configure("objectives", arm.objective, arm.options), encoder(pixels, arm.random)
    )
    begin = time.monotonic()
    if hasattr(learner, "take_columns"):
        learner.take_columns(measure_store(pixels, PHOTO))
    config = TrainConfig(
        epochs=epochs,
        batch=arm.batch,
        optimiser=arm.optimiser,
        lr=arm.lr,
        seed=seed,
        patience=0,
        views=PRESETS[views],
    )
    with tempfile.TemporaryDirectory() as folder:
        result = train(pixels, learner, config, Path(folder), 32)
    if arm.levels:
        learner.head = all_levels(learner.encoder, pixels)
    return learner, result.history[-1], time.monotonic() - begin


def all_levels(net: Any, pixels: Array) -> Any:
    """The head that the default ends with, for any encoder."""
    some = pixels[spread_rows(len(pixels), READ)]
    levels = embed(net, None, some, 32, levels=True)
    return principal(torch.from_numpy(levels), net.level_dims, 256)


def pace(root: Path, out: Path, names: list[str]) -> None:
    """Images a second of every arm that has none yet, on one thread, after a first turn to warm up."""
    pixels = open_set(root, "cifar10").train[:PACE_IMAGES]
    there = {r["arm"] for r in records(out) if r["kind"] == "pace"}
    for name in names:
        if ALIKE.get(name, name) in there:
            continue
        turns = [learned(ARMS[name], pixels, "photo", 1, 0) for _ in range(3)]
        epoch = min(last["seconds"] for _, last, _ in turns)
        closing = min(seconds - last["seconds"] for _, last, seconds in turns)
        write(
            out,
            {
                "kind": "pace",
                "arm": name,
                "images/s": round(PACE_IMAGES / epoch, 1),
                "closing images/s": round(PACE_IMAGES / closing, 1),
            },
        )


def one(root: Path, out: Path, kind: str, name: str, data: ImageSet, seed: int, minutes: float) -> None:
    """One training, scored."""
    arm, pixels = ARMS[name], data.train if kind == "run" else data.tuning
    paces = {r["arm"]: r for r in records(out) if r["kind"] == "pace"}
    own = paces[ALIKE.get(name, name)]
    closing = min(len(pixels), READ) / own.get("closing images/s", math.inf)
    epochs = max(1, round((60 * minutes - closing) * own["images/s"] / len(pixels)))
    learner, last, seconds = learned(arm, pixels, VIEWS[data.name], epochs, seed)
    base = {"kind": kind, "arm": name, "set": data.name, "seed": seed, "minutes": minutes, "epochs": epochs}
    base |= {"split": data.split, "objective": arm.objective, "options": arm.options, "batch": arm.batch}
    base |= {"optimiser": arm.optimiser, "lr": arm.lr, "seconds": round(seconds, 1), "health": last["health"]}

    def rows(images: Array) -> Array:
        return embed(learner.encoder, learner.head, images, 32)

    write(out, base | scored(root, data, kind, rows))


def scored(root: Path, data: ImageSet, kind: str, rows: Any) -> dict[str, Any]:
    """Scores of the embedding `rows`, and the main one of every class for the bootstrap."""
    asked, labels = (data.score, data.labels) if kind != "tune" else (data.validation, data.validation_labels)
    x = unit(rows(asked))
    found = score(x, labels, balanced=True, clusters=kind != "tune", knn=(20,))
    summary, main = dict(found.summary), MAIN[data.name]
    each, classes = found.per_query["knn@20" if "knn" in main else "recall@1"], found.classes
    if kind != "tune" and data.name in SEEN:
        bank, theirs = bank_labels(root, data.name)
        votes = weighted_knn(unit(rows(data.train)), bank, x, theirs, balanced=True)
        summary |= votes.summary
        each, classes = votes.per_query["knn@20"], votes.classes
    by_class = [round(float(each[classes == c].mean()), 4) for c in np.unique(classes)]
    return {"main": round(summary[main], 5), "scores": _short(summary), "by_class": by_class}


def _short(summary: dict[str, float]) -> dict[str, float]:
    return {key: round(float(value), 5) for key, value in summary.items()}


def baselines(root: Path, out: Path, data: ImageSet) -> None:
    """The rows that need no training."""
    there = {(r["arm"], r["set"]) for r in records(out) if r["kind"] == "baseline"}
    torch.manual_seed(0)
    net = encoder(data.train)
    head = functools.cache(lambda: all_levels(net, data.train))
    ways = {
        "raw pixels": raw_pixels,
        "PCA of pixels": lambda images: _fitted(data, images, pca_pixels),
        "whitened pixels": lambda images: _fitted(data, images, whitened_pixels),
        "untrained encoder": lambda images: embed(net, None, images, 32),
        "untrained encoder, all levels": lambda images: embed(net, head(), images, 32),
    }
    for name, rows in ways.items():
        if (name, data.name) not in there:
            base = {"kind": "baseline", "arm": name, "set": data.name, "split": data.split}
            write(out, base | scored(root, data, "baseline", rows))


def _fitted(data: ImageSet, images: Array, way: Any) -> Array:
    both: Array = way(np.concatenate([data.train, data.score]))
    return both[: len(data.train)] if images is data.train else both[len(data.train) :]


def write(path: Path, record: dict[str, Any]) -> None:
    """Append one line and show it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record | {"machine": machine()}) + "\n")
    keys = ("kind", "arm", "set", "seed", "epochs", "seconds", "images/s", "main")
    print(*(record[key] for key in keys if key in record), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["pace", "tune", "run"])
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/sweep.jsonl"))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS))
    parser.add_argument("--sets", nargs="+", choices=list(VIEWS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="of one core, a training: 1 to tune, 3 to run")
    parser.add_argument("--part", default="0/1")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    arms = wanted.arms or (list(ARMS) if wanted.verb != "run" else list(CHOSEN.values()))
    if wanted.verb == "pace":
        pace(wanted.data, wanted.out, arms)
        return
    sets = wanted.sets or (list(VIEWS) if wanted.verb == "run" else ["omniglot", "cub100", "cifar10"])
    minutes = wanted.minutes or (3.0 if wanted.verb == "run" else 1.0)
    part, parts = map(int, wanted.part.split("/"))
    if wanted.verb == "run" and part == 0:
        for name in sets:
            baselines(wanted.data, wanted.out, open_set(wanted.data, name))
    jobs = [(s, name, arm) for s in range(wanted.seeds) for arm in arms for name in sets]
    for index, (seed, name, arm) in enumerate(jobs):
        there = {
            (r["seed"], r["set"], r["arm"], r["minutes"])
            for r in records(wanted.out)
            if r["kind"] == wanted.verb
        }
        if index % parts == part and (seed, name, arm, minutes) not in there:
            one(wanted.data, wanted.out, wanted.verb, arm, open_set(wanted.data, name), seed, minutes)


if __name__ == "__main__":
    main()
