"""The types that rooms exchange, and what matches look like outside."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
import torch

from semblance.contracts import Batch, Loss, Matches
from semblance.errors import MissingExtra

FOUND = Matches(
    ids=np.array([[4, 2], [7, -1]], dtype=np.int64),
    distances=np.array([[0.0, 0.5], [0.25, np.inf]], dtype=np.float32),
    paths=(("a.png", "b.png"), ("c.png", "")),
    queries=("q.png", "r.png"),
)


def test_records_leave_out_what_does_not_exist() -> None:
    assert FOUND.records() == [
        {
            "query": "q.png",
            "matches": [
                {"rank": 1, "id": 4, "path": "a.png", "distance": 0.0},
                {"rank": 2, "id": 2, "path": "b.png", "distance": 0.5},
            ],
        },
        {"query": "r.png", "matches": [{"rank": 1, "id": 7, "path": "c.png", "distance": 0.25}]},
    ]


def test_records_without_names() -> None:
    bare = Matches(FOUND.ids, FOUND.distances).records()
    assert [row["query"] for row in bare] == [0, 1]
    assert bare[0]["matches"][1] == {"rank": 2, "id": 2, "path": None, "distance": 0.5}


def test_to_pandas() -> None:
    pytest.importorskip("pandas")
    table = FOUND.to_pandas()
    assert list(table.columns) == ["query", "rank", "id", "path", "distance"]
    assert table.values.tolist() == [
        ["q.png", 1, 4, "a.png", 0.0],
        ["q.png", 2, 2, "b.png", 0.5],
        ["r.png", 1, 7, "c.png", 0.25],
    ]
    nothing = Matches(np.full((1, 1), -1, np.int64), np.full((1, 1), np.inf, np.float32)).to_pandas()
    assert list(nothing.columns) == list(table.columns)
    assert len(nothing) == 0


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match="pandas"):
        FOUND.to_pandas()


def test_loss_and_batch_hold_what_they_are_given() -> None:
    views = (torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4))
    batch = Batch(views, torch.arange(2))
    assert batch.views[1] is views[1]
    one, other = Loss(torch.zeros(()), {}), Loss(torch.zeros(()), {})
    one.stats["x"] = torch.ones(())
    assert other.stats == {}, "no two losses share their statistics"
