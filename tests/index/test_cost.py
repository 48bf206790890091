"""The forecast of what a search costs against counting what stands in the buckets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from semblance.index import _cost
from semblance.index._codes import to_words


def far_from_each_other(bits: np.ndarray) -> np.ndarray:
    """Histograms of the distances from the first 6 rows to all other rows."""
    counts = np.zeros((6, bits.shape[1] + 1), dtype=np.int64)
    for i in range(6):
        for j, row in enumerate(bits):
            if i != j:
                counts[i, int((bits[i] != row).sum())] += 1
    return counts


def rows(n: int = 400, bits: int = 24) -> np.ndarray:
    r = np.random.default_rng(0)
    centres = r.integers(0, 2, (20, bits), dtype=np.uint8)
    return centres[r.integers(0, 20, n)] ^ (r.random((n, bits)) < 0.15).astype(np.uint8)


def test_histograms_leave_the_query_itself_out() -> None:
    bits = rows()
    words = to_words(np.packbits(bits, axis=1, bitorder="little"))
    counts = _cost.histograms(words, 24, "numpy")
    assert (counts.sum(axis=1) == 399).all()
    assert np.array_equal(_cost.histograms(words[:6], 24, "numpy"), far_from_each_other(bits[:6]))


def test_codes_in_the_buckets_are_the_average_over_all_ways_to_share_out_the_bits() -> None:
    bits = rows(100, 12)
    price = _cost.Prices(0, 0, 1, 0, 1, 1, 1, 1)
    made = _cost.forecast(far_from_each_other(bits), 12, 2, price)
    ways = list(itertools.combinations(range(12), 6))
    met = np.zeros(14)
    for first in ways:
        mask = np.isin(np.arange(12), first)
        for i in range(6):
            others = np.delete(bits != bits[i], i, axis=0)
            for j, part in enumerate((others[:, mask], others[:, ~mask])):
                for s in range(7):
                    met[2 * s + j] += (part.sum(axis=1) == s).sum()
    assert made.by_radius == pytest.approx(np.cumsum(met) / len(ways) / 6)


def test_lookups_are_the_buckets_within_reach() -> None:
    price = _cost.Prices(1, 1, 0, 0, 1, 1, 1, 1)
    made = _cost.forecast(far_from_each_other(rows()), 24, 3, price)
    assert made.by_radius[:5] == (1, 2, 3, 3 + 8, 3 + 16)
    assert made.by_radius[-1] == 3 * 2**8
    assert made.within(0) == 1
    assert made.within(10**6) == 3 * 2**8


def test_many_queries_share_what_a_scan_reads() -> None:
    price = _cost.Prices(0, 0, 0, 0, one=100, few=60, many=10, tile=400)
    assert [price.scanned(10**8, q) for q in (0, 1, 2, 7, 8, 16, 100)] == [100, 100, 60, 60, 60, 35, 14]
    assert price.scanned(1000, 1) == 60
    assert _cost.scan_cost(10**8, 2, 1, price) == 2 * 10**10


def test_the_forecast_of_k_is_that_of_its_neighbours_distance() -> None:
    counts = np.zeros((2, 25), dtype=np.int64)
    counts[0, [4, 20]], counts[1, [6, 20]] = [10, 100], [10, 100]
    price = _cost.Prices(1, 1, 0, 0, 1, 1, 1, 1)
    made = _cost.forecast(counts, 24, 3, price)
    assert made.neighbour == 5
    assert made.nearest(10) == (made.by_radius[4] + made.by_radius[6]) / 2
    assert made.nearest(11) == made.nearest(100) == made.by_radius[20]
    assert made.nearest(1000) == math.inf
    assert _cost.restored({"m": 3, "neighbour": 5, "share": 0.5, "by_k": [[1, 2]], "by_radius": [1]}).m == 3


def test_shares_of_a_hypergeometric_add_up() -> None:
    for bits, width in ((8, 8), (24, 5), (200, 17)):
        share = _cost._shell(bits, width)
        assert share.sum(axis=1) == pytest.approx(1)
        assert share @ np.arange(width + 1) == pytest.approx(np.arange(bits + 1) * width / bits)
    assert _cost._shell(4, 2)[2] == pytest.approx([1 / 6, 4 / 6, 1 / 6])


def test_the_best_number_of_tables_depends_on_size_and_on_memory() -> None:
    def uniform(n: int) -> np.ndarray:
        return np.array([[round(n * math.comb(64, d) / 2**64) for d in range(65)]])

    price = _cost.prices("native-avx512")
    ms = [_cost.best(uniform(n), 64, price).m for n in (10**5, 10**7, 10**9)]
    assert ms == sorted(ms, reverse=True)
    assert ms[1] == 4
    assert _cost.best(uniform(10**7), 64, price, most_bytes=0).m == 3
    assert _cost.bytes_of(10, 16, 2) == 10 * 2 * 12 + 4 * 2 * 257
    assert _cost.widths(20, 3) == [7, 7, 6]
