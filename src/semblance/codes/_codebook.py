"""Fixed codes for classes, far from one another: rows of a Hadamard matrix, or random rows kept apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semblance.errors import ConfigError

__all__ = ["codebook", "hadamard", "set_codes", "spread_rows"]

Signs = NDArray[np.float32]

TRIES = 64
"""Random rows tried at a distance before the distance is lowered by one bit."""


def hadamard(k: int) -> Signs:
    """The Hadamard matrix `(k, k)` of Sylvester, k a power of two: rows of -1 and 1, orthogonal.

    >>> hadamard(2).tolist()
    [[1.0, 1.0], [1.0, -1.0]]
    """
    if k < 1 or k & (k - 1):
        raise ConfigError(f"there is no Hadamard matrix of Sylvester with {k} rows", "give a power of two")
    rows = np.ones((1, 1), dtype=np.float32)
    while len(rows) < k:
        rows = np.block([[rows, rows], [rows, -rows]])
    return rows


def spread_rows(classes: int, bits: int, rng: np.random.Generator) -> Signs:
    """`classes` random rows of -1 and 1, `(classes, bits)`, one after the other, each kept only if it is far
    from all before: at least bits / 3 away, and a bit less whenever 64 in a row are not."""
    rows = np.empty((classes, bits), dtype=np.float32)
    apart = max(1, bits // 3)
    count = 0
    while count < classes:
        drawn = rng.integers(0, 2, (TRIES, bits)).astype(np.float32) * 2 - 1
        nearest = ((bits - drawn @ rows[:count].T) / 2).min(axis=1, initial=bits)
        good = np.flatnonzero(nearest >= apart)
        if len(good):
            rows[count] = drawn[good[0]]
            count += 1
        else:
            apart -= 1
            if apart < 1:
                return _few_bits(classes, bits, rng)
    return rows


def codebook(classes: int, bits: int, kind: str, seed: int) -> Signs:
    """One row of -1 and 1 for each class, `(classes, bits)`, all different, drawn by `seed`.

    `kind`: "hadamard" takes rows of a Hadamard matrix and, beyond `bits` classes, their opposites;
    "bernoulli" random rows kept apart; "auto" the first where bits is a power of two and there are at most 2
    bits classes. Raises `ConfigError` where there are too few codes.
    """
    rng = np.random.default_rng(seed)
    power = bits & (bits - 1) == 0
    if kind == "hadamard" or (kind == "auto" and power and classes <= 2 * bits):
        if not power or classes > 2 * bits:
            raise ConfigError(
                f"{bits} bits have no Hadamard code for {classes} classes",
                "bits must be a power of two and at least half the classes; or take bernoulli",
            )
        # A row may be turned over at will: it stays orthogonal, and no bit is the same in all of them.
        rows = hadamard(bits)[rng.permutation(bits)] * (rng.integers(0, 2, (bits, 1)) * 2 - 1)
        whole: Signs = np.concatenate([rows, -rows])[:classes].astype(np.float32)
        return whole
    if bits < 63 and classes > 2**bits:
        raise ConfigError(f"{bits} bits are too few for {classes} classes", "give more bits")
    return spread_rows(classes, bits, rng)


def set_codes(rows: Signs, classes: NDArray[np.bool_], seed: int) -> Signs:
    """The code `(n, bits)` of rows with several classes each, `(n, c)` bool: the sign of the sum of their
    classes' codes; where it is 0, that of one random row, the same for all."""
    total = classes.astype(np.float32) @ rows
    ties = np.random.default_rng(seed).integers(0, 2, rows.shape[1]).astype(np.float32) * 2 - 1
    signs: Signs = np.where(total == 0, ties, np.sign(total)).astype(np.float32)
    return signs


def _few_bits(classes: int, bits: int, rng: np.random.Generator) -> Signs:
    """Rows that are only different, where there are hardly more codes than classes."""
    numbers = rng.choice(2**bits, classes, replace=False)
    return ((numbers[:, None] >> np.arange(bits)) & 1).astype(np.float32) * 2 - 1
