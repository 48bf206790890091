"""Bits: packing, unpacking, and what a set of codes is worth.

Bit i of a code is bit `i % 8` of byte `i // 8`. A code of b bits that are balanced and independent holds b
bits of information; what is lost by bits that lean to one side or repeat one another shows in `diagnose`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.errors import ConfigError, InputError

__all__ = ["Diagnosis", "as_codes", "check_bits", "diagnose", "pack", "unpack"]

_ROWS = 65_536
MOST = 4096
"""Bits beyond which a code is a mistake: longer than an embedding, and some coders learn in its square."""

Codes = NDArray[np.uint8]


class Diagnosis(NamedTuple):
    """What `n` codes of `bits` bits look like.

    `ones` `(bits,)`: share of codes with the bit set, best at 0.5. `balance`: mean of |ones - 0.5|, 0 at best
    and 0.5 at worst. `entropy`: mean over bits of their entropy, in bits, at most 1. `mean_correlation`,
    `max_correlation`: of |correlation| over pairs of bits that both vary, 0 at best. `dead`: how many bits
    never change. `distinct`: how many different codes there are.
    """

    n: int
    bits: int
    ones: NDArray[np.float64]
    balance: float
    entropy: float
    mean_correlation: float
    max_correlation: float
    dead: int
    distinct: int


def check_bits(bits: int) -> int:
    """`bits`, if whole bytes hold them and they are at most 4,096. Raises `ConfigError`.

    >>> check_bits(64)
    64
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 8 or bits % 8:
        raise ConfigError(f"bits is {bits}", "give a multiple of 8, such as 64")
    if bits > MOST:
        raise ConfigError(f"bits is {bits}", f"give at most {MOST:,}; 64 to 512 are usual")
    return bits


def pack(bits: ArrayLike) -> Codes:
    """`(n, bits)` true where a bit is set -> `(n, bits / 8)` uint8.

    >>> pack([[True, False, False, False, False, False, False, True]])
    array([[129]], dtype=uint8)
    """
    array = np.asarray(bits, dtype=np.bool_)
    if array.ndim != 2 or array.shape[1] % 8:
        raise InputError(f"bits of shape {array.shape} fill no whole bytes", "expected (n, a multiple of 8)")
    return np.packbits(array, axis=1, bitorder="little")


def unpack(codes: ArrayLike) -> NDArray[np.bool_]:
    """`(n, bytes)` uint8 -> `(n, 8 bytes)` bool, the inverse of `pack`."""
    return np.unpackbits(as_codes(codes), axis=1, bitorder="little").view(np.bool_)


def as_codes(codes: ArrayLike, bits: int | None = None) -> Codes:
    """`codes` as an `(n, bytes)` uint8 array. Raises `InputError` for another shape, type or length."""
    array: NDArray[Any] = np.asarray(codes)
    if array.ndim != 2 or array.dtype != np.uint8 or array.shape[1] == 0:
        raise InputError(f"codes of shape {array.shape} and type {array.dtype}", "expected (n, bytes) uint8")
    if bits is not None and array.shape[1] * 8 != bits:
        raise InputError(f"the codes have {array.shape[1] * 8} bits, expected {bits}", "encode again")
    return array


def diagnose(codes: ArrayLike) -> Diagnosis:
    """Balance, correlation, entropy and number of distinct `codes` `(n, bytes)` uint8.

    Cost: `n bits^2` operations for the correlations and one sort of the codes. Raises `InputError` for none.
    """
    array = as_codes(codes)
    n, bits = len(array), array.shape[1] * 8
    if n == 0:
        raise InputError("there are no codes to look at")
    together = np.zeros((bits, bits))
    for start in range(0, n, _ROWS):  # sums of up to 65,536 ones are exact in float32
        part = unpack(array[start : start + _ROWS]).astype(np.float32)
        together += part.T @ part
    ones = np.diag(together) / n
    covariance = together / n - np.outer(ones, ones)
    variance = ones * (1 - ones)
    alive = (ones > 0) & (ones < 1)
    scale = np.sqrt(np.outer(variance[alive], variance[alive]))
    pairs = np.triu_indices(int(alive.sum()), 1)
    correlation = np.abs(covariance[np.ix_(alive, alive)] / scale)[pairs] if len(pairs[0]) else np.zeros(1)
    p = ones[alive]
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).sum() / bits
    return Diagnosis(
        n=n,
        bits=bits,
        ones=ones,
        balance=float(np.abs(ones - 0.5).mean()),
        entropy=float(entropy),
        mean_correlation=float(correlation.mean()),
        max_correlation=min(1.0, float(correlation.max())),
        dead=bits - int(alive.sum()),
        distinct=_distinct(array),
    )


def _distinct(codes: Codes) -> int:
    width = codes.shape[1]
    whole = np.ascontiguousarray(codes)
    if width in (1, 2, 4, 8):
        return len(np.unique(whole.view(f"u{width}")))
    return len(np.unique(whole.view(f"V{width}")))
