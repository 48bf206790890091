"""Tables of multi-index hashing: codes sorted by each of m substrings of their bits, and how they are built.

The bits of a code are shared out to m substrings; table j holds all distinct codes in the order of substring
j. A code at a distance of at most `m * s + j` from a query differs from it in at most s bits of one of the
substrings 0 to j, or in fewer than s bits of one of the others (pigeonhole; Norouzi, Punjani and Fleet 2012),
so a few buckets of each table hold all that can be near. `_probe` searches them. The compiled build and
NumPy's make the same arrays.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.index import _kernel
from semblance.index._shares import share_bits

__all__ = [
    "ARRAYS",
    "MOST_ROWS",
    "MOST_WIDTH",
    "SEVERAL",
    "Tables",
    "build",
    "from_arrays",
    "native",
    "substring",
]

Words = NDArray[np.uint64]
Small = NDArray[np.uint32]

MOST_WIDTH = 24
"""The longest substring: a table of it begins with 64 MB of offsets."""

MOST_ROWS = 2**31
"""There are fewer rows than this."""

SEVERAL = np.uint32(MOST_ROWS)
"""From here on a number in `Tables.where` is a group of equal codes, not a row."""

ARRAYS = {
    "order": "<i4",
    "low": "<i4",
    "offsets": "<u4",
    "tables": "<u8",
    "where": "<u4",
    "start": "<u4",
    "rows": "<u4",
}
"""The arrays of `Tables` and their types on disk."""


@dataclass(frozen=True, eq=False)
class Tables:
    """`count` codes of `bits` bits, `n` of them distinct, in m tables.

    `order` `(bits,)` int32: the bits, substring after substring; `low` `(m + 1,)` int32: where each begins.
    `offsets` uint32: for each table 2^b + 1 positions at which its buckets begin. `tables` `(m, n * words)`
    uint64: codes with their bits in `order`; in each bucket word 0 of all its codes, then word 1. `where`
    `(m, n)` uint32: the row of the code at each position or, where several rows have it, `SEVERAL` + its
    group; `start` `(groups + 1,)` and `rows` uint32: its rows, rising, are `rows[start[g]:start[g + 1]]`.
    """

    bits: int
    order: NDArray[np.int32]
    low: NDArray[np.int32]
    offsets: Small
    tables: Words
    where: Small
    start: Small
    rows: Small

    @property
    def m(self) -> int:
        """How many tables there are."""
        return len(self.low) - 1

    @property
    def words(self) -> int:
        """64-bit words of a code."""
        return -(-self.bits // 64)

    @property
    def n(self) -> int:
        """How many distinct codes there are."""
        return int(self.where.shape[1])

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self.n - (len(self.start) - 1) + len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    @functools.cached_property
    def first(self) -> NDArray[np.int64]:
        """Where each table's offsets begin."""
        return _first(self.low)

    @functools.cached_property
    def byte_table(self) -> Words:
        """What each value of each byte of a code becomes in `order`."""
        return _byte_table(self.bits, self.order)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, little-endian, as they are saved."""
        return {name: getattr(self, name).astype(kind, copy=False) for name, kind in ARRAYS.items()}

    def turned(self, words: Words, path: str) -> Words:
        """Codes `(n, w)` with their bits in `order`."""
        return _permuted(words, self.byte_table, native(path))


def from_arrays(bits: int, arrays: Mapping[str, NDArray[Any]]) -> Tables:
    """The tables whose `arrays()` these were. Raises `ValueError` where they do not fit together.

    Positions inside are checked only when they are followed, so that opening reads next to nothing.
    """
    for name, kind in ARRAYS.items():
        if arrays[name].dtype != np.dtype(kind):
            raise ValueError(f"{name} is {arrays[name].dtype}")
    order, low, where = arrays["order"], arrays["low"], arrays["where"]
    widths = np.diff(low)
    sound = order.ndim == low.ndim == 1 and sorted(order.tolist()) == list(range(bits)) and len(low) >= 2
    sound = sound and int(low[0]) == 0 and int(low[-1]) == bits
    if not sound or widths.min() < 1 or widths.max() > MOST_WIDTH:
        raise ValueError("its substrings do not fit its bits")
    m, n = len(low) - 1, where.shape[-1]
    sound = where.shape == (m, n) and arrays["tables"].shape == (m, n * -(-bits // 64))
    sound = sound and arrays["offsets"].shape == (int((2 ** widths.astype(np.int64) + 1).sum()),)
    if not sound or arrays["start"].ndim != 1 or arrays["rows"].ndim != 1 or not len(arrays["start"]):
        raise ValueError("its tables do not fit together")
    inside = {
        name: arrays[name].astype(np.dtype(kind).newbyteorder("="), copy=False)
        for name, kind in ARRAYS.items()
    }
    return Tables(bits, **inside)


@functools.cache
def _declared() -> ctypes.CDLL | None:
    library = _kernel.library()
    if library is None or not hasattr(library, "semblance_mih_nearest"):
        return None
    pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.semblance_mih_permute.argtypes = [pointer, i64, i32, i32, pointer, pointer]
    library.semblance_mih_permute.restype = None
    library.semblance_mih_sort.argtypes = [pointer, pointer, i64, i32, i32, i32, pointer, pointer, pointer]
    library.semblance_mih_leaders.argtypes = [pointer, i64, pointer, pointer, i32, pointer]
    library.semblance_mih_nearest.argtypes = [pointer, pointer, *[i64] * 4, pointer, pointer]
    library.semblance_mih_nearest.restype = None
    library.semblance_mih_within.argtypes = [pointer, pointer, *[i64] * 4, pointer, i64, pointer, pointer]
    library.semblance_mih_within.restype = i64
    return library


def native(path: str) -> ctypes.CDLL | None:
    """The compiled library, its functions declared; None where NumPy works on this path of the kernel."""
    return None if path == "numpy" else _declared()


def build(words: Words, bits: int, m: int, path: str | None = None, threads: int = 1) -> Tables:
    """Tables of the codes `(n, w)`, fewer than `MOST_ROWS`, over m substrings of at most `MOST_WIDTH` bits.

    About 0.1 microseconds for each code and table; while it runs, memory for two more copies of the codes.
    """
    library = native(_kernel.chosen(path))
    order, low = share_bits(words, bits, m)
    widths, first = np.diff(low).tolist(), _first(low)
    turned = _permuted(words, _byte_table(bits, order), library)
    unique, numbers, start, rows = _distinct(turned, widths[0], library)
    offsets = np.empty(int(first[-1]) + 2 ** widths[-1] + 1, dtype=np.uint32)
    tables = np.empty((m, unique.size), dtype=np.uint64)
    where = np.empty((m, len(unique)), dtype=np.uint32)

    def fill(j: int) -> None:
        part = offsets[first[j] : first[j] + 2 ** widths[j] + 1]
        _sort(unique, numbers, (int(low[j]), widths[j]), part, tables[j], where[j], library)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(fill, range(m)))
    return Tables(bits, order, low, offsets, tables, where, start, rows)


def substring(codes: Words, low: int, width: int) -> NDArray[np.int64]:
    """Bits `low` to `low + width - 1` of the codes `(n, w)`, as numbers `(n,)`."""
    word, shift = divmod(low, 64)
    value = codes[:, word] >> np.uint64(shift)
    if shift + width > 64:
        value = value | (codes[:, word + 1] << np.uint64(64 - shift))
    found: NDArray[np.int64] = (value & np.uint64(2**width - 1)).astype(np.int64)
    return found


def _first(low: NDArray[np.int32]) -> NDArray[np.int64]:
    sizes = 2 ** np.diff(low).astype(np.int64) + 1
    first: NDArray[np.int64] = np.cumsum(sizes) - sizes
    return first


def _byte_table(bits: int, order: NDArray[np.int32]) -> Words:
    """What each value of each byte becomes when bit `order[i]` goes to place i: `(bits / 8, 256, words)`."""
    to = np.empty(bits, dtype=np.int64)
    to[order] = np.arange(bits)
    table = np.zeros((bits // 8, 256, -(-bits // 64)), dtype=np.uint64)
    values = np.arange(256)
    for bit in range(bits):
        holding = (values >> (bit % 8)) & 1 == 1
        table[bit // 8, holding, to[bit] // 64] |= np.uint64(1) << np.uint64(to[bit] % 64)
    return table


def _permuted(words: Words, table: Words, library: ctypes.CDLL | None) -> Words:
    words = np.ascontiguousarray(words)
    answer = np.zeros(words.shape, dtype=np.uint64)
    if library is not None:
        sizes = (len(words), words.shape[1], len(table))
        library.semblance_mih_permute(words.ctypes.data, *sizes, table.ctypes.data, answer.ctypes.data)
        return answer
    for byte, part in enumerate(table):
        value = (words[:, byte // 8] >> np.uint64(8 * (byte % 8))) & np.uint64(255)
        answer |= part[value.astype(np.intp)]
    return answer


def _sort(
    codes: Words,
    numbers: Small | None,
    part: tuple[int, int],
    offsets: Small,
    table: Words,
    where: Small,
    library: ctypes.CDLL | None,
) -> None:
    """Fills one table, that of the bits `part` (begin, width), from the codes `(n, w)` and their numbers."""
    n, words = codes.shape
    if library is not None:
        named = None if numbers is None else numbers.ctypes.data
        to = (offsets.ctypes.data, table.ctypes.data, where.ctypes.data)
        if library.semblance_mih_sort(codes.ctypes.data, named, n, words, *part, *to):
            raise MemoryError
        return
    bucket = substring(codes, *part)
    order = np.argsort(bucket, kind="stable")
    offsets[0] = 0
    offsets[1:] = np.cumsum(np.bincount(bucket, minlength=2 ** part[1]))
    begins = offsets[bucket[order]].astype(np.int64)
    sizes = offsets[bucket[order] + 1] - begins
    for word in range(words):
        table[begins * words + word * sizes + np.arange(n) - begins] = codes[order, word]
    where[:] = order if numbers is None else numbers[order]


def _distinct(
    codes: Words, width: int, library: ctypes.CDLL | None
) -> tuple[Words, Small | None, Small, Small]:
    """The distinct codes, their numbers (see `Tables.where`; None: 0 to n-1), the groups' start and rows."""
    leaders = _leaders(codes, width, library)
    lead = leaders == np.arange(len(codes), dtype=np.uint32)
    followers = np.flatnonzero(~lead)
    if len(followers) == 0:
        return codes, None, np.zeros(1, dtype=np.uint32), np.empty(0, dtype=np.uint32)
    heads, group = np.unique(leaders[followers], return_inverse=True)
    members = np.concatenate([heads.astype(np.int64), followers])
    groups = np.concatenate([np.arange(len(heads)), group])
    start = np.zeros(len(heads) + 1, dtype=np.uint32)
    start[1:] = np.cumsum(np.bincount(groups))
    numbers = np.arange(len(codes), dtype=np.uint32)
    numbers[heads] = SEVERAL + np.arange(len(heads), dtype=np.uint32)
    return codes[lead], numbers[lead], start, members[np.lexsort((members, groups))].astype(np.uint32)


def _leaders(codes: Words, width: int, library: ctypes.CDLL | None) -> Small:
    """For each row the lowest row with the same code."""
    n, words = codes.shape
    leaders = np.empty(n, dtype=np.uint32)
    if library is not None:
        offsets, rows = np.empty(2**width + 1, dtype=np.uint32), np.empty(n, dtype=np.uint32)
        table = np.empty(n * words, dtype=np.uint64)
        _sort(codes, None, (0, width), offsets, table, rows, library)
        rest = (table.ctypes.data, rows.ctypes.data, words, leaders.ctypes.data)
        if library.semblance_mih_leaders(offsets.ctypes.data, 2**width, *rest):
            raise MemoryError
        return leaders
    order = np.lexsort([codes[:, word] for word in range(words)])
    ordered = codes[order]
    new = np.ones(n, dtype=np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    leaders[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return leaders
