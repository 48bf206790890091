"""Scores from histograms against every order of the ties, one list at a time, and against scikit-learn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from semblance.errors import ConfigError, InputError
from semblance.evaluation.hashing_ties import (
    Ties,
    average_precision,
    eleven_point,
    precision_at,
    precision_within,
)

Item = tuple[int, bool]


def orders(items: list[Item]) -> Iterator[list[bool]]:
    """Every ranking of (distance, relevant) by distance, as the flags down the list."""
    groups = [[flag for d, flag in items if d == distance] for distance in sorted({d for d, _ in items})]
    for choice in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [flag for group in choice for flag in group]


def slow_ap(flags: list[bool], cut: int | None, divide: str) -> float:
    """The definition, down one list."""
    kept = flags[: cut or len(flags)]
    hits, total = 0, 0.0
    for rank, flag in enumerate(kept, start=1):
        if flag:
            hits += 1
            total += hits / rank
    divisor = hits if divide == "found" else min(len(kept), sum(flags))
    return total / divisor if divisor else 0.0


def slow_precision(flags: list[bool], k: int) -> float:
    kept = flags[:k]
    return sum(kept) / len(kept)


def slow_eleven(flags: list[bool]) -> float:
    """At every recall level the first rank with the nearest recall, in fractions of whole numbers."""
    wanted, total = sum(flags), 0.0
    for level in range(11):
        hits, nearest, value = 0, math.inf, 0.0
        for rank, flag in enumerate(flags, start=1):
            hits += flag
            gap = abs(10 * hits - level * wanted)
            if gap < nearest:
                nearest, value = gap, hits / rank
        total += value
    return total / 11


def bins(items: list[Item], width: int) -> tuple[np.ndarray, np.ndarray]:
    counts, relevant = np.zeros((2, 1, width), dtype=np.int64)
    for distance, flag in items:
        counts[0, distance] += 1
        relevant[0, distance] += flag
    return counts, relevant


def agrees(fast: Ties, items: list[Item], slow: Callable[[list[bool]], float]) -> None:
    values = [slow(order) for order in orders(items)]
    expected = (sum(values) / len(values), min(values), max(values))
    assert [float(one[0]) for one in fast] == pytest.approx(expected, abs=1e-12)


lists = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6)
ranked = lists.filter(lambda items: any(flag for _, flag in items))


@settings(deadline=None)
@given(ranked)
def test_average_precision_is_its_mean_over_all_orders(items: list[Item]) -> None:
    counts, relevant = bins(items, 5)
    agrees(average_precision(counts, relevant), items, lambda flags: slow_ap(flags, None, "possible"))
    found = average_precision(counts, relevant, divide="found")
    np.testing.assert_allclose(found, average_precision(counts, relevant))


@settings(deadline=None)
@given(ranked, st.integers(1, 8), st.sampled_from(["possible", "found"]))
def test_a_cut_through_ties_is_averaged(items: list[Item], cut: int, divide: str) -> None:
    """Also where the cut lies beyond the last item."""
    counts, relevant = bins(items, 5)
    fast = average_precision(counts, relevant, at=cut, divide=divide)
    agrees(fast, items, lambda flags: slow_ap(flags, cut, divide))


@settings(deadline=None)
@given(lists, st.integers(1, 8))
def test_precision_at_k(items: list[Item], k: int) -> None:
    agrees(precision_at(*bins(items, 4), k), items, lambda flags: slow_precision(flags, k))


@settings(deadline=None)
@given(ranked)
def test_eleven_point(items: list[Item]) -> None:
    agrees(eleven_point(*bins(items, 4)), items, slow_eleven)


def large(seed: int, queries: int = 5, width: int = 17) -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(seed)
    counts = r.integers(0, 400, (queries, width)) * (r.random((queries, width)) < 0.7)
    return counts, r.binomial(counts, r.random((queries, width)))


def shuffled(counts: np.ndarray, relevant: np.ndarray, r: np.random.Generator) -> list[bool]:
    flags: list[bool] = []
    for n, p in zip(counts.tolist(), relevant.tolist(), strict=True):
        group = np.arange(n) < p
        r.shuffle(group)
        flags += group.tolist()
    return flags


@pytest.mark.parametrize("cut", [None, 1, 700])
@pytest.mark.parametrize("divide", ["possible", "found"])
def test_long_lists_agree_with_shuffled_ones(cut: int | None, divide: str) -> None:
    """The mean of many shuffles within five of its standard errors; no shuffle beyond the bounds."""
    r = np.random.default_rng(0)
    counts, relevant = large(3)
    fast = average_precision(counts, relevant, at=cut, divide=divide)
    for query in range(len(counts)):
        drawn = [slow_ap(shuffled(counts[query], relevant[query], r), cut, divide) for _ in range(60)]
        error = np.std(drawn) / math.sqrt(len(drawn))
        assert abs(np.mean(drawn) - fast.expected[query]) <= 5 * error + 1e-12
        assert fast.pessimistic[query] <= min(drawn) + 1e-12
        assert fast.optimistic[query] >= max(drawn) - 1e-12


def test_long_lists_agree_with_sums_over_ranks() -> None:
    """He et al.'s sum, one rank at a time in exact order; both extreme orders as explicit lists."""
    counts, relevant = large(4)
    fast = average_precision(counts, relevant)
    for query in range(len(counts)):
        nn = pp = 0
        total = 0.0
        ends: list[list[bool]] = [[], []]
        for n, p in zip(counts[query].tolist(), relevant[query].tolist(), strict=True):
            for t in range(1, n + 1):
                share = (t - 1) * (p - 1) / (n - 1) if n > 1 else 0.0
                total += p / n * (pp + 1 + share) / (nn + t)
            ends[0] += [False] * (n - p) + [True] * p
            ends[1] += [True] * p + [False] * (n - p)
            nn, pp = nn + n, pp + p
        assert fast.expected[query] == pytest.approx(total / pp, rel=1e-12)
        assert fast.pessimistic[query] == pytest.approx(slow_ap(ends[0], None, "possible"), rel=1e-12)
        assert fast.optimistic[query] == pytest.approx(slow_ap(ends[1], None, "possible"), rel=1e-12)
        elevens = eleven_point(counts[query : query + 1], relevant[query : query + 1])
        assert elevens.pessimistic[0] == pytest.approx(slow_eleven(ends[0]), rel=1e-12)
        assert elevens.optimistic[0] == pytest.approx(slow_eleven(ends[1]), rel=1e-12)


def test_without_ties_it_is_scikit_learns() -> None:
    r = np.random.default_rng(1)
    relevant = r.integers(0, 2, (20, 50))
    relevant[:, 3] = 1
    ours = average_precision(np.ones_like(relevant), relevant)
    theirs = [average_precision_score(row, -np.arange(50)) for row in relevant]
    for order in ours:
        np.testing.assert_allclose(order, theirs, rtol=1e-12)


def test_both_divisors_by_hand() -> None:
    """Ranks 1 and 3 of a list of 4 relevant among 5; the cut is at 3."""
    relevant = np.array([[1, 0, 1, 1, 1]])
    counts = np.ones_like(relevant)
    sums = 1 + 2 / 3
    assert average_precision(counts, relevant, at=3, divide="found").expected[0] == pytest.approx(sums / 2)
    assert average_precision(counts, relevant, at=3).expected[0] == pytest.approx(sums / 3)
    nothing_found = np.array([[0, 0, 0, 1, 0]])
    assert average_precision(counts, nothing_found, at=3, divide="found").expected[0] == 0
    one_hit = np.array([[1, 0, 0, 1, 1]])
    assert average_precision(counts, one_hit, at=3, divide="found").expected[0] == 1


def test_more_hits_may_score_less_when_divided_by_those_found() -> None:
    """Found at rank 1; the second hit, if it comes within the cut, comes last: the least value has it."""
    counts, relevant = np.array([[1, 3, 2]]), np.array([[1, 0, 1]])
    fast = average_precision(counts, relevant, at=5, divide="found")
    assert fast.optimistic[0] == 1
    assert fast.pessimistic[0] == pytest.approx((1 + 2 / 5) / 2)
    assert fast.expected[0] == pytest.approx((1 + (1 + 2 / 5) / 2) / 2)


def test_radius() -> None:
    counts, relevant = (
        np.array([[0, 0, 4, 5], [0, 0, 0, 9], [1, 1, 0, 0]]),
        np.array([[0, 0, 1, 5], [0] * 4, [0, 1, 0, 0]]),
    )
    np.testing.assert_array_equal(precision_within(counts, relevant, 2), [0.25, np.nan, 0.5])
    np.testing.assert_array_equal(precision_within(counts, relevant, 99), [6 / 9, 0, 0.5])


def test_nothing_to_score_is_not_a_number() -> None:
    counts, relevant = np.array([[2, 3], [0, 0], [1, 1]]), np.array([[0, 0], [0, 0], [1, 0]])
    for fast in (
        average_precision(counts, relevant),
        average_precision(counts, relevant, at=2, divide="found"),
        average_precision(counts, relevant, at=2),
        eleven_point(counts, relevant),
    ):
        assert all(np.isnan(order).tolist() == [True, True, False] for order in fast)
    assert np.isnan(precision_at(counts, relevant, 3).expected).tolist() == [False, True, False]
    assert average_precision(
        np.zeros((0, 9), int), np.zeros((0, 9), int), at=3, divide="found"
    ).expected.shape == (0,)


def test_a_large_database_loses_no_digits() -> None:
    """A hundred million items in three bins, against sums of the exact harmonic differences."""
    counts, relevant = np.array([[10**8, 1, 10]]), np.array([[0, 1, 5]])
    fast = average_precision(counts, relevant)
    slow = 1 / (10**8 + 1)
    slow += sum(0.5 * (2 + (t - 1) * 4 / 9) / (10**8 + 1 + t) for t in range(1, 11))
    assert fast.expected[0] == pytest.approx(slow / 6, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: average_precision([[1]], [[2]]), InputError, "more relevant items"),
        (lambda: average_precision([[1]], [[-1]]), InputError, "more relevant items"),
        (lambda: average_precision([[1, 2]], [[1]]), InputError, "shapes"),
        (lambda: average_precision([[1.0]], [[1.0]]), InputError, "integers"),
        (lambda: average_precision([1], [1]), InputError, "integers"),
        (lambda: average_precision([[1]], [[1]], at=0), ConfigError, "at is 0"),
        (lambda: average_precision([[1]], [[1]], divide="all"), ConfigError, "divide"),
        (lambda: precision_at([[1]], [[1]], 0), ConfigError, "k is 0"),
        (lambda: precision_within([[1]], [[1]], -1), ConfigError, "radius"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
