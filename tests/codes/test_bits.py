"""Packing, thresholds and the figures of `diagnose`, bit by bit."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance import codes
from semblance.codes._bits import as_codes
from semblance.codes._coder import halfway
from semblance.codes._rows import as_labels
from semblance.errors import InputError


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(1, 5), st.integers(0, 1000))
def test_pack(n: int, width: int, seed: int) -> None:
    bits = np.random.default_rng(seed).random((n, 8 * width)) < 0.5
    packed = codes.pack(bits)
    assert packed.shape == (n, width)
    for i in range(n):
        for j in range(8 * width):
            assert bool(packed[i, j // 8] >> (j % 8) & 1) == bits[i, j]
    assert np.array_equal(codes.unpack(packed), bits)
    assert codes.unpack(packed).dtype == np.bool_


def slow_diagnosis(bits: list[list[int]]) -> dict[str, float]:
    """Every figure from its definition."""
    n, width = len(bits), len(bits[0])
    ones = [sum(row[j] for row in bits) / n for j in range(width)]
    alive = [j for j in range(width) if 0 < ones[j] < 1]
    correlations = []
    for a in range(len(alive)):
        for b in range(a):
            i, j = alive[a], alive[b]
            both = sum(row[i] * row[j] for row in bits) / n
            spread = math.sqrt(ones[i] * (1 - ones[i]) * ones[j] * (1 - ones[j]))
            correlations.append(abs(both - ones[i] * ones[j]) / spread)
    entropies = [-sum(p * math.log2(p) for p in (ones[j], 1 - ones[j])) for j in alive]
    return {
        "balance": sum(abs(p - 0.5) for p in ones) / width,
        "entropy": sum(entropies) / width,
        "mean_correlation": sum(correlations) / len(correlations) if correlations else 0.0,
        "max_correlation": max(correlations, default=0.0),
        "dead": width - len(alive),
        "distinct": len(Counter(tuple(row) for row in bits)),
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.sampled_from([1, 2, 3, 8]), st.integers(0, 1000), st.sampled_from([0.1, 0.5]))
def test_diagnose(n: int, width: int, seed: int, share: float) -> None:
    bits = np.random.default_rng(seed).random((n, 8 * width)) < share
    found = codes.diagnose(codes.pack(bits))
    assert (found.n, found.bits) == (n, 8 * width)
    np.testing.assert_allclose(found.ones, bits.mean(0))
    for key, value in slow_diagnosis(bits.astype(int).tolist()).items():
        assert getattr(found, key) == pytest.approx(value, abs=1e-9), key


def test_blocks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = np.random.default_rng(0).integers(0, 256, (1000, 4), dtype=np.uint8)
    whole = codes.diagnose(packed)
    monkeypatch.setattr("semblance.codes._bits._ROWS", 77)
    parts = codes.diagnose(packed)
    assert parts.mean_correlation == pytest.approx(whole.mean_correlation)
    assert np.array_equal(parts.ones, whole.ones)


def test_what_is_no_code() -> None:
    for wrong in (np.zeros((2, 8)), np.zeros(8, np.uint8), np.zeros((2, 0), np.uint8)):
        with pytest.raises(InputError, match="expected"):
            codes.unpack(wrong)
    with pytest.raises(InputError, match="no whole bytes"):
        codes.pack(np.zeros((2, 9), bool))
    with pytest.raises(InputError, match="16 bits, expected 64"):
        as_codes(np.zeros((2, 2), np.uint8), 64)
    with pytest.raises(InputError, match="no codes"):
        codes.diagnose(np.zeros((0, 8), np.uint8))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=12))
def test_the_threshold_parts_most_evenly(column: list[int]) -> None:
    values = np.array(column, dtype=np.float64)[:, None]
    found = halfway(values)[0]
    distinct = sorted(set(column))
    if len(distinct) == 1:
        assert found == distinct[0]
        return
    assert found not in distinct
    middles = [(a + b) / 2 for a, b in zip(distinct, distinct[1:], strict=False)]  # noqa: RUF007
    best = min(abs(sum(v > cut for v in column) - len(column) / 2) for cut in middles)
    assert abs(sum(v > found for v in column) - len(column) / 2) == best


def test_labels() -> None:
    found = as_labels([3, -1, 7, 3], 4)
    assert found.rows.tolist() == [0, 2, 3]
    assert found.names.tolist() == [3, 7]
    assert found.classes.tolist() == [[True, False], [False, True], [True, False]]
    assert found.single
    several = np.array([[1, 0, 1], [0, 0, 0], [0, 0, 1]], dtype=bool)
    found = as_labels(several, 3)
    assert found.rows.tolist() == [0, 2]
    assert found.names.tolist() == [0, 2]
    assert found.classes.tolist() == [[True, True], [False, True]]
    assert not found.single
    for wrong in (
        None,
        [1, 2],
        [1.0, 2.0, 3.0],
        [-2, 1, 2],
        [4, 4, -1],
        several.astype(int),
        ["a", "b", "c"],
    ):
        with pytest.raises(InputError):
            as_labels(wrong, 3)
