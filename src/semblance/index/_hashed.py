"""What the indexes over tables share: codes, tables of them where tables are chosen, and a scan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.contracts import Matches
from semblance.errors import ConfigError
from semblance.index import _cost, _kernel, _probe, _tables, scan
from semblance.index._codes import Codes, Ids, as_codes, as_ids
from semblance.index._folder import read_array, unreadable
from semblance.index._tabled import Plan, Tabled

__all__ = ["Hashed"]

Words = NDArray[np.uint64]
Kind = TypeVar("Kind", bound="Hashed")

_GATHER = 2_000  # picoseconds to fetch a code that stands anywhere


class Hashed:
    """Exact search over packed codes that come and go, in tables or by a scan.

    A kind of index says with `choice` which; `about` and `restored` keep what else it knows.
    """

    recall: ClassVar[float] = 1.0
    takes: ClassVar[str] = "codes"
    kind: ClassVar[str]

    def __init__(self, config: Any) -> None:
        self.config = config
        self._hold(Codes())
        self._tabled: Tabled | None = None
        self._judged = 0  # how many codes there were when they were last put into tables, or not

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
        if not done.any():
            return self._scan.search(packed, k, among)
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

    def choice(self, words: Words, bits: int) -> Tabled | None:
        """The tables to search the codes `(n, w)` in, n at least 1; None: scan them."""
        raise TypeError(f"{self.kind} does not say when to use tables")

    @classmethod
    def restored(cls: type[Kind], about: Mapping[str, Any]) -> Kind:
        """An empty index of this kind as `about` described it. Raises what a wrong description leads to."""
        raise TypeError(f"{cls.kind} does not say how it is restored")

    def about(self) -> dict[str, Any]:
        """What is saved beside codes and tables, for `restored`."""
        return {"config": asdict(self.config)}

    def build(self) -> None:
        """Bring the tables up to date, where that is due. Searching and saving do it by themselves."""
        n, bits = len(self._codes), self._codes.bits
        as_before = self._judged < 2 * n < 4 * self._judged
        if self._tabled is not None:
            as_before = not self._tabled.worn
        if as_before:
            return
        self._judged, self._tabled = n, None
        if bits is not None and 0 < n < _tables.MOST_ROWS:
            self._tabled = self.choice(self._codes.words, bits)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the folder `path`, codes and tables: all of it or nothing.

        Raises `CollectionError` if `path` exists and `overwrite` is not set.
        """
        self.save_as(self.kind, path, {}, {}, overwrite)

    @classmethod
    def load(cls: type[Kind], path: str | os.PathLike[str]) -> Kind:
        """The index saved in the folder `path`; its codes and tables stay on disk, mapped into memory.

        Raises `CollectionError` if the folder is not one that `save` wrote.
        """
        return cls.load_as(cls.kind, path)[0]

    def save_as(
        self,
        kind: str,
        path: str | os.PathLike[str],
        more: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        overwrite: bool,
    ) -> None:
        """Write the folder of an index called `kind` that holds this one, with what `more` it knows."""
        if self._tabled is not None and self._tabled.changed:
            self._tabled, self._judged = None, 0
        self.build()
        forecast, tables = None, {}
        if self._tabled is not None:
            forecast, tables = asdict(self._tabled.forecast), self._tabled.tables.arrays()
        about = {**self.about(), "forecast": forecast, **more}
        self._codes.save(path, kind, about, {**tables, **arrays}, overwrite)

    @classmethod
    def load_as(cls: type[Kind], kind: str, path: str | os.PathLike[str]) -> tuple[Kind, dict[str, Any]]:
        """The index that `save_as` wrote, and what was known beside it."""
        codes, about = Codes.load(path, kind)
        try:
            index = cls.restored(about)
            if about["forecast"] is not None:
                arrays = {name: read_array(path, name, kind) for name in _tables.ARRAYS}
                tables = _tables.from_arrays(codes.bits or 0, arrays)
                if tables.count != len(codes):
                    raise ValueError("its tables are not those of its codes")
                index._tabled = Tabled(tables, _cost.restored(about["forecast"]))
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise unreadable(path, kind, error) from error
        index._hold(codes)
        index._judged = len(codes)
        return index, about

    def _hold(self, codes: Codes) -> None:
        """`codes` are those of the index, and of its scan."""
        self._codes = codes
        self._scan = scan.Index(scan.Config(self.config.threads))
        self._scan._codes = codes

    def _plan(self, queries: int, among: ArrayLike | None) -> Plan:
        path, words, n = _kernel.chosen(), self._codes.words.shape[1], len(self)
        price, reachable = _cost.prices(path), n if among is None else min(n, np.size(among))
        scan, alone = (_cost.scan_cost(reachable, words, count, price) for count in (queries, 1))
        if among is None:
            return Plan(path, self.config.threads, n, n, None, scan, alone)
        scan, alone = scan + reachable * _GATHER / max(1, queries), alone + reachable * _GATHER
        return Plan(path, self.config.threads, n, reachable, lambda: self._codes.rows(among), scan, alone)

    def _matches(self, keys: NDArray[np.uint64]) -> Matches:
        none = keys == _probe.NOTHING
        rows = np.where(none, -1, (keys & np.uint64(2**32 - 1)).astype(np.int64))
        distances = (keys >> np.uint64(32)).astype(np.float32)
        distances[none] = np.inf
        return Matches(self._codes.names(rows), distances)
