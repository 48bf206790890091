"""Rows of embeddings, read in blocks: validation, moments, samples, labels.

Everything that is summed is summed in float64, block by block, so an array on disk costs no more memory than
one block and gives what the same array in memory gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.errors import InputError

__all__ = ["BLOCK_BYTES", "Labels", "Moments", "as_labels", "as_rows", "blocks", "moments", "sample"]

BLOCK_BYTES = 4 * 2**20
"""Memory for one block of rows in float64."""

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]
Rows = NDArray[Any]


class Moments(NamedTuple):
    """`mean` `(d,)` and `covariance` `(d, d)` (divided by n) in float64; `noise`: the variance that rounding
    to float32 can make in any direction, below which there is nothing to see."""

    mean: Wide
    covariance: Wide
    noise: float


class Labels(NamedTuple):
    """`rows` `(m,)` int64, those that have a label; `classes` `(m, c)` bool, which ones; `names` `(c,)`, the
    number of each class as it was given (its column, for several labels a row); `single`: one label a row."""

    rows: NDArray[np.int64]
    classes: NDArray[np.bool_]
    names: NDArray[np.int64]
    single: bool


def as_rows(x: ArrayLike, dim: int | None = None) -> Rows:
    """`x` as an `(n, d)` array of floats, not copied; one row `(d,)` becomes `(1, d)`.

    Values are checked where they are read (`blocks`). Raises `InputError` for another shape, another
    dimension than `dim`, or what is no array of numbers.
    """
    try:
        array = np.asanyarray(x)
        if array.dtype.kind == "c":
            raise TypeError("complex numbers")
        if array.dtype.kind not in "fiu":
            array = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise InputError("the embeddings are not an array of numbers", "give (n, d) float32") from error
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"the embeddings have shape {array.shape}", "expected (n, d)")
    if dim is not None and array.shape[1] != dim:
        raise InputError(
            f"the embeddings have {array.shape[1]} dimensions, the coder was fitted on {dim}",
            "encode embeddings of the model that the coder belongs to",
        )
    return array


def blocks(x: Rows, width: int | None = None) -> Iterator[tuple[int, Wide]]:
    """(first row, rows in float64) of each block of `x`; `width` numbers a row decide how many rows fit.

    Raises `InputError` naming the first row with NaN or infinity.
    """
    step = max(1, BLOCK_BYTES // (8 * max(width or 0, x.shape[1])))
    for first in range(0, len(x), step):
        block = np.asarray(x[first : first + step], dtype=np.float64)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = first + int(np.argmin(finite))
            raise InputError(f"row {row} of the embeddings is not finite", "leave it out or embed it again")
        yield first, block


def check_spread(x: Rows) -> None:
    """Raises `InputError` unless `x` is finite throughout and has two rows that differ."""
    if len(x) < 2:
        raise InputError(f"{len(x)} embeddings are too few to learn codes from", "give at least two")
    start = np.asarray(x[0], dtype=np.float64)
    differs = False
    for _, block in blocks(x):
        differs = differs or bool((block != start).any())
    if not differs:
        raise InputError(
            f"all {len(x)} embeddings are the same", "the model has collapsed; there is nothing to tell apart"
        )


def moments(x: Rows) -> Moments:
    """Mean and covariance of all rows, summed in float64 about the first block's mean."""
    dim = x.shape[1]
    origin: Wide | None = None
    total, products, squares = np.zeros(dim), np.zeros((dim, dim)), 0.0
    for _, block in blocks(x):
        if origin is None:
            origin = block.mean(axis=0)
        squares += float(np.einsum("ij,ij->", block, block))
        moved = block - origin
        total += moved.sum(axis=0)
        products += moved.T @ moved
    shift = total / len(x)
    covariance = products / len(x) - np.outer(shift, shift)
    mean = shift if origin is None else origin + shift
    return Moments(mean, (covariance + covariance.T) / 2, 2.0**-46 * squares / len(x))


def sample(x: Rows, rows: int, seed: int) -> NDArray[np.int64]:
    """At most `rows` row numbers of `x` in rising order: all of them, or as many drawn by `seed`."""
    if len(x) <= rows:
        return np.arange(len(x), dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(len(x), rows, replace=False)).astype(np.int64)


def as_labels(y: ArrayLike | None, n: int) -> Labels:
    """The labelled rows among `n` and their classes.

    `y`: `(n,)` whole numbers, -1 where there is none, or `(n, classes)` bool. Raises `InputError` for another
    shape or number of rows, and where fewer than two classes remain.
    """
    if y is None:
        raise InputError("this coder learns from labels and was given none", "give y")
    array = np.asarray(y)
    if array.ndim not in (1, 2) or len(array) != n:
        raise InputError(f"{n} embeddings came with labels of shape {array.shape}", "one per embedding")
    if array.ndim == 2:
        if array.dtype != np.bool_:
            raise InputError(f"labels of shape {array.shape} are {array.dtype}", "give bool, or (n,) numbers")
        rows = np.flatnonzero(array.any(axis=1)).astype(np.int64)
        names = np.flatnonzero(array.any(axis=0)).astype(np.int64)
        classes = array[rows][:, names]
        single = bool((classes.sum(axis=1) == 1).all())
    else:
        if array.dtype.kind not in "iu":
            raise InputError(f"the labels are {array.dtype}", "give whole numbers, -1 where there is none")
        if array.dtype.kind == "i" and array.size and int(array.min()) < -1:
            raise InputError(f"a label is {int(array.min())}", "give numbers from 0, -1 where there is none")
        rows = np.flatnonzero(array.astype(np.int64) >= 0).astype(np.int64)
        names, which = np.unique(array[rows].astype(np.int64), return_inverse=True)
        classes = np.zeros((len(rows), len(names)), dtype=np.bool_)
        classes[np.arange(len(rows)), which] = True
        single = True
    if len(names) < 2:
        raise InputError(
            f"the labels name {len(names)} classes among {len(rows)} labelled rows", "at least two are needed"
        )
    return Labels(rows, classes, names, single)
