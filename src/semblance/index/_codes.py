"""Packed binary codes with ids: what every index over codes keeps, and how it stands on disk.

A code of `bits` bits is `bits / 8` bytes; bit i is bit `i % 8` of byte `i // 8` (NumPy's
`packbits(..., bitorder="little")`). Inside, a code is a row of 64-bit words, its bytes read as little-endian
and filled up with zeros. Rows stand in rising order of id, so that (distance, row) orders as (distance, id),
and ids that are 0 to n-1 need no memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.errors import InputError
from semblance.index._folder import read_about, read_array, unreadable, write_folder

__all__ = ["MOST_BITS", "Codes", "Ids", "Words", "as_codes", "as_ids", "to_words"]

MOST_BITS = 65_472
"""The longest code, 1,023 words: a distance fits in 16 bits, with one number to spare."""

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
Ids = NDArray[np.int64]


def as_codes(values: ArrayLike, bits: int | None = None, what: str = "codes") -> Bytes:
    """`values` as a C-contiguous `(n, bits / 8)` uint8 array; one code `(bits / 8,)` becomes `(1, bits / 8)`.

    Raises `InputError` for anything but packed bytes (floats, NaN among them, booleans, text), for another
    shape, and for another width than `bits`.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"the {what} are not an array", "give an (n, bits / 8) uint8 array") from error
    if array.dtype != np.uint8:
        hint = 'pack bits with numpy.packbits(..., axis=1, bitorder="little"); embeddings need a coder first'
        raise InputError(f"the {what} are {array.dtype}, packed codes are uint8", hint)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"the {what} have shape {array.shape}", "expected (n, bits / 8)")
    found = 8 * array.shape[1]
    if bits is not None and found != bits:
        raise InputError(f"the {what} have {found} bits, the index has {bits}", "encode with the same coder")
    if found > MOST_BITS:
        raise InputError(f"the {what} have {found} bits", f"at most {MOST_BITS}")
    return np.ascontiguousarray(array)


def as_ids(values: ArrayLike) -> Ids:
    """`values` as `(n,)` int64; raises `InputError` for anything but whole numbers from 0."""
    array = np.atleast_1d(np.asarray(values))
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu" or int(array.min()) < 0:
        raise InputError("ids must be whole numbers from 0 on")
    if int(array.max()) > np.iinfo(np.int64).max:
        raise InputError(f"id {int(array.max())} is too large", "ids are below 2^63")
    return array.astype(np.int64)


def to_words(codes: Bytes) -> Words:
    """Packed codes `(n, bytes)` as `(n, ceil(bytes / 8))` words, filled up with zeros."""
    n, width = codes.shape
    words = -(-width // 8)
    if width % 8:
        padded = np.zeros((n, 8 * words), dtype=np.uint8)
        padded[:, :width] = codes
        codes = padded
    return codes.view("<u8").astype(np.uint64, copy=False)


class Codes:
    """Packed codes that come and go, under ids.

    >>> codes = Codes()
    >>> codes.add(np.array([[1], [7]], dtype=np.uint8), ids=[5, 3])
    array([5, 3])
    >>> codes.ids, codes.packed[:, 0]
    (array([3, 5]), array([7, 1], dtype=uint8))
    """

    def __init__(self) -> None:
        self.bits: int | None = None
        self._room: Words = np.empty((0, 1), dtype=np.uint64)  # rows beyond the count are free
        self._names: Ids | None = None  # None: 0 to n-1
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def words(self) -> Words:
        """The codes `(n, ceil(bits / 64))` uint64 in rising order of id; a view, not to be written to."""
        return self._room[: self._count]

    @property
    def packed(self) -> Bytes:
        """The codes `(n, bits / 8)` uint8 in rising order of id."""
        whole = np.ascontiguousarray(self.words.astype("<u8", copy=False)).view(np.uint8)
        return whole[:, : (self.bits or 8) // 8]

    @property
    def ids(self) -> Ids:
        """The ids `(n,)`, rising."""
        if self._names is None:
            return np.arange(self._count, dtype=np.int64)
        return np.array(self._names[: self._count])

    def add(self, codes: ArrayLike, ids: ArrayLike | None = None) -> Ids:
        """The ids `(n,)` under which `codes` `(n, bits / 8)` uint8 were added.

        Without `ids` they count on from the largest one present. Appending larger ids is quick; smaller ones
        are sorted in, which copies the codes. Raises `InputError` for codes of another width or type, or an
        id that is negative or already taken; nothing is added then.
        """
        array = as_codes(codes, self.bits)
        after = self._largest() + 1
        if ids is None:
            new = np.arange(after, after + len(array), dtype=np.int64)
            order = None
        else:
            new = as_ids(ids)
            if len(new) != len(array):
                raise InputError(f"{len(array)} codes came with {len(new)} ids")
            order = None if (new[1:] > new[:-1]).all() else np.argsort(new, kind="stable")
        rising = new if order is None else new[order]
        self._refuse_taken(rising)
        words = to_words(array) if order is None else to_words(array[order])
        self.bits = 8 * array.shape[1]
        if len(rising) == 0 or rising[0] >= after:
            self._append(words, rising)
        else:
            self._merge(words, rising)
        return new

    def remove(self, ids: ArrayLike) -> None:
        """Forget the codes under `ids`. Raises `InputError` if one is not there; none is removed then."""
        gone = np.unique(as_ids(ids))
        rows, there = self._find(gone)
        if not there.all():
            raise InputError(f"id {int(gone[np.argmin(there)])} is not in the index")
        keep = np.ones(self._count, dtype=np.bool_)
        keep[rows] = False
        if len(gone) == 0:
            return
        names = self.ids[keep]
        self._room = self.words[keep]
        self._count, self._names = len(names), _named(names)

    def queries(self, codes: ArrayLike) -> Words:
        """Queries `(q, bits / 8)` uint8 as words `(q, w)`; raises `InputError` for another width or type."""
        return to_words(as_codes(codes, self.bits, "queries"))

    def rows(self, among: ArrayLike) -> NDArray[np.int64]:
        """The rows `(m,)`, rising, of the ids in `among` that are here; others are passed over."""
        wanted = as_ids(among)
        rising = wanted if (wanted[1:] > wanted[:-1]).all() else np.unique(wanted)
        rows, there = self._find(rising)
        return rows[there]

    def names(self, rows: NDArray[np.int64]) -> Ids:
        """The ids of `rows`, of any shape; -1 stays -1."""
        if self._names is None or self._count == 0:
            return rows
        found: Ids = np.where(rows < 0, np.int64(-1), np.take(self._names, rows, mode="clip"))
        return found

    def save(
        self,
        path: str | os.PathLike[str],
        kind: str,
        about: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write the folder `path`: `codes.npy`, `ids.npy` unless they are 0 to n-1, `arrays`, `index.json`.

        `about` becomes the entry `more` of `index.json`. Raises as `write_folder` does.
        """
        parts: dict[str, NDArray[Any]] = {"codes": self.words.astype("<u8", copy=False), **(arrays or {})}
        if self._names is not None:
            parts["ids"] = self._names[: self._count].astype("<i8", copy=False)
        facts = {"bits": self.bits, "count": self._count, "named": self._names is not None}
        write_folder(path, kind, {**facts, "more": dict(about)}, parts, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str], kind: str) -> tuple[Codes, dict[str, Any]]:
        """The codes saved in the folder `path`, mapped from disk, and what `save` was told beside them.

        Raises `CollectionError` if the folder is not one that `save` wrote for an index called `kind`.
        """
        about = read_about(path, kind)
        codes = cls()
        try:
            bits, count, named, more = about["bits"], about["count"], about["named"], about["more"]
            words = read_array(path, "codes", kind)
            names = read_array(path, "ids", kind) if named else None
            width = 1 if bits is None else -(-bits // 64)
            sound = (
                words.dtype == np.dtype("<u8") and words.shape == (count, width) and isinstance(more, dict)
            )
            if bits is not None:
                sound = sound and bits % 8 == 0 and 0 < bits <= MOST_BITS
            if names is not None:
                sound = sound and names.dtype == np.dtype("<i8") and names.shape == (count,)
                sound = sound and _rising(names)
        except (KeyError, TypeError) as error:
            raise unreadable(path, kind, error) from error
        if not sound:
            raise unreadable(path, kind, "its parts do not fit together")
        codes.bits, codes._count = bits, count
        codes._room = words.astype(np.uint64, copy=False)
        codes._names = None if names is None else names.astype(np.int64, copy=False)
        return codes, more

    def _largest(self) -> int:
        if self._names is None or self._count == 0:
            return self._count - 1
        return int(self._names[self._count - 1])

    def _find(self, rising: Ids) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """For each id its row, and whether it is there at all."""
        if self._names is None:
            return rising, rising < self._count
        names = self._names[: self._count]
        rows = np.searchsorted(names, rising).astype(np.int64)
        there = rows < self._count
        there[there] = names[rows[there]] == rising[there]
        return rows, there

    def _refuse_taken(self, rising: Ids) -> None:
        twice = rising[1:][rising[1:] == rising[:-1]]
        _, there = self._find(rising)
        taken = np.concatenate([twice, rising[there]])
        if len(taken):
            raise InputError(f"id {int(taken[0])} is already taken", "remove it first")

    def _append(self, words: Words, ids: Ids) -> None:
        end = self._count + len(words)
        if self._count == 0:
            # A caller who goes on writing to the array must not change the index.
            self._room = words.copy()
        else:
            self._room = _roomy(self._room, self._count, end)
            self._room[self._count : end] = words
        counting = self._names is None and (len(ids) == 0 or int(ids[0]) == self._count)
        if not (counting and (len(ids) == 0 or int(ids[-1]) == end - 1)):
            names = self.ids if self._names is None else self._names
            self._names = _roomy(names, self._count, end)
            self._names[self._count : end] = ids
        self._count = end

    def _merge(self, words: Words, ids: Ids) -> None:
        names = self.ids
        places = np.searchsorted(names, ids)
        self._room = np.insert(self.words, places, words, axis=0)
        names = np.insert(names, places, ids)
        self._count, self._names = len(names), _named(names)


def _named(rising: Ids) -> Ids | None:
    """None where the ids are 0 to n-1."""
    return rising if len(rising) and int(rising[-1]) >= len(rising) else None


def _rising(names: NDArray[Any]) -> bool:
    """Whether ids of a file rise from 0 or above: some thousands are looked at, so that opening is quick."""
    some = names[:: max(1, len(names) // 4096)]
    return bool((some[1:] > some[:-1]).all()) and (len(some) == 0 or int(some[0]) >= 0)


def _roomy(array: NDArray[Any], count: int, needed: int) -> NDArray[Any]:
    """`array`, or a copy of its first `count` rows with room for half as many again as are needed."""
    if len(array) >= needed and array.flags.writeable:
        return array
    larger = np.empty((needed + needed // 2, *array.shape[1:]), dtype=array.dtype)
    larger[:count] = array[:count]
    return larger
