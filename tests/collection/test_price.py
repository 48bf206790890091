"""The price of a bit, against one that loops over bits and pairs."""

from __future__ import annotations

import numpy as np
import pytest

from semblance import plugins
from semblance.collection import price as room
from semblance.errors import ConfigError, InputError


def cloud(n: int = 80, d: int = 16, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def slow_recall(x: np.ndarray, codes: np.ndarray, k: int, shortlist: int | None) -> float:
    """Mean share of the k nearest in floats that codes keep, one pair at a time."""
    bits = np.unpackbits(codes, axis=1, bitorder="little")
    kept = []
    for q in range(len(x)):
        others = [i for i in range(len(x)) if i != q]
        far = {i: float(((x[i].astype(float) - x[q].astype(float)) ** 2).sum()) for i in others}
        apart = {i: sum(int(a != b) for a, b in zip(bits[i], bits[q], strict=True)) for i in others}
        truth = sorted(others, key=lambda i: (far[i], i))[:k]
        found = sorted(others, key=lambda i: (apart[i], i))
        if shortlist is not None:
            found = sorted(found[:shortlist], key=lambda i: (far[i], i))
        kept.append(len(set(truth) & set(found[:k])) / k)
    return float(np.mean(kept))


@pytest.mark.parametrize("coder", ["lsh", "itq"])
def test_every_number_is_that_of_the_slow_way(coder: str) -> None:
    x = cloud()
    table = room.price(x, (16, 64), [coder], k=3)
    assert table["queries"] == table["images"] == len(x)
    assert table["shortlist"] == 30
    for row in table["rows"]:
        made = (
            plugins.get("codes", coder).Coder(plugins.configure("codes", coder, {"bits": row["bits"]})).fit(x)
        )
        assert row["recall"] == pytest.approx(slow_recall(x, made.encode(x), 3, None), abs=1e-4)
        assert row["reranked"] == pytest.approx(slow_recall(x, made.encode(x), 3, 30), abs=1e-4)
        assert row["recall_low"] <= row["recall"] <= row["recall_high"]
        assert row["bytes"] == row["bits"] // 8
        assert row["ms"] > 0


def test_copies_of_a_query_do_not_crowd_it_out() -> None:
    x = np.repeat(cloud(10), 9, axis=0)
    table = room.price(x, (64,), ["itq"], k=5)
    assert table["rows"][0]["reranked"] == 1.0


def test_a_length_that_a_coder_cannot_give_says_why() -> None:
    table = room.price(cloud(), (16, 64), ["pca"])
    assert "recall" in table["rows"][0]
    assert "pca" in table["rows"][1]["why not"]


def test_few_images_lower_k_and_fewer_still_are_refused() -> None:
    assert room.price(cloud(5), (8,), ["lsh"])["k"] == 3
    with pytest.raises(InputError, match="2 images"):
        room.price(cloud(2), (8,), ["lsh"])


def test_what_cannot_be_priced_is_refused() -> None:
    with pytest.raises(ConfigError, match="learns from labels"):
        room.price(cloud(), (16,), ["qsmi"])
    with pytest.raises(ConfigError, match="multiple of 8"):
        room.price(cloud(), (12,), ["lsh"])
    with pytest.raises(ConfigError, match="k is 0"):
        room.price(cloud(), (16,), ["lsh"], k=0)


def test_the_default_is_the_shortest_that_keeps_enough() -> None:
    def row(bits: int, reranked: float, recall: float = 0.5) -> dict[str, float]:
        return {"bits": bits, "reranked": reranked, "recall": recall}

    enough = {
        "rows": [row(256, 0.999), row(64, 0.96), row(64, 0.97), row(32, 0.9), {"bits": 16, "why not": "x"}]
    }
    assert room.choose(enough) == row(64, 0.97)
    assert room.choose({"rows": [row(16, 0.99), row(128, 0.96)]}) == row(128, 0.96)
    assert room.choose({"rows": [row(16, 0.99), row(32, 0.999)]}) == row(16, 0.99)
    none = {"rows": [row(64, 0.5), row(128, 0.6), row(256, 0.6)]}
    assert room.choose(none) == row(128, 0.6)
    assert room.choose({"rows": [{"bits": 16, "why not": "x"}]}) is None


def test_collapsed_embeddings_are_told_so() -> None:
    table = room.price(np.ones((20, 8), np.float32), (16,), ["itq"])
    assert "why not" in table["rows"][0]
    assert room.choose(table) is None
