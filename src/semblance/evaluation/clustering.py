"""How well k-means clusters of an embedding match classes: NMI and AMI.

NMI does not start at 0: a random clustering of the CUB test classes scores 0.19, of Stanford Online
Products 0.81. AMI is corrected for chance and starts at 0; read that one first.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from semblance.errors import ConfigError
from semblance.index.exact import as_vectors

__all__ = ["MINIBATCH_CELLS", "WIDEST", "ami", "kmeans", "nmi"]

MINIBATCH_CELLS = 40_000_000
"""From this many (point, cluster) pairs on, `kmeans` works on mini-batches."""

WIDEST = 256
"""Wider embeddings are reduced to this many principal components before k-means."""

Floats = NDArray[np.float32]


def nmi(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Normalised mutual information in [0, 1], arithmetic mean of the two entropies."""
    return float(normalized_mutual_info_score(labels, clusters, average_method="arithmetic"))


def ami(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Mutual information adjusted for chance: 0 expected at random, 1 for equal partitions
    (Vinh et al. 2010; arithmetic mean of the two entropies)."""
    return float(adjusted_mutual_info_score(labels, clusters, average_method="arithmetic"))


def kmeans(embeddings: ArrayLike, k: int, *, seed: int = 0, restarts: int = 10) -> NDArray[np.int64]:
    """The cluster `(n,)` of each row: the best of `restarts` runs of Lloyd's algorithm from greedy
    k-means++ starts (Arthur and Vassilvitskii 2007; scikit-learn's number of trials).

    The starts of all restarts are drawn together, which saves most of scikit-learn's time where clusters
    are many; the result does not depend on the order of the rows. Rows wider than `WIDEST` are first
    reduced to as many principal components. From `MINIBATCH_CELLS` pairs of point and cluster on,
    scikit-learn's `MiniBatchKMeans` is used instead. Raises `ConfigError` unless `1 <= k <= n`.
    """
    x = as_vectors(embeddings)
    if not 1 <= k <= len(x):
        raise ConfigError(f"{len(x)} rows cannot make {k} clusters")
    # A sort by bytes gives every permutation of the rows the same start; equal rows are interchangeable.
    order = np.argsort((x + np.float32(0)).view(np.dtype((np.void, 4 * x.shape[1])))[:, 0], kind="stable")
    clusters = np.empty(len(x), dtype=np.int64)
    clusters[order] = _kmeans(_narrow(x[order], seed), k, seed, restarts)
    return clusters


def _narrow(x: Floats, seed: int) -> Floats:
    if x.shape[1] <= WIDEST or len(x) <= WIDEST:
        return x
    reduced = PCA(WIDEST, svd_solver="randomized", random_state=seed).fit_transform(x)
    return np.ascontiguousarray(reduced, dtype=np.float32)


def _kmeans(x: Floats, k: int, seed: int, restarts: int) -> NDArray[Any]:
    with warnings.catch_warnings():
        # Fewer distinct rows than clusters: some clusters stay empty, which NMI and AMI can score.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(x) * k >= MINIBATCH_CELLS:
            batch = max(1024, min(len(x), 2 * k))
            best: NDArray[Any] = MiniBatchKMeans(
                k, n_init=restarts, batch_size=batch, random_state=seed
            ).fit_predict(x)
            return best
        rng = np.random.default_rng(seed)
        runs = (KMeans(k, init=start, n_init=1).fit(x) for start in _starts(x, k, restarts, rng))
        chosen: NDArray[Any] = min(runs, key=lambda run: float(run.inertia_)).labels_
        return chosen


def _starts(x: Floats, k: int, restarts: int, rng: np.random.Generator) -> Floats:
    """Greedy k-means++ centres `(restarts, k, d)`: each next centre is the best of `2 + ln k` rows drawn
    with probability proportional to the squared distance to the nearest centre so far."""
    x = x - x.mean(axis=0)
    squares = np.einsum("ij,ij->i", x, x)
    one = np.ones(len(x), dtype=np.float32)
    # [-2 c, 1, |c|^2] . [x, |x|^2, 1] = |c - x|^2 in one matrix product.
    right = np.ascontiguousarray(np.column_stack([x, squares, one]).T)
    left = np.column_stack([-2 * x, one, squares])
    trials = 2 + int(np.log(k))
    every = np.arange(restarts)
    chosen = np.empty((restarts, k), dtype=np.int64)
    chosen[:, 0] = rng.integers(len(x), size=restarts)
    near = np.maximum(left[chosen[:, 0]] @ right, 0)
    for step in range(1, k):
        mass = np.cumsum(near, axis=1, dtype=np.float64)
        drawn = rng.random((restarts, trials)) * mass[:, -1:]
        rows = np.stack([np.searchsorted(mass[run], drawn[run], side="right") for run in every])
        rows = np.minimum(rows, len(x) - 1)
        distances = (left[rows.ravel()] @ right).reshape(restarts, trials, len(x))
        np.minimum(distances, near[:, None], out=distances)
        best = distances.sum(axis=2).argmin(axis=1)
        near = np.maximum(distances[every, best], 0)
        chosen[:, step] = rows[every, best]
    centres: Floats = x[chosen]
    return centres
