"""Where images stand: an even sample, a spread of queries, their neighbours, the map in the plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Layout", "evenly", "layouts", "nearest", "principal", "spread"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

BLOCK = 4096
"""Rows of the embedding matrix held in memory at once."""
SPARE = 16
"""Neighbours kept beyond k until distances are measured exactly."""


@dataclass(frozen=True)
class Layout:
    """A map: `points` `(m, 2)` float32 in [0, 1], and what to say about it."""

    name: str
    note: str
    points: Floats


def evenly(n: int, count: int) -> Rows:
    """At most `count` of `n` rows, sorted, evenly spaced: every folder gets its share.

    >>> evenly(10, 5).tolist()
    [0, 2, 4, 6, 8]
    """
    if n <= count:
        return np.arange(n, dtype=np.int64)
    return (np.arange(count, dtype=np.int64) * n) // count


def spread(x: Floats, count: int, pool: int = 20_000) -> Rows:
    """`count` rows of `(n, d)` that lie far from each other, by farthest-point sampling.

    Begins at the row nearest to the mean and takes each time the row farthest from all taken; stops
    early when every row left equals one taken. Large sets are sampled evenly down to `pool` first.
    Cost: `count` passes over `min(n, pool)` rows. (Gonzalez 1985.)
    """
    rows = evenly(len(x), pool)
    candidates = _finite(x[rows])
    if not len(rows):
        return rows
    distance = _squared(candidates, candidates.mean(axis=0))
    taken = [int(distance.argmin())]
    distance = _squared(candidates, candidates[taken[0]])
    while len(taken) < min(count, len(rows)) and distance.max() > 1e-10:
        taken.append(int(distance.argmax()))
        distance = np.minimum(distance, _squared(candidates, candidates[taken[-1]]))
    return rows[taken]


def nearest(x: Floats, queries: Rows, k: int) -> tuple[Rows, Floats]:
    """The `k` rows nearest to each query row, itself left out, by (distance, row): ids, distances.

    Euclidean and exact, `x` read in blocks. Both results are `(q, min(k, n - 1))`.
    """
    n, k = len(x), max(0, min(k, len(x) - 1))
    spare = min(k + SPARE, max(0, n - 1))
    wanted = _finite(x[queries])
    ids = np.zeros((len(queries), 0), np.int64)
    best = np.zeros((len(queries), 0), np.float32)
    for start in range(0, n, BLOCK):
        block = _finite(x[start : start + BLOCK])
        squared = (wanted**2).sum(1)[:, None] + (block**2).sum(1)[None] - 2 * wanted @ block.T
        here = np.arange(start, start + len(block), dtype=np.int64)
        squared[queries[:, None] == here[None]] = np.inf
        ids = np.concatenate([ids, np.broadcast_to(here, squared.shape)], axis=1)
        best = np.concatenate([best, squared.astype(np.float32)], axis=1)
        order = np.lexsort((ids, best), axis=1)[:, :spare]
        ids, best = np.take_along_axis(ids, order, 1), np.take_along_axis(best, order, 1)
    # the expanded square cancels near zero; the few kept, and some to spare, are measured directly
    exact = np.stack([np.sqrt(_squared(_finite(x[row]), q)) for row, q in zip(ids, wanted, strict=True)])
    order = np.lexsort((ids, exact), axis=1)[:, :k]
    return np.take_along_axis(ids, order, 1), np.take_along_axis(exact.astype(np.float32), order, 1)


def principal(x: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean `(d,)`, the first two principal axes `(2, d)` and their shares of variance `(2,)`.

    From the covariance, summed in blocks. Each axis points to where its largest weight is positive.
    """
    n, d = x.shape
    total, square = np.zeros(d), np.zeros((d, d))
    for start in range(0, n, BLOCK):
        block = _finite(x[start : start + BLOCK]).astype(np.float64)
        total += block.sum(0)
        square += block.T @ block
    mean = total / max(n, 1)
    values, vectors = np.linalg.eigh(square / max(n, 1) - np.outer(mean, mean))
    axes = np.zeros((2, d))
    axes[: min(2, d)] = vectors.T[::-1][:2]
    axes *= np.where(axes[np.arange(2), np.abs(axes).argmax(1)] < 0, -1.0, 1.0)[:, None]
    top = np.zeros(2)
    top[: min(2, d)] = np.maximum(values[::-1][:2], 0)
    shares = top / max(float(np.maximum(values, 0).sum()), 1e-12)
    return mean.astype(np.float32), axes.astype(np.float32), shares.astype(np.float32)


def layouts(x: Floats, rows: Rows, seed: int = 0) -> list[Layout]:
    """The maps of `x[rows]`: t-SNE first where openTSNE (extra `map`) is installed, PCA always."""
    mean, axes, shares = principal(x)
    sample = _finite(x[rows])
    flat = (sample - mean) @ axes.T
    first, second = (f"{100 * share:.0f} %" for share in shares)
    note = f"First two principal components: {first} and {second} of the variance."
    found = [Layout("PCA", note, _unit(flat))]
    neighbours = _tsne(sample, flat, seed)
    if neighbours is not None:
        note = "openTSNE, seeded: near images stay near; distances between far groups mean little."
        found.insert(0, Layout("t-SNE", note, _unit(neighbours)))
    return found


def _tsne(sample: Floats, flat: Floats, seed: int) -> Floats | None:
    scale = float(flat[:, 0].std()) if len(flat) else 0.0
    if len(sample) < 10 or scale < 1e-6:
        return None
    try:
        from openTSNE import TSNE
    except ImportError:
        return None
    start = flat / scale * 1e-4
    tsne = TSNE(
        perplexity=min(30.0, (len(sample) - 1) / 3),
        initialization=start.astype(np.float64),
        neighbors="exact",
        negative_gradient_method="bh",
        theta=0.6,
        early_exaggeration_iter=125,
        n_iter=300,
        n_jobs=1,
        random_state=seed,
    )
    points: Floats = np.asarray(tsne.fit(sample), dtype=np.float32)
    return points if np.isfinite(points).all() else None


def _unit(points: Floats) -> Floats:
    """Points moved and scaled, both axes alike, into the unit square; one place becomes its middle."""
    if not len(points):
        return points.astype(np.float32)
    low, high = points.min(0), points.max(0)
    size = float((high - low).max())
    middle = (low + high) / 2
    scaled = (points - middle) / size if size > 1e-6 else np.zeros_like(points)
    placed: Floats = np.clip(scaled + 0.5, 0, 1).astype(np.float32)
    return placed


def _finite(x: Floats) -> Floats:
    array = np.asarray(x, dtype=np.float32)
    return np.where(np.isfinite(array), array, np.float32(0))


def _squared(x: Floats, y: Floats) -> Floats:
    return np.asarray(((x - y) ** 2).sum(-1), dtype=np.float32)
