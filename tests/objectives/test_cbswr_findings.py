"""The findings B1 to B7 about the released code: there in `released`, gone in `fixed`.

B4 (local response norm) is an encoder's and tested there.
"""

from __future__ import annotations

import inspect
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from semblance.contracts import Batch
from semblance.objectives._cbswr_head import ClusterHead
from semblance.objectives._decoder import centred
from semblance.objectives.cbswr import Config, metric_loss, rim_loss
from semblance.training.config import TrainConfig
from semblance.training.loop import train

Make = Callable[..., Any]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
CIFAR = Path(__file__).parents[2] / ".data" / "cifar10"


def head_of(**options: Any) -> ClusterHead:
    torch.manual_seed(0)
    return ClusterHead(Config(dim=16, dropout=0.0, **options).resolved())


def separable(clusters: int) -> Tensor:
    """Unit embeddings in as many tight bunches as there are clusters, 6 rows each."""
    stream = torch.Generator().manual_seed(1)
    middles = F.normalize(torch.randn(clusters, 16, generator=stream), dim=1)
    return F.normalize(middles.repeat(6, 1) + 0.02 * torch.randn(6 * clusters, 16, generator=stream), dim=1)


def confidence_after_fitting(head: ClusterHead, rows: Tensor, entropies: str, steps: int = 150) -> float:
    optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(steps):
        optimiser.zero_grad()
        rim_loss(torch.softmax(head(rows)[0], 1), entropies, 1.0).backward()
        optimiser.step()
    return float(torch.softmax(head(rows)[0], 1).max(1).values.mean().detach())


def most_certain(clusters: int) -> Tensor:
    """Probabilities of the unit logits that favour one cluster most: one up, the rest evenly down."""
    logits = torch.full((clusters,), -1 / math.sqrt(clusters * (clusters - 1)), dtype=torch.float64)
    logits[0] = math.sqrt((clusters - 1) / clusters)
    assert float(logits.norm()) == pytest.approx(1)
    return torch.softmax(logits, 0)


@torch.no_grad()
def probabilities(head: ClusterHead, rows: Tensor) -> Tensor:
    return torch.softmax(head(rows)[0], 1)


@pytest.mark.parametrize(("clusters", "cap"), [(32, 0.0818), (100, 0.0269)])
def test_b1_unit_logits_cap_confidence(clusters: int, cap: float) -> None:
    assert float(most_certain(clusters).max()) == pytest.approx(cap, abs=6e-5)
    head = head_of(variant="released", clusters=clusters)
    assert float(probabilities(head, torch.randn(500, 16)).max()) <= cap
    confidence = confidence_after_fitting(head, separable(8), "mixed")
    assert 1 / clusters < confidence <= cap


def test_b1_conditional_entropy_hardly_moves() -> None:
    """H(Y|X) lies in [3.436, 3.466] for K = 32: least at one-sided logits, greatest at even ones."""
    least = float(rim_loss(most_certain(32)[None], "plain", 0.0))
    assert least == pytest.approx(3.436, abs=1e-3)
    assert math.log(32) == pytest.approx(3.466, abs=1e-3)
    head = head_of(variant="released", clusters=32)
    for rows in (torch.randn(300, 16), separable(8)):
        found = float(rim_loss(probabilities(head, rows), "plain", 0.0))
        assert least - 1e-4 <= found <= math.log(32) + 1e-4


def test_b1_fixed_becomes_certain() -> None:
    head = head_of(variant="fixed", clusters=8)
    assert confidence_after_fitting(head, separable(8), "clusters") > 0.9


def shares(make: Make, natural: Tensor, **options: Any) -> dict[str, float]:
    objective = make("cbswr", 0, dim=32, **options).train()
    small = F.interpolate(natural, size=(8, 8), mode="area")
    loss = objective(Batch((small, small.flip(3)), torch.arange(len(small))))
    return {name[6:]: float(value) for name, value in loss.stats.items() if name.startswith("share.")}


def test_b2_released_terms_are_inert(make: Make, natural: Tensor) -> None:
    """Gradients at E, as logged: the metric term has nearly all, the drawing less than a hundredth."""
    found = shares(make, natural, variant="released", clusters=32)
    assert found["metric"] > 0.9
    assert found["rim"] < 0.1
    assert found["reconstruction"] < 0.01


def test_b2_fixed_terms_are_live(make: Make, natural: Tensor) -> None:
    """The drawing has 5 to 20 % of the metric term's gradient, and RIM far more than it had."""
    fixed = shares(make, natural, variant="fixed", clusters=32)
    assert 0.05 <= fixed["reconstruction"] / fixed["metric"] <= 0.2
    released = shares(make, natural, variant="released", clusters=32)
    assert fixed["rim"] / fixed["metric"] > 5 * released["rim"] / released["metric"]


def test_b3_half_of_the_released_target_is_out_of_reach(natural: Tensor) -> None:
    """A sigmoid draws no negative value; on photographs that leaves about half the target's variance."""
    target = centred(natural)
    assert 0.3 < float((target < 0).float().mean()) < 0.75
    floor = float(target.clamp(max=0).square().mean())
    assert floor > 0.25 * float(target.square().mean())
    assert float((target - target.clamp(0, 1)).square().mean()) == pytest.approx(floor, rel=1e-6)
    assert Config(variant="released").resolved().target == "centred"
    assert Config(variant="fixed").resolved().target == "image"
    assert float((natural - natural.clamp(0, 1)).abs().max()) == 0


def test_b3_the_released_target_is_the_caffe_networks_input() -> None:
    image = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1) / 255
    found = centred(image).flatten().tolist()
    assert found == pytest.approx([(30 - 102.9801) / 255, (20 - 115.9465) / 255, (10 - 122.7717) / 255])


def test_b5_labels_cannot_reach_training() -> None:
    """The released code picked its epoch by test labels; nothing here takes a label, the last epoch stays."""
    names = {name for one in (train, TrainConfig, Batch) for name in inspect.signature(one).parameters}
    assert not [name for name in names if "label" in name or "target" in name or name == "y"]
    assert set(inspect.signature(Batch).parameters) == {"views", "ids", "plain"}


def test_b6_the_released_ratio_is_no_probability() -> None:
    """Perfectly invariant, well spread embeddings: the released ratio is far above 1, its term negative."""

    def term(positive: str, k: int = 8) -> float:
        rows = torch.eye(k, dtype=torch.float64).repeat(2, 1)
        q, present = torch.arange(k).repeat(2), torch.ones(k, dtype=torch.bool)
        config = Config(positive=positive, foreign=0.0).resolved()  # type: ignore[arg-type]
        return float(metric_loss(rows, rows, torch.eye(k, dtype=torch.float64), q, present, config))

    assert math.exp(-term("ratio")) == pytest.approx(math.exp(10) / 7)
    assert term("ratio") < -6
    assert term("ratio", 32) - term("ratio") == pytest.approx(math.log(31 / 7)), "not comparable across K"
    assert 0 < term("softmax") < 0.01
    assert term("decoupled", 32) == pytest.approx(term("decoupled")) == pytest.approx(-10), "comparable"
    assert Config(variant="released").resolved().positive == "ratio"
    assert Config(variant="fixed").resolved().positive == "decoupled"


@pytest.mark.parametrize("seed", range(5))
def test_b6_the_softmax_is_never_negative(seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    f = F.normalize(torch.randn(10, 4, generator=stream), dim=1)
    c = F.normalize(torch.randn(6, 4, generator=stream), dim=1)
    q = torch.randint(0, 6, (10,), generator=stream)
    present = F.one_hot(q, 6).sum(0) > 0
    assert float(metric_loss(f, f.roll(5, 0), c, q, present, Config().resolved())) >= 0


def naive_metric(f: Tensor, c: Tensor, q: Tensor, tau: float) -> Tensor:
    """The released arithmetic: exponentials, a quotient, and one minus a quotient, all in float32."""
    similar = torch.exp(f @ c.T / tau)
    own = F.one_hot(q, len(c)).bool()
    match = torch.exp((f * f.roll(len(f) // 2, 0)).sum(1) / tau)
    positive = match / similar.masked_fill(own, 0).sum(1)
    other = similar / similar.sum(1, keepdim=True)
    return -(positive.log() + (1 - other).log().masked_fill(own, 0).sum(1)).mean()


@pytest.mark.parametrize("variant", ["released", "fixed"])
def test_b7_one_cluster_present(variant: str, make: Make, batch: Callable[..., Batch]) -> None:
    f = F.normalize(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    assert not torch.isfinite(naive_metric(f, f[:1], torch.zeros(8, dtype=torch.int64), 0.1))
    objective = make("cbswr", variant=variant, clusters=4).train()
    objective._assign = lambda noisy, clean: torch.zeros(len(clean), dtype=torch.int64)
    loss = objective(batch(8))
    assert float(loss.terms["metric"].detach()) == 0
    assert float(loss.stats["degenerate"]) == 1
    assert torch.isfinite(loss.total)


def test_b7_antipodal_clusters() -> None:
    """A probability that rounds to 1 loses its complement; ours does not."""
    f = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(2, 1)
    q, present = torch.tensor([1, 0, 1, 0]), torch.tensor([True, True])  # every row in the far cluster
    assert not torch.isfinite(naive_metric(f, f[:2], q, 0.1))
    config = Config(positive="ratio").resolved()
    assert float(metric_loss(f, f, f[:2], q, present, config)) == pytest.approx(0 + 20, rel=1e-6)


def digit_pixels() -> tuple[Pixels, int]:
    grey = np.round(load_digits().images[:600] * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3), 8


def photograph_pixels() -> tuple[Pixels, int]:
    tool = CIFAR.parents[2] / "shared" / "data" / "unpack"
    if not (CIFAR / "labels.csv").is_file():
        if not tool.is_file():
            pytest.skip("../shared/data is absent")
        subprocess.run([str(tool), "cifar10"], cwd=CIFAR.parents[1], check=True, capture_output=True)
    names = [line.split(",")[0] for line in (CIFAR / "labels.csv").read_text().splitlines()[1:5001:10]]
    return np.stack([np.asarray(Image.open(CIFAR / name).convert("RGB")) for name in names]), 16


@pytest.mark.parametrize("pixels_of", [digit_pixels, photograph_pixels])
def test_fixed_keeps_its_clusters_in_use(
    pixels_of: Callable[[], tuple[Pixels, int]], make: Make, tmp_path: Path
) -> None:
    """Balance: at least 0.7 K after a short training."""
    pixels, side = pixels_of()
    objective = make("cbswr", 0, dim=16, clusters=32)
    config = TrainConfig(epochs=4, batch=100, device="cpu", precision="32", lr=3e-3)
    done = train(pixels, objective, config, tmp_path, side)
    assert done.history[-1]["health"]["used_clusters"] >= 0.7
