"""Distances from a real-valued query to packed codes by look-up, compiled or in NumPy; equal bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semblance.index import _kernel
from semblance.index._codes import Words, to_words
from semblance.index._search import Floats

__all__ = ["Tables", "distances", "tables_of"]

Tables = NDArray[np.float64]

_MOST = float(np.finfo(np.float32).max)


def tables_of(query: Floats) -> tuple[Tables, Words]:
    """What each byte of differing bits adds, `(bits / 8, 256)`, and the query's own code `(w,)`.

    Entry b of byte j is the sum of |q_i| over the bits of b that are set, added from bit 0 on.
    """
    weights = np.abs(query.astype(np.float64)).reshape(-1, 8)
    tables = np.zeros((len(weights), 256))
    for bit in range(8):
        tables[:, 2**bit : 2 ** (bit + 1)] = tables[:, : 2**bit] + weights[:, bit, None]
    return tables, to_words(np.packbits(query >= 0, bitorder="little")[None])[0]


def distances(codes: Words, tables: Tables, own: Words, path: str | None = None) -> Floats:
    """Distances `(n,)` float32 from one query to the codes `(n, w)`; see `tables_of`.

    A sum beyond float32 is the largest float32.
    """
    native = None if _kernel.chosen(path) == "numpy" else _kernel.library()
    if native is not None:
        codes = np.ascontiguousarray(codes, dtype=np.uint64)
        out = np.empty(len(codes), dtype=np.float32)
        table, signs = tables.ctypes.data, own.ctypes.data
        native.semblance_lookup(codes.ctypes.data, *codes.shape, len(tables), table, signs, out.ctypes.data)
        return out
    differing = (codes ^ own).astype("<u8", copy=False).view(np.uint8).reshape(len(codes), 8 * len(own))
    sums = np.zeros(len(codes))
    for byte, table in enumerate(tables):
        sums += table[differing[:, byte]]
    return np.minimum(sums, _MOST).astype(np.float32)
