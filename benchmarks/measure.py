"""What measurements add as targets: a synthetic sky of 12 bands, and 20 labels on galaxies.

    python benchmarks/measure.py [--seeds 3] [--only sky,missing,drop,labels,galaxies] [--data .data]

Appends to docs/results/measure.jsonl what it finds (a run that is there is not repeated) and writes
docs/results/measure.md. The sky: stars (black bodies), galaxies (exponential discs of old and young stars,
inclined) and quasars (a power law with broad lines, redshifted), behind one of many point-spread functions,
with noise, 32 x 32 pixels, of signal-to-noise 10 to 500 over all bands. Labels are used for scoring only.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from semblance import plugins
from semblance.contracts import Column
from semblance.evaluation.columns import as_rows, explained
from semblance.evaluation.statistics import t_interval
from semblance.images.formats import PHOTO, PixelFormat, measure_format
from semblance.images.measure import measure_store
from semblance.images.sources import scan
from semblance.images.store import build_store, open_store
from semblance.images.views import PRESETS
from semblance.objectives.measure import held_out
from semblance.training.config import TrainConfig
from semblance.training.embed import embed
from semblance.training.loop import train

KINDS = ("star", "galaxy", "quasar")
WAVES = np.array([350, 378, 395, 410, 430, 480, 515, 625, 660, 770, 861, 910], float)
SIDE, SSL = 32, "sme"
Array = NDArray[Any]


def sky(n: int, seed: int, batches: int = 0) -> tuple[Array, Array, Array]:
    """`(n, 32, 32, 12)` float32 stamps, class `(n,)`, batch `(n,)`: with `batches`, each of these adds a
    level of its own, up to half a standard deviation of the noise, to every band."""
    chance = np.random.default_rng(seed)
    kind, batch = chance.integers(0, 3, n), chance.integers(0, max(batches, 1), n)
    levels = 0.5 * np.random.default_rng(7).uniform(-1, 1, (max(batches, 1), len(WAVES))) * bool(batches)
    images = np.empty((n, SIDE, SIDE, len(WAVES)), np.float32)
    grid = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    for i in range(n):
        y, x = grid - chance.uniform(-2, 2, 2)[:, None, None]
        sigma = chance.uniform(1.0, 1.8)
        if kind[i] == 1:
            turn, flat, size = chance.uniform(0, np.pi), chance.uniform(0.35, 1.0), chance.uniform(0.6, 2.5)
            along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            shape = np.exp(-np.sqrt(along**2 + (across / flat) ** 2 + sigma**2) / size)
        else:
            shape = np.exp(-(x * x + y * y) / (2 * sigma**2))
        colour = SPECTRA[kind[i]](chance)
        signal = 10 ** chance.uniform(1.0, 2.7)  # of all bands together
        light = (
            (shape / np.sqrt((shape**2).sum()))[..., None] * (colour / np.sqrt((colour**2).sum())) * signal
        )
        images[i] = light + chance.normal(0, 1, light.shape) + levels[batch[i]]
    return images, kind, batch


def _star(chance: np.random.Generator) -> Array:
    heat = chance.uniform(3500, 10000)
    return WAVES**-5.0 / np.expm1(1.4388e7 / (WAVES * heat)) * 1e14


def _galaxy(chance: np.random.Generator) -> Array:
    z, old = chance.uniform(0.0, 0.4), chance.uniform(0.2, 0.9)
    rest = WAVES / (1 + z)
    step = 1 / (1 + np.exp(-(rest - 400) / 8))  # the 4000 A break
    return old * step * (rest / 550) + (1 - old) * (0.4 + 0.6 * step) * (rest / 550) ** -1


def _quasar(chance: np.random.Generator) -> Array:
    z = chance.uniform(0.3, 3.0)
    flux = (WAVES / 550) ** chance.uniform(-1.8, -0.6)
    for line, strength in (
        (121.6, 2.0),
        (154.9, 1.0),
        (190.9, 0.7),
        (279.8, 0.7),
        (486.1, 0.6),
        (656.3, 1.5),
    ):
        flux = flux * (1 + strength * np.exp(-0.5 * ((WAVES - line * (1 + z)) / 18) ** 2))
    return flux


SPECTRA = (_star, _galaxy, _quasar)


def learn(
    pixels: Array,
    columns: dict[str, Column],
    name: str,
    seed: int,
    epochs: int,
    also: Array | None = None,
    **options: Any,
) -> tuple[Array, float]:
    """Embeddings of `pixels` (or `also`) by a network that learned on them, and the seconds that took."""
    torch.manual_seed(seed)
    channels = pixels.shape[-1]
    built = plugins.get("encoders", "resnet").build(
        plugins.configure("encoders", "resnet", {"depth": 10, "width": 8, "size": SIDE, "channels": channels})
    )
    flat = pixels[:512].reshape(-1, channels) / np.iinfo(pixels.dtype).max
    built.set_statistics(flat.mean(0).tolist(), flat.std(0).tolist())
    config = plugins.configure("objectives", name, options)
    objective: Any = plugins.get("objectives", name).Objective(config, built)
    if hasattr(objective, "take_columns"):
        objective.take_columns(columns)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        how = TrainConfig(epochs=epochs, batch=32, seed=seed, device="cpu", views=PRESETS["sky"], patience=0)
        train(pixels, objective, how, Path(folder), SIDE)
    seconds = time.monotonic() - started
    shown = pixels if also is None else also
    return embed(objective.encoder, objective.head, shown, SIDE, device="cpu"), seconds


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


def gap(columns: dict[str, Column], share: float, seed: int) -> dict[str, Column]:
    """The columns with a share of their values taken away at random."""
    chance = np.random.default_rng(seed)
    return {
        name: Column(
            np.where(chance.random(len(c.values)) < share, np.nan, c.values), c.levels, c.source, c.turns
        )
        for name, c in columns.items()
    }


def stored(images: Array) -> tuple[Array, PixelFormat]:
    """Pixels as a collection stores them."""
    kind = measure_format(images[:256])
    return kind.pack(images), kind


def run_sky(seed: int, n: int, epochs: int) -> dict[str, float]:
    images, labels, _ = sky(n, seed)
    pixels, kind = stored(images)
    columns = measure_store(pixels, kind)
    found = {"columns alone": few_labels(as_rows(columns), labels)}
    for title, name in (("ssl", SSL), ("measure", "measure"), ("both", f"{SSL}+measure")):
        rows, found[f"{title} seconds"] = learn(pixels, columns, name, seed, epochs)
        found[title] = few_labels(rows, labels)
        if title == "both":
            held = held_out(n, 0.1)
            found["R2"] = float(np.nanmedian(list(explained(rows, columns, held).values())))
    return found


def run_missing(seed: int, n: int, epochs: int) -> dict[str, float]:
    images, labels, _ = sky(n, seed)
    pixels, kind = stored(images)
    columns = measure_store(pixels, kind)
    whole, _ = learn(pixels, columns, f"{SSL}+measure", seed, epochs)
    part, _ = learn(pixels, gap(columns, 0.3, seed), f"{SSL}+measure", seed, epochs)
    return {"all targets": few_labels(whole, labels), "30 % missing": few_labels(part, labels)}


def run_drop(seed: int, n: int, epochs: int) -> dict[str, float]:
    images, labels, batch = sky(n, seed, batches=4)
    pixels, kind = stored(images)
    columns = measure_store(pixels, kind) | {"batch": Column(batch.astype(float), tuple("0123"))}
    found = {}
    for title, drop in (("shown", ""), ("dropped", "batch")):
        rows, _ = learn(pixels, columns, f"{SSL}+measure", seed, epochs, **{"measure.drop": drop})
        found[f"class, batch {title}"] = few_labels(rows, labels)
        found[f"batch probe, {title}"] = probe(rows, batch)
    return found


def run_labels(seed: int, n: int, epochs: int) -> dict[str, float]:
    """The paper's protocol: a classifier on frozen features against one trained from nothing."""
    images, labels, _ = sky(n, seed)
    pixels, kind = stored(images)
    test_images, test_labels, _ = sky(600, seed + 100)
    test = kind.pack(test_images)
    every = np.concatenate([pixels, test])
    rows, _ = learn(pixels, measure_store(pixels, kind), "measure", seed, epochs, also=every)
    found = {}
    for count in (100, n):
        scaled = StandardScaler().fit(rows[:count])
        found[f"scratch {count}"] = scratch(pixels[:count], labels[:count], test, test_labels, seed)
        model = LogisticRegression(max_iter=500).fit(scaled.transform(rows[:count]), labels[:count])
        found[f"frozen {count}"] = 100 * float(model.score(scaled.transform(rows[n:]), test_labels))
    return found


def scratch(pixels: Array, labels: Array, test: Array, wanted: Array, seed: int) -> float:
    """Accuracy in per cent on `test` of the same network trained on labels alone, 600 steps with mirrored and
    turned images."""
    from semblance.objectives.measure import turn

    torch.manual_seed(seed)
    options = {"depth": 10, "width": 8, "size": SIDE, "channels": pixels.shape[-1]}
    encoder = plugins.get("encoders", "resnet").build(plugins.configure("encoders", "resnet", options))
    flat = pixels[:512].reshape(-1, pixels.shape[-1]) / 65535
    encoder.set_statistics(flat.mean(0).tolist(), flat.std(0).tolist())
    head = torch.nn.Linear(encoder.dim, 3)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, 600)
    x = torch.from_numpy(pixels.astype(np.float32) / 65535).permute(0, 3, 1, 2)
    y = torch.from_numpy(labels)
    for _ in range(600):
        rows = torch.randint(0, len(x), (32,))
        loss = torch.nn.functional.cross_entropy(head(encoder(turn(x[rows], 1.0)[0])), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    encoder.eval()
    with torch.inference_mode():
        shown = torch.from_numpy(test.astype(np.float32) / 65535).permute(0, 3, 1, 2)
        guess = torch.cat([head(encoder(part)) for part in shown.split(256)]).argmax(1).numpy()
    return 100 * float((guess == wanted).mean())


def run_galaxies(seed: int, n: int, epochs: int, data: Path) -> dict[str, float]:
    """Real galaxies, 8-bit RGB, 6 classes; n of them at random."""
    folder = data / "galaxyzoo1-small"
    with tempfile.TemporaryDirectory() as work:
        table = build_store(scan(folder / "labels.csv"), Path(work), SIDE)
        pixels = np.array(open_store(Path(work)))
        rows_of = table["row"].to_pylist()
        names = [p.split("/")[-2] for p in table["path"].to_pylist()]
        source = scan(folder / "labels.csv").table
        assert source is not None
        classes = source["class"].to_pylist()
        assert len(names) == len(classes)
        labels = np.unique([c for r, c in zip(rows_of, classes, strict=True) if r >= 0], return_inverse=True)[
            1
        ]
    chosen = np.random.default_rng(seed).permutation(len(pixels))[:n]
    pixels, labels = pixels[chosen], labels[chosen]
    columns = measure_store(pixels, PHOTO)
    found = {"columns alone": few_labels(as_rows(columns), labels)}
    for title, name in (("ssl", SSL), ("measure", "measure"), ("both", f"{SSL}+measure")):
        rows, _ = learn(pixels, columns, name, seed, epochs)
        found[title] = few_labels(rows, labels)
    return found


RUNS: dict[str, Callable[..., dict[str, float]]] = {
    "sky": run_sky,
    "missing": run_missing,
    "drop": run_drop,
    "labels": run_labels,
    "galaxies": run_galaxies,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", default=",".join(RUNS))
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/measure.jsonl"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    done = _read(wanted.out)
    for seed in range(wanted.seeds):
        for name in wanted.only.split(","):
            key = {"run": name, "seed": seed, "images": wanted.images, "epochs": wanted.epochs}
            if any({k: one[k] for k in key} == key for one in done):
                continue
            more = {"data": wanted.data} if name == "galaxies" else {}
            scores = RUNS[name](seed, wanted.images, wanted.epochs, **more)
            done.append({**key, "scores": scores, "machine": platform.processor() or platform.machine()})
            print(json.dumps(done[-1]), flush=True)
            with wanted.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[-1]) + "\n")
    page = "\n".join(report(done)) + "\n"
    wanted.out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def report(records: list[dict[str, Any]]) -> Iterable[str]:
    """The page: a table per question with means and 95 % intervals over seeds, and A.5's bars."""
    yield "# Measurements as targets"
    yield ""
    yield "Made by `benchmarks/measure.py`: ResNet-10, 8 wide, 32 px, one CPU thread; AdamW 2e-3, batch 32,"
    yield f"the last epoch. `ssl` is `{SSL}`, `both` is `{SSL}+measure`. Intervals: 95 %, t over seeds."
    yield "20 labels: accuracy of 3 nearest neighbours among 20 labelled images, balanced, mean of"
    yield "200 draws, the same for every row; in per cent. `columns alone`: the measurements, no network."
    for name, title, bars in QUESTIONS:
        mine = [record for record in records if record["run"] == name]
        if not mine:
            continue
        yield from ("", f"## {title}", "")
        yield f"{len(mine)} seeds, {mine[0]['images']:,} images, "
        yield f"{mine[0]['epochs']} epochs."
        yield from ("", "| | mean | 95 % interval |", "| --- | --- | --- |")
        for row in mine[0]["scores"]:
            yield f"| {row} | {_shown([one['scores'][row] for one in mine])} |"
        yield ""
        for one in bars:
            yield f"- {_judged(mine, *one)}"


QUESTIONS: tuple[tuple[str, str, tuple[tuple[str, str, float, str], ...]], ...] = (
    (
        "sky",
        "A sky of 12 bands, 20 labels",
        (("both", "ssl", 0.0, "`both` beats `ssl`"), ("both", "measure", 0.0, "`both` beats `measure`")),
    ),
    (
        "missing",
        "Targets missing",
        (("30 % missing", "all targets", -1.0, "30 % missing cost less than 1 point"),),
    ),
    (
        "drop",
        "A planted batch effect, four batches (chance 25)",
        (("class, batch dropped", "class, batch shown", -1.0, "the class loses less than 1 point"),),
    ),
    (
        "labels",
        "Frozen `measure` features against a network from nothing",
        (("frozen 100", "scratch 100", 0.0, "frozen beats scratch at 100 labels"),),
    ),
    (
        "galaxies",
        "Galaxies (galaxyzoo1-small, 6 classes), 20 labels",
        (("both", "ssl", 0.0, "`both` beats `ssl`"), ("measure", "ssl", 0.0, "`measure` beats `ssl`")),
    ),
)


def _judged(records: list[dict[str, Any]], row: str, against: str, bar: float, claim: str) -> str:
    apart = [one["scores"][row] - one["scores"][against] for one in records]
    low, high = _interval(apart)
    verdict = "yes" if low > bar else "no" if high < bar else "not significant"
    return (
        f"{claim}: {verdict} ({np.mean(apart):+.1f} points, {low:+.1f} to {high:+.1f}; the bar is {bar:+.0f})"
    )


def _interval(values: list[float]) -> tuple[float, float]:
    found = t_interval(values)
    return (-np.inf if found.low is None else found.low), (np.inf if found.high is None else found.high)


def _shown(values: list[float]) -> str:
    low, high = _interval(values)
    return f"{np.mean(values):.2f} | {low:.2f} to {high:.2f}"


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
