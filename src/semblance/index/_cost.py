"""What a search costs by tables and by scan, predicted from how far the codes of a collection lie apart.

A query whose k-th neighbour lies at a distance of r has to visit, in table j, all buckets within s flips of
its own, where `m * s + j` reaches r (see `_tables`). How many codes stand in them follows from the histogram
of distances: of the codes at distance d, hypergeometrically many differ in exactly s of the b bits of a
substring. Costs are in picoseconds; they decide which way a search goes, never what it finds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.index import _kernel
from semblance.index._tables import MOST_WIDTH

__all__ = [
    "Forecast",
    "Prices",
    "best",
    "bytes_of",
    "forecast",
    "histograms",
    "most_tables",
    "prices",
    "restored",
    "scan_cost",
    "widths",
]

Words = NDArray[np.uint64]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prices:
    """Picoseconds.

    In tables: `lookup`, a bucket; `far_lookup`, one where the tables' offsets are too many for a near cache;
    `code`, a 64-bit word compared; `hit`, a code near enough to be looked at. In a scan, for a word: `one`,
    of a single query; `few`, for each of a few; `many`, for each of many, and `tile`, for all together.
    """

    lookup: int
    far_lookup: int
    code: int
    hit: int
    one: int
    few: int
    many: int
    tile: int

    def table_lookup(self, offsets: int) -> int:
        """A look-up in tables with so many `offsets` in all."""
        return self.lookup if offsets <= _NEAR_OFFSETS else self.far_lookup

    def scanned(self, words: int, queries: int) -> float:
        """A word for each of so many queries of a scan of so many words."""
        read_again = queries > 1 or words <= _NEAR_WORDS
        return min(self.few if read_again else self.one, self.many + self.tile / max(1, queries))


_NEAR_OFFSETS = 2**19  # 2 MB
_NEAR_WORDS = 2**20  # 8 MB stay in a cache from one search to the next
_PRICES = {
    "native-avx512": Prices(20_000, 50_000, 650, 20_000, 210, 110, 24, 1_000),
    "native-avx2": Prices(20_000, 50_000, 1_000, 20_000, 290, 280, 75, 1_000),
    "native-popcnt": Prices(20_000, 50_000, 1_000, 20_000, 450, 450, 140, 1_200),
    "native": Prices(20_000, 50_000, 1_900, 30_000, 950, 950, 140, 1_300),
    "numpy": Prices(60_000, 60_000, 10_000, 100_000, 3_000, 3_000, 3_000, 0),
}
_KS = (1, 10, 100, 1_000, 10_000, 100_000)
_QUERIES = 64
_PAIRS = {"numpy": 2**25}  # distances measured for a forecast
_MOST_PAIRS = 2**29
_NARROWEST = 6  # bits of a substring


def prices(path: str) -> Prices:
    """What work costs on a path of the kernel: measured on one machine, good to a factor of two elsewhere."""
    return _PRICES[path]


def scan_cost(codes: int, words: int, queries: int, price: Prices) -> float:
    """Picoseconds for each of `queries` that are compared with all of `codes` codes of `words` words."""
    return codes * words * price.scanned(codes * words, queries)


@dataclass(frozen=True)
class Forecast:
    """What searches in m tables will cost, on average over queries like the collection's own codes.

    `neighbour`: the median distance of the 10th neighbour; `share`: of all codes, how many a search for ten
    compares. `by_k`: (k, picoseconds); `by_radius`: picoseconds for a radius of 0, 1 and so on.
    """

    m: int
    neighbour: float
    share: float
    by_k: tuple[tuple[int, float], ...]
    by_radius: tuple[float, ...]

    def nearest(self, k: float) -> float:
        """Picoseconds of a search for the k nearest: those of the next larger k that was measured."""
        return next((cost for known, cost in self.by_k if known >= k), math.inf)

    def within(self, radius: int) -> float:
        """Picoseconds of a search within the radius."""
        return self.by_radius[min(radius, len(self.by_radius) - 1)]


def restored(facts: Mapping[str, Any]) -> Forecast:
    """The forecast that `dataclasses.asdict` wrote into JSON. Raises `TypeError` or `ValueError`."""
    by_k = tuple((int(k), float(cost)) for k, cost in facts["by_k"])
    by_radius = tuple(float(cost) for cost in facts["by_radius"])
    made = Forecast(int(facts["m"]), float(facts["neighbour"]), float(facts["share"]), by_k, by_radius)
    if not by_radius:
        raise ValueError("its forecast is empty")
    return made


def histograms(words: Words, bits: int, path: str | None = None, threads: int = 1) -> Counts:
    """How many other codes lie at each distance from a few codes of the collection: `(q, bits + 1)`.

    The queries stand evenly spaced in the codes `(n, w)`.
    """
    pairs = _PAIRS.get(_kernel.chosen(path), _MOST_PAIRS)
    wanted = min(len(words), max(2, min(_QUERIES, pairs // max(1, len(words)))))
    rows = np.linspace(0, len(words) - 1, wanted).astype(np.int64)
    counts = _kernel.count(words, np.ascontiguousarray(words[rows]), bits, path=path, threads=threads)
    counts[:, 0] -= 1
    return counts


def best(counts: Counts, bits: int, price: Prices, most_bytes: float = math.inf) -> Forecast:
    """The forecast of the number of tables that finds 10 neighbours at the least cost.

    Of those that fit into `most_bytes`, or else of the fewest tables that there can be.
    """
    n, least = int(counts[0].sum()) + 1, -(-bits // MOST_WIDTH)
    fit = [m for m in range(least, most_tables(bits) + 1) if bytes_of(n, bits, m) <= most_bytes]
    made = [forecast(counts, bits, m, price) for m in fit or [least]]
    return min(made, key=lambda one: (one.nearest(10), one.m))


def most_tables(bits: int) -> int:
    """The largest m that is of use: shorter substrings would tell too little apart."""
    return max(1, bits // _NARROWEST)


def bytes_of(n: int, bits: int, m: int) -> int:
    """Bytes of m tables of n distinct codes: `m (8 w + 4)` for each code, and the offsets."""
    offsets: int = sum(2**width + 1 for width in widths(bits, m))
    return n * m * (8 * -(-bits // 64) + 4) + 4 * offsets


def widths(bits: int, m: int) -> list[int]:
    """Bits of each of the m substrings."""
    return [bits // m + (j < bits % m) for j in range(m)]


def forecast(counts: Counts, bits: int, m: int, price: Prices) -> Forecast:
    """What searches in m tables will cost; `counts` `(q, bits + 1)`: other codes at each distance."""
    sizes = widths(bits, m)
    lookup = price.table_lookup(sum(2**width + 1 for width in sizes))
    compared = np.zeros((m * (max(sizes) + 1), len(counts)))
    visited = np.zeros(len(compared))
    shares = {width: counts.astype(np.float64) @ _shell(bits, width) for width in set(sizes)}
    for j, width in enumerate(sizes):
        for s in range(width + 1):
            visited[m * s + j] = math.comb(width, s)
            compared[m * s + j] = shares[width][:, s]
    compared, visited = compared.cumsum(axis=0), visited.cumsum()
    costs = visited[:, None] * lookup + compared * (-(-bits // 64) * price.code)
    others = int(counts[0].sum())
    far = {k: _kth(counts, k) for k in _KS if k <= others}
    tenth = far.get(10, _kth(counts, max(1, others)))
    query = np.arange(len(counts))
    return Forecast(
        m=m,
        neighbour=float(np.median(tenth)),
        share=float(compared[tenth, query].mean() / max(1, others)),
        by_k=tuple((k, float(costs[at, query].mean())) for k, at in far.items()),
        by_radius=tuple(costs.mean(axis=1).tolist()),
    )


def _kth(counts: Counts, k: int) -> NDArray[np.intp]:
    """The distance `(q,)` of the k-th neighbour; 0 where there are fewer."""
    found: NDArray[np.intp] = np.argmax(counts.cumsum(axis=1) >= k, axis=1)
    return found


def _shell(bits: int, width: int) -> Floats:
    """`(bits + 1, width + 1)`: the share of codes at distance d that differ in exactly s of `width` bits.

    Hypergeometric: C(width, s) C(bits - width, d - s) / C(bits, d).
    """
    log = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, bits + 1)))])

    def choose(n: int, k: NDArray[np.int64]) -> Floats:
        inside = (k >= 0) & (k <= n)
        at = np.where(inside, k, 0)
        return np.where(inside, log[n] - log[at] - log[n - at], -np.inf)

    d, s = np.arange(bits + 1)[:, None], np.arange(width + 1)[None]
    share: Floats = np.exp(choose(width, s) + choose(bits - width, d - s) - choose(bits, d))
    return share
