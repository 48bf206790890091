"""Reading an embedding off all levels, against a slow reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from semblance import plugins
from semblance.contracts import Batch
from semblance.errors import TrainingCollapsed
from semblance.objectives._cbswr_plus import Beneath, Moments
from semblance.objectives._levels import Levels, principal


def slow(x: np.ndarray[Any, Any], groups: tuple[int, ...], dim: int, shrink: float) -> Any:
    """Row by row, with an SVD of the rows in place of their covariance."""
    x = x.astype(np.float64) - x.astype(np.float64).mean(0)
    start = 0
    for size in groups:
        part = x[:, start : start + size]
        total = sum(float(np.mean(column**2)) for column in part.T)
        part /= np.sqrt(total) if total else 1.0
        start += size
    _, lengths, axes = np.linalg.svd(x, full_matrices=False)
    variances = lengths**2 / len(x)
    level = shrink * variances.sum() / min(x.shape[1], len(x) - 1)
    return np.stack([x @ axes[i] / np.sqrt(variances[i] + level) for i in range(dim)], 1)


def rows(n: int = 60, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    return mixed * torch.tensor([100.0] * 5 + [0.01] * 7) + 3


@pytest.mark.parametrize(("n", "dim"), [(60, 8), (7, 6)])
@pytest.mark.parametrize("shrink", [0.0, 0.3])
def test_directions_are_those_of_a_slow_reference(n: int, dim: int, shrink: float) -> None:
    x = rows(n)
    head = principal(x, (5, 7), dim, shrink)
    assert head is not None
    found, wanted = head.free(x).detach().numpy(), slow(x.numpy(), (5, 7), dim, shrink)
    signs = np.sign((found * wanted).sum(0))
    np.testing.assert_allclose(found * signs, wanted, atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(head(x).detach().numpy(), axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(("n", "shrink"), [(100, 6.0), (2000, 0.3), (3000, 0.3)])
def test_few_rows_are_shrunk_further(n: int, shrink: float) -> None:
    x = rows(n)
    found, wanted = principal(x, (5, 7), 4), principal(x, (5, 7), 4, shrink)
    assert found is not None
    assert wanted is not None
    torch.testing.assert_close(found.linear.weight, wanted.linear.weight)


def test_without_shrinking_directions_vary_alike() -> None:
    x = rows(200)
    head = principal(x, (5, 7), 6, 0.0)
    assert head is not None
    np.testing.assert_allclose(np.cov(head.free(x).detach().numpy().T, bias=True), np.eye(6), atol=1e-3)


def test_the_scale_of_a_group_does_not_count() -> None:
    x = rows()
    y = x * torch.tensor([7.0] * 5 + [0.3] * 7)
    one, other = principal(x, (5, 7), 4), principal(y, (5, 7), 4)
    assert one is not None
    assert other is not None
    found, wanted = one.free(x), other.free(y)
    torch.testing.assert_close(found * (found * wanted).sum(0).sign(), wanted, atol=1e-4, rtol=1e-3)


def test_a_group_that_never_varies_is_left_out_and_where_nothing_does_there_is_no_head() -> None:
    x = rows()
    x[:, 5:] = 4.0
    head = principal(x, (5, 7), 12)
    assert head is not None
    assert head.outside == 12
    assert bool((head.linear.weight[:, 5:] == 0).all())
    assert bool(torch.isfinite(head(x)).all())
    assert principal(torch.full((9, 12), 0.1), (5, 7), 4) is None


def test_no_more_directions_than_columns() -> None:
    head = principal(rows(), (5, 7), 256)
    assert head is not None
    assert (head.inside, head.outside) == (12, 12)
    few = principal(rows(3), (5, 7), 256)  # three images: two directions, the rest says nothing
    assert few is not None
    assert bool(torch.isfinite(few(rows(30, 1))).all())


def test_rows_that_are_not_finite_end_in_a_plain_error() -> None:
    x = rows()
    x[3, 2] = torch.nan
    with pytest.raises(TrainingCollapsed, match="not finite"):
        principal(x, (5, 7), 4)


def objective(encoder: Any, name: str = "cbswr", **options: Any) -> Any:
    return plugins.get("objectives", name).Objective(plugins.configure("objectives", name, options), encoder)


def resnet() -> Any:
    options = {"depth": 10, "width": 4, "size": 16}
    return plugins.get("encoders", "resnet").build(plugins.configure("encoders", "resnet", options))


def test_plus_reads_all_levels_where_the_encoder_has_some_and_learns() -> None:
    from semblance.encoders._frozen import Frozen

    made = objective(resnet())
    levels = made.encoder.levels(torch.rand(40, 3, 16, 16))
    head = made.read(levels)
    assert isinstance(head, Levels)
    assert head.outside == min(256, sum(made.encoder.level_dims)) == 120
    assert made.read(levels[:1].expand(5, -1)) is made.head
    assert not hasattr(objective(Frozen(resnet())), "read")
    assert not hasattr(objective(resnet(), levels=False), "read")
    assert not hasattr(objective(resnet(), variant="fixed"), "read")
    assert not hasattr(objective(resnet(), "cbswr+measure"), "read")


def test_embedding_size_is_the_variants_own_unless_it_is_given() -> None:
    config = plugins.get("objectives", "cbswr").Config
    assert [config(variant=name).dim for name in ("plus", "fixed", "paper", "released")] == [
        256,
        128,
        128,
        128,
    ]
    assert config(dim=64).dim == 64


def slow_beneath(stages: list[np.ndarray[Any, Any]], weights: list[Any], tau: float) -> float:
    """Stage by stage and pair by pair: means and deviations over places, normalised over the batch, one
    layer, NT-Xent."""
    total = 0.0
    for maps, (matrix, bias) in zip(stages, weights, strict=True):
        n, c = maps.shape[:2]
        means = np.array([[maps[i, k].mean() for k in range(c)] for i in range(n)])
        spreads = np.array([[np.sqrt(maps[i, k].var() + 1e-5) for k in range(c)] for i in range(n)])
        x = np.concatenate([means, spreads], 1)
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        z = np.stack([matrix @ row + bias for row in x])
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        for i in range(n):
            pair = (i + n // 2) % n
            rivals = sum(np.exp(z[i] @ z[k] / tau) for k in range(n) if k not in (i, pair))
            total += (np.log(rivals) - z[i] @ z[pair] / tau) / n
    return total


def test_moments_and_their_slopes_are_those_of_a_plain_formula() -> None:
    torch.manual_seed(0)
    maps = torch.rand(3, 5, 4, 2, dtype=torch.float64).relu()
    maps[0, 1] = 0  # nothing varies there
    for layout in (torch.contiguous_format, torch.channels_last):
        x = maps.clone(memory_format=layout).requires_grad_()
        assert torch.autograd.gradcheck(Moments.apply, (x,))
        mean, deviation = Moments.apply(x)
        torch.testing.assert_close(mean, x.mean((2, 3)))
        torch.testing.assert_close(deviation, (x.var((2, 3), correction=0) + 1e-5).sqrt())


@pytest.mark.parametrize("side", [1, 4, 16])
def test_moments_in_16_bits_are_nearly_those_in_64(side: int) -> None:
    torch.manual_seed(0)
    given = torch.randn(24, 5, side, side).relu().bfloat16()
    given[0, 1] = 0
    slopes = []
    for maps in (given.clone(), given.double()):
        mean, deviation = Moments.apply(maps.requires_grad_())
        assert mean.dtype == torch.promote_types(maps.dtype, torch.float32)
        (mean * torch.linspace(-1, 1, 5) + deviation.square()).sum().backward()
        slopes.append(maps.grad.double())
    torch.testing.assert_close(*slopes, atol=0.02 / side**2, rtol=0.03)


def test_contrasts_beneath_against_a_loop() -> None:
    torch.manual_seed(0)
    part = Beneath((3, 5)).train()
    stages = [torch.rand(12, 3, 4, 4), torch.rand(12, 5, 2, 2)]
    heads = [(h.linear.weight.detach().numpy(), h.linear.bias.detach().numpy()) for h in part.heads]
    wanted = slow_beneath([one.double().numpy() for one in stages], heads, 0.2)
    assert float(part(stages, 0.2).detach()) == pytest.approx(wanted, rel=1e-5)
    assert float(part([one[:2] for one in stages], 0.2)) == 0.0


def test_earlier_stages_are_trained_where_asked_for_and_the_encoder_has_some_and_learns() -> None:
    from semblance.encoders._frozen import Frozen

    torch.manual_seed(0)
    made = objective(resnet(), beneath=0.3).train()
    given = Batch((torch.rand(6, 3, 16, 16), torch.rand(6, 3, 16, 16)), torch.arange(6))
    loss = made(given)
    stages = made.encoder.stages(torch.cat(given.views))
    assert [len(one[0]) for one in stages] == [4, 8, 16, 32]
    again = 0.3 * float(made.beneath(stages[:-1], 0.1).detach())
    assert float(loss.terms["beneath"].detach()) == pytest.approx(again, rel=1e-4)
    assert float(sum(loss.terms.values()).detach()) == pytest.approx(float(loss.total.detach()))
    torch.testing.assert_close(stages[-1], made.encoder.maps(torch.cat(given.views)))
    for other in (
        objective(Frozen(resnet()), beneath=0.3),
        objective(resnet(), variant="fixed"),
        objective(resnet(), beneath=0.0),
    ):
        assert other.beneath is None
    assert not [
        key
        for key in objective(resnet(), "cbswr+measure", cbswr={"beneath": 0.3}).state_dict()
        if "beneath" in key
    ]
