"""From columns to targets: roles, scales, circles, categories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from semblance.contracts import Column
from semblance.errors import ConfigError

__all__ = [
    "Category",
    "Targets",
    "given_away",
    "log_score",
    "prepare",
    "rank_normal",
    "read_circles",
    "read_names",
]

Floats = NDArray[np.float64]
CLIP = 4.0
BINS = 16


@dataclass(frozen=True)
class Category:
    """`codes` `(n,)` int64, -1 where missing, below `levels`."""

    name: str
    codes: NDArray[np.int64]
    levels: int


@dataclass(frozen=True)
class Targets:
    """`values` `(n, k)` float32, of about unit spread, NaN where missing; `turns` `(k,)` says which change
    when an image is mirrored or turned. Beside them the categories."""

    names: tuple[str, ...]
    values: NDArray[np.float32]
    turns: NDArray[np.bool_]
    categories: tuple[Category, ...]

    def __len__(self) -> int:
        return len(self.names) + len(self.categories)


def rank_normal(values: Floats) -> Floats:
    """Ranks as normal scores: `ndtri((rank - 1/2) / m)` of the m values that are there, ties by their mean
    rank.

    >>> rank_normal(np.array([5.0, 1.0, np.nan, 3.0])).round(3).tolist()
    [0.967, -0.967, nan, 0.0]
    """
    found = np.full(len(values), np.nan)
    good = np.isfinite(values)
    m = int(good.sum())
    found[good] = ndtri((rankdata(values[good]) - 0.5) / m) if m else 0.0
    return found


def log_score(values: Floats) -> Floats:
    """Standard scores within +-4 of the logarithm, or, where a value is not above 0, of the signed
    `log(1 + |x - median| / spread)`, spread being the mean distance from the median."""
    good = np.isfinite(values)
    x = values[good]
    if not len(x):
        return np.full(len(values), np.nan)
    if x.min() > 0:
        x = np.log(x)
    else:
        apart = x - np.median(x)
        x = np.sign(apart) * np.log1p(np.abs(apart) / max(np.abs(apart).mean(), 1e-300))
    found = np.full(len(values), np.nan)
    found[good] = ((x - x.mean()) / max(x.std(), 1e-12)).clip(-CLIP, CLIP)
    return found


SCALES: dict[str, Callable[[Floats], Floats]] = {"rank": rank_normal, "log": log_score}


def too_fine(column: Column) -> bool:
    """Is it a category of which fewer than two images share a level, on average?"""
    seen = column.values[np.isfinite(column.values)]
    return bool(column.levels) and 2 * len(np.unique(seen)) > len(seen)


def prepare(
    columns: Mapping[str, Column], scale: str, circles: Mapping[str, float], held: Any = None
) -> Targets:
    """The targets of `columns`; rows where `held` is true are left without any.

    A column that has fewer than two different values is left out, and so is a category that is `too_fine`.
    `circles`: name -> period; such a column becomes its cosine and sine.
    """
    names: list[str] = []
    values: list[Floats] = []
    turns: list[bool] = []
    categories: list[Category] = []
    for name, column in columns.items():
        x = np.where(np.isfinite(column.values), column.values, np.nan)
        if held is not None:
            x = np.where(held, np.nan, x)
        seen = np.unique(x[np.isfinite(x)])
        if len(seen) < 2:
            continue
        if column.levels:
            if too_fine(column):
                continue
            codes = np.where(np.isfinite(x), x, -1).astype(np.int64)
            categories.append(Category(name, codes, len(column.levels)))
            continue
        if name in circles:
            angle = x * (2 * np.pi / circles[name])
            parts = {f"{name} cos": np.sqrt(2) * np.cos(angle), f"{name} sin": np.sqrt(2) * np.sin(angle)}
        else:
            parts = {name: SCALES[scale](x)}
        names += parts
        values += parts.values()
        turns += [column.turns] * len(parts)
    rows = len(next(iter(columns.values())).values) if columns else 0
    table = np.stack(values, axis=1) if values else np.zeros((rows, 0))
    return Targets(tuple(names), table.astype(np.float32), np.array(turns, bool), tuple(categories))


def equal_bins(column: Column) -> NDArray[np.int64]:
    """`(n,)` levels, or 16 bins with as many rows each (equal values stay together); anything where
    missing."""
    values = np.nan_to_num(column.values)
    if column.levels:
        levels: NDArray[np.int64] = values.astype(np.int64)
        return levels
    there = np.isfinite(column.values)
    if not there.any():
        return np.zeros(len(values), np.int64)
    edges = np.unique(np.quantile(column.values[there], np.linspace(0, 1, BINS + 1)[1:-1]))
    bins: NDArray[np.int64] = np.searchsorted(edges, values, side="right").astype(np.int64)
    return bins


def share_between(rows: Floats, bins: NDArray[np.int64]) -> float:
    """The share of the variance of `rows` `(n, d)` that lies between `bins` `(n,)`, less what as many random
    bins get: 1 where they decide everything, 0 where nothing can be said."""
    bins = np.unique(bins, return_inverse=True)[1]
    used = int(bins.max()) + 1 if len(bins) else 0
    apart = rows - rows.mean(0) if len(rows) else rows
    whole = float((apart**2).sum())
    if used < 2 or used >= len(rows) or whole <= 0:
        return 0.0
    sums = np.zeros((used, rows.shape[1]))
    np.add.at(sums, bins, apart)
    share = float((sums**2 / np.bincount(bins)[:, None]).sum() / whole)
    chance = (used - 1) / (len(rows) - 1)
    return max(0.0, (share - chance) / (1 - chance))


def given_away(column: Column, by: Column) -> float:
    """The share of a column's variance, as normal scores or levels, that lies between the levels (or equally
    filled bins) of another, less what as many random bins get."""
    there = np.isfinite(column.values) & np.isfinite(by.values)
    x = column.values[there]
    levels = range(len(column.levels))
    y = np.stack([x == k for k in levels], 1).astype(float) if levels else rank_normal(x)[:, None]
    return share_between(y, equal_bins(by)[there])


def read_names(text: str, columns: Mapping[str, Column], option: str) -> list[str]:
    """The columns named in `text`, separated by commas; `*` ends a beginning. Raises `ConfigError` for one
    that is not there.

    >>> read_names("mean_*", {"mean_0": None, "mean_1": None, "area": None}, "keep")
    ['mean_0', 'mean_1']
    """
    found: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        fits = [
            name for name in columns if name == part or (part.endswith("*") and name.startswith(part[:-1]))
        ]
        if not fits:
            some = ", ".join(list(columns)[:12]) or "none"
            raise ConfigError(f'measure.{option} names "{part}", which is no column', f"known: {some}")
        found += fits
    return list(dict.fromkeys(found))


def read_circles(text: str) -> dict[str, float]:
    """Name -> period of "hour:24,angle:360". Raises `ConfigError` for anything else.

    >>> read_circles("hour:24, angle:360")
    {'hour': 24.0, 'angle': 360.0}
    """
    circles: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, period = part.rpartition(":")
        try:
            circles[name] = float(period)
        except ValueError:
            colon = ""
        if not colon or not name or not circles[name] > 0:
            raise ConfigError(f'measure.circular is "{text}"', "write name:period, for example hour:24")
    return circles
