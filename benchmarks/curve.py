"""Neighbours against minutes on a GPU: a ResNet-18 on all of cifar10, beside lightly's published points.

    python benchmarks/curve.py --data .data --minutes 20               # any CUDA device
    python benchmarks/curve.py --minutes 20 --objective sigreg         # another objective
    python benchmarks/curve.py --table                                 # writes docs/results/curve.md again

The pace of some steps decides how many epochs fill the minutes; the same command goes on with a run that was
cut short. All 50,000 training images lie on the device; bf16, channels-last; views from lightly's ranges for
small images. At about twenty epochs: the vote of 200 neighbours (temperature 0.1) of the 10,000 test images
among the training images, by the encoder's features. Minutes are those of training; scoring is left out and
given beside. Points go to docs/results/curve.jsonl. `--device cpu` with a small `--width` and `--limit` tries
the wiring only: the page shows no number from it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from learn_sets import pixels_of, rows_of
from semblance import plugins
from semblance.files import write_atomic
from semblance.images.views import Views
from semblance.training.config import TrainConfig
from semblance.training.embed import embed
from semblance.training.loop import train

__all__ = ["OBJECTIVES", "PUBLISHED", "page", "pace", "stores", "votes"]

OBJECTIVES: dict[str, dict[str, Any]] = {
    "simclr": {"tau": 0.2, "decoupled": True, "hidden": 2048},
    "sigreg": {"hidden": 2048},
    "vicreg": {"hidden": 2048},
    "swav": {"hidden": 2048, "prototypes": 512},
    "stml": {},
}
"""Options that a training of hours usually has; none was tuned here."""
PUBLISHED = (
    ("SimCLR, batch 128, 200 epochs", 98, 84.7),
    ("BYOL, batch 128, 200 epochs", 122, 86.9),
    ("FastSiam, 4 views, batch 128, 200 epochs", 164, 90.6),
)
"""lightly's own table for ResNet-18 on cifar10: minutes on an RTX A6000, best epoch, k = 200, T = 0.1."""
GOAL = (90.6, 20.0)
VIEWS = Views(scale=(0.08, 1.0))
POINTS, TRIAL = 20, 40
Array = np.ndarray[Any, np.dtype[Any]]


class EnoughError(Exception):
    """Ends a trial of the pace."""


def stores(data: Path, limit: int) -> dict[str, tuple[Array, Array]]:
    """Pixels `(n, 32, 32, 3)` and labels of the training and the test images; `limit` > 0 = only so many."""
    found = {}
    for name in ("train", "test"):
        rows = [row for row in rows_of(data, "cifar10") if row["split"] == name]
        labels = np.unique([row["class"] for row in rows], return_inverse=True)[1]
        if limit:
            chosen = np.random.default_rng(0).permutation(len(rows))[:limit]
            rows, labels = [rows[i] for i in chosen], labels[chosen]
        found[name] = (np.array(pixels_of(data, "cifar10", rows, 32, data / "learn-cache")), labels)
    return found


def votes(bank: Tensor, labels: Tensor, queries: Tensor, k: int = 200, tau: float = 0.1) -> Tensor:
    """`(q,)` classes that the k most similar rows of `bank` `(n, d)` vote for, with `exp(cosine / tau)`."""
    x, classes = F.normalize(bank, dim=1), int(labels.max()) + 1
    found = []
    for part in F.normalize(queries, dim=1).split(1000):
        near, ids = (part @ x.T).topk(min(k, len(x)), dim=1)
        ballots = torch.zeros(len(part), classes, device=x.device)
        ballots.scatter_add_(1, labels[ids], (near / tau).exp())
        found.append(ballots.argmax(1))
    return torch.cat(found)


def score(net: Any, images: dict[str, tuple[Array, Array]], device: str) -> float:
    """Share of the test images whose neighbours vote for their class, percent."""
    rows = {
        name: embed(net, None, pixels, 32, batch=1024, device=device) for name, (pixels, _) in images.items()
    }
    x = {name: torch.from_numpy(part).to(device) for name, part in rows.items()}
    y = {name: torch.from_numpy(labels).to(device) for name, (_, labels) in images.items()}
    return 100 * float((votes(x["train"], y["train"], x["test"]) == y["test"]).float().mean())


def learner(wanted: argparse.Namespace) -> Any:
    """A new objective and encoder."""
    torch.manual_seed(wanted.seed)
    options = {"depth": 18, "width": wanted.width, "stem": "32", "size": 32}
    net = plugins.get("encoders", "resnet").build(plugins.configure("encoders", "resnet", options))
    config = plugins.configure("objectives", wanted.objective, OBJECTIVES[wanted.objective])
    return plugins.get("objectives", wanted.objective).Objective(config, net)


def settings(wanted: argparse.Namespace, epochs: int) -> TrainConfig:
    """SGD as lightly trains on cifar10: 0.06 at a batch of 128, in proportion to the batch."""
    return TrainConfig(
        epochs=epochs,
        batch=wanted.batch,
        optimiser="sgd",
        lr=0.06 * wanted.batch / 128,
        weight_decay=5e-4,
        warmup=0.02,
        seed=wanted.seed,
        device=wanted.device,
        precision="bf16" if wanted.device == "cuda" else "auto",
        views=VIEWS,
    )


def pace(wanted: argparse.Namespace, pixels: Array) -> float:
    """Seconds of a step, by some steps after as many to warm up."""
    steps = max(1, min(TRIAL, len(pixels) // wanted.batch // 2))
    times: list[float] = []

    def watch(stage: str, done: int, total: int) -> None:
        if wanted.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        if len(times) == 2 * steps:
            raise EnoughError

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EnoughError):
        train(pixels, learner(wanted), settings(wanted, 10_000), Path(folder), 32, watch)
    return (times[-1] - times[steps - 1]) / steps


def plan(wanted: argparse.Namespace, pixels: Array, folder: Path) -> dict[str, Any]:
    """How many epochs this run takes: what an earlier start of it decided, or what the pace allows."""
    path = folder / "plan.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    step = pace(wanted, pixels)
    steps = max(1, len(pixels) // min(wanted.batch, len(pixels)))
    made = {"epochs": max(1, int(60 * wanted.minutes / (step * steps))), "images/s": wanted.batch / step}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(made).encode())
    return made


def run(wanted: argparse.Namespace) -> None:
    """One training with its points."""
    torch.backends.cudnn.benchmark = True
    images = stores(wanted.data, wanted.limit)
    pixels = images["train"][0]
    parts = [wanted.objective, f"w{wanted.width}", f"b{wanted.batch}", f"m{wanted.minutes:g}"]
    name = "-".join([*parts, f"s{wanted.seed}", wanted.device])
    folder = wanted.runs / name
    made = plan(wanted, pixels, folder)
    epochs, every = made["epochs"], max(1, made["epochs"] // POINTS)
    print(
        f"{name}: {epochs} epochs at {made['images/s']:.0f} images/s on {hardware(wanted.device)}", flush=True
    )
    objective, steps = learner(wanted), max(1, len(pixels) // min(wanted.batch, len(pixels)))
    scored = folder / "scored.jsonl"

    def watch(stage: str, done: int, total: int) -> None:
        epoch, rest = divmod(done, steps * min(wanted.batch, len(pixels)))
        if stage != "learn" or rest or (epoch % every and epoch != epochs):
            return
        begin = time.perf_counter()
        point = {"epoch": epoch, "knn": score(objective.encoder, images, wanted.device)}
        point["scoring"] = time.perf_counter() - begin
        with scored.open("a", encoding="utf-8") as file:
            file.write(json.dumps(point) + "\n")
        print(f"epoch {epoch}: {point['knn']:.2f}", flush=True)

    train(pixels, objective, settings(wanted, epochs), folder, 32, watch)
    facts = {"run": name, "objective": wanted.objective, "width": wanted.width, "batch": wanted.batch}
    facts |= {"epochs": epochs, "seed": wanted.seed, "device": wanted.device, "images": len(pixels)}
    record = facts | {
        "hardware": hardware(wanted.device),
        "torch": torch.__version__,
        "points": joined(folder),
    }
    kept = [line for line in lines(wanted.out) if line["run"] != name]
    text = "".join(json.dumps(line) + "\n" for line in [*kept, record])
    write_atomic(wanted.out, text.encode())


def joined(folder: Path) -> list[dict[str, float]]:
    """The run's points: minutes of training and of scoring up to an epoch, and the score.

    An epoch that a restart did again was scored again: its last score counts, as its last seconds do.
    """
    seconds = {line["epoch"]: line["seconds"] for line in lines(folder / "metrics.jsonl")}
    scores = {line["epoch"]: line for line in lines(folder / "scored.jsonl")}
    made, spent = [], 0.0
    for epoch in sorted(scores):
        spent += scores[epoch]["scoring"]
        trained = (seconds[epoch] - spent) / 60
        made.append(
            {
                "epoch": epoch,
                "minutes": round(trained, 2),
                "scoring": round(spent / 60, 2),
                "knn": round(scores[epoch]["knn"], 2),
            }
        )
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    """Records of a file of JSON lines; none where there is no file."""
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def hardware(device: str) -> str:
    """The device's own name."""
    return torch.cuda.get_device_name() if device == "cuda" else "a CPU: wiring only"


def page(records: list[dict[str, Any]]) -> str:
    """The text of docs/results/curve.md: runs on a CUDA device, or that there was none."""
    shown = [record for record in records if record["device"] == "cuda"]
    text = ["# How good after how many minutes of a GPU?", ""]
    text += ["Made by `benchmarks/curve.py` (its head says how it is run, scored and timed)."]
    text += [
        f"Goal: {GOAL[0]} within {GOAL[1]:.0f} minutes. lightly's points are its own, of its best epoch."
    ]
    if not shown:
        text += ["", "**Not measured yet: no CUDA device was at hand.** Where one is:", ""]
        text += ["    python benchmarks/curve.py --data .data --minutes 20"]
    text += ["", "| what | hardware | minutes | kNN (k = 200), % |", "| --- | --- | --- | --- |"]
    text += [f"| lightly: {name} | RTX A6000 | {m} | {knn} |" for name, m, knn in PUBLISHED]
    for record in shown:
        label = f"{record['objective']}, batch {record['batch']}, seed {record['seed']}"
        for point in record["points"]:
            where = f"{point['minutes']:.1f} (and {point['scoring']:.1f} of scoring)"
            epoch = f"epoch {point['epoch']} of {record['epochs']}"
            row = f"{label}: {epoch} | {record['hardware']} | {where} | {point['knn']:.2f}"
            text.append(f"| {row} |")
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/curve.jsonl"))
    parser.add_argument("--runs", type=Path, default=Path(".data/curve"), help="checkpoints, to go on from")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--objective", default="simclr", choices=list(OBJECTIVES))
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--limit", type=int, default=0, help="images of each part; 0 = all")
    parser.add_argument("--table", action="store_true", help="write the page again, train nothing")
    wanted = parser.parse_args()
    if not wanted.table:
        if wanted.device == "cuda" and not torch.cuda.is_available():
            raise SystemExit("there is no CUDA device here, nothing was measured; run this where one is")
        run(wanted)
    write_atomic(wanted.out.with_suffix(".md"), page(lines(wanted.out)).encode())


if __name__ == "__main__":
    main()
