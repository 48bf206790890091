"""Objectives that learn from labels: which rows count, what is shared with the coders, batches by class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance import plugins
from semblance.codes import classwise, orthohash, qsmi
from semblance.contracts import Batch
from semblance.errors import ConfigError, InputError
from semblance.objectives._labelled import Answers, CodeHead, in_groups, pair_stats

KINDS = {name: plugins.get("objectives", name).Objective for name in plugins.names("objectives")}
NAMES = [name for name, kind in KINDS.items() if getattr(kind, "labels", False)]
Make = Callable[..., Any]
Draw = Callable[..., Batch]


def test_which_they_are() -> None:
    assert NAMES == ["classwise", "orthohash", "qsmi"]


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_a_label_do_not_count(name: str, make: Make, batch: Draw) -> None:
    """The loss of a batch is that of its labelled rows; normalisation over the batch apart."""
    objective = make(name).double().eval()
    labels = np.array([0, 1, 2, 0, 1, 2, -1, -1] * 2)
    objective.take_labels(labels)
    objective.double()
    whole = batch(16, 0, torch.float64)
    kept = torch.from_numpy(labels >= 0)
    few = Batch(tuple(view[kept] for view in whole.views), whole.ids[kept])
    first, second = objective(whole), objective(few)
    assert float(first.total.detach()) == pytest.approx(float(second.total.detach()), rel=1e-9)
    none = objective(Batch(tuple(view[~kept] for view in whole.views), whole.ids[~kept]))
    assert float(none.total.detach()) == 0
    none.total.backward()
    several = np.zeros((16, 4), dtype=bool)
    several[labels >= 0, labels[labels >= 0]] = True
    torch.manual_seed(0)
    objective.take_labels(several)
    again = objective.double()(whole)
    if name == "qsmi":
        assert float(again.total.detach()) == pytest.approx(float(first.total.detach()), rel=1e-9)
    assert torch.isfinite(again.total)


def test_the_losses_are_those_of_the_coders(make: Make, batch: Draw) -> None:
    given_, y = batch(16), torch.arange(16) // 4
    for name in NAMES:
        objective = make(name).eval()
        u = objective.head.values(objective.encoder(torch.cat(given_.views)))
        twice = torch.cat([y, y])
        wanted = {
            "qsmi": lambda u, y: qsmi.terms(u, y),
            "classwise": lambda u, y, o=objective: classwise.terms(u, y, o.centers),
            "orthohash": lambda u, y, o=objective: {"cosine": orthohash.orthohash_loss(u, y, o.codes)},
        }[name](u, twice)
        found = objective(given_).terms
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            assert float(found[key].detach()) == pytest.approx(float(value.detach()), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_needed(name: str, tiny: Any, batch: Draw) -> None:
    module = plugins.get("objectives", name)
    objective = module.Objective(module.Config(dim=8), tiny())
    for call in (lambda: objective.check_batch(8), lambda: objective(batch(8))):
        with pytest.raises(ConfigError, match=f"{name} learns from labels and was given none") as caught:
            call()
        assert "--labels" in caught.value.hint
    for wrong in (np.zeros(8), np.zeros((8, 2)), np.zeros(8, int), np.full(8, -1), np.zeros((8, 2, 2), bool)):
        with pytest.raises(InputError):
            objective.take_labels(wrong)


def test_numbers_of_classes_may_be_any() -> None:
    answers = Answers()
    answers.take(np.array([7, -1, 1000, 7, -1, 3]))
    assert answers.classes == 3
    assert answers.y.tolist() == [1, -1, 2, 1, -1, 0]
    there, y = answers.of(torch.tensor([5, 1, 0]))
    assert there.tolist() == [True, False, True]
    assert y.tolist() == [0, 1]
    answers.take(np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1]], dtype=bool))
    assert answers.classes == 3
    assert answers.of(torch.arange(3))[0].tolist() == [True, False, True]


@pytest.mark.parametrize("norm", [False, True])
def test_signs_of_the_embedding_are_those_of_the_outputs(norm: bool) -> None:
    torch.manual_seed(0)
    head, features = CodeHead(6, 16, norm), torch.randn(20, 6)
    head(features)
    head.eval()
    rows, values = head(features), head.values(features)
    assert torch.equal(rows >= 0, values >= 0)
    assert torch.allclose(rows.norm(dim=1), torch.ones(20))
    assert values.norm(dim=1).std() > 0.01


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), classes=st.integers(1, 9), together=st.integers(2, 5), seed=st.integers(0, 999))
def test_rows_of_a_class_come_together(n: int, classes: int, together: int, seed: int) -> None:
    """Every id once; each run is of one class and full but for the class's last; unlabelled rows alone."""
    rng = np.random.default_rng(seed)
    y = torch.from_numpy(rng.integers(-1, classes, n))
    shuffled = torch.from_numpy(rng.permutation(n))
    found = in_groups(shuffled, y, together)
    assert sorted(found.tolist()) == list(range(n))
    left = {c: int((y == c).sum()) for c in range(classes)}
    place = 0
    while place < n:
        c = int(y[found[place]])
        if c < 0:
            place += 1
            continue
        size = min(together, left[c])
        assert all(int(y[i]) == c for i in found[place : place + size])
        left[c] -= size
        place += size
    assert torch.equal(found, in_groups(shuffled, y, together))


def test_order_only_where_classes_are_many(make: Make) -> None:
    objective = make("qsmi", together=4)
    shuffled = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(objective.order(shuffled, 16), shuffled)
    grouped = objective.order(shuffled, 8)
    assert not torch.equal(grouped, shuffled)
    assert all(len({int(i) // 4 for i in run}) == 1 for run in grouped.split(4))
    assert torch.equal(objective.order(shuffled.clone(), 8), grouped)
    assert torch.equal(make("qsmi", together=0).order(shuffled, 8), shuffled)


def test_pair_stats() -> None:
    u = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0]])
    found = pair_stats(u, qsmi.agreement(torch.tensor([0, 0, 1])))
    assert float(found["positive_cosine"]) == 0
    assert float(found["mean_cosine"]) == pytest.approx(-2 / 6)
    assert float(pair_stats(u[:1], torch.ones(1, 1))["positive_cosine"]) == 0


def test_in_a_sum(tiny: Any, batch: Draw) -> None:
    """A sum takes labels where one of its parts does; unlabelled images still teach the other."""
    module = plugins.get("objectives", "sme+orthohash")
    assert module.Objective.labels
    assert not plugins.get("objectives", "sme+cbswr").Objective.labels
    assert not hasattr(plugins.get("objectives", "sme+cbswr").Objective, "take_labels")
    config = plugins.configure("objectives", "sme+orthohash", {"sme.dim": 8, "orthohash.dim": 8})
    objective = module.Objective(config, tiny())
    with pytest.raises(ConfigError, match="orthohash learns from labels"):
        objective.check_batch(8)
    objective.take_labels(np.arange(8) % 3 - 1)
    loss = objective.train()(batch(8))
    loss.total.backward()
    assert set(loss.terms) == {"sme.attraction", "sme.spreading", "orthohash.cosine"}
    assert torch.isfinite(loss.total)


@pytest.mark.parametrize("name", NAMES)
def test_bad_options(name: str) -> None:
    module = plugins.get("objectives", name)
    wrong = {"qsmi": {"alpha": -1.0}, "classwise": {"s": 0.0}, "orthohash": {"m": 3.0}}[name]
    for options in (wrong, {"dim": 1}):
        with pytest.raises(ConfigError):
            module.Config(**options)
    assert {field.name for field in dataclasses.fields(module.Config)} >= {"dim"}
