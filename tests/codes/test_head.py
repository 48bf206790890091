"""The network that trained coders share, its batches, and labels made of clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semblance.codes import _head, csq, pseudo_labels, unpack
from semblance.codes._rows import as_labels
from semblance.errors import ConfigError, InputError


@dataclass(frozen=True)
class Plan:
    bits: int = 8
    seed: int = 0
    hidden: int = 6
    epochs: int = 3
    batch: int = 16
    lr: float = 1e-2


def toward(u: Tensor, y: Tensor) -> Tensor:
    return (u - y[:, None].float()).square().mean()


@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("norm", [False, True])
def test_arrays_are_the_network(
    hidden: int, norm: bool, embeddings: np.ndarray, classes: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In evaluation mode, normalisation folded in, inputs centred and scaled."""
    built: list[nn.Sequential] = []
    make = _head._network
    monkeypatch.setattr(_head, "_network", lambda *a: built.append(make(*a)) or built[-1])
    plan = Plan(hidden=hidden)
    arrays = _head.train(embeddings, as_labels(classes, 600), plan, toward, norm=norm)
    x = (embeddings.astype(np.float64) - embeddings.mean(0, dtype=np.float64)) / float(arrays["scale"][0])
    assert np.square(x).mean() == pytest.approx(1, rel=1e-5)
    with torch.no_grad():
        wanted = built[0].eval().double()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(_head.forward(embeddings.astype(np.float64), arrays), wanted, atol=1e-6)


def test_training_lowers_the_loss_and_moves_what_the_loss_owns(
    embeddings: np.ndarray, classes: np.ndarray
) -> None:
    values: list[float] = []
    own = nn.Parameter(torch.zeros(8))

    def loss(u: Tensor, y: Tensor) -> Tensor:
        value = toward(u + own, y)
        values.append(float(value.detach()))
        return value

    _head.train(embeddings, as_labels(classes, 600), Plan(epochs=10), loss, own=[own])
    assert len(values) == 10 * (600 // 16)
    assert np.mean(values[-37:]) < 0.5 * np.mean(values[:10])
    assert bool((own != 0).all())


def test_global_randomness_is_left_alone(embeddings: np.ndarray, classes: np.ndarray) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    _head.train(embeddings, as_labels(classes, 600), Plan(), toward)
    assert torch.equal(torch.rand(3), wanted)


def test_steps_end(embeddings: np.ndarray, classes: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows still make a step an epoch; many make no more than the most."""
    counted: list[int] = []

    def loss(u: Tensor, y: Tensor) -> Tensor:
        counted.append(len(u))
        return toward(u, y)

    labels = np.full(600, -1)
    labels[:5] = [0, 0, 1, 1, 1]
    _head.train(embeddings, as_labels(labels, 600), Plan(epochs=7), loss)
    assert counted == [5] * 7
    counted.clear()
    monkeypatch.setattr(_head, "MOST_STEPS", 11)
    _head.train(embeddings, as_labels(classes, 600), Plan(epochs=7), loss)
    assert counted == [16] * 11


def test_rows_beyond_the_most_are_drawn_by_the_seed(
    embeddings: np.ndarray, classes: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_head, "MOST_ROWS", 50)
    labels = as_labels(classes, 600)
    one, again = (_head.train(embeddings, labels, Plan(), toward) for _ in range(2))
    other = _head.train(embeddings, labels, Plan(seed=1), toward)
    assert np.array_equal(one["mean"], again["mean"])
    assert not np.array_equal(one["mean"], other["mean"])


def test_class_balanced_batches() -> None:
    """Each class as likely, however many rows it has; the rows of a class together."""
    classes = np.repeat(np.arange(12), [1, 2, 3] + [40] * 9)
    order = np.random.default_rng(1).permutation(len(classes))
    classes = classes[order]
    stream = _head.class_balanced(classes, 16, 4, np.random.default_rng(0))
    seen = np.zeros(12)
    for _, batch in zip(range(600), stream, strict=False):
        assert len(batch) == 16
        counts = np.bincount(classes[batch], minlength=12)
        assert sorted(counts.tolist()) == [0] * 8 + [4] * 4
        for c in np.flatnonzero(counts):
            rows = batch[classes[batch] == c]
            assert len(set(rows.tolist())) == (4 if (classes == c).sum() >= 4 else len(set(rows.tolist())))
        seen += counts > 0
    assert seen.min() > 0.8 * seen.max()


def test_pseudo_labels_are_clusters(embeddings: np.ndarray, classes: np.ndarray) -> None:
    found = pseudo_labels(embeddings, 6)
    assert found.dtype == np.int64
    assert np.array_equal(found, pseudo_labels(embeddings, 6))
    agree = (found[:, None] == found[None]) == (classes[:, None] == classes[None])
    assert agree.mean() > 0.8
    bits = unpack(csq.Coder(csq.Config(bits=16, epochs=20)).fit(embeddings, found).encode(embeddings))
    far = (bits[:, None] != bits[None]).sum(2)
    same = found[:, None] == found[None]
    assert far[same].mean() < 0.3 * far[~same].mean()


def test_pseudo_labels_of_few_distinct_rows() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    assert len(np.unique(pseudo_labels(x, 5))) >= 3
    for clusters in (1, 13):
        with pytest.raises(ConfigError, match="clusters"):
            pseudo_labels(x, clusters)
    with pytest.raises(InputError, match="the same"):
        pseudo_labels(np.ones((5, 3)), 2)


@pytest.mark.parametrize("options", [{"hidden": -1}, {"epochs": 0}, {"batch": 1}, {"lr": 0.0}])
def test_bad_training(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="hidden"):
        csq.Config(**options)


def test_labelled_rows_that_are_all_alike(embeddings: np.ndarray) -> None:
    x = embeddings.copy()
    x[:10] = x[0]
    y = np.full(600, -1)
    y[:10] = np.arange(10) % 2
    with pytest.raises(InputError, match="all labelled embeddings are the same"):
        _head.train(x, as_labels(y, 600), Plan(), toward)


def test_a_training_that_diverges_says_so(embeddings: np.ndarray, classes: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="diverged"):
        _head.train(embeddings, as_labels(classes, 600), Plan(), lambda u, y: u.sum() * torch.nan)
