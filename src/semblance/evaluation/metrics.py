"""Retrieval, nearest-neighbour and clustering scores of an embedding, exact and in blocks.

Every neighbour comes from exact search on float32 vectors; an image is never its own neighbour (it is left
out by its row, not by its distance, so a duplicate of it stays), and equal distances are ordered by row.
Images that are alone in their class have nothing to find: they stay in the gallery, are left out as
queries, and are counted in `Scores.left_out`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.contracts import Matches, Progress
from semblance.errors import ConfigError, InputError
from semblance.evaluation.clustering import ami, kmeans, nmi
from semblance.index.exact import BLOCK_BYTES, as_vectors, nearest

__all__ = [
    "Scores",
    "ami",
    "hits",
    "kmeans",
    "map_at_r",
    "neighbours",
    "nmi",
    "r_precision",
    "recall_at",
    "score",
    "unit",
    "weighted_knn",
]

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """What an embedding scored.

    `summary`: metric -> mean. `per_query`: metric -> `(q,)` float32, what the bootstrap needs. `queries`:
    `(q,)` rows that were asked; `classes`: `(q,)` their class numbers. `left_out`: images that were no query
    because they are alone in their class.
    """

    summary: dict[str, float]
    per_query: dict[str, Floats]
    queries: Ids
    classes: Ids
    left_out: int = field(default=0)


def unit(embeddings: ArrayLike) -> Floats:
    """Rows `(n, d)` float32 of length 1; a row of zeros has no direction and stays as it is."""
    x = as_vectors(embeddings, what="embeddings")
    one = np.float32(1)
    largest = np.abs(x).max(axis=1, keepdims=True)
    scaled = x / np.where(largest > 0, largest, one)
    length = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    return as_vectors(scaled / np.where(length > 0, length, one))


def neighbours(
    embeddings: ArrayLike,
    k: int,
    queries: ArrayLike | None = None,
    exclude_self: bool = True,
    block_bytes: int = BLOCK_BYTES,
) -> Matches:
    """The k nearest rows of each row, by Euclidean distance, ordered by (distance, row).

    `queries`: `(q,)` the rows to ask for, all by default. The row itself is left out unless `exclude_self`
    is False; -1 and inf pad where fewer than k exist.
    """
    x = as_vectors(embeddings, what="embeddings")
    rows = np.arange(len(x), dtype=np.int64) if queries is None else np.asarray(queries, dtype=np.int64)
    if rows.ndim != 1 or (len(rows) and not 0 <= rows.min() <= rows.max() < len(x)):
        raise InputError(f"queries must be row numbers from 0 to {len(x) - 1}")
    return nearest(x[rows], x, k, exclude=rows if exclude_self else None, block_bytes=block_bytes)


def hits(ids: Ids, labels: NDArray[np.generic], query_labels: NDArray[np.generic]) -> Hits:
    """`(q, k)`: whether the j-th neighbour of query i has its class; False where there is none (-1)."""
    found: Hits = (labels[ids] == query_labels[:, None]) & (ids >= 0)
    return found


def recall_at(found: Hits, k: int) -> Floats:
    """`(q,)`: 1 where any of the first k neighbours is of the class (Recall@K of Jegou et al. 2011).

    >>> recall_at(np.array([[False, True], [False, False]]), 2)
    array([1., 0.], dtype=float32)
    """
    return np.asarray(found[:, :k].any(axis=1), dtype=np.float32)


def r_precision(found: Hits, relevant: Ids) -> Floats:
    """`(q,)`: share of the first R neighbours that are of the class; R = `relevant`, its other images.

    `found` must reach to `relevant.max()` neighbours, or to all there are.
    """
    within_r = np.arange(found.shape[1]) < relevant[:, None]
    return np.asarray((found & within_r).sum(axis=1) / relevant, dtype=np.float32)


def map_at_r(found: Hits, relevant: Ids) -> Floats:
    """`(q,)`: `1/R sum_{i=1..R} P(i) [i-th neighbour is correct]`, with P(i) the precision of the first i
    (Musgrave, Belongie, Lim 2020).

    Two others of the class, found at ranks 1 and 3 (the second lies beyond R):

    >>> map_at_r(np.array([[True, False, True]]), np.array([2]))
    array([0.5], dtype=float32)
    """
    ranks = np.arange(1, found.shape[1] + 1)
    counted = found & (ranks <= relevant[:, None])
    precision = np.cumsum(counted, axis=1) / ranks
    return np.asarray((precision * counted).sum(axis=1) / relevant, dtype=np.float32)


def weighted_knn(
    bank: ArrayLike,
    bank_labels: ArrayLike,
    queries: ArrayLike | None = None,
    query_labels: ArrayLike | None = None,
    k: int = 20,
    temperature: float = 0.1,
    balanced: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> Scores:
    """Accuracy "knn@k" of the vote of the k most similar of the bank, each with weight
    `exp(cosine / temperature)` (Wu et al. 2018, section 3.4).

    `bank` `(n, d)`; without `queries` every row is classified by the others (images alone in their class are
    left out). Rows are normalised; equal votes go to the first class in sorted order. `balanced` adds
    "knn@k_balanced", the mean over classes. Where fewer than k exist, all of them vote.
    """
    if k < 1 or not temperature > 0:
        raise ConfigError(f"k is {k} and the temperature {temperature}", "both must be above 0")
    x = unit(bank)
    if queries is None:
        return _score(x, _labels(bank_labels, len(x)), (), (k,), False, balanced, temperature, block_bytes)
    if query_labels is None:
        raise ConfigError("queries came without query_labels")
    q = unit(queries)
    as_vectors(q, dim=x.shape[1], what="queries")
    names = np.asarray(bank_labels)
    both = np.concatenate([names, np.asarray(query_labels)])
    codes = _labels(both, len(x) + len(q))
    asked = codes[len(x) :]
    parts = []
    for rows in _blocks(np.arange(len(q)), min(k, len(x)), int(codes.max()) + 1, block_bytes):
        found = nearest(q[rows], x, min(k, len(x)), block_bytes=block_bytes)
        parts.append(_votes(found, x, q[rows], codes, temperature) == asked[rows])
    right = {f"knn@{k}": np.concatenate(parts).astype(np.float32)}
    return Scores(_summary(right, asked, balanced), right, np.arange(len(q)), asked)


def score(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    recalls: Sequence[int] = (1, 2, 4, 8),
    knn: Sequence[int] = (20, 200),
    temperature: float = 0.1,
    balanced: bool = False,
    clusters: ArrayLike | bool = True,
    seed: int = 0,
    restarts: int = 10,
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> Scores:
    """Every score of one embedding: "recall@1", ..., "map@r", "r-precision", "knn@20", ..., "nmi", "ami".

    `embeddings` `(n, d)` are normalised to length 1; `labels` `(n,)` numbers or names. Each image asks all
    others. `clusters`: True for k-means with as many clusters as classes, False for none, or `(n,)` cluster
    numbers made elsewhere. `balanced` adds the mean over classes of each per-image score, named with
    "_balanced". Raises `InputError` if no class has two images.
    """
    x = unit(embeddings)
    codes = _labels(labels, len(x))
    scores = _score(x, codes, recalls, knn, True, balanced, temperature, block_bytes, progress)
    if clusters is not False:
        made = kmeans(x, int(codes.max()) + 1, seed=seed, restarts=restarts) if clusters is True else clusters
        scores.summary.update({"nmi": nmi(codes, made), "ami": ami(codes, made)})
    return scores


def _score(
    x: Floats,
    codes: Ids,
    recalls: Sequence[int],
    knn: Sequence[int],
    ranked: bool,
    balanced: bool,
    temperature: float,
    block_bytes: int,
    progress: Progress | None = None,
) -> Scores:
    relevant = np.bincount(codes)[codes] - 1
    queries = np.flatnonzero(relevant > 0)
    if not len(queries):
        raise InputError("no class has two images", "retrieval needs another image of the same class to find")
    deepest = max((*recalls, *knn, int(relevant.max()) if ranked else 1))
    depth = min(deepest, len(x) - 1)
    parts: dict[str, list[Floats]] = defaultdict(list)
    done = 0
    for rows in _blocks(queries, depth, int(codes.max()) + 1, block_bytes):
        found = nearest(x[rows], x, depth, exclude=rows, block_bytes=block_bytes)
        correct = hits(found.ids, codes, codes[rows])
        for at in recalls:
            parts[f"recall@{at}"].append(recall_at(correct, at))
        if ranked:
            parts["map@r"].append(map_at_r(correct, relevant[rows]))
            parts["r-precision"].append(r_precision(correct, relevant[rows]))
        for k in knn:
            first = Matches(found.ids[:, :k], found.distances[:, :k])
            voted = _votes(first, x, x[rows], codes, temperature)
            parts[f"knn@{k}"].append((voted == codes[rows]).astype(np.float32))
        done += len(rows)
        if progress:
            progress("score", done, len(queries))
    per_query = {name: np.concatenate(part) for name, part in parts.items()}
    summary = _summary(per_query, codes[queries], balanced)
    return Scores(summary, per_query, queries, codes[queries], len(x) - len(queries))


def _votes(found: Matches, bank: Floats, queries: Floats, codes: Ids, temperature: float) -> Ids:
    """The class `(q,)` with the largest sum of `exp(cosine / temperature)`; the first of equals."""
    # For rows of length 1 or 0: x.y = (|x|^2 + |y|^2 - |x - y|^2) / 2.
    own = np.asarray(queries.any(axis=1), dtype=np.float64)
    theirs = np.asarray(bank.any(axis=1), dtype=np.float64)
    cosine = (own[:, None] + theirs[found.ids] - found.distances.astype(np.float64) ** 2) / 2
    weight = np.where(found.ids >= 0, np.exp((cosine - 1) / temperature), 0)
    classes = int(codes.max()) + 1
    cells = np.arange(len(queries))[:, None] * classes + codes[found.ids]
    votes = np.bincount(cells.ravel(), weight.ravel(), minlength=len(queries) * classes)
    winner: Ids = votes.reshape(len(queries), classes).argmax(axis=1)
    return winner


def _blocks(rows: Ids, depth: int, classes: int, block_bytes: int) -> Iterator[Ids]:
    """`rows` in blocks whose neighbours (some 60 bytes each) and votes fit into `block_bytes`."""
    step = max(1, min(4096, block_bytes // (60 * depth + 16 * classes)))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _labels(labels: ArrayLike, n: int) -> Ids:
    """Class numbers `(n,)` from 0, in sorted order of the labels."""
    array = np.asarray(labels)
    if array.shape != (n,):
        raise InputError(f"{n} embeddings came with labels of shape {array.shape}")
    if n == 0:
        raise InputError("there is nothing to score", "no image has a label")
    named = array.dtype.kind in "iubU" or (array.dtype.kind == "O" and all(type(v) is str for v in array))
    if not named and not (array.dtype.kind == "f" and np.isfinite(array).all()):
        kinds = ", ".join(sorted({type(value).__name__ for value in array.tolist()}))
        raise InputError(f"labels are of the kind {kinds}", "give all numbers or all names, none missing")
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _summary(per_query: dict[str, Floats], classes: Ids, balanced: bool) -> dict[str, float]:
    summary = {name: float(values.mean(dtype=np.float64)) for name, values in per_query.items()}
    if balanced:
        _, codes, counts = np.unique(classes, return_inverse=True, return_counts=True)
        for name, values in per_query.items():
            sums = np.bincount(codes, values.astype(np.float64))
            summary[f"{name}_balanced"] = float(np.mean(sums / counts))
    return summary
