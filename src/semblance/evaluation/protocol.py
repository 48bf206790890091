"""The rules of a fair comparison: disjoint classes, the rows that must be there, intervals, seeds.

Rules 1 to 5 of the project's protocol, after Musgrave, Belongie, Lim (2020) and Roth et al. (2020): classes
of the test are not those of training; a table shows what pixels and untrained and frozen encoders reach;
differences come with an interval over classes; several seeds are summed up with a t-interval.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import semblance
from semblance.contracts import Progress
from semblance.errors import ConfigError, InputError
from semblance.evaluation.baselines import pca_pixels, random_projection, raw_pixels, whitened_pixels
from semblance.evaluation.metrics import Scores, score
from semblance.evaluation.statistics import difference, resampled_means, t_interval
from semblance.evaluation.tables import Labels, read_labels

__all__ = [
    "REQUIRED_ROWS",
    "Labels",
    "class_split",
    "evaluate",
    "pca_pixels",
    "random_projection",
    "raw_pixels",
    "read_labels",
    "split_by_column",
    "split_hash",
    "summarise_seeds",
    "whitened_pixels",
]

REQUIRED_ROWS = ("raw pixels", "untrained encoder", "frozen start")
"""Rows without which no table is made; a start that is not pretrained is the untrained encoder again."""

Split = dict[str, NDArray[np.int64]]


def class_split(
    labels: Sequence[Any] | NDArray[Any],
    fractions: Sequence[float] = (0.5, 0.1, 0.4),
    seed: int = 0,
    names: Sequence[str] = ("train", "validation", "test"),
) -> Split:
    """Rows of each part, `{"train": (n,) int64, ...}`, no class in two of them.

    `fractions` are of the classes and add up to 1; every part gets at least one class. Rows without a label
    (None, NaN) are in no part. Raises `ConfigError` for other fractions, `InputError` for too few classes.
    """
    if len(fractions) != len(names) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions are {tuple(fractions)}", f"give {len(names)} above 0 that add up to 1")
    array = _objects(labels)
    classes = sorted({label for label in array if label is not None}, key=lambda v: (str(type(v)), v))
    if len(classes) < len(names):
        raise InputError(f"{len(classes)} classes cannot be split into {len(names)} parts")
    order = np.random.default_rng(seed).permutation(len(classes))
    cuts = np.rint(np.cumsum(fractions)[:-1] * len(classes)).astype(int)
    for part in range(len(cuts)):
        lowest = (cuts[part - 1] if part else 0) + 1
        cuts[part] = min(max(cuts[part], lowest), len(classes) - (len(cuts) - part))
    part_of = {classes[place]: int(np.searchsorted(cuts, at, "right")) for at, place in enumerate(order)}
    parts = np.array([part_of[label] if label is not None else -1 for label in array], dtype=np.int64)
    return {name: np.flatnonzero(parts == part) for part, name in enumerate(names)}


def split_by_column(column: Sequence[Any] | NDArray[Any], labels: Sequence[Any] | None = None) -> Split:
    """Rows of each value of a table's column, such as "train" and "test"; missing values are in no part.

    With `labels` the parts must share no class; raises `InputError` naming those they share.
    """
    array = _objects(column)
    values = sorted({str(value) for value in array if value is not None})
    split = {v: np.array([i for i, x in enumerate(array) if str(x) == v and x is not None]) for v in values}
    if labels is not None:
        classes = _objects(labels)
        if len(classes) != len(array):
            raise InputError(f"{len(array)} rows came with {len(classes)} labels")
        seen: dict[Any, str] = {}
        for value, rows in split.items():
            for label in {classes[row] for row in rows if classes[row] is not None}:
                if label in seen:
                    where = f'"{seen[label]}" and "{value}"'
                    raise InputError(f'the class "{label}" is in {where}', "use a class-disjoint column")
                seen[label] = value
    return split


def split_hash(split: Mapping[str, ArrayLike], keys: Sequence[Any]) -> str:
    """32 hexadecimal digits that change when any row changes its part.

    `keys`: what names the rows, paths or labels; the order of the rows does not matter if they differ.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(split):
        rows = np.asarray(split[name], dtype=np.int64)
        digest.update(f"{name}\0{len(rows)}\0".encode())
        for key in sorted(str(keys[row]) for row in rows):
            digest.update(key.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def evaluate(
    rows: Mapping[str, ArrayLike],
    labels: Sequence[Any] | NDArray[Any],
    reference: str = "untrained encoder",
    seed: int = 0,
    *,
    required: Sequence[str] = REQUIRED_ROWS,
    balanced: bool = False,
    clusters: bool = True,
    samples: int = 10_000,
    level: float = 0.95,
    split_hash: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """One table of results, ready for JSON.

    `rows`: name -> embeddings `(n, d)` of the same images; `labels` `(n,)`, None or NaN where there is none:
    those images are left out and counted. In the answer: "rows" (name -> metric -> number), "intervals"
    (name -> metric -> [low, high] or None, over resampled classes), "differences" (name -> metric -> mean,
    low, high, significant, text, against `reference`), "classes", "images", "left_out", "split_hash" (of the
    scored labels unless given), "seed", "settings" and "versions". NMI and AMI are no means over images and
    have intervals only over seeds (`summarise_seeds`). Embeddings are normalised to length 1.

    Raises `ConfigError` if a row of `required` is missing, `InputError` if rows and labels do not fit.
    """
    absent = [name for name in (*required, reference) if name not in rows]
    if absent:
        wanted = ", ".join(f'"{name}"' for name in dict.fromkeys(absent))
        raise ConfigError(f"the table lacks the row {wanted}", "without it no number can be judged")
    array = _objects(labels)
    kept = np.array([i for i, label in enumerate(array) if label is not None], dtype=np.int64)
    names = [str(array[i]) for i in kept]
    if not names:
        raise InputError("no image has a label", "nothing can be scored")
    scores = _score_rows(rows, array, kept, names, seed, balanced, clusters, progress)
    some = scores[reference]
    intervals, differences = _compare(scores, reference, seed, samples, level, balanced)
    return {
        "rows": {name: dict(one.summary) for name, one in scores.items()},
        "intervals": intervals,
        "differences": differences,
        "reference": reference,
        "classes": len(set(names)),
        "images": len(names),
        "left_out": {"without label": len(array) - len(kept), "alone in class": some.left_out},
        "split_hash": split_hash or _hash_of({"scored": np.arange(len(names))}, names),
        "seed": seed,
        "settings": {
            "normalised": True,
            "search": "exact, self excluded by row, ties by row",
            "clustering": "k-means, k = classes, 10 restarts, arithmetic averaging" if clusters else None,
            "knn_temperature": 0.1,
            "level": level,
            "bootstrap": f"{samples} draws of the classes",
        },
        "versions": _versions(),
    }


_hash_of = split_hash


def summarise_seeds(results: Sequence[Mapping[str, Any]], level: float = 0.95) -> dict[str, Any]:
    """Several `evaluate` results of one table, one per seed: means with t-intervals.

    "rows": name -> metric -> mean, low, high, text; "differences": against the reference, paired by seed,
    with significant and text. Raises `ConfigError` if a seed comes twice or the tables are not alike.
    """
    if not results:
        raise ConfigError("there is no result to sum up")
    seeds = [int(result["seed"]) for result in results]
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"a seed comes twice: {seeds}", "give one result per seed")
    first = results[0]
    for key in ("images", "classes", "reference", "split_hash"):
        if any(result[key] != first[key] for result in results):
            raise ConfigError(f'the results differ in "{key}"', "sum up only one table at a time")
    table = first["rows"]
    shape = {name: set(metrics) for name, metrics in table.items()}
    if any({name: set(metrics) for name, metrics in r["rows"].items()} != shape for r in results):
        raise ConfigError("the results have different rows or metrics", "sum up only one table at a time")
    reference = str(first["reference"])
    rows: dict[str, Any] = {name: {} for name in table}
    differences: dict[str, Any] = {name: {} for name in table if name != reference}
    for name, metrics in table.items():
        for metric in metrics:
            values = np.array([result["rows"][name][metric] for result in results])
            interval = t_interval(values, level)
            rows[name][metric] = {**interval._asdict(), "text": interval.text}
            if name != reference:
                paired = values - [result["rows"][reference][metric] for result in results]
                gap = difference(*t_interval(paired, level), "fewer than 2 seeds")
                differences[name][metric] = gap._asdict()
    common = {key: first[key] for key in ("reference", "images", "classes", "left_out", "split_hash")}
    return {"seeds": seeds, "level": level, "rows": rows, "differences": differences, **common}


def _score_rows(
    rows: Mapping[str, ArrayLike],
    labels: list[Any],
    kept: NDArray[np.int64],
    names: list[str],
    seed: int,
    balanced: bool,
    clusters: bool,
    progress: Progress | None,
) -> dict[str, Scores]:
    """Each row's scores; rows that are the same array are scored once."""
    done: dict[int, Scores] = {}
    scores = {}
    for number, (name, embeddings) in enumerate(rows.items()):
        if progress:
            progress("evaluate", number, len(rows))
        array = np.asarray(embeddings)
        if len(array) != len(labels):
            raise InputError(f'the row "{name}" has {len(array)} embeddings for {len(labels)} labels')
        if id(embeddings) not in done:
            done[id(embeddings)] = score(
                array[kept], np.array(names), balanced=balanced, clusters=clusters, seed=seed
            )
        scores[name] = done[id(embeddings)]
    if progress:
        progress("evaluate", len(rows), len(rows))
    return scores


def _compare(
    scores: Mapping[str, Scores], reference: str, seed: int, samples: int, level: float, balanced: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Intervals of each row and of its difference to the reference, from one draw of the classes."""
    names, base = list(scores), scores[reference]
    metrics = list(base.per_query)
    columns = np.stack([scores[name].per_query[m] for name in names for m in metrics], axis=1)
    intervals: dict[str, Any] = {name: dict.fromkeys(base.summary) for name in names}
    differences: dict[str, Any] = {name: {} for name in names if name != reference}
    enough = len(np.unique(base.classes)) >= 2
    share = [(1 - level) / 2, (1 + level) / 2]
    for suffix, by_class in (("", False), ("_balanced", True)) if balanced else (("", False),):
        if enough:
            draws = resampled_means(columns, base.classes, samples, seed, by_class)
            draws = draws.reshape(samples, len(names), len(metrics))
            bounds = np.quantile(draws, share, axis=0)
            gaps = np.quantile(draws - draws[:, [names.index(reference)]], share, axis=0)
        for i, name in enumerate(names):
            for j, metric in enumerate(metrics):
                key = metric + suffix
                if enough:
                    intervals[name][key] = [float(bound) for bound in bounds[:, i, j]]
                if name != reference:
                    mean = scores[name].summary[key] - base.summary[key]
                    low, high = (float(gaps[0, i, j]), float(gaps[1, i, j])) if enough else (None, None)
                    differences[name][key] = difference(mean, low, high, "fewer than 2 classes")._asdict()
    return intervals, differences


def _objects(values: Sequence[Any] | NDArray[Any]) -> list[Any]:
    """Python values, None for what is missing (None or NaN)."""
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return [None if value is None or value != value else value for value in listed]


def _versions() -> dict[str, str]:
    packages = ("numpy", "scikit-learn", "scipy", "torch")
    found = {name: metadata.version(name) for name in packages}
    return {"semblance": semblance.__version__, "python": platform.python_version(), **found}
