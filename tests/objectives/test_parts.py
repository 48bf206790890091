"""The parts that objectives share, against extended precision, brute force and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.objectives._parts import Partners, UnitHead, log_one_minus_softmax, spread, wide


def exact(logits: Tensor, keep: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.longdouble]]:
    """`log(sum of the others / sum of all)`, in long double, one entry at a time."""
    out = np.zeros(logits.shape, np.longdouble)
    for i, row in enumerate(logits.double().numpy().astype(np.longdouble)):
        kept = [j for j in range(len(row)) if keep[i, j]]
        for j in kept:
            top = max(row[k] for k in kept)
            powers = {k: np.exp(row[k] - top) for k in kept}
            whole = sum(powers.values())
            if powers[j] < whole / 2:
                out[i, j] = np.log1p(-powers[j] / whole)
            else:
                out[i, j] = np.log(sum(power for k, power in powers.items() if k != j)) - np.log(whole)
    return out


@pytest.mark.parametrize(
    ("kind", "relative"), [(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 300.0])
def test_log_one_minus_softmax(kind: torch.dtype, relative: float, scale: float) -> None:
    stream = torch.Generator().manual_seed(int(scale))
    logits = (scale * torch.randn(20, 7, generator=stream, dtype=torch.float64)).to(kind)
    keep = torch.rand(20, 7, generator=stream) < 0.7
    keep[:, :2] = True
    found, whole = log_one_minus_softmax(logits, keep)
    expected = exact(logits, keep)
    relative *= 1 + 4 * scale  # an exponent's rounding is relative to the logits' size
    close = np.isclose(found.double().numpy(), expected.astype(np.float64), rtol=relative, atol=1e-300)
    underflows = expected > -1e-38  # log(1 - p) of a p below the smallest float32
    assert (close | underflows).all()
    assert torch.allclose(whole, torch.logsumexp(logits.masked_fill(~keep, -torch.inf), 1))
    assert not found[~keep].any()


def test_log_one_minus_softmax_near_one() -> None:
    """p = 1 - 1e-13 in float32: a subtraction from 1 would give log(0)."""
    logits = torch.tensor([[30.0, 0.0]])
    found, _ = log_one_minus_softmax(logits, torch.ones(1, 2, dtype=torch.bool))
    assert float(found[0, 0]) == pytest.approx(-math.log1p(math.exp(30.0)), rel=1e-6)
    assert float(found[0, 1]) == pytest.approx(-math.exp(-30.0), rel=1e-5)


def test_a_row_with_one_entry_is_a_constant() -> None:
    logits = torch.tensor([[3.0, 9.0]], requires_grad=True)
    found, _ = log_one_minus_softmax(logits, torch.tensor([[True, False]]))
    assert found.detach().tolist() == [[-87.0, 0.0]]
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert slope.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_gradients_are_those_of_finite_differences(scale: float) -> None:
    stream = torch.Generator().manual_seed(2)
    logits = (scale * torch.randn(6, 5, generator=stream, dtype=torch.float64)).requires_grad_()
    keep = torch.rand(6, 5, generator=stream) < 0.6
    keep[:, :2] = True
    assert torch.autograd.gradcheck(lambda x: log_one_minus_softmax(x, keep), (logits,))


def test_ties_at_one_half() -> None:
    found, _ = log_one_minus_softmax(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert found.tolist()[0] == pytest.approx([math.log(0.5)] * 2)


@pytest.mark.parametrize("block", [3, 10, 1024])
def test_neighbours_are_the_nearest_others(block: int) -> None:
    rows = torch.randn(25, 4, generator=torch.Generator().manual_seed(0))
    partners = Partners(0.5)
    partners.find(lambda: rows, block)
    unit = F.normalize(rows, dim=1)
    for i in range(25):
        distances = [float("inf") if j == i else float((unit[i] - unit[j]).norm()) for j in range(25)]
        assert int(partners.neighbours[i]) == int(np.argmin(distances))


def test_identical_images_are_each_others_neighbours_never_their_own() -> None:
    partners = Partners(1.0)
    partners.find(lambda: torch.ones(4, 3))
    assert all(int(j) != i for i, j in enumerate(partners.neighbours))


def test_the_coin() -> None:
    partners = Partners(0.3)
    ids = torch.arange(5000)
    assert torch.equal(partners.draw(ids, torch.Generator()), ids), "no neighbours are known yet"
    partners.neighbours = ids.roll(1)
    drawn = [partners.draw(ids, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    share = float((drawn[0] != ids).float().mean())
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 5000))
    assert torch.equal(drawn[0][drawn[0] != ids], ids.roll(1)[drawn[0] != ids])


def test_spread_is_the_mean_over_pairs() -> None:
    first, second = (F.normalize(torch.randn(5, 3), dim=1) for _ in range(2))
    rows = torch.cat([first, second])
    pairs = [float(rows[i] @ rows[j]) for i in range(10) for j in range(10) if i != j]
    found = spread(first, second)
    assert float(found["mean_cosine"]) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    positives = [float(first[i] @ second[i]) for i in range(5)]
    assert float(found["positive_cosine"]) == pytest.approx(sum(positives) / 5, abs=1e-6)


def test_the_head_stays_in_float32_under_autocast() -> None:
    """A.8: unit norm within 1e-5, and nothing rounded to 16 bits on the way."""
    torch.manual_seed(0)
    head, features = UnitHead(16, 8), torch.randn(6, 16)
    plain = head(features)
    with torch.autocast("cpu", torch.bfloat16):
        under = head(features)
    assert torch.equal(plain, under)
    assert torch.allclose(plain.norm(dim=1), torch.ones(6), atol=1e-5)
    narrow = head(features.bfloat16())
    assert narrow.dtype is torch.float32
    assert head.double()(features).dtype is torch.float32


def test_wide() -> None:
    kinds = {torch.bfloat16: torch.float32, torch.float32: torch.float32, torch.float64: torch.float64}
    assert {kind: wide(torch.zeros(1, dtype=kind)).dtype for kind in kinds} == kinds
