"""What measurements add as targets: a synthetic sky of 12 bands, and 20 labels on galaxies.

    python benchmarks/measure.py [--seeds 6] [--only "sky,drop,drop alone,galaxies,labels"] [--data .data]

Appends to docs/results/measure.jsonl what it finds (a run that is there is not repeated);
`measure_table.py` writes docs/results/measure.md. Labels are used for scoring only.
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from lines import records
from measure_sky import SIDE, catalogue, gap, sky
from semblance import plugins
from semblance.contracts import Column
from semblance.evaluation.columns import as_rows, explained
from semblance.images.formats import PHOTO, PixelFormat, measure_format
from semblance.images.measure import measure_store
from semblance.images.sources import scan
from semblance.images.store import build_store, open_store
from semblance.images.views import PRESETS
from semblance.native import processor
from semblance.objectives.measure import held_out, turn
from semblance.training.config import TrainConfig, cpu_has_bf16
from semblance.training.embed import embed
from semblance.training.loop import train

STEPS, TEST = 200, 1000
SSL, BOTH, DEFAULT = "simclr", "simclr+measure", "cbswr"
ROLES = {"keep": "colour_*", "drop": "mag"}
"""Colour says what an object is, its brightness mostly how far away."""
Array = NDArray[Any]


def fresh(pixels: Array, seed: int) -> Any:
    """An encoder that has learned nothing but the mean and spread of the pixels."""
    torch.manual_seed(seed)
    channels = pixels.shape[-1]
    options = {"depth": 10, "width": 8, "size": pixels.shape[1], "channels": channels}
    encoder = plugins.get("encoders", "resnet").build(plugins.configure("encoders", "resnet", options))
    flat = pixels[:512].reshape(-1, channels) / np.iinfo(pixels.dtype).max
    encoder.set_statistics(flat.mean(0).tolist(), flat.std(0).tolist())
    return encoder


def learn(
    pixels: Array,
    columns: dict[str, Column],
    name: str,
    seed: int,
    epochs: int,
    trained: list[Any] | None = None,
    **options: Any,
) -> Array:
    """Embeddings of `pixels` by a network that learned on them; `trained` is given the objective."""
    encoder = fresh(pixels, seed)
    config = plugins.configure("objectives", name, options)
    objective: Any = plugins.get("objectives", name).Objective(config, encoder)
    if hasattr(objective, "take_columns"):
        objective.take_columns(columns)
    with tempfile.TemporaryDirectory() as folder:
        how = TrainConfig(
            epochs=epochs,
            batch=32,
            optimiser="adamw",
            seed=seed,
            device="cpu",
            views=PRESETS["sky"],
            patience=0,
        )
        train(pixels, objective, how, Path(folder), pixels.shape[1])
    if trained is not None:
        trained.append(objective)
    return embed(encoder, objective.head, pixels, pixels.shape[1], device="cpu")


def few_labels(rows: Array, labels: Array, count: int = 20, draws: int = 200, k: int = 3) -> float:
    """Accuracy in per cent of k nearest neighbours among `count` labelled rows, balanced over classes, mean
    of `draws`; the same draws whatever the rows."""
    chance = np.random.default_rng(0)
    names = np.unique(labels)
    x = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    found = []
    for _ in range(draws):
        known: list[int] = []
        for place, name in enumerate(chance.permutation(names)):
            share = count // len(names) + (place < count % len(names))
            known += chance.choice(np.flatnonzero(labels == name), share, replace=False).tolist()
        rest = np.setdiff1d(np.arange(len(x)), known)
        near = x[rest] @ x[known].T
        best = np.argsort(-near, axis=1)[:, :k]
        votes = np.stack(
            [(np.take_along_axis(near, best, 1) * (labels[known][best] == name)).sum(1) for name in names], 1
        )
        right = names[votes.argmax(1)] == labels[rest]
        found.append(np.mean([right[labels[rest] == name].mean() for name in names]))
    return 100 * float(np.mean(found))


def probe(rows: Array, labels: Array) -> float:
    """Accuracy in per cent of a linear classifier on the second half, fitted to the first."""
    half = len(rows) // 2
    scaled = StandardScaler().fit(rows[:half])
    model = LogisticRegression(max_iter=500).fit(scaled.transform(rows[:half]), labels[:half])
    return 100 * float(model.score(scaled.transform(rows[half:]), labels[half:]))


def stored(images: Array) -> tuple[Array, PixelFormat]:
    """Pixels as a collection stores them."""
    kind = measure_format(images[:256])
    return kind.pack(images), kind


def options(name: str, **roles: str) -> dict[str, str]:
    """`--objective.ROLE` of `name`, or of its part that measures."""
    return {f"{'measure.' if '+' in name else ''}{role}": names for role, names in roles.items()}


def run_sky(seed: int, n: int, epochs: int) -> dict[str, float]:
    images, labels, _ = sky(n, seed)
    pixels, _ = stored(images)
    columns = catalogue(images)
    kept = {name: one for name, one in columns.items() if name.startswith("colour_")}
    found = {"columns alone": few_labels(as_rows(kept), labels)}
    for title, name in (("ssl", SSL), ("default alone", DEFAULT)):
        found[title] = few_labels(learn(pixels, {}, name, seed, epochs), labels)
    for title, name, given in (
        ("measure", "measure", columns),
        ("both", BOTH, columns),
        ("both, 30 % missing", BOTH, gap(columns, 0.3, seed)),
    ):
        rows = learn(pixels, given, name, seed, epochs, **options(name, **ROLES))
        found[title] = few_labels(rows, labels)
        if title == "both":
            held = held_out(n, 0.1)
            found["both: R2 of the kept, held out"] = 100 * _middle(explained(rows, kept, held))
            found["both: R2 of the dropped"] = 100 * _middle(explained(rows, {"mag": columns["mag"]}, held))
    return found


def _middle(values: dict[str, float]) -> float:
    return float(np.nanmedian(list(values.values())))


def run_drop(seed: int, n: int, epochs: int, name: str = BOTH) -> dict[str, float]:
    """Learned on n stamps, told of n others of the same batches."""
    images, labels, batch = sky(2 * n, seed, batches=4)
    pixels, _ = stored(images)
    columns = catalogue(images) | {"batch": Column(batch.astype(float), tuple("0123"))}
    half = {name: Column(one.values[:n], one.levels) for name, one in columns.items()}
    found = {}
    for title, drop in (("shown", "mag"), ("dropped", "mag,batch")):
        trained: list[Any] = []
        learn(pixels[:n], half, name, seed, epochs, trained, **options(name, keep="colour_*", drop=drop))
        rows = embed(trained[0].encoder, trained[0].head, pixels[n:], SIDE, device="cpu")
        found[f"class, batch {title}"] = few_labels(rows, labels[n:])
        found[f"batch probe, {title}"] = probe(rows, batch[n:])
    return found


def run_labels(seed: int, n: int, epochs: int) -> dict[str, float]:
    """The paper's protocol: magnitudes alone are regressed; then a classifier on the frozen features, the
    whole network tuned further on the labels, or one from nothing."""
    images, labels, _ = sky(n + TEST, seed)
    pixels, _ = stored(images)
    columns = {k: Column(one.values[:n]) for k, one in catalogue(images).items() if k.startswith("mag_")}
    trained: list[Any] = []
    learn(pixels[:n], columns, "measure", seed, epochs, trained=trained, keep="mag_*")
    encoder = trained[0].encoder
    rows = embed(encoder, None, pixels, SIDE, device="cpu")
    found = {}
    for count in (100, 500, n):
        scaled = StandardScaler().fit(rows[:count])
        model = LogisticRegression(max_iter=1000).fit(scaled.transform(rows[:count]), labels[:count])
        found[f"frozen {count}"] = 100 * float(model.score(scaled.transform(rows[n:]), labels[n:]))
        for title, start, rate in (
            ("fine-tuned", copy.deepcopy(encoder), 5e-4),
            ("scratch", fresh(pixels[:n], seed), 2e-3),
        ):
            right = taught(start, pixels[:count], labels[:count], pixels[n:], rate) == labels[n:]
            found[f"{title} {count}"] = 100 * float(right.mean())
    return found


def taught(encoder: Any, pixels: Array, labels: Array, test: Array, rate: float) -> Array:
    """Classes of `test` by the encoder and a linear layer trained on labels: 200 steps of 32 images, mirrored
    and turned."""
    head = torch.nn.Linear(encoder.dim, 3)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, STEPS)
    x, shown = (torch.from_numpy(one / np.float32(65535)).permute(0, 3, 1, 2) for one in (pixels, test))
    y = torch.from_numpy(labels)
    encoder.train()
    for _ in range(STEPS):
        rows = torch.randint(0, len(x), (32,))
        loss = torch.nn.functional.cross_entropy(head(encoder(turn(x[rows], 1.0)[0])), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    encoder.eval()
    with torch.inference_mode():
        guess = torch.cat([head(encoder(part)) for part in shown.split(256)]).argmax(1)
    return guess.numpy()


def run_galaxies(seed: int, n: int, epochs: int, data: Path) -> dict[str, float]:
    """Real galaxies, 8-bit RGB, 6 classes; n of them at random, and only what is measured on them."""
    with tempfile.TemporaryDirectory() as work:
        source = scan(data / "galaxyzoo1-small" / "labels.csv")
        assert source.table is not None
        rows_of = build_store(source, Path(work), 2 * SIDE)["row"].to_numpy()[: len(source.table)]
        pixels = np.array(open_store(Path(work)))
    classes = np.array(source.table["class"].to_pylist())
    labels = np.empty(len(pixels), classes.dtype)
    labels[rows_of[rows_of >= 0]] = classes[rows_of >= 0]
    chosen = np.random.default_rng(seed).permutation(len(pixels))[:n]
    pixels, labels = pixels[chosen], labels[chosen]
    columns = measure_store(pixels, PHOTO)
    found = {"columns alone": few_labels(as_rows(columns), labels)}
    for title, name in (("ssl", SSL), ("measure", "measure"), ("both", BOTH)):
        given = {} if name == SSL else columns
        found[title] = few_labels(learn(pixels, given, name, seed, epochs), labels)
    return found


RUNS: dict[str, tuple[Callable[..., dict[str, float]], tuple[tuple[int, int], ...]]] = {
    "sky": (run_sky, ((1000, 20), (2000, 12), (8000, 4))),
    "drop": (run_drop, ((800, 20), (3200, 6), (20000, 2))),
    "drop alone": (functools.partial(run_drop, name="measure"), ((800, 20), (3200, 6), (20000, 2))),
    "galaxies": (run_galaxies, ((800, 8),)),
    "labels": (run_labels, ((2000, 6),)),
}
"""What to run, on how many images for how many epochs."""


def machine() -> str:
    """The processor, as far as it says its name, and whether it multiplies in bf16."""
    return f"{processor()}, {'bf16' if cpu_has_bf16() else 'float32'}, one thread"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--only", default=",".join(RUNS))
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/measure.jsonl"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    done = records(wanted.out)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for name in wanted.only.split(","):
        run, sizes = RUNS[name]
        for (images, epochs), seed in itertools.product(sizes, range(wanted.seeds)):
            key = {"run": name, "both": BOTH, "seed": seed, "images": images, "epochs": epochs}
            if any({k: one.get(k) for k in key} == key for one in done):
                continue
            more = {"data": wanted.data} if name == "galaxies" else {}
            started = time.process_time()
            scores = {row: round(value, 2) for row, value in run(seed, images, epochs, **more).items()}
            spent = round(time.process_time() - started, 1)
            done.append({**key, "cpu_seconds": spent, "machine": machine(), "scores": scores})
            print(json.dumps(done[-1]), flush=True)
            with wanted.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[-1]) + "\n")


if __name__ == "__main__":
    main()
