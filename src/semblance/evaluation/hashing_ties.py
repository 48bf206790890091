"""Retrieval scores of binary codes from two histograms per query, over every order of equal distances.

K-bit codes have only K + 1 distances, so most of a ranking is ties, and a sort decides them by accident. Here
nothing is sorted. Per query, `counts[d]` items of the database lie at Hamming distance d, `relevant[d]` of
them relevant; from these two rows follow, exactly, the mean of a score over all orders of the tied items
(He, Cakir, Bargal, Sclaroff, CVPR 2018) and its least and greatest value. Cost: K + 1 bins, not the items.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.errors import ConfigError, InputError

__all__ = ["Ties", "average_precision", "eleven_point", "precision_at", "precision_within"]

Counts = NDArray[np.int64]
Numbers = NDArray[np.float64]

_CELLS = 2**20  # numbers per temporary array where a cut through tied items is averaged
_FIRST = 64  # harmonic numbers up to here come from a table, beyond from their expansion
_HARMONIC = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, _FIRST + 1))])


class Ties(NamedTuple):
    """One score per query `(q,)` float64, by what happens to items at equal distance: the mean over all their
    orders, the least and the greatest value any order gives. NaN where there is nothing to score."""

    expected: Numbers
    pessimistic: Numbers
    optimistic: Numbers


class _Bins(NamedTuple):
    """Per bin `(q, bins)`: items, relevant ones, both as far as nearer bins go, and ranks within the cut."""

    n: Counts
    p: Counts
    n_before: Counts
    p_before: Counts
    slots: Counts


def average_precision(
    counts: ArrayLike,
    relevant: ArrayLike,
    at: int | None = None,
    divide: Literal["possible", "found"] = "possible",
) -> Ties:
    """Average precision of each query, or of its first `at` = R ranks: the sum of the precisions at the ranks
    of relevant items, divided by a number of relevant items.

    `counts`, `relevant`: `(q, bins)` integers, by distance. `divide="possible"`: by min(R, relevant items of
    the database). `divide="found"`: by those found in the first R, as published codebases do (one hit at
    rank 1 and none after scores 1); 0 where none is found. Without `at` the two are the same. Where the cut
    goes through tied items, each of them is within it equally often. NaN for a query without relevant items.

    Two items at distance 0, one of them relevant, and a relevant one at distance 1 (mean of 1 and 1/2, 2/3):

    >>> [float(value[0].round(3)) for value in average_precision([[2, 1]], [[1, 1]])]
    [0.708, 0.583, 0.833]
    """
    if divide not in ("possible", "found"):
        raise ConfigError(f'divide is "{divide}"', 'give "possible" or "found"')
    n, p = _histograms(counts, relevant)
    items, wanted = n.sum(axis=1), p.sum(axis=1)
    cut = items if at is None else np.minimum(_positive(at, "at"), items)
    bins = _bins(n, p, cut)
    whole = bins.slots == bins.n
    if divide == "possible" or whole.all():
        sums = _sums(bins)
        divisor = np.minimum(cut, wanted) if divide == "possible" else (p * whole).sum(axis=1)
        scores = [_ratio(one.sum(axis=1), divisor) for one in sums]
    else:
        scores = _divided_by_found(bins)
    nothing = wanted == 0
    return Ties(*(np.where(nothing, np.nan, score) for score in scores))


def precision_at(counts: ArrayLike, relevant: ArrayLike, k: int) -> Ties:
    """Share of relevant items among the first k of each query (among all of them where fewer than k exist).

    >>> precision_at([[1, 4]], [[1, 1]], 3)
    Ties(expected=array([0.5]), pessimistic=array([0.33333333]), optimistic=array([0.66666667]))
    """
    n, p = _histograms(counts, relevant)
    cut = np.minimum(_positive(k, "k"), n.sum(axis=1))
    bins = _bins(n, p, cut)
    mean = bins.slots * _ratio(bins.p, bins.n)
    least = np.maximum(0, bins.slots - (bins.n - bins.p))
    most = np.minimum(bins.p, bins.slots)
    shares = [_ratio(hits.sum(axis=1), cut) for hits in (mean, least, most)]
    return Ties(*(np.where(cut == 0, np.nan, share) for share in shares))


def precision_within(counts: ArrayLike, relevant: ArrayLike, radius: int) -> Numbers:
    """`(q,)`: share of relevant items among those at a distance of at most `radius`; NaN where there is none.

    Ties do not touch it. An empty ball is counted as 0 by most papers and left out by others.
    """
    n, p = _histograms(counts, relevant)
    if radius < 0:
        raise ConfigError(f"the radius is {radius}", "a distance is at least 0")
    inside = n[:, : radius + 1].sum(axis=1)
    share = _ratio(p[:, : radius + 1].sum(axis=1), inside)
    return np.where(inside == 0, np.nan, share)


def eleven_point(counts: ArrayLike, relevant: ArrayLike) -> Ties:
    """Mean over the recalls 0, 0.1, ..., 1 of the precision at the first rank whose recall is nearest: the
    "mAP" of the QSMI demo (Passalis and Tefas), neither the usual nor the interpolated average precision.

    The nearest recall belongs to a number of hits j (the smaller of two equally near). j = 0 occurs only
    where the first item is not relevant, and has precision 0; else the precision is j / rank of the j-th
    hit. The mean over orders sums over all ranks which that hit can have: some 11 times the size of a
    group of ties, per query.
    """
    n, p = _histograms(counts, relevant)
    wanted = p.sum(axis=1)
    none = wanted == 0
    rows = np.flatnonzero(~none)
    first = (n > 0).argmax(axis=1)
    at_first = _ratio(np.take_along_axis(p, first[:, None], 1), np.take_along_axis(n, first[:, None], 1))[
        :, 0
    ]
    total = np.zeros((3, len(n)))
    for level in range(11):
        # Of the hits j = 0..P the nearest to P * level / 10; the smaller of two as near.
        j = (2 * wanted * level + 9) // 20
        scores = np.zeros((3, len(n)))
        scores[:, rows] = _at_hit(n[rows], p[rows], np.maximum(j[rows], 1))
        begins = np.stack([at_first, at_first == 1, at_first > 0])
        total += np.where(j == 0, begins, scores)
    return Ties(*np.where(none, np.nan, total / 11))


def _histograms(counts: ArrayLike, relevant: ArrayLike) -> tuple[Counts, Counts]:
    pair: list[NDArray[Any]] = [np.asarray(counts), np.asarray(relevant)]
    if any(array.ndim != 2 or array.dtype.kind not in "iu" for array in pair):
        raise InputError("the histograms are not (q, bins) arrays of integers")
    n, p = (array.astype(np.int64, copy=False) for array in pair)
    if n.shape != p.shape or not n.shape[1]:
        raise InputError(f"the histograms have the shapes {n.shape} and {p.shape}", "expected the same")
    if (p < 0).any() or (p > n).any():
        raise InputError("a distance has more relevant items than items, or fewer than 0")
    return n, p


def _positive(value: int, name: str) -> int:
    if value < 1:
        raise ConfigError(f"{name} is {value}", "look at one rank at least")
    return value


def _bins(n: Counts, p: Counts, cut: Counts) -> _Bins:
    n_before, p_before = np.cumsum(n, axis=1) - n, np.cumsum(p, axis=1) - p
    return _Bins(n, p, n_before, p_before, np.clip(cut[:, None] - n_before, 0, n))


def _ratio(a: NDArray[Any], b: NDArray[Any]) -> Numbers:
    """a / b, 0 where b is 0."""
    quotient = np.zeros(np.broadcast_shapes(a.shape, b.shape))
    np.divide(a, b, out=quotient, where=b != 0)
    return quotient


def _harmonic(start: Counts, length: Counts) -> Numbers:
    """sum_{t=1..length} 1 / (start + t), to a few roundings of the result, with no table of all ranks."""
    end = start + length
    early = _HARMONIC[np.minimum(end, _FIRST)] - _HARMONIC[np.minimum(start, _FIRST)]
    a, b = np.maximum(start, _FIRST) + 0.5, np.maximum(end, _FIRST) + 0.5
    # H(m) = ln x + gamma + 1/(24 x^2) - 7/(960 x^4) + 31/(8064 x^6) - ..., x = m + 1/2
    rest = [((31 / 8064 / x**2 - 7 / 960) / x**2 + 1 / 24) / x**2 for x in (a, b)]
    return np.asarray(early + np.log1p((b - a) / a) + (rest[1] - rest[0]))


def _sums(bins: _Bins) -> tuple[Numbers, Numbers, Numbers]:
    """Per bin, the sum of the precisions at its hits within the cut: mean over orders, least, greatest."""
    n, p, n_before, p_before, slots = bins
    h = _harmonic(n_before, slots)
    slope = (p - 1) / np.maximum(n - 1, 1)
    mean = _ratio(p, n) * ((p_before + 1) * h + slope * (slots - (n_before + 1) * h))
    late = n_before + n - p
    return (
        mean,
        _run(late, p_before, np.maximum(0, slots - (n - p))),
        _run(n_before, p_before, np.minimum(p, slots)),
    )


def _run(start: Counts, found: Counts, length: Counts) -> Numbers:
    """sum_{i=1..length} (found + i) / (start + i): hits in a row after `start` ranks with `found` hits."""
    return np.asarray(length - (start - found) * _harmonic(start, length))


def _divided_by_found(bins: _Bins) -> list[Numbers]:
    """Average precision over the relevant items found, where their number depends on the order.

    Nearer bins lie within the cut whole. Of the bin that is cut, s of n items are within, h of them relevant
    with the hypergeometric probability; given h, every choice of ranks is as likely as any other.
    """
    cut = np.where(bins.slots > 0, np.arange(bins.n.shape[1]), -1).max(axis=1)
    before = np.arange(bins.n.shape[1]) < cut[:, None]
    base = [(one * before).sum(axis=1) for one in _sums(bins)]
    n, p, n0, p0, s = (np.take_along_axis(part, np.maximum(cut, 0)[:, None], 1)[:, 0] for part in bins)
    low, high = np.maximum(0, s - (n - p)), np.minimum(p, s)
    scores = [np.zeros(len(n)) for _ in range(3)]
    step = max(1, _CELLS // int((high - low).max(initial=0) + 1))
    for start in range(0, len(n), step):
        part = slice(start, start + step)
        n_, p_, n0_, p0_, s_ = (array[part, None] for array in (n, p, n0, p0, s))
        grid = low[part, None] + np.arange(int((high - low)[part].max()) + 1)
        there, h = grid <= high[part, None], np.minimum(grid, high[part, None])
        chance = _chances((p_ - h) * (s_ - h), (h + 1) * (n_ - p_ - s_ + h + 1), there)
        ranks = _harmonic(n0_, s_)
        slope = (h - 1) / np.maximum(s_ - 1, 1)
        mean = _ratio(h, s_) * ((p0_ + 1) * ranks + slope * (s_ - (n0_ + 1) * ranks))
        sums = (mean, _run(n0_ + s_ - h, p0_, h), _run(n0_, p0_, h))
        values = [_ratio(b[part, None] + one, p0_ + h) for b, one in zip(base, sums, strict=True)]
        scores[0][part] = (values[0] * chance).sum(axis=1)
        scores[1][part] = np.where(there, values[1], np.inf).min(axis=1)
        scores[2][part] = np.where(there, values[2], -np.inf).max(axis=1)
    return scores


def _at_hit(n: Counts, p: Counts, j: Counts) -> Numbers:
    """`(3, q)`: mean, least and greatest of j / rank of the j-th hit; every query has j hits or more.

    Of the j-th hit as the i-th of p in a bin of n, b others of the bin come before with the probability
    C(i - 1 + b, b) C(n - i - b, n - p - b) / C(n, p).
    """
    reached = np.cumsum(p, axis=1)
    at = (reached >= j[:, None]).argmax(axis=1)[:, None]
    n0, p0 = np.cumsum(n, axis=1) - n, reached - p
    n, p, n0, p0 = (np.take_along_axis(array, at, 1)[:, 0] for array in (n, p, n0, p0))
    i, others = j - p0, n - p
    scores = np.stack([np.zeros(len(j)), j / (n0 + others + i), j / (n0 + i)])
    step = max(1, _CELLS // int(others.max(initial=0) + 1))
    for start in range(0, len(j), step):
        part = slice(start, start + step)
        n_, i_, most = (array[part, None] for array in (n, i, others))
        grid = np.arange(int(others[part].max()) + 1)
        b = np.minimum(grid, most)
        chance = _chances((i_ + b) * (most - b), (b + 1) * (n_ - i_ - b), grid <= most)
        scores[0, part] = (chance * j[part, None] / (n0[part, None] + i_ + b)).sum(axis=1)
    return scores


def _chances(above: Counts, below: Counts, there: NDArray[np.bool_]) -> Numbers:
    """Probabilities `(q, values)` where the next value is above / below times as likely as this one."""
    more = there[:, 1:]
    ratio = np.ones(more.shape)
    np.divide(above[:, :-1], below[:, :-1], out=ratio, where=more)
    logs = np.zeros(there.shape)
    np.cumsum(np.log(ratio, out=ratio), axis=1, out=logs[:, 1:])
    chance = np.exp(logs - logs.max(axis=1, keepdims=True)) * there
    return np.asarray(chance / chance.sum(axis=1, keepdims=True))
