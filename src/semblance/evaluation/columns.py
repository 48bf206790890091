"""What an embedding knows of columns, so that nobody takes learned brightness for meaning.

`explained`: R^2 of every column on images that the fit did not see. `share_of_embedding`: how much of an
embedding's variance one column accounts for. `tells`: how much of a column folder or file order give away,
which is how batches, scanners and fields show. `as_rows`: columns as an embedding of their own, to score
beside a learned one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.contracts import Column
from semblance.objectives._targets import BINS, equal_bins, rank_normal, share_between

__all__ = ["SUSPECT", "as_rows", "explained", "share_of_embedding", "tells"]

Floats = NDArray[np.float64]
FOLDS = 5
RIDGE = (1e-2, 1.0, 1e2, 1e4)
SUSPECT = 0.5
"""Above this share of its entropy, folder or file order give a column away."""


def explained(rows: NDArray[Any], columns: Mapping[str, Column], held: NDArray[np.bool_]) -> dict[str, float]:
    """Name -> R^2 on the rows of `held` of a ridge regression on embeddings `(n, d)` fitted to the others.

    Numbers count as the normal scores of their ranks. Of a category: the share of what guessing its most
    frequent level gets wrong that the regression gets right. The penalty is chosen by cross-validation on the
    fitted rows. NaN where fewer than 10 rows are on either side or nothing varies. May be negative.
    """
    x = np.asarray(rows, np.float64)
    centre, spread = x[~held].mean(0), x[~held].std(0)
    x = (x - centre) / np.where(spread > 1e-9, spread, 1.0)
    found = dict.fromkeys(columns, float("nan"))
    alike: dict[bytes, list[str]] = {}  # columns with the same rows are solved together
    for name, column in columns.items():
        there = np.isfinite(column.values)
        enough = min((there & ~held).sum(), (there & held).sum()) >= 10
        if enough and len(np.unique(column.values[there])) > 1:
            alike.setdefault(there.tobytes(), []).append(name)
    for mask, names in alike.items():
        there = np.frombuffer(mask, bool)
        fit, test = there & ~held, there & held
        targets = [_targets(columns[name], there) for name in names]
        ends = np.cumsum([y.shape[1] for y in targets])[:-1]
        y = np.concatenate(targets, axis=1)
        guesses = np.split(_ridge(x[fit], y[fit], x[test]), ends, axis=1)
        for name, wanted, guess in zip(names, targets, guesses, strict=True):
            found[name] = _score(wanted[fit], wanted[test], guess, bool(columns[name].levels))
    return found


def _targets(column: Column, there: NDArray[np.bool_]) -> Floats:
    return _one_hot(column, there) if column.levels else rank_normal(column.values)[:, None]


def _score(fitted: Floats, wanted: Floats, guess: Floats, category: bool) -> float:
    if category:
        right = float((guess.argmax(1) == wanted.argmax(1)).mean())
        most = float((wanted.argmax(1) == fitted.sum(0).argmax()).mean())
        return (right - most) / max(1 - most, 1e-12)
    apart = ((wanted - wanted.mean(0)) ** 2).sum()
    return float(1 - ((wanted - guess) ** 2).sum() / max(apart, 1e-12))


def share_of_embedding(rows: NDArray[Any], columns: Mapping[str, Column]) -> dict[str, float]:
    """Name -> the share of the embeddings' variance that lies between 16 equally filled bins (or the levels)
    of a column, less what as many random bins get: 1 where the column decides everything."""
    x = np.asarray(rows, np.float64)
    there = {name: np.isfinite(column.values) for name, column in columns.items()}
    return {name: share_between(x[there[name]], equal_bins(columns[name])[there[name]]) for name in columns}


def tells(columns: Mapping[str, Column], paths: Sequence[str], seed: int = 0) -> dict[str, tuple[str, float]]:
    """Name -> ("folder" or "order", share of the column's entropy that it gives away), for columns that one
    of them tells more than half of. Such a column is likely a batch, and one to DROP or to leave alone.

    `paths` in the order in which the files were listed. Shares are of the mutual information between bins,
    less its mean over 5 random orders.
    """
    n = len(paths)
    folders = np.unique([path.rpartition("/")[0] for path in paths], return_inverse=True)[1]
    order = np.arange(n) * BINS // max(n, 1)
    chance = np.random.default_rng(seed)
    found: dict[str, tuple[str, float]] = {}
    for name, column in columns.items():
        there = np.isfinite(column.values)
        bins = equal_bins(column)[there]
        if there.sum() < 2 * BINS:
            continue
        for what, clue in (("folder", folders[there]), ("order", order[there])):
            if 2 * len(np.unique(clue)) > len(clue):  # nearly every image has its own
                continue
            entropy = _information(bins, bins)
            by_luck = np.mean([_information(bins, chance.permutation(clue)) for _ in range(5)])
            share = float((_information(bins, clue) - by_luck) / max(entropy - by_luck, 1e-12))
            if share > SUSPECT and share > found.get(name, ("", 0.0))[1]:
                found[name] = (what, share)
    return found


def as_rows(columns: Mapping[str, Column]) -> NDArray[np.float32]:
    """`(n, d)` float32: numbers as normal scores, categories of at most 64 levels one-hot, missing ones 0.
    Rows have length 1."""
    parts = []
    for column in columns.values():
        there = np.isfinite(column.values)
        if column.levels:
            if len(column.levels) <= 64:
                parts.append(_one_hot(column, there))
            continue
        parts.append(np.nan_to_num(rank_normal(column.values))[:, None])
    table = np.concatenate(parts, axis=1)
    length = np.linalg.norm(table, axis=1, keepdims=True)
    return (table / np.where(length > 0, length, 1.0)).astype(np.float32)


def _one_hot(column: Column, there: NDArray[np.bool_]) -> Floats:
    y = np.zeros((len(column.values), len(column.levels)))
    y[np.flatnonzero(there), column.values[there].astype(np.int64)] = 1.0
    return y


def _information(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Mutual information of two labellings, in nats."""
    a, b = np.unique(a, return_inverse=True)[1], np.unique(b, return_inverse=True)[1]
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1.0 / len(a))
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / apart[some])).sum())


def _ridge(x: Floats, y: Floats, new: Floats) -> Floats:
    """Predictions `(q, k)` for `new`; of each column by the penalty with the least error over five folds."""
    fold = np.arange(len(x)) % FOLDS
    errors = np.zeros((len(RIDGE), y.shape[1]))
    for k in range(FOLDS):
        inside = fold != k
        errors += ((_solve(x[inside], y[inside], x[~inside]) - y[~inside]) ** 2).sum(1)
    every = _solve(x, y, new)
    found: Floats = every[errors.argmin(0), :, np.arange(y.shape[1])].T
    return found


def _solve(x: Floats, y: Floats, new: Floats) -> Floats:
    """`(penalties, q, k)` ridge regression with a free constant, from one decomposition of x'x."""
    centre, level = x.mean(0), y.mean(0)
    sizes, axes = np.linalg.eigh((x - centre).T @ (x - centre))
    inside = axes.T @ ((x - centre).T @ (y - level))
    seen = (new - centre) @ axes
    return np.stack([level + seen @ (inside / (sizes.clip(0) + one)[:, None]) for one in RIDGE])
