"""The bi-half layer: halves by counting, its gradient by hand, its loss in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance.codes import bihalf, unpack
from semblance.errors import ConfigError


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 11), st.integers(1, 4), st.integers(0, 1000))
def test_half_of_each_bit_is_set_and_it_is_the_larger_half(m: int, bits: int, seed: int) -> None:
    u = np.random.default_rng(seed).integers(-3, 4, size=(m, bits)) / 2  # with ties
    b = bihalf.halves(torch.from_numpy(u)).numpy()
    for j in range(bits):
        order = sorted(range(m), key=lambda i: (-u[i, j], i))
        expected = [1.0 if order.index(i) < m // 2 else -1.0 for i in range(m)]
        assert b[:, j].tolist() == expected


def test_gradient_by_hand() -> None:
    """Two pairs of two-bit codes; dL/dU = dL/dB + gamma (U - B) / 8, dL/dB by differences of the loss."""
    u = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.2, 0.1], [0.1, -0.4]], dtype=torch.float64)
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
    u.requires_grad_()
    b = bihalf.BiHalf.apply(u, 6.0)
    assert b.tolist() == [[1, -1], [1, 1], [-1, 1], [-1, -1]]
    bihalf.loss(b, x).backward()

    def cosine(p: list[float], q: list[float]) -> float:
        dot = sum(a * c for a, c in zip(p, q, strict=True))
        return dot / math.sqrt(sum(a * a for a in p) * sum(c * c for c in q))

    def slow(codes: list[list[float]]) -> float:
        gaps = [cosine(codes[i], codes[i + 2]) - cosine(x[i].tolist(), x[i + 2].tolist()) for i in range(2)]
        return sum(gap**2 for gap in gaps) / 2

    codes = b.tolist()
    assert bihalf.loss(b, x).item() == pytest.approx(slow(codes))
    for i in range(4):
        for j in range(2):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [list(row) for row in codes]
                moved[i][j] += step
                ends.append(slow(moved))
            slope = (ends[0] - ends[1]) / 2e-6
            expected = slope + 6.0 * (u[i, j].item() - codes[i][j]) / 8
            assert u.grad[i, j].item() == pytest.approx(expected, abs=1e-6)


def test_training_lowers_its_loss_and_halves_every_bit(embeddings: np.ndarray) -> None:
    x = torch.from_numpy(embeddings - embeddings.mean(0))
    pairs = torch.randperm(600, generator=torch.Generator().manual_seed(9))
    losses = []
    for epochs, lr in ((1, 1e-9), (20, 1e-2)):
        config = bihalf.Config(bits=16, epochs=epochs, lr=lr, batch=60, gamma=0.0)
        bits = unpack(bihalf.Coder(config).fit(embeddings).encode(embeddings))
        assert np.abs(bits.mean(0) - 0.5).max() < 0.01
        b = torch.from_numpy(2.0 * bits - 1).float()
        losses.append(bihalf.loss(b[pairs], x[pairs]).item())
    assert losses[1] < 0.8 * losses[0]


def test_the_pull_brings_values_to_their_bits(embeddings: np.ndarray) -> None:
    """With gamma and no loss to speak of, |U - B| falls."""
    gaps = []
    for lr in (1e-9, 1e-2):
        config = bihalf.Config(bits=16, epochs=20, lr=lr, batch=60, gamma=1000.0)
        u = bihalf.Coder(config).fit(embeddings).project(embeddings)
        gaps.append(float(np.square(u - np.where(u >= 0, 1, -1)).mean()))
    assert gaps[1] < 0.7 * gaps[0]


def test_more_bits_than_directions_and_small_batches(embeddings: np.ndarray) -> None:
    coder = bihalf.Coder(bihalf.Config(bits=40, epochs=1, batch=1000)).fit(embeddings[:7])
    assert unpack(coder.encode(embeddings[:7])).shape == (7, 40)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch": 3}, {"rows": 2}, {"lr": 0.0}, {"gamma": -1.0}])
def test_configuration(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        bihalf.Config(**options)
