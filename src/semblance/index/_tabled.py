"""Codes of a collection in tables, while codes come and go.

Tables are costly to change, so they stay as they were built: a list says where each of their rows is now, and
codes that came later are scanned beside them. When much has changed they are `worn` and to be built again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semblance.errors import ConfigError, InputError
from semblance.index import _cost, _kernel, _probe, _tables

__all__ = ["CALL", "Plan", "Tabled", "built", "put"]

Words = NDArray[np.uint64]
Keys = NDArray[np.uint64]
Rows = NDArray[np.int64]
Done = NDArray[np.bool_]

_ROW = np.uint64(2**32 - 1)
CALL = 20_000_000
"""Picoseconds that a call takes before it begins to search in tables."""

_LATER = 4096  # codes that may always be scanned beside the tables
_TRIAL = 16  # queries of a batch that show whether tables are of use to the others
_WORTH = 0.5  # of a scan, that tables may cost before a query is scanned after all
_DOUBTED = 0.05  # the same where the forecast is that they will not be of use
_MASK = 1_000  # picoseconds a code, to mark which ones may be found


@dataclass(frozen=True)
class Plan:
    """How to search.

    `path` and `threads` of the kernel; `count`: rows of the collection; `reachable`: about how many of them
    may be found, and `allowed()`: which, rising (None: all); `scan`: what comparing a query with those would
    cost, in picoseconds, and `alone`: if it were the only one.
    """

    path: str
    threads: int
    count: int
    reachable: int
    allowed: Callable[[], Rows] | None
    scan: float
    alone: float


@dataclass
class Tabled:
    """`tables` and the `forecast` of what they cost; `moved` `(count,)`: where each of their rows is now, -1
    if it was removed (None: where it was); `later`: rows that are not in the tables, rising."""

    tables: _tables.Tables
    forecast: _cost.Forecast
    moved: Rows | None = None
    later: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    _living: NDArray[np.uint8] | None = None  # which of the tables' rows are still there; None: all
    _gone: int = 0

    @property
    def changed(self) -> bool:
        """Whether codes came or went since the tables were built."""
        return self.moved is not None or len(self.later) > 0

    @property
    def worn(self) -> bool:
        """Whether so much has changed that new tables are worth their while."""
        count = self.tables.count
        return len(self.later) > max(_LATER, count // 16) or 4 * self._gone > count

    def shift(self, to: Rows) -> None:
        """Every row r of the collection is now `to[r]`, or gone where that is -1."""
        if self.moved is None:
            self.moved = to[: self.tables.count].copy()
        else:
            self.moved = np.where(self.moved < 0, -1, to[self.moved])
        there = self.moved >= 0
        self._gone = len(there) - int(np.count_nonzero(there))
        self._living = there.view(np.uint8) if self._gone else None
        later = to[self.later]
        self.later = later[later >= 0]

    def grow(self, rows: Rows) -> None:
        """The codes in `rows` are new."""
        self.later = np.sort(np.concatenate([self.later, rows]))

    def nearest(self, words: Words, queries: Words, k: int, plan: Plan) -> tuple[Keys, Done]:
        """Keys `(q, k)` (see `_probe`) with the collection's rows; which queries are done."""
        way = self._way(len(queries), self.forecast.nearest(k * plan.count / max(1, plan.reachable)), plan)
        if way is None:
            return _none(len(queries), k)
        probe, beside = way
        turned = self.tables.turned(queries, plan.path)
        keys, done = _probe.nearest(self.tables, turned[:_TRIAL], k, probe)
        if len(queries) > _TRIAL:
            others = turned[_TRIAL:]
            rest = _probe.nearest(self.tables, others, k, probe) if done.any() else _none(len(others), k)
            keys, done = np.concatenate([keys, rest[0]]), np.concatenate([done, rest[1]])
        keys = self._now(keys)
        if len(beside) and done.any():
            codes = _stretch(words, beside)
            found = _kernel.nearest(codes, queries[done], k, path=plan.path, threads=plan.threads)
            both = np.concatenate([keys[done], _keys(*found, beside)], axis=1)
            keys[done] = np.sort(both, axis=1)[:, :k]
        return keys, done

    def within(self, words: Words, queries: Words, radius: int, plan: Plan) -> tuple[list[Keys], Done]:
        """For each query the keys within the radius, rising; which queries are done."""
        way = self._way(len(queries), self.forecast.within(radius), plan)
        if way is None:
            return [np.empty(0, dtype=np.uint64)] * len(queries), np.zeros(len(queries), dtype=np.bool_)
        probe, beside = way
        ends, keys, done = _probe.within(self.tables, self.tables.turned(queries, plan.path), radius, probe)
        keys = self._now(keys)
        lists = [keys[ends[i] : ends[i + 1]] for i in range(len(queries))]
        if len(beside):
            codes = _stretch(words, beside)
            starts, rows, far = _kernel.within(codes, queries, radius, path=plan.path, threads=plan.threads)
            new = _keys(rows, far, beside)
            lists = [
                np.sort(np.concatenate([found, new[starts[i] : starts[i + 1]]]))
                for i, found in enumerate(lists)
            ]
        return lists, done

    def _way(self, queries: int, forecast: float, plan: Plan) -> tuple[_probe.Probe, Rows] | None:
        """What to search with, and the rows to scan beside; None where the tables cannot be worth it."""
        tables, price = self.tables, _cost.prices(plan.path)
        before = (CALL + (0 if plan.allowed is None else _MASK * tables.count)) / max(1, queries)
        share = _WORTH if before + forecast <= _WORTH * plan.scan else _DOUBTED
        lookup = price.table_lookup(len(tables.offsets))
        if share * plan.scan < before + tables.m * lookup:
            return None
        # A query that is given up has used as much of the pool as its scan will cost, or more: so few are.
        budget, pool = (int(min(share * cost - before, 2**40)) for cost in (plan.alone, plan.scan))
        mask, beside = self._living, self.later
        if plan.allowed is not None:
            rows = plan.allowed()
            mask = np.zeros(plan.count + 1, dtype=np.uint8)  # one more, for rows that are gone: -1
            mask[rows] = 1
            beside = beside[mask[beside] != 0]
            mask = mask[: tables.count] if self.moved is None else mask[self.moved]
        prices = (lookup, price.code * tables.words, price.hit)
        return _probe.Probe(plan.path, budget, pool, *prices, mask, plan.threads), beside

    def _now(self, keys: Keys) -> Keys:
        """Keys with the tables' rows as keys with the collection's."""
        if self.moved is None or len(keys) == 0:
            return keys
        there = keys != _probe.NOTHING
        rows = self.moved[(keys[there] & _ROW).astype(np.int64)].astype(np.uint64)
        keys[there] = (keys[there] & ~_ROW) | rows
        return keys


def built(words: Words, bits: int, m: int, path: str, threads: int) -> Tabled:
    """All codes `(n, w)` in m tables, or in as many as are cheapest where m is 0.

    Raises `ConfigError` for an m whose substrings would be longer than 24 bits, or empty, and `InputError`
    where memory does not suffice.
    """
    least = -(-bits // _tables.MOST_WIDTH)
    if m and not least <= m <= bits:
        raise ConfigError(f"m is {m}", f"{bits} bits need {least} to {bits} tables, or 0 to choose")
    counts, price = _cost.histograms(words, bits, path, threads), _cost.prices(path)
    forecast = _cost.forecast(counts, bits, m, price) if m else _cost.best(counts, bits, price)
    return put(words, bits, forecast, path, threads)


def put(words: Words, bits: int, forecast: _cost.Forecast, path: str, threads: int) -> Tabled:
    """All codes `(n, w)` in as many tables as were forecast; `InputError` where memory does not suffice."""
    try:
        return Tabled(_tables.build(words, bits, forecast.m, path, threads), forecast)
    except MemoryError as error:
        gigabytes = _cost.bytes_of(len(words), bits, forecast.m) / 1e9
        message = f"{forecast.m} tables of {len(words)} codes need {gigabytes:.1f} GB of memory"
        raise InputError(message, 'use the index "scan", or a smaller m') from error


def _none(queries: int, k: int) -> tuple[Keys, Done]:
    """The answer where no query is done."""
    return np.full((queries, k), _probe.NOTHING), np.zeros(queries, dtype=np.bool_)


def _stretch(words: Words, rows: Rows) -> Words:
    """The codes in `rows`, which rise; a view where they stand together."""
    first, last = int(rows[0]), int(rows[-1])
    return words[first : last + 1] if last - first + 1 == len(rows) else words[rows]


def _keys(rows: Rows, far: NDArray[np.int32], names: Rows) -> Keys:
    """Keys of what the kernel found among the codes of the rows `names`."""
    keys: Keys = (far.astype(np.uint64) << np.uint64(32)) | names[rows].astype(np.uint64)
    return np.where(rows < 0, _probe.NOTHING, keys)
