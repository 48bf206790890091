"""Losses to class centres and class codes, against loops in plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semblance.codes import classwise, csq, orthohash
from semblance.codes._codebook import codebook
from semblance.errors import ConfigError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Y = torch.tensor([0, 2, 1, 1, 0])
SEVERAL = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)


def rows_of(y: Tensor, classes: int = 3) -> list[list[int]]:
    """The classes of each row."""
    if y.dim() == 1:
        return [[int(c)] for c in y]
    return [[c for c in range(classes) if row[c]] for row in y.tolist()]


@pytest.mark.parametrize("y", [Y, SEVERAL])
def test_class_wise_loss(y: Tensor) -> None:
    u, centers, s = drawn(5, 4), drawn(3, 4, seed=1), 0.25
    wanted = 0.0
    for i, own in enumerate(rows_of(y)):
        density = [math.exp(-s / 2 * float((u[i] - m).square().sum())) for m in centers]
        wanted -= sum(math.log(density[c] / sum(density)) for c in own) / len(own) / 5
    found = classwise.classwise_loss(u, classwise.shares(y, 3, torch.float64), centers, s)
    assert float(found) == pytest.approx(wanted, rel=1e-9)


def test_centres_repel() -> None:
    centers = drawn(4, 6)
    wanted = 0.0
    for a in range(4):
        for b in range(4):
            if a != b:
                cosine = float(centers[a] @ centers[b] / centers[a].norm() / centers[b].norm())
                wanted += math.log(1 + math.exp(6 / 2 * cosine)) / 12
    assert float(classwise.center_loss(centers)) == pytest.approx(wanted, rel=1e-9)
    opposite = torch.stack([centers[0], -centers[0]])
    assert float(classwise.center_loss(opposite)) == pytest.approx(math.log(1 + math.exp(-3)))
    assert torch.isfinite(classwise.center_loss(torch.full((2, 512), 1.0)))


def test_cube() -> None:
    u = torch.tensor([[1.0, -1.1, 0.3], [1.6, -3.1, 1.1]], dtype=torch.float64)
    assert float(classwise.cube_loss(u)) == pytest.approx((0.5 + 2.0) / 2)


@pytest.mark.parametrize("y", [Y, SEVERAL])
def test_discrete_codes_are_a_ridge_regression(y: Tensor) -> None:
    u, eta = drawn(5, 4), 0.3
    given = np.zeros((5, 3))
    for i, own in enumerate(rows_of(y)):
        given[i, own] = 1
    signs = np.where(u.numpy() >= 0, 1.0, -1.0)
    w = np.linalg.inv(given.T @ given + np.eye(3)) @ given.T @ signs
    wanted = np.where(given @ w + eta * u.numpy() >= 0, 1.0, -1.0)
    found = classwise.discrete_codes(u.requires_grad_(), torch.from_numpy(given), eta)
    assert np.array_equal(found.numpy(), wanted)
    assert not found.requires_grad


def test_class_wise_terms_and_gradients() -> None:
    u, centers, share = drawn(5, 4) * 2, drawn(3, 4, seed=1), classwise.shares(Y, 3, torch.float64)
    found = classwise.terms(u, Y, centers, s=0.5, center=0.2, cube=3.0, eta=0.1)
    codes = classwise.discrete_codes(u, share > 0, 0.1)
    assert float(found["classes"]) == float(classwise.classwise_loss(u, share, centers, 0.5))
    assert float(found["centres"]) == pytest.approx(0.2 * float(classwise.center_loss(centers)))
    assert float(found["cube"]) == pytest.approx(3 * float(classwise.cube_loss(u)))
    assert float(found["quantisation"]) == pytest.approx(0.1 * float((u - codes).square().sum()) / 5)

    def total(a: Tensor, m: Tensor) -> Tensor:
        return torch.stack([*classwise.terms(a, Y, m).values()]).sum()

    leaves = (u.requires_grad_(), centers.requires_grad_())
    assert torch.autograd.gradcheck(total, leaves, eps=1e-6, atol=1e-5)


def test_of_many_classes_those_in_the_batch_repel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classwise, "MANY", 3)
    u, centers, y = drawn(5, 4), drawn(6, 4, seed=1), torch.tensor([0, 5, 5, 2, 0])
    found = classwise.terms(u, y, centers, center=1.0)["centres"]
    assert float(found) == pytest.approx(float(classwise.center_loss(centers[[0, 2, 5]])))
    alone = classwise.terms(u, torch.full((5,), 3), centers, center=1.0)["centres"]
    assert float(alone) == 0


def test_central_similarity() -> None:
    u, target = drawn(5, 4), torch.from_numpy(codebook(5, 4, "auto", 0)).double()
    wanted = small = 0.0
    for value, aim in zip(u.flatten().tolist(), target.flatten().tolist(), strict=True):
        p = (math.tanh(value) + 1) / 2
        wanted -= math.log(p if aim > 0 else 1 - p) / 20
        small += (abs(math.tanh(value)) - 1) ** 2 / 20
    found = csq.terms(u, target, 0.5)
    assert float(found["central"]) == pytest.approx(wanted, rel=1e-9)
    assert float(found["quantisation"]) == pytest.approx(0.5 * small, rel=1e-9)
    far = csq.terms(torch.full((1, 4), 400.0), -torch.ones(1, 4))
    assert float(far["central"]) == pytest.approx(800)


@pytest.mark.parametrize("y", [Y, SEVERAL])
@pytest.mark.parametrize("s", [0.0, 3.0])
def test_cosine_margin(y: Tensor, s: float) -> None:
    v, codes, m = drawn(5, 8), torch.from_numpy(codebook(3, 8, "auto", 0)).double(), 0.2
    wanted = 0.0
    for i, own in enumerate(rows_of(y)):
        logits = []
        for c in range(3):
            cosine = float(v[i] @ codes[c]) / float(v[i].norm()) / math.sqrt(8)
            logits.append((s or math.sqrt(8)) * (cosine - m * (c in own)))
        norm = math.log(sum(map(math.exp, logits)))
        wanted -= sum(logits[c] - norm for c in own) / len(own) / 5
    assert float(orthohash.orthohash_loss(v, y, codes, s, m)) == pytest.approx(wanted, rel=1e-9)
    v.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: orthohash.orthohash_loss(x, y, codes, s, m), (v,))


@pytest.mark.parametrize("name", ["classwise", "csq", "orthohash"])
def test_classes_come_apart(name: str, embeddings: np.ndarray, classes: np.ndarray) -> None:
    """Rows of a class share nearly all bits, rows of others about half; several labels a row work too."""
    module: Any = {"classwise": classwise, "csq": csq, "orthohash": orthohash}[name]
    several = np.zeros((600, 6), dtype=bool)
    several[np.arange(600), classes] = True
    several[:300:7, 0] = True
    for y in (classes, several):
        values = module.Coder(module.Config(bits=24, epochs=20)).fit(embeddings, y).project(embeddings)
        far = ((values >= 0)[:, None] != (values >= 0)[None]).sum(2)
        same = classes[:, None] == classes[None]
        assert far[same].mean() < 4
        assert far[~same].mean() > 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: classwise.Config(s=0.0),
        lambda: classwise.Config(center=-1.0),
        lambda: csq.Config(weight=-1.0),
        lambda: orthohash.Config(m=-0.1),
        lambda: orthohash.Config(s=-1.0),
    ],
)
def test_bad_options(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()
