"""Effective rank of known spectra, mean cosine by two loops, and when a training has collapsed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from semblance.errors import TrainingCollapsed
from semblance.training import health

Array = np.ndarray[Any, np.dtype[np.float32]]


def with_spectrum(values: list[float], n: int = 40) -> Array:
    """Rows `(n, len(values))` of mean 0 with these singular values."""
    noise = np.random.default_rng(0).normal(size=(n, len(values)))
    left, _ = np.linalg.qr(noise - noise.mean(0))
    return (left * values).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 4.0),
        ([5.0, 0.0, 0.0], 1.0),
        ([1.0, 1.0, 0.0], 2.0),
        ([3.0, 1.0], math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4))),
    ],
)
def test_effective_rank_of_a_known_spectrum(values: list[float], expected: float) -> None:
    assert health.effective_rank(with_spectrum(values)) == pytest.approx(expected, rel=1e-4)
    assert health.effective_rank(with_spectrum(values) + 7) == pytest.approx(expected, rel=1e-3)


def test_identical_rows_have_rank_one() -> None:
    assert health.effective_rank(np.full((30, 8), 0.3, np.float32)) == 1.0


def unit(rows: Any) -> Array:
    done: Array = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return done


def test_mean_cosine_against_two_loops() -> None:
    rows = unit(np.random.default_rng(1).normal(size=(12, 5)) + 0.5)
    pairs = [float(rows[i] @ rows[j]) for i in range(12) for j in range(12) if i != j]
    assert health.mean_cosine(rows) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert health.mean_cosine(unit(np.ones((9, 3)))) == pytest.approx(1)
    assert health.measure(rows) == {
        "effective_rank": health.effective_rank(rows),
        "mean_cosine": health.mean_cosine(rows),
    }


def epoch(cosine: float, rank: float) -> dict[str, Any]:
    return {"epoch": 3, "health": {"mean_cosine": cosine, "effective_rank": rank}}


FLAT, THIN, FINE = epoch(0.99, 20.0), epoch(0.2, 1.2), epoch(0.5, 9.0)


@pytest.mark.parametrize("history", [[FINE, FLAT, FLAT], [THIN, THIN], [FLAT, THIN]])
def test_collapsed(history: list[dict[str, Any]]) -> None:
    with pytest.raises(TrainingCollapsed, match="after epoch 3") as caught:
        health.check(history, 2, "cbswr")
    assert caught.value.exit_code == 4
    assert "--training.lr" in caught.value.hint
    assert "cbswr" in caught.value.hint


@pytest.mark.parametrize("history", [[], [FLAT], [FLAT, FINE], [FLAT, FLAT, FINE], [FINE, THIN]])
def test_not_yet(history: list[dict[str, Any]]) -> None:
    health.check(history, 2, "cbswr")
    health.check([FLAT, FLAT], 0, "cbswr")
