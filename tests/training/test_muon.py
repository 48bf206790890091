"""Muon against a singular value decomposition, against torch's own, and what it leaves to AdamW."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from semblance.training import checkpoint
from semblance.training.muon import CURVE, ROUNDS, Muon, is_matrix, orthogonal


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_orthogonal_against_singular_values(seed: int, rows: int, columns: int) -> None:
    x = np.random.default_rng(seed).normal(size=(rows, columns))
    u, s, v = np.linalg.svd(x, full_matrices=False)
    s = s / np.linalg.norm(s)
    a, b, c = CURVE
    for _ in range(ROUNDS):
        s = a * s + b * s**3 + c * s**5
    wanted = u @ np.diag(s) @ v
    assert orthogonal(torch.from_numpy(x)).numpy() == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize("shape", [(64, 288), (256, 128)])
def test_sixteen_bits_are_enough(shape: tuple[int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x * torch.logspace(0, -2, shape[1])
    whole = orthogonal(x)
    assert orthogonal(x, narrow=True).dtype == torch.float32
    assert float((orthogonal(x, narrow=True) - whole).norm() / whole.norm()) < 0.03


def test_directions_that_hardly_show_move_too() -> None:
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(24, 90, generator=stream) * torch.logspace(0, -1, 24)[:, None]
    before, after = torch.linalg.svdvals(x), torch.linalg.svdvals(orthogonal(x))
    assert float(before.max() / before.min()) > 10
    assert float(after.min()) > 0.5
    assert float(after.max()) < 1.25
    assert float(orthogonal(torch.zeros(20, 30)).abs().max()) == 0


def test_a_matrix_has_two_long_sides() -> None:
    sizes = {(32, 16): True, (16, 2, 3, 3): True, (16, 1, 3, 3): False, (15, 90): False, (400,): False}
    assert {size: is_matrix(torch.zeros(size)) for size in sizes} == sizes


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_steps_against_torch(shape: tuple[int, int]) -> None:
    """torch's Muon, told to take as many rounds, works in bfloat16: they agree to its few digits."""
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.empty(shape))
    theirs.data.copy_(ours.data)
    start = ours.detach().clone()
    mine = Muon([{"params": [ours]}], 2e-3, 0.01)
    other = torch.optim.Muon([theirs], lr=2e-2, weight_decay=1e-3, ns_steps=ROUNDS)
    for _ in range(5):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    moved, wanted = (ours - start).detach(), (theirs - start).detach()
    assert float((moved - wanted).norm() / wanted.norm()) < 0.03


def test_the_rest_moves_as_in_adamw() -> None:
    torch.manual_seed(0)
    bias, same, matrix = (nn.Parameter(torch.randn(*size)) for size in ((30,), (30,), (20, 20)))
    same.data.copy_(bias.data)
    mine = Muon([{"params": [matrix, bias], "weight_decay": 0.3}], 2e-3, 0.01)
    other = torch.optim.AdamW([same], lr=2e-3, weight_decay=0.3)
    for _ in range(4):
        bias.grad = torch.randn(30)
        same.grad, matrix.grad = bias.grad.clone(), torch.randn(20, 20)
        mine.step()
        other.step()
    assert torch.equal(bias, same)
    assert [group["matrices"] for group in mine.param_groups] == [True, False]


def test_a_checkpoint_goes_on_exactly(tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, Muon]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(16 * 36, 17)).to(
            memory_format=torch.channels_last
        )
        return net, Muon([{"params": list(net.parameters())}], 2e-3, 0.01)

    def learn(net: nn.Module, optimiser: Muon, steps: range) -> None:
        for step in steps:
            x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            net(x).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()

    whole, first, second = made(), made(), made()
    learn(*whole, range(6))
    learn(*first, range(3))
    checkpoint.save(tmp_path / "c.safetensors", *first, {})
    checkpoint.load(tmp_path / "c.safetensors", *second)
    learn(*second, range(3, 6))
    for mine, theirs in zip(second[0].parameters(), whole[0].parameters(), strict=True):
        assert torch.equal(mine, theirs)
