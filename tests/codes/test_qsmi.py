"""QSMI against numbers worked by hand and sums written from the definitions; the collapse without squares."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor

from semblance import codes
from semblance.codes import qsmi
from semblance.errors import ConfigError

HAND = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
CLASSES = torch.tensor([0, 0, 1, 1])


def drawn(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def total(u: Tensor, y: Tensor, **options: Any) -> Tensor:
    """L + alpha R, sums over the batch."""
    return sum(qsmi.terms(u, y, **options).values(), torch.zeros((), dtype=u.dtype)) * len(u) ** 2


def quadratic_mutual_information(g: np.ndarray, y: np.ndarray) -> float:
    """V_IN + V_ALL - 2 V_BTW, loop by loop."""
    n = len(y)
    share = {p: float((y == p).mean()) for p in set(y.tolist())}
    inside = sum(g[i, j] for i in range(n) for j in range(n) if y[i] == y[j])
    everything = sum(s**2 for s in share.values()) * sum(g[i, j] for i in range(n) for j in range(n))
    between = sum(share[p] * g[i, j] for p in share for i in range(n) if y[i] == p for j in range(n))
    return float(inside + everything - 2 * between) / n**2


def test_four_rows_by_hand() -> None:
    """Two classes; S is 1 on the diagonal, 1/2 at right angles, 0 for opposites; M = 16 / 8 = 2."""
    agree = qsmi.agreement(CLASSES).double()
    assert agree.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    similar = qsmi.spherical(HAND)
    wanted = torch.tensor([[1, 0.5, 0, 0.5], [0.5, 1, 0.5, 0], [0, 0.5, 1, 0.5], [0.5, 0, 0.5, 1]])
    assert torch.allclose(similar, wanted.double(), atol=1e-7)
    weight = qsmi.pair_weight(CLASSES, agree)
    assert float(weight) == 0.5
    # Diagonal 4 (0 + 1/2), positives 4 (1/4 + 1/8), negatives 4 (1 + 0) + 4 (1 + 1/8).
    assert float(qsmi.information_loss(similar, agree, weight)) == pytest.approx(2 + 1.5 + 8.5, abs=1e-6)
    assert float(qsmi.information_loss(similar, agree, weight, clamp=False)) == pytest.approx(-2, abs=1e-6)
    assert float(qsmi.regulariser(HAND)) == (0 + 1) + (1 + 1) + (2 + 1) + (1 + 0)
    assert float(total(HAND, CLASSES, alpha=0.5)) == pytest.approx(12 + 0.5 * 7, abs=1e-6)
    parts = qsmi.terms(HAND, CLASSES, alpha=0.5)
    assert float(parts["quantisation"]) == pytest.approx(0.5 * 7 / 16)


def test_m_may_be_given() -> None:
    agree = qsmi.agreement(CLASSES)
    assert float(qsmi.pair_weight(CLASSES, agree, m=10)) == pytest.approx(0.1)
    y = torch.arange(10).repeat(13)[:128]
    share = np.bincount(y.numpy()) / 128
    estimated = 1 / float(qsmi.pair_weight(y, qsmi.agreement(y)))
    assert estimated == pytest.approx(1 / (share**2).sum())
    assert 9.9 < estimated < 10


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 9), k=st.integers(1, 6), seed=st.integers(0, 10**6), clamp=st.booleans())
def test_symmetric_and_blind_to_lengths(n: int, k: int, seed: int, clamp: bool) -> None:
    """S and D are symmetric, the order of rows is nothing, L does not change when rows are scaled."""
    u, y = drawn(n, k, seed), torch.from_numpy(np.random.default_rng(seed).integers(0, 3, n))
    similar, agree = qsmi.spherical(u), qsmi.agreement(y)
    assert torch.equal(agree, agree.T)
    assert torch.allclose(similar, similar.T, atol=1e-12)
    assert -1e-7 < float(similar.min()) <= float(similar.max()) < 1 + 1e-7
    lengths = torch.rand(n, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
    turned = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for priors in (False, True):
        options = {"alpha": 0.0, "clamp": clamp, "priors": priors}
        one = float(total(u, y, **options))
        assert float(total(u * lengths, y, **options)) == pytest.approx(one, rel=1e-4, abs=1e-4)
        assert float(total(u[turned], y[turned], **options)) == pytest.approx(one, abs=1e-8)
    assert not math.isclose(float(qsmi.regulariser(u)), float(qsmi.regulariser(u * 3)))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 12), seed=st.integers(0, 10**6))
def test_priors_give_the_exact_information(n: int, seed: int) -> None:
    """mean(G (D - w)) is the quadratic mutual information of the three potentials, for any class shares."""
    y = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, n))
    g, agree = qsmi.gaussian(drawn(n, 3, seed), sigma=0.8), qsmi.agreement(y).double()
    found = (
        -float(qsmi.information_loss(g, agree, qsmi.pair_weight(y, agree, priors=True), clamp=False)) / n**2
    )
    assert found == pytest.approx(quadratic_mutual_information(g.numpy(), y.numpy()), abs=1e-12)


@pytest.mark.parametrize("clamp", [True, False])
def test_priors_change_nothing_on_a_balanced_batch(clamp: bool) -> None:
    u, y = drawn(12, 5), torch.arange(4).repeat(3)
    assert float(total(u, y, priors=True, clamp=clamp)) == pytest.approx(
        float(total(u, y, priors=False, clamp=clamp))
    )
    assert float(total(u, y, m=4, clamp=clamp)) == pytest.approx(float(total(u, y, clamp=clamp)))


def test_rare_classes_are_not_drawn_together() -> None:
    """In a batch of 10, 1 and 1 the exact weight of the last two is below 0: with squares it counts as 0."""
    y = torch.tensor([0] * 10 + [1, 2])
    agree = qsmi.agreement(y).double()
    weight = qsmi.pair_weight(y, agree, priors=True)
    assert float(weight[10, 11]) == pytest.approx(2 / 12 - (100 + 1 + 1) / 144)
    assert float(weight[10, 11]) < 0
    near, far = torch.full((12, 12), 0.5).double(), torch.full((12, 12), 0.5).double()
    near[10, 11] = 0.9
    assert float(qsmi.information_loss(near, agree, weight)) == float(
        qsmi.information_loss(far, agree, weight)
    )


def test_several_labels() -> None:
    """Rows agree where they share one; with one label each, nothing is new."""
    several = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]], dtype=torch.bool)
    wanted = [[1, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 1]]
    assert qsmi.agreement(several).tolist() == wanted
    y = torch.tensor([2, 0, 1, 1, 2])
    one_hot = torch.nn.functional.one_hot(y).bool()
    u = drawn(5, 4)
    for priors in (False, True):
        assert float(total(u, one_hot, priors=priors)) == pytest.approx(float(total(u, y, priors=priors)))


@pytest.mark.parametrize(
    "options", [{}, {"clamp": False}, {"kernel": "gaussian", "sigma": 1.3}, {"priors": True}]
)
def test_gradients(options: dict[str, Any]) -> None:
    u, y = drawn(7, 4).requires_grad_(), torch.tensor([0, 0, 1, 2, 2, 2, 0])
    assert torch.autograd.gradcheck(lambda x: total(x, y, **options), (u,), eps=1e-6, atol=1e-5)


def test_the_regulariser_sees_outputs_that_are_not_normalised() -> None:
    """Its gradient is alpha sign(|u| - 1) sign(u), whatever the length of the row."""
    u = (drawn(6, 5) * 3).requires_grad_()
    (slope,) = torch.autograd.grad(qsmi.terms(u, torch.arange(6) % 2, alpha=0.3)["quantisation"], u)
    wanted = 0.3 / 36 * torch.sign(u.detach().abs() - 1) * torch.sign(u.detach())
    assert torch.allclose(slope, wanted)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 8), bytes_=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_the_similarity_of_signs_is_that_of_codes(n: int, bytes_: int, seed: int) -> None:
    """S = 1 - d_H / bits."""
    bits = np.random.default_rng(seed).integers(0, 2, (n, 8 * bytes_)).astype(bool)
    packed = codes.pack(bits)
    distance = np.bitwise_xor(packed[:, None], packed[None])
    distance = np.array([[sum(bin(b).count("1") for b in pair) for pair in row] for row in distance])
    similar = qsmi.spherical(torch.from_numpy(np.where(bits, 1.0, -1.0)))
    np.testing.assert_allclose(similar.numpy(), 1 - distance / (8 * bytes_), atol=1e-7)


def test_where_a_pair_comes_to_rest() -> None:
    """A pair that agrees, alone, at S = M / (M + 1)."""
    for m in (2.0, 10.0):
        s = torch.linspace(0, 1, 100_001, dtype=torch.float64)
        loss = (s - 1) ** 2 + s**2 / m
        assert float(s[loss.argmin()]) == pytest.approx(m / (m + 1), abs=1e-4)
        one = torch.ones(1, 1, dtype=torch.float64)
        assert float(qsmi.information_loss(one * 0.3, one, one / m)) == pytest.approx(0.49 + 0.09 / m)


def test_gaussian_of_mean_width() -> None:
    u = drawn(5, 3)
    distance = [[float((a - b).norm()) for b in u] for a in u]
    width = sum(map(sum, distance)) / 20
    wanted = [[math.exp(-(d**2) / (2 * width**2)) for d in row] for row in distance]
    np.testing.assert_allclose(qsmi.gaussian(u).numpy(), wanted, atol=1e-9)
    assert torch.isfinite(qsmi.gaussian(torch.zeros(3, 2))).all()


def tie_aware_map(codes_of: np.ndarray, y: np.ndarray, queries: int) -> float:
    """Mean average precision of the first `queries` rows among the rest, expected over orders of ties."""
    values = []
    for i in range(queries):
        distance = (codes_of[i] != codes_of[queries:]).sum(1)
        good = y[queries:] == y[i]
        before = found = 0
        gain = 0.0
        for d in np.unique(distance):
            n, p = int((distance == d).sum()), int((good & (distance == d)).sum())
            for t in range(1, n + 1) if p else ():
                chance = (t - 1) * (p - 1) / (n - 1) if n > 1 else 0.0
                gain += p / n * (found + 1 + chance) / (before + t)
            before, found = before + n, found + p
        values.append(gain / found)
    return float(np.mean(values))


def test_without_squares_codes_collapse_and_with_them_they_do_not() -> None:
    images, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = (images[order] / 16).astype(np.float32)[:1000], y[order][:1000]
    found: dict[str, tuple[float, int]] = {}
    for name, clamp in {"squares": True, "none": False}.items():
        coder = qsmi.Coder(qsmi.Config(bits=24, clamp=clamp)).fit(x[150:], y[150:])
        bits = codes.unpack(coder.encode(x))
        found[name] = tie_aware_map(bits, y, 150), len(np.unique(bits[150:], axis=0))
    assert found["squares"][0] > 0.92
    assert found["none"][0] < found["squares"][0] - 0.15
    assert found["squares"][1] > 200
    assert found["none"][1] < found["squares"][1] / 3


def test_classes_beyond_the_batch_are_drawn_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 60 classes a random batch of 32 has hardly a pair: eight classes are drawn, four rows of each."""
    seen: list[Tensor] = []
    plain = qsmi.terms
    monkeypatch.setattr(qsmi, "terms", lambda u, y, **o: (seen.append(y), plain(u, y, **o))[1])
    x = np.random.default_rng(0).standard_normal((360, 16)).astype(np.float32)
    y = np.repeat(np.arange(60), 6)
    for classes, together, wanted in ((y, 4, True), (y, 0, False), (y // 10, 4, False)):
        seen.clear()
        qsmi.Coder(qsmi.Config(bits=8, batch=32, epochs=2, together=together)).fit(x, classes)
        assert len(seen) == 2 * (360 // 32)
        counts = [np.bincount(batch.numpy(), minlength=60) for batch in seen]
        assert all(sorted(set(count.tolist())) == [0, 4] for count in counts) == wanted


@pytest.mark.parametrize(
    "options", [{"alpha": -1.0}, {"m": 0.5}, {"sigma": -1.0}, {"together": -1}, {"lr": 0.0}]
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        qsmi.Config(**options)
