"""Effective rank of known spectra, mean cosine by two loops, and when a training has collapsed."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from semblance.errors import TrainingCollapsed
from semblance.training import health
from semblance.training.config import TrainConfig

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
        "flat": False,
    }


def test_flat_is_a_cone_or_a_line() -> None:
    """A line of few images is none: two of them lie on one whatever they show."""
    line = unit(np.outer(np.linspace(-1, 1, 9), np.arange(1.0, 6)) + 1e-3)
    cone = unit(np.random.default_rng(0).normal(size=(9, 5)) * 0.05 + 1)
    assert [health.measure(rows)["flat"] for rows in (line, cone, cone[:2])] == [True] * 3
    assert [health.measure(rows)["flat"] for rows in (line[::8], line[::4], unit(np.eye(9)))] == [False] * 3


def epoch(flat: bool, loss: float = 1.0) -> dict[str, Any]:
    return {
        "epoch": 3,
        "loss": loss,
        "health": {"mean_cosine": 0.99, "effective_rank": 1.2, "flat": flat},
    }


FLAT, FINE = epoch(True), epoch(False)


@pytest.mark.parametrize("history", [[FINE, FLAT, FLAT], [FLAT, FLAT]])
def test_collapsed(history: list[dict[str, Any]]) -> None:
    with pytest.raises(TrainingCollapsed, match="after epoch 3") as caught:
        health.check(history, TrainConfig(), "cbswr")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("history", [[], [FLAT], [FLAT, FINE], [FLAT, FLAT, FINE], [FINE, FLAT]])
def test_not_yet(history: list[dict[str, Any]]) -> None:
    health.check(history, TrainConfig(), "cbswr")
    health.check([FLAT, FLAT], TrainConfig(patience=0), "cbswr")


def test_what_spreads_is_let_go_on() -> None:
    """A network begins nearly flat: 1 - cosine that grows is no collapse, unless along one line only."""

    def at(cosine: float, rank: float) -> dict[str, Any]:
        return {"epoch": 2, "health": {"mean_cosine": cosine, "effective_rank": rank, "flat": True}}

    health.check([at(0.992, 20.0), at(0.99, 20.0)], TrainConfig(), "cbswr")
    for history in ([at(0.992, 1.2), at(0.99, 1.2)], [at(0.99, 20.0), at(0.99, 20.0)]):
        with pytest.raises(TrainingCollapsed):
            health.check(history, TrainConfig(), "cbswr")


@pytest.mark.parametrize(
    ("config", "losses", "says"),
    [
        ({"lr": 0.5}, (2.0, 1.0), "lower --training.lr: it is 0.5, 0.002 is usual"),
        ({"lr": 0.05, "optimiser": "sgd"}, (1.0, 20.0), "the loss rose from 1 to 20 under 0.05"),
        ({}, (2.0, 1.0), r"holds images apart in cbswr.*--objective\.KEY.*than 0\.002"),
    ],
)
def test_the_knob_to_turn(config: dict[str, Any], losses: tuple[float, float], says: str) -> None:
    history = [epoch(False, losses[0]), epoch(True, losses[1])]
    assert re.search(says, health.knob(history, TrainConfig(**config), "cbswr"))
    history = [epoch(True, 1.0), epoch(True, 1.1)]
    assert "--training.patience (it is 2)" in health.knob(history, TrainConfig(), "cbswr")
