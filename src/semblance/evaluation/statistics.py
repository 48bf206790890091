"""Intervals over seeds and over classes, so that a difference is called one only when it is.

Images of one class are not independent, so the bootstrap draws classes, not images; the same draw serves
both methods of a pair. A result without spread (one seed, one class) has no interval, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from semblance.errors import ConfigError, InputError

__all__ = [
    "Difference",
    "Interval",
    "class_bootstrap",
    "difference",
    "paired_class_bootstrap",
    "resampled_means",
    "t_interval",
]

_CHUNK_CELLS = 4_000_000


class Interval(NamedTuple):
    """A mean and the interval around it; `low` and `high` are None where nothing varies to tell."""

    mean: float
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """The interval in words.

        >>> Interval(0.5, 0.45, 0.55).text
        '0.500 [0.450, 0.550]'
        """
        if self.low is None or self.high is None:
            return f"{self.mean:.3f} (no interval: fewer than 2 values)"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Difference(NamedTuple):
    """How much better a is than b. `significant`: the interval leaves out 0; False without an interval."""

    mean: float
    low: float | None
    high: float | None
    significant: bool
    text: str


def t_interval(values: Sequence[float] | NDArray[np.floating], level: float = 0.95) -> Interval:
    """The mean of one number per seed, and Student's t-interval around it; None bounds below 2 values.

    >>> t_interval([0.5, 0.6]).text
    '0.550 [-0.085, 1.185]'
    """
    _check_level(level)
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise InputError("an interval needs a list of finite numbers, at least one")
    mean = float(array.mean())
    if len(array) < 2:
        return Interval(mean, None, None)
    error = float(array.std(ddof=1)) / math.sqrt(len(array))
    half = float(stdtrit(len(array) - 1, (1 + level) / 2)) * error
    return Interval(mean, mean - half, mean + half)


def resampled_means(
    values: ArrayLike,
    classes: ArrayLike,
    samples: int = 10_000,
    seed: int = 0,
    balanced: bool = False,
) -> NDArray[np.float64]:
    """Means `(samples, m)` of `values` `(q, m)` over as many classes drawn with replacement.

    `classes` `(q,)`: each row's class. Every column sees the same draws, so differences of columns are
    paired. The mean is over images, or over classes of their means if `balanced`. Raises `InputError` on
    shapes that do not fit or values that are not finite.
    """
    if samples < 1:
        raise ConfigError(f"samples is {samples}", "draw at least one")
    sums, counts = _class_sums(values, classes, balanced)
    rng = np.random.default_rng(seed)
    total = len(counts)
    chunk = max(1, _CHUNK_CELLS // total)
    parts = []
    for start in range(0, samples, chunk):
        size = min(chunk, samples - start)
        drawn = rng.integers(total, size=(size, total)) + np.arange(size)[:, None] * total
        times = np.bincount(drawn.ravel(), minlength=size * total).reshape(size, total).astype(np.float64)
        parts.append((times @ sums) / (times @ counts)[:, None])
    return np.concatenate(parts)


def class_bootstrap(
    values: ArrayLike,
    classes: ArrayLike,
    samples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    balanced: bool = False,
) -> Interval:
    """The mean of one score per image `(q,)` and its percentile interval over resampled classes.

    None bounds if there are fewer than 2 classes.
    """
    _check_level(level)
    column = np.asarray(values, dtype=np.float64)[:, None]
    sums, counts = _class_sums(column, classes, balanced)
    mean = float(sums.sum() / counts.sum())
    if len(counts) < 2:
        return Interval(mean, None, None)
    low, high = _bounds(resampled_means(column, classes, samples, seed, balanced)[:, 0], level)
    return Interval(mean, low, high)


def paired_class_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    classes: ArrayLike,
    samples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    balanced: bool = False,
) -> Difference:
    """The mean of a - b, per image `(q,)` each, with its interval over resampled classes.

    `text` ends in "not significant" when the interval covers 0. Cost: one `(samples, classes)` product.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise InputError(f"a pair needs the same images: {first.shape} and {second.shape}")
    mean, low, high = class_bootstrap(first - second, classes, samples, seed, level, balanced)
    return difference(mean, low, high, "fewer than 2 classes")


def difference(mean: float, low: float | None, high: float | None, without: str) -> Difference:
    """A `Difference` with its text; `without` says why there is no interval, if there is none.

    >>> difference(0.02, -0.01, 0.05, "").text
    '+0.020 [-0.010, +0.050], not significant'
    """
    if low is None or high is None:
        return Difference(mean, None, None, False, f"{mean:+.3f} (no interval: {without})")
    significant = not low <= 0 <= high
    text = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    return Difference(mean, low, high, significant, text if significant else f"{text}, not significant")


def _class_sums(
    values: ArrayLike, classes: ArrayLike, balanced: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums `(c, m)` and counts `(c,)` per class; means and ones if `balanced`."""
    array, names = np.asarray(values, dtype=np.float64), np.asarray(classes)
    if array.ndim != 2 or names.shape != (len(array),) or not len(array):
        raise InputError(f"values of shape {array.shape} came with classes of shape {names.shape}")
    if not np.isfinite(array).all():
        raise InputError("a score is not finite")
    codes = np.unique(names, return_inverse=True)[1]
    counts = np.bincount(codes).astype(np.float64)
    sums = np.stack([np.bincount(codes, column) for column in array.T], axis=1)
    if balanced:
        return np.asarray(sums / counts[:, None], dtype=np.float64), np.ones(len(counts))
    return np.asarray(sums, dtype=np.float64), counts


def _bounds(draws: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"the level is {level}", "give a share between 0 and 1, such as 0.95")
