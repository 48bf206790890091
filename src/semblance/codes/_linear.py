"""Linear pieces that coders share: principal directions, random rotations, the nearest rotation.

Everything is fixed up to rounding: a direction's sign is chosen so that its largest coordinate is positive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semblance.codes._rows import Rows, Wide, moments
from semblance.errors import InputError

__all__ = ["Principal", "frame", "principal", "procrustes", "rotation"]

SEEN = 2.0**-40
"""Variance of a direction, as a share of the largest, below which it is taken for rounding."""


class Principal(NamedTuple):
    """`mean` `(d,)`, `directions` `(d, r)` orthonormal by falling `variances` `(r,)`; `r` is the rank: the
    number of directions in which the embeddings differ by more than rounding."""

    mean: Wide
    directions: Wide
    variances: Wide


def principal(x: Rows) -> Principal:
    """The principal directions of rows `(n, d)`, from their covariance.

    Cost: `n d^2` for the covariance, `d^3` for its eigenvectors. Raises `InputError` where all rows are alike
    up to rounding.
    """
    mean, covariance, noise = moments(x)
    variances, directions = np.linalg.eigh(covariance)
    variances, directions = variances[::-1], directions[:, ::-1]
    rank = int((variances > SEEN * variances[0] + noise).sum())
    if rank == 0:
        raise InputError(f"all {len(x)} embeddings are the same up to rounding", "the model has collapsed")
    directions = directions[:, :rank]
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(rank)])
    return Principal(mean, np.ascontiguousarray(directions * signs), variances[:rank].copy())


def rotation(dim: int, rng: np.random.Generator) -> Wide:
    """A random orthogonal matrix `(dim, dim)`, every one equally likely (Stewart 1980)."""
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    found: Wide = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return found


def frame(dim: int, bits: int, rng: np.random.Generator) -> Wide:
    """`bits` random unit columns `(dim, bits)`: orthonormal as far as they go, in independent rotations."""
    whole = [rotation(dim, rng) for _ in range(-(-bits // dim))]
    return np.concatenate(whole, axis=1)[:, :bits]


def procrustes(products: Wide) -> Wide:
    """The orthogonal R that maximises `trace(R^T products)`, all `(k, k)` (Schoenemann 1966)."""
    left, _, right = np.linalg.svd(products)
    nearest: Wide = left @ right
    return nearest
