"""Exact Hamming search by multi-index hashing: tables find near codes without looking at the others.

What: the `k` nearest packed codes, or all within a radius, ordered by (distance, id): the scan's own answers.
The bits are shared out to m substrings, and each of m tables holds the codes in the order of one. Two codes
at a distance of at most `m * s + j` lie within s flips of each other in one of the substrings 0 to j, or
within s - 1 in another; so it is enough to look into the few buckets at 0 flips from the query's own, then at
1, until the k-th best lies within what was seen (Norouzi, Punjani and Fleet, CVPR 2012). Equal codes stand in
the tables once. A query whose neighbours lie so far that tables would cost more than half a scan is scanned.

When: 100,000 codes and more whose neighbours lie near (`auto` measures that), searched many times.

Cost: time grows steeply with the distance of the k-th neighbour, and ends at about 1.5 scans. Building takes
0.1 microseconds for each code and table, and their memory is `8 * ceil(bits / 64) + 4` bytes for each (beside
the codes: 48 bytes for 64 bits in 4 tables). It happens at the first search, and again after many codes have
come or gone.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.contracts import Matches
from semblance.errors import ConfigError
from semblance.index import _cost, _kernel, _probe, _tables, scan
from semblance.index._codes import Codes, Ids, as_codes, as_ids
from semblance.index._folder import read_array, unreadable
from semblance.index._tabled import Plan, Tabled, built

__all__ = ["Config", "Index"]

_FEW = 2**14  # codes that are always scanned, unless m is given
_MOST_BITS = 1024  # longer codes are always scanned, unless m is given
_GATHER = 2_000  # picoseconds to fetch a code that stands anywhere


@dataclass(frozen=True)
class Config:
    """`m`: how many tables; 0: as many as make a search for ten neighbours cheapest, by a forecast from the
    distances between some of the codes. `threads`: cores that share a search."""

    m: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.m < 0:
            raise ConfigError(f"m is {self.m}", "give a number of tables, or 0 to choose")
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}", "give at least 1")


class Index:
    """Exact search in tables over packed codes that come and go.

    >>> index = Index(Config(m=2))
    >>> index.add(np.array([[0, 0], [1, 0], [255, 255]], dtype=np.uint8))
    array([0, 1, 2])
    >>> index.search(np.array([3, 0], dtype=np.uint8), k=2).ids
    array([[1, 0]])
    """

    recall = 1.0
    takes = "codes"

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self._hold(Codes())
        self._tabled: Tabled | None = None

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def bits(self) -> int | None:
        """Bits of a code; None while nothing was ever added."""
        return self._codes.bits

    @property
    def ids(self) -> Ids:
        """The ids `(n,)`, rising."""
        return self._codes.ids

    def add(self, codes: ArrayLike, ids: ArrayLike | None = None) -> Ids:
        """The ids `(n,)` under which `codes` `(n, bits / 8)` uint8 were added.

        Without `ids` they count on from the largest one present. Raises `InputError` for codes of another
        width or type, or an id that is negative or already taken; nothing is added then.
        """
        held = len(self._codes)
        if self._tabled is None:
            return self._codes.add(codes, ids)
        last = int(self._codes.names(np.array([held - 1]))[0]) if held else -1
        between = ids is not None and bool((as_ids(ids) <= last).any())
        before = self._codes.ids if between else None
        new = self._codes.add(codes, ids)
        if before is not None:
            self._tabled.shift(self._codes.rows(before))
        self._tabled.grow(self._codes.rows(new))
        return new

    def remove(self, ids: ArrayLike) -> None:
        """Forget the codes under `ids`. Raises `InputError` if one is not there; none is removed then."""
        held, gone = len(self._codes), self._codes.rows(ids)
        self._codes.remove(ids)
        if self._tabled is not None and len(gone):
            keep = np.ones(held, dtype=np.bool_)
            keep[gone] = False
            self._tabled.shift(np.where(keep, np.cumsum(keep) - 1, -1))

    def search(self, queries: ArrayLike, k: int, among: ArrayLike | None = None) -> Matches:
        """The k nearest of each query `(q, bits / 8)`, ordered by (distance, id); -1 and inf pad `k > n`.

        `among` `(m,)`: the ids to which the search is confined; ids that are not in the index count for none.
        """
        packed = as_codes(queries, self.bits, "queries")
        if k < 1:
            raise ConfigError(f"k is {k}", "ask for at least one neighbour")
        self.build()
        plan = self._plan(len(packed), among)
        if self._tabled is None or k >= plan.reachable:
            return self._scan.search(packed, k, among)
        keys, done = self._tabled.nearest(self._codes.words, self._codes.queries(packed), k, plan)
        found = self._matches(keys)
        if not done.all():
            rest = self._scan.search(packed[~done], k, among)
            found.ids[~done], found.distances[~done] = rest.ids, rest.distances
        return found

    def within(self, queries: ArrayLike, radius: float, among: ArrayLike | None = None) -> Matches:
        """All at a distance of at most `radius`, ordered by (distance, id), padded to the longest row.

        Raises `ConfigError` if `radius` is negative or NaN.
        """
        packed = as_codes(queries, self.bits, "queries")
        if not radius >= 0:
            raise ConfigError(f"the radius is {radius}", "a distance is at least 0")
        self.build()
        if self._tabled is None:
            return self._scan.within(packed, radius, among)
        plan, limit = self._plan(len(packed), among), int(min(radius, 8 * packed.shape[1]))
        lists, done = self._tabled.within(self._codes.words, self._codes.queries(packed), limit, plan)
        found = [self._matches(keys) for keys in lists]
        if not done.all():
            rest = self._scan.within(packed[~done], radius, among)
            for at, query in enumerate(np.flatnonzero(~done)):
                found[query] = Matches(*(part[at][rest.ids[at] >= 0] for part in (rest.ids, rest.distances)))
        shape = (len(packed), max((len(one.ids) for one in found), default=0))
        whole = Matches(np.full(shape, -1, dtype=np.int64), np.full(shape, np.inf, dtype=np.float32))
        for i, one in enumerate(found):
            whole.ids[i, : len(one.ids)], whole.distances[i, : len(one.ids)] = one.ids, one.distances
        return whole

    def count(self, queries: ArrayLike, among: ArrayLike | None = None) -> NDArray[np.int64]:
        """How many codes lie at each distance from each query: `(q, bits + 1)` int64; a scan."""
        return self._scan.count(queries, among)

    def build(self) -> None:
        """Bring the tables up to date, where that is due. Searching and saving do it by themselves."""
        n, bits = len(self._codes), self._codes.bits
        if self._tabled is not None and not self._tabled.worn:
            return
        if bits is None or n == 0 or n >= _tables.MOST_ROWS or (not self.config.m and _scanned(n, bits)):
            self._tabled = None
            return
        words, path = self._codes.words, _kernel.chosen()
        self._tabled = built(words, bits, self.config.m, path, self.config.threads)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the folder `path`, codes and tables: all of it or nothing.

        Raises `CollectionError` if `path` exists and `overwrite` is not set.
        """
        if self._tabled is not None and self._tabled.changed:
            self._tabled = None
        self.build()
        about: dict[str, Any] = {"config": asdict(self.config), "forecast": None}
        arrays: dict[str, NDArray[Any]] = {}
        if self._tabled is not None:
            about["forecast"], arrays = asdict(self._tabled.forecast), self._tabled.tables.arrays()
        self._codes.save(path, "mih", about, arrays, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """The index saved in the folder `path`; its codes and tables stay on disk, mapped into memory.

        Raises `CollectionError` if the folder is not one that `save` wrote.
        """
        codes, about = Codes.load(path, "mih")
        try:
            index = cls(Config(**about["config"]))
            if about["forecast"] is not None:
                arrays = {name: read_array(path, name, "mih") for name in _tables.ARRAYS}
                tables = _tables.from_arrays(codes.bits or 0, arrays)
                if tables.count != len(codes):
                    raise ValueError("its tables are not those of its codes")
                index._tabled = Tabled(tables, _cost.restored(about["forecast"]))
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise unreadable(path, "mih", error) from error
        index._hold(codes)
        return index

    def _hold(self, codes: Codes) -> None:
        """`codes` are those of the index, and of its scan."""
        self._codes = codes
        self._scan = scan.Index(scan.Config(self.config.threads))
        self._scan._codes = codes

    def _plan(self, queries: int, among: ArrayLike | None) -> Plan:
        path, words = _kernel.chosen(), self._codes.words.shape[1]
        allowed = None if among is None else self._codes.rows(among)
        reachable = len(self) if allowed is None else len(allowed)
        price = _cost.scan_cost(reachable, words, queries, _cost.prices(path))
        if allowed is not None:
            price += reachable * _GATHER / max(1, queries)
        return Plan(path, self.config.threads, len(self), allowed, price)

    def _matches(self, keys: NDArray[np.uint64]) -> Matches:
        none = keys == _probe.NOTHING
        rows = np.where(none, -1, (keys & np.uint64(2**32 - 1)).astype(np.int64))
        distances = (keys >> np.uint64(32)).astype(np.float32)
        distances[none] = np.inf
        return Matches(self._codes.names(rows), distances)


def _scanned(n: int, bits: int) -> bool:
    """Whether tables are out of the question."""
    return n < _FEW or bits > _MOST_BITS
