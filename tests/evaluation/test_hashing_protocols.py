"""Protocols against their table: how many, which classes, which parts."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semblance.errors import ConfigError, InputError
from semblance.evaluation.hashing_protocols import (
    PROTOCOLS,
    Protocol,
    draw_protocol,
    label_matrix,
    seen_and_unseen,
)

CIFAR = Path(__file__).parents[2] / ".data" / "cifar10" / "labels.csv"
SMALL = Protocol(6, 9, "rest", 3, False, "per class", None, "30 images")


def sizes(split: dict[str, np.ndarray]) -> dict[str, int]:
    return {name: len(rows) for name, rows in split.items()}


def sound(split: dict[str, np.ndarray]) -> None:
    for rows in split.values():
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
    assert not set(split["query"]) & set(split["database"])
    assert not set(split["query"]) & set(split["train"])


@pytest.mark.parametrize(
    ("name", "expected", "each"),
    [
        ("cifar10-c0", {"query": 1_000, "train": 5_000, "database": 54_000}, 100),
        ("cifar10-c1", {"query": 1_000, "train": 5_000, "database": 59_000}, 100),
        ("cifar10-c2", {"query": 10_000, "train": 50_000, "database": 50_000}, 1_000),
    ],
)
@pytest.mark.parametrize("with_parts", [False, True])
def test_cifar10(name: str, expected: dict[str, int], each: int, with_parts: bool) -> None:
    labels = np.tile(np.arange(10), 6_000)
    parts = np.where(np.arange(60_000) < 50_000, "train", "test")
    split = draw_protocol(name, labels, parts if with_parts else None)
    sound(split)
    assert sizes(split) == expected
    assert np.bincount(labels[split["query"]]).tolist() == [each] * 10
    assert len(set(np.bincount(labels[split["train"]]))) == 1
    taught = set(split["train"]) & set(split["database"])
    assert len(taught) == (0 if name.endswith("c0") else len(split["train"]))
    if with_parts:
        assert (split["query"] >= 50_000).all()
        assert (split["train"] < 50_000).all()
    again, other = draw_protocol(name, labels, seed=0), draw_protocol(name, labels, seed=1)
    assert not with_parts or not np.array_equal(again["query"], split["query"])
    assert not np.array_equal(again["query"], other["query"])


@pytest.mark.skipif(not CIFAR.exists(), reason="the images of cifar10 are not here")
def test_cifar10_as_it_lies_here() -> None:
    with CIFAR.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels, parts = [row["class"] for row in rows], [row["split"] for row in rows]
    split = draw_protocol("cifar10-c2", labels, parts)
    assert {parts[row] for row in split["query"]} == {"test"}
    assert sizes(split) == {"query": 10_000, "train": 50_000, "database": 50_000}


def test_several_labels_per_class_draws_no_image_twice() -> None:
    r = np.random.default_rng(0)
    matrix = r.random((3_000, 21)) < 0.15
    rules = replace(PROTOCOLS["nuswide-21"], query=42, train=105)
    split = draw_protocol(rules, matrix)
    sound(split)
    unlabelled = set(np.flatnonzero(~matrix.any(axis=1)))
    assert unlabelled
    assert not unlabelled & set(np.concatenate(list(split.values())))
    assert sizes(split) == {"query": 42, "train": 105, "database": 3_000 - len(unlabelled) - 42}
    assert (matrix[split["query"]].sum(axis=0) >= 2).all()


def test_several_labels_at_random() -> None:
    matrix = np.random.default_rng(0).random((300, 80)) < 0.1
    matrix[:, 0] = True
    split = draw_protocol(replace(PROTOCOLS["coco"], query=30, train=40), matrix, seed=4)
    sound(split)
    assert sizes(split) == {"query": 30, "train": 40, "database": 270}


def test_imagenet100_asks_its_val_images() -> None:
    labels = np.tile(np.arange(100), 14)
    parts = np.where(np.arange(1_400) < 1_200, "train", "val")
    split = draw_protocol(replace(PROTOCOLS["imagenet100"], query=200, train=300), labels, parts)
    assert set(split["query"]) == set(range(1_200, 1_400))
    assert sizes(split) == {"query": 200, "train": 300, "database": 1_200}


def test_landmarks_are_given() -> None:
    labels = ["arch", "arch", "tower", "tower", "none"]
    split = draw_protocol("roxford", labels, ["query", "index", "query", "index", "other"])
    assert {name: rows.tolist() for name, rows in split.items()} == {
        "query": [0, 2],
        "train": [],
        "database": [1, 3],
    }


def test_numbers_below_zero_are_no_class() -> None:
    labels = np.array([-1, 0, 1, 2] * 10)
    split = draw_protocol(SMALL, labels)
    assert sizes(split) == {"query": 6, "train": 9, "database": 24}
    assert not set(np.concatenate(list(split.values()))) & set(np.flatnonzero(labels < 0))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_preset_says_what_it_lacks(name: str) -> None:
    """A table of two labels is none of these sets, or has no parts."""
    labels = np.eye(2, dtype=bool) if PROTOCOLS[name].several else ["cat", "dog"]
    with pytest.raises((InputError, ConfigError), match=name) as caught:
        draw_protocol(name, labels)
    assert "\n" not in str(caught.value)


LABELS = np.arange(30) % 3


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: draw_protocol("cifar10", LABELS), ConfigError, "known: cifar10-c"),
        (lambda: draw_protocol("cifar10-c0", LABELS), InputError, "has 10.*60,000"),
        (lambda: draw_protocol(SMALL, LABELS[:9]), InputError, "class 0.* has 1 of the 3 train images"),
        (lambda: draw_protocol(SMALL, LABELS, ["test"] * 30), InputError, "has 0 of the 3 train images"),
        (lambda: draw_protocol(SMALL, LABELS, ["test"] * 3), InputError, "came with 3 parts"),
        (lambda: draw_protocol(replace(SMALL, query=7), LABELS), ConfigError, "as many for each"),
        (lambda: draw_protocol(replace(SMALL, query=30, train=0), LABELS), InputError, "no image is left"),
        (lambda: draw_protocol(SMALL, LABELS[:, None] > 0), InputError, "names or numbers"),
        (lambda: draw_protocol("coco", LABELS), InputError, "label_matrix"),
        (lambda: draw_protocol("coco", np.ones((9, 80), bool)), InputError, "has 9 of the 5,000 query"),
        (lambda: draw_protocol("gldv2", LABELS), ConfigError, "own parts"),
        (lambda: draw_protocol("gldv2", LABELS, ["query"] * 30), InputError, "no database rows"),
        (lambda: seen_and_unseen(LABELS, LABELS), InputError, "trained column"),
        (lambda: seen_and_unseen(LABELS, LABELS < 5), InputError, "one side"),
        (lambda: seen_and_unseen(LABELS, np.arange(30) < 5), InputError, 'class "0" is both'),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_seen_and_unseen(seed: int, queries: int) -> None:
    r = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(5), r.integers(0, 5, 40)])
    splits = seen_and_unseen(labels, labels < 3, queries, seed)
    every = [row for split in splits.values() for part in ("query", "database") for row in split[part]]
    assert sorted(every) == list(range(45))
    for name, classes in (("seen", {0, 1, 2}), ("unseen", {3, 4})):
        split = splits[name]
        sound(split)
        assert set(labels[split["database"]]) == classes  # one of each class stays to be found
        for label in classes:
            size = int((labels == label).sum())
            assert (labels[split["query"]] == label).sum() == min(queries, size - 1)
        np.testing.assert_array_equal(split["train"], splits["seen"]["database"])


def test_label_matrix_reads_lists_of_labels() -> None:
    matrix, names = label_matrix(["sky; sea", "", None, "sea;sea"], separator=";")
    assert names == ("sea", "sky")
    assert matrix.tolist() == [[True, True], [False, False], [False, False], [True, False]]
