"""Running a recipe: learn, score what was held back, append a line to the results; seed by seed.

Every line carries a hash of everything that decides its scores: a seed that is there under the same hash is
not run again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semblance.collection import build, together
from semblance.collection.disk import read_json
from semblance.collection.evaluate import model_rows
from semblance.collection.log import now
from semblance.collection.model import Model, plain, versions
from semblance.collection.pick import Picked, pick
from semblance.collection.plan import Plan, make_bill, survey
from semblance.collection.read import read_images
from semblance.collection.recipe import Protocol, Recipe
from semblance.collection.results import append, read_results
from semblance.collection.settings import Options, Settings, resolve
from semblance.collection.store import Collection, is_collection
from semblance.contracts import Progress
from semblance.errors import ConfigError, InputError
from semblance.evaluation import protocol
from semblance.evaluation.metrics import weighted_knn
from semblance.images.formats import PixelFormat
from semblance.images.sources import scan
from semblance.native import processor
from semblance.training.config import choose_device, choose_precision

__all__ = ["REFERENCE", "Task", "bill_of", "prepare", "results_of", "run_seed", "summary"]

REFERENCE = "untrained encoder"
FREE = ("seed", "precision")
"""Fields of a training's record that are not in the hash: the seed has its own column."""


@dataclass(frozen=True)
class Task:
    """A recipe that can run: its images are there. `settings`: what it comes to for them; `hash`: of
    everything that decides the scores but the seed."""

    recipe: Recipe
    picked: Picked
    settings: Settings
    hash: str

    @property
    def title(self) -> str:
        """Name and hash, as files beside the results are called."""
        return f"{self.recipe.name}-{self.hash[:8]}"

    def collection(self, out: Path) -> Path:
        """Where the collection of the last seed is, for results in `out`."""
        return out.absolute().parent / f"{self.title}.smb"


def prepare(recipe: Recipe, data: str | Path | None = None, most: int | None = None) -> Task:
    """The recipe with its images, of the folder `data` or of its own; at most `most` learn, vote, are scored.

    Raises `InputError` where images or weights are missing, with what the recipe says of where to get them;
    `ConfigError` for options that do not fit these images.
    """
    folder = Path(data if data is not None else recipe.data.folder).expanduser()
    options, missing, hints = recipe.options, [], []
    if options.weights is not None and not Path(options.weights).is_file():
        missing.append(f"the weights {options.weights} are missing")
        hints += [recipe.get.weights, "--weights FILE names another file"]
    try:
        picked = pick(recipe.data, folder, most)
    except InputError as error:
        missing.insert(0, error.message)
        hints = [recipe.get.data or error.hint, "--data FOLDER names another folder", *hints]
    if missing:
        raise InputError(
            f"{recipe.name}: {', and '.join(missing)}", "; ".join(hint for hint in hints if hint)
        )
    _check(recipe.protocol, picked)
    found = scan(picked.files(picked.train))
    seen = survey(found, options)
    settings = resolve(options, len(found.items), seen.side, seen.pixels)
    return Task(recipe, picked, settings, _hash(settings, recipe.protocol, picked))


def _check(how: Protocol, picked: Picked) -> None:
    """Raise `InputError` for what could only fail when all is learned."""
    if how.name == "knn" and not picked.bank:
        raise InputError("no image that votes has a label", "label some, or name others with bank in [data]")
    classes = Counter(picked.labels(picked.score))
    if how.name != "knn" and max(classes.values()) < 2:
        raise InputError(
            "no class has two images that are scored", "score more of them: retrieval finds an image's like"
        )


def bill_of(task: Task, out: Path, progress: Progress | None = None) -> Plan:
    """What learning one seed takes, measured on a sample (see `plan`); scoring comes on top."""
    found = scan(task.picked.files(task.picked.train))
    return make_bill(found, task.collection(out), task.settings, task.recipe.options.threads, progress)


def results_of(task: Task, out: Path, seeds: int) -> dict[int, dict[str, Any]]:
    """Seed -> row of the seeds below `seeds` that are in the results under the task's hash."""
    rows = read_results(out)
    return {row["seed"]: row for row in rows if row["hash"] == task.hash and row["seed"] < seeds}


def run_seed(task: Task, out: Path, seed: int, progress: Progress | None = None) -> dict[str, Any]:
    """The row of one seed, learned, scored and appended to `out`.

    Its seconds: of learning (earlier, cut off runs included), of scoring, and of this call on the clock and
    on the processor. What was learned stays in `task.collection(out)`, the seed's before it is replaced; cut
    off, the same call goes on within the training. Raises what `learn` raises, and `InputError` for an image
    that cannot be read and would be scored.
    """
    if together.follows():
        raise ConfigError("a recipe runs in one process", "leave torchrun out")
    started, busy = time.monotonic(), time.process_time()
    known = read_results(out)
    if not any(row["hash"] == task.hash for row in known):  # before hours of training, not after
        with _scored_images(task, task.settings.pixels, 8, progress):
            pass
    collection = _learned(task, out, seed, progress)
    learned = time.monotonic()
    table = _scored(task, collection.model, seed, progress)
    spent = {
        "learn": collection.info["actual"]["seconds"]["total"],
        "score": time.monotonic() - learned,
        "all": time.monotonic() - started,
        "processor": time.process_time() - busy,
    }
    row: dict[str, Any] = {
        "recipe": task.recipe.name,
        "hash": task.hash,
        **table,
        "seed": seed,
        "trained": len(collection),
        "epochs": collection.model.facts["training"]["epochs"],
        "model": collection.info["model"],
        "seconds": {name: round(value, 2) for name, value in spent.items()},
        "machine": _machine(task.settings),
        "versions": {**versions(), "numpy": np.__version__},
        "finished": now(),
    }
    row = plain(row)
    append(out, row)
    return row


def summary(rows: Sequence[Mapping[str, Any]], level: float = 0.95) -> dict[str, Any]:
    """Means over the seeds with Student's t-intervals: `protocol.summarise_seeds` of the rows."""
    return protocol.summarise_seeds(rows, level)


def _hash(settings: Settings, how: Protocol, picked: Picked) -> str:
    record = settings.record()
    record["training"] = {key: value for key, value in record["training"].items() if key not in FREE}
    record["encoder"] = {key: value for key, value in record["encoder"].items() if key != "reason"}
    asked = {key: value for key, value in plain(how).items() if value != getattr(Protocol(), key)}
    whole = json.dumps([record, how.name, asked, picked.hash], sort_keys=True)
    return hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()


def _learned(task: Task, out: Path, seed: int, progress: Progress | None) -> Collection:
    """The collection of this seed: the one that is there, or learned now."""
    target, mark = task.collection(out), {"hash": task.hash, "seed": seed}
    if is_collection(target) and read_json(target / "collection.json").get("recipe") == mark:
        return Collection.open(target)
    manifest = task.picked.write_manifest(target.with_suffix(".csv"))
    asked = {one.name: getattr(task.recipe.options, one.name) for one in dataclasses.fields(Options)}
    if task.settings.lesson is not None:  # it learns from labels: those of the images that learn
        asked |= {"labels": manifest, "column": task.picked.column}
    done = build.learn(manifest, target, progress=progress, **{**asked, "seed": seed, "overwrite": True})
    done.record(recipe=mark)
    return done


def _scored(task: Task, model: Model, seed: int, progress: Progress | None) -> dict[str, Any]:
    picked, how = task.picked, task.recipe.protocol
    with _scored_images(task, model.pixels, model.size, progress) as (every, pixels):
        rows = model_rows(model, pixels, device=task.recipe.options.device, progress=progress)
    place = {row: i for i, row in enumerate(every)}
    asked = [place[row] for row in picked.score]
    labels = picked.labels(picked.score)
    if how.name == "knn":
        voting = [place[row] for row in picked.bank]
        return _knn(rows, voting, picked.labels(picked.bank), asked, labels, task)
    table = protocol.evaluate(
        {name: values[asked] for name, values in _distinct(rows).items()},
        labels,
        seed=seed,
        required=("raw pixels", REFERENCE),
        balanced=how.balanced,
        clusters=how.clusters,
        split_hash=picked.hash,
        progress=progress,
    )
    return {key: value for key, value in table.items() if key != "versions"}


@contextmanager
def _scored_images(
    task: Task, pixels: PixelFormat, size: int, progress: Progress | None
) -> Iterator[tuple[list[int], NDArray[Any]]]:
    """The rows that vote or are scored, and their pixels. Raises `InputError` where one cannot be read."""
    picked, votes = task.picked, task.recipe.protocol.name == "knn"
    every = sorted({*(picked.bank if votes else ()), *picked.score})
    with read_images(picked.files(every), size, task.settings.fit, progress, pixels) as found:
        yield every, found.pixels


def _knn(
    rows: Mapping[str, NDArray[np.float32]],
    voting: Sequence[int],
    votes: Sequence[str],
    asked: Sequence[int],
    labels: Sequence[str],
    task: Task,
) -> dict[str, Any]:
    """The same table for the protocol `knn`."""
    how, scores = task.recipe.protocol, {}
    for name, values in _distinct(rows).items():
        made = weighted_knn(
            values[list(voting)],
            votes,
            values[list(asked)],
            labels,
            how.neighbours,
            how.temperature,
            how.balanced,
        )
        scores[name] = made.summary
    return {
        "rows": scores,
        "reference": REFERENCE,
        "classes": len(set(labels)),
        "images": len(labels),
        "left_out": {"without label": 0},
        "split_hash": task.picked.hash,
        "settings": {"bank": len(votes), "neighbours": how.neighbours, "temperature": how.temperature},
    }


def _distinct(rows: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The rows without a frozen start that is the untrained encoder again."""
    same = rows["frozen start"] is rows[REFERENCE]
    return {name: values for name, values in rows.items() if not (same and name == "frozen start")}


def _machine(settings: Settings) -> dict[str, Any]:
    """What the seconds were spent on."""
    device = choose_device(settings.device)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": processor(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "precision": choose_precision(settings.training.precision, device),
    }
