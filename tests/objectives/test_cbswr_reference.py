"""The whole step of CBSwR against loops over samples and clusters in float64, every row decoded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.contracts import Batch

Array = np.ndarray[Any, np.dtype[np.float64]]
FORMS: dict[str, dict[str, Any]] = {
    "released": {},
    "paper": {},
    "fixed": {},
    "fixed, released positives": {"variant": "fixed", "positive": "ratio"},
    "fixed, clean assignment": {"variant": "fixed", "assign": "clean", "entropies": "plain"},
    "released, summed pixels": {"variant": "released", "pixels": "sum", "target": "image"},
    "weights": {"variant": "paper", "metric": 0.5, "rim": 2.0, "reconstruction": 0.75, "mu": 3.0, "tau": 0.4},
    "weak repulsion": {"variant": "released", "foreign": 0.1, "dropout": 0.0},
}


def unit(row: Array) -> Array:
    """Of length 1; a row that dropout emptied stays 0."""
    return row / max(math.sqrt(sum(value * value for value in row)), 1e-12)


def softmax(row: Array) -> Array:
    powers = np.array([math.exp(value - max(row)) for value in row])
    return powers / math.fsum(powers)


def entropy(p: Array) -> float:
    return -math.fsum(value * math.log(value) for value in p if value > 0)


def standardise(rows: Array, norm: torch.nn.BatchNorm1d) -> Array:
    """Batch normalisation of `(n, d)` rows as a textbook writes it."""
    done = np.empty_like(rows)
    for j in range(rows.shape[1]):
        column = rows[:, j]
        done[:, j] = (column - column.mean()) / math.sqrt(((column - column.mean()) ** 2).mean() + 1e-5)
    return done * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def logits_of(z: Array, head: Any, form: str, scale: float) -> Array:
    weight = head.linear.weight.detach().numpy()
    out = np.empty((len(z), len(weight)))
    for i, row in enumerate(z):
        for k, column in enumerate(weight):
            out[i, k] = unit(row) @ unit(column) if form == "cosine" else row @ column
        if head.linear.bias is not None:
            out[i] += head.linear.bias.detach().numpy()
        out[i] = scale * (unit(out[i]) if form == "unit" else out[i])
    return out


def sinkhorn(cosines: Array) -> list[int]:
    share = np.exp(cosines / 0.1)
    for _ in range(3):
        share = share / share.sum(0)
        share = share / share.sum(1)[:, None]
    return [int(row.argmax()) for row in share]


def decode_every_row(decoder: Any, maps: Array) -> Array:
    """A drawing per row, with torch's own batch normalisation over all rows."""
    x = torch.from_numpy(maps)
    for convolution, norm in zip(decoder.convolutions, decoder.norms, strict=True):
        x = F.conv2d(x, convolution.weight, padding=1)
        x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
        x = F.relu(x).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return 1 / (1 + np.exp(-F.conv2d(x, decoder.last.weight, padding=1).numpy()))


def average_over_blocks(images: Array, side: int) -> Array:
    step = images.shape[-1] // side
    out = np.empty((*images.shape[:2], side, side))
    for y in range(side):
        for x in range(side):
            out[..., y, x] = images[..., y * step : (y + 1) * step, x * step : (x + 1) * step].mean((2, 3))
    return out


@torch.no_grad()
def reference(objective: Any, batch: Batch, kept: Tensor) -> dict[str, float]:
    """The weighted terms; `kept` `(n, d)` is the dropout mask, already divided by 1 - p."""
    s = objective.settings
    images = torch.cat(batch.views)
    n, m, k = len(images), len(images) // 2, s.clusters
    maps = objective.encoder.maps(images).numpy()
    weight, bias = objective.head.linear.weight.numpy(), objective.head.linear.bias.numpy()
    f = np.array([unit(weight @ one.mean((1, 2)) + bias) for one in maps])
    z = standardise(f, objective.cluster.norm)
    noisy = logits_of(z * kept.numpy(), objective.cluster, s.logits, s.scale)
    clean = logits_of(z, objective.cluster, s.logits, s.scale)
    p = np.array([softmax(row) for row in noisy])
    if s.assign == "balanced":
        q = sinkhorn(clean[:m] / s.scale)
    else:
        q = [int(row.argmax()) for row in (noisy if s.assign == "dropout" else clean)[:m]]
    q = q + q
    present = sorted(set(q))
    r = {j: np.mean([maps[i] for i in range(n) if q[i] == j], axis=0) for j in present}
    c = {j: unit(weight @ r[j].mean((1, 2)) + bias) for j in present}

    metric = 0.0
    for i in range(n):
        similar = {j: math.exp(f[i] @ c[j] / s.tau) for j in present}
        match = math.exp(f[i] @ f[(i + m) % n] / s.tau)
        rivals = math.fsum(similar[j] for j in present if j != q[i])
        others = max(1, len(present) - (q[i] in present))
        beside = {"softmax": rivals + match, "ratio": rivals, "decoupled": rivals / others}
        metric -= math.log(match / beside[s.positive])
        for j in present:
            if j != q[i]:
                rest = math.fsum(similar[k] for k in present if k != j)
                metric -= s.foreign * math.log(rest / math.fsum(similar.values()))
        if s.negatives == "instances":
            near = {j: math.exp(f[i] @ f[j] / s.tau) for j in range(n) if q[j] != q[i]}
            whole = math.fsum(near.values()) + match
            metric -= math.log(match / whole) + math.fsum(
                math.log(math.fsum([match, *(near[k] for k in near if k != j)]) / whole) for j in near
            )

    conditional, marginal = float(np.mean([entropy(row) for row in p])), entropy(p.mean(0))
    rim = conditional - s.mu * marginal
    if s.entropies != "plain":
        divisor = math.log(n) if s.entropies == "mixed" else math.log(k)
        rim = conditional / divisor + 1 - s.mu * marginal / math.log(k)

    target = images.numpy()
    if s.target == "centred":
        target = (target * 255 - np.array([122.7717, 115.9465, 102.9801]).reshape(1, 3, 1, 1)) / 255
        target = target[:, ::-1]
    drawn = decode_every_row(objective.decoder, np.array([r[j] for j in q]))
    if s.drawing == "half":
        target = average_over_blocks(target, drawn.shape[-1])
    errors = [((target[i] - drawn[i]) ** 2).sum() for i in range(n)]
    drawing = float(np.mean(errors)) / (target[0].size if s.pixels == "mean" else 1)
    return {
        "metric": s.metric * metric / n,
        "rim": s.rim * rim,
        "reconstruction": s.reconstruction * drawing,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("m", "clusters", "seed"), [(6, 4, 1), (16, 5, 2), (9, 12, 3)])
def test_equals_loops_over_samples_and_clusters(
    form: str, m: int, clusters: int, seed: int, make: Callable[..., Any], batch: Callable[..., Batch]
) -> None:
    options = {"variant": form, "share": 0.0, **FORMS[form], "clusters": clusters}
    objective = make("cbswr", seed, **options).double().train()
    given = batch(m, seed, torch.float64)
    torch.manual_seed(seed + 100)
    kept = F.dropout(torch.ones(2 * m, 8, dtype=torch.float64), objective.config.dropout)
    expected = reference(objective, given, kept)
    torch.manual_seed(seed + 100)
    loss = objective(given)
    assert {name: float(value.detach()) for name, value in loss.terms.items()} == pytest.approx(
        expected, rel=1e-9, abs=1e-9
    )
    assert float(loss.total.detach()) == pytest.approx(math.fsum(expected.values()), rel=1e-9)


@pytest.mark.parametrize("variant", ["released", "paper", "fixed"])
def test_float32_is_close_enough(variant: str, make: Callable[..., Any], batch: Callable[..., Batch]) -> None:
    objective = make("cbswr", 4, variant=variant, clusters=5, share=0.0, dropout=0.0).train()
    given = batch(16, 4)
    found = objective(given)
    wider = Batch((given.views[0].double(), given.views[1].double()), given.ids)
    expected = reference(objective.double(), wider, torch.ones(32, 8, dtype=torch.float64))
    assert float(found.total.detach()) == pytest.approx(math.fsum(expected.values()), rel=1e-6, abs=1e-6)
    assert found.total.dtype is torch.float32
