"""What embeddings know of columns, against values known by construction and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from semblance.contracts import Column
from semblance.evaluation import columns as subject
from semblance.evaluation.columns import as_rows, explained, share_of_embedding, tells

CHANCE = np.random.default_rng(0)
N = 400
X = CHANCE.normal(size=(N, 6))
HELD = CHANCE.random(N) < 0.25
KIND = (X[:, 0] > 0).astype(float)


def test_r2_of_what_is_there_and_what_is_not() -> None:
    gap = X[:, 1].copy()
    gap[::3] = np.nan
    table = {
        "line": Column(X @ [1.0, 2, 0, 0, 0, -1]),
        "gap": Column(gap),
        "noise": Column(CHANCE.normal(size=N)),
        "kind": Column(KIND, ("a", "b")),
        "few": Column(np.where(np.arange(N) < 12, 1.0 * np.arange(N), np.nan)),
        "flat": Column(np.ones(N)),
    }
    found = explained(X, table, HELD)
    assert found["line"] > 0.95
    assert found["gap"] > 0.95
    assert abs(found["noise"]) < 0.15
    assert found["kind"] > 0.85
    assert math.isnan(found["few"])
    assert math.isnan(found["flat"])


def test_ridge_is_sklearns() -> None:
    y = X @ CHANCE.normal(size=(6, 2)) + CHANCE.normal(size=(N, 2))
    for penalty, guess in zip(subject.RIDGE, subject._solve(X[:300], y[:300], X[300:]), strict=True):
        wanted = Ridge(alpha=penalty).fit(X[:300], y[:300]).predict(X[300:])
        np.testing.assert_allclose(guess, wanted, atol=1e-8)


def test_a_column_that_decides_everything() -> None:
    table = {
        "all": Column(KIND, ("a", "b")),
        "none": Column(CHANCE.normal(size=N)),
        "missing": Column(np.full(N, np.nan)),
    }
    rows = np.outer(KIND, [1.0, -2.0]) + 0.01 * CHANCE.normal(size=(N, 2))
    found = share_of_embedding(rows, table)
    assert found["all"] > 0.99
    assert found["none"] < 0.05
    assert found["missing"] == 0
    # One way: between the groups over the whole, less chance, in loops.
    whole = sum(((row - rows.mean(0)) ** 2).sum() for row in rows)
    between = sum((k == KIND).sum() * ((rows[k == KIND].mean(0) - rows.mean(0)) ** 2).sum() for k in (0, 1))
    chance = 1 / (N - 1)
    assert found["all"] == pytest.approx((between / whole - chance) / (1 - chance))


def test_what_folder_and_order_give_away() -> None:
    paths = [f"{'xyz'[i % 3]}/{i:03d}.png" for i in range(N)]
    table = {
        "scanner": Column(np.arange(N) % 3.0, ("a", "b", "c")),
        "exposure": Column(np.arange(N) + CHANCE.normal(size=N)),
        "content": Column(CHANCE.normal(size=N)),
        "kind": Column(KIND, ("a", "b")),
    }
    found = tells(table, paths)
    assert set(found) == {"scanner", "exposure"}
    assert found["scanner"][0] == "folder"
    assert found["scanner"][1] == pytest.approx(1, abs=0.02)
    assert found["exposure"][0] == "order"
    assert tells(table, [f"{i}/a.png" for i in range(N)]).keys() == {"exposure"}


def test_columns_as_rows() -> None:
    rows = as_rows(
        {"a": Column(X[:, 0]), "kind": Column(KIND, ("a", "b")), "gap": Column(np.full(N, np.nan))}
    )
    assert rows.shape == (N, 4)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert (rows[:, 3] == 0).all()
