"""A small network on embeddings, trained in seconds: what the coders that learn from labels share.

`train` fits embedding -> [hidden layer, ReLU] -> bits to any loss of (outputs, labels) and returns plain
arrays; `forward` computes the same network in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semblance.codes._rows import Labels, Rows, Wide, sample
from semblance.errors import ConfigError, InputError

__all__ = ["Trained", "check_training", "class_balanced", "forward", "train"]

MOST_ROWS = 100_000
"""More labelled rows than these are not trained on; the seed draws which."""
MOST_STEPS = 3_000
"""A training ends here at the latest: epochs over many rows are cut short."""

Arrays = dict[str, NDArray[Any]]


class Trained(Protocol):
    """What the configuration of a trained coder has."""

    @property
    def bits(self) -> int:
        """Length of a code."""
        ...

    @property
    def seed(self) -> int:
        """Start of every random number."""
        ...

    @property
    def hidden(self) -> int:
        """Width of the hidden layer, 0 for none."""
        ...

    @property
    def epochs(self) -> int:
        """How often every labelled row is seen."""
        ...

    @property
    def batch(self) -> int:
        """Rows in a step."""
        ...

    @property
    def lr(self) -> float:
        """Adam's rate."""
        ...


def check_training(config: Trained) -> None:
    """Raise `ConfigError` for a training that cannot be."""
    if config.hidden < 0 or config.epochs < 1 or config.batch < 2 or config.lr <= 0:
        raise ConfigError(
            f"hidden={config.hidden}, epochs={config.epochs}, batch={config.batch}, lr={config.lr}",
            "a training needs hidden >= 0, epochs >= 1, batch >= 2 and lr > 0",
        )


def train(
    x: Rows,
    labels: Labels | None,
    config: Trained,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    own: Iterable[nn.Parameter] = (),
    norm: bool = False,
    together: int = 0,
) -> Arrays:
    """The trained network as arrays in float64: "mean", "scale", "weight0", "bias0"[, "weight1", "bias1"].

    `loss(u, y)`: outputs `(m, bits)` float32 and labels, `(m,)` int64 or `(m, classes)` bool, to a scalar.
    `own`: parameters of the loss, trained along. `norm`: the last layer has no bias and is followed by
    batch normalisation, which is folded into it afterwards. `together`: at least so many rows of a class
    in a batch; where a random batch would hold fewer, batches are drawn class by class. Adam at a constant
    rate. Raises `InputError` where the labelled rows are all alike.
    """
    if labels is None:
        raise InputError("this coder learns from labels and was given none", "give y")
    chosen = sample(labels.rows, MOST_ROWS, config.seed)
    rows, classes = np.array(x[labels.rows[chosen]], dtype=np.float32), labels.classes[chosen]
    mean = rows.mean(0, dtype=np.float64)
    rows -= mean.astype(np.float32)
    scale = float(np.sqrt(np.einsum("ij,ij->", rows, rows, dtype=np.float64) / rows.size))
    if scale <= 1e-6 * float(np.abs(mean).max()):
        raise InputError("all labelled embeddings are the same", "label images that differ")
    rows /= np.float32(scale)
    inputs = torch.from_numpy(rows)
    targets = torch.from_numpy(classes.argmax(1).astype(np.int64) if labels.single else classes)
    network = _network(x.shape[1], config, norm)
    steps = min(config.epochs * max(1, len(rows) // config.batch), MOST_STEPS)
    optimiser = torch.optim.Adam([*network.parameters(), *own], lr=config.lr, fused=True)
    order = _batches(classes, labels.single, config, together)
    with torch.enable_grad():
        for _, picked in zip(range(steps), order, strict=False):
            value = loss(network(inputs[picked]), targets[picked])
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    arrays = {"mean": mean, "scale": np.array([scale])} | _layers(network)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ConfigError(f"the training diverged at lr={config.lr}", "lower lr")
    return arrays


def forward(x: Wide, arrays: Arrays) -> Wide:
    """The outputs `(n, bits)` of rows `(n, d)`, both float64."""
    values: Wide = (x - arrays["mean"]) / arrays["scale"]
    values = values @ arrays["weight0"] + arrays["bias0"]
    if "weight1" in arrays:
        values = np.maximum(values, 0.0) @ arrays["weight1"] + arrays["bias1"]
    return values


def class_balanced(
    classes: NDArray[np.int64], batch: int, together: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Endless batches of row numbers: `batch // together` classes, each as likely, `together` rows of each.

    `classes` `(n,)`. Of a class with fewer rows some come twice.
    """
    order = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[order], np.unique(classes))
    members = np.split(order, starts[1:])
    count = max(2, min(batch // together, len(members)))
    while True:
        picked = rng.choice(len(members), count, replace=False)
        yield np.concatenate(
            [rng.choice(members[i], together, replace=len(members[i]) < together) for i in picked]
        )


def _network(inside: int, config: Trained, norm: bool) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        layers: list[nn.Module] = []
        if config.hidden:
            layers += [nn.Linear(inside, config.hidden), nn.ReLU()]
        layers += [nn.Linear(config.hidden or inside, config.bits, bias=not norm)]
        if norm:
            layers += [nn.BatchNorm1d(config.bits)]
        return nn.Sequential(*layers)


def _layers(network: nn.Sequential) -> Arrays:
    """The linear layers in float64, a batch normalisation at the end folded into the last."""
    found: list[list[NDArray[np.float64]]] = []
    for layer in network:
        if isinstance(layer, nn.Linear):
            weight = layer.weight.detach().double().numpy().T.copy()
            bias = np.zeros(weight.shape[1]) if layer.bias is None else layer.bias.detach().double().numpy()
            found.append([weight, bias])
        if isinstance(layer, nn.BatchNorm1d):
            if layer.running_var is None or layer.running_mean is None:
                raise ConfigError("the normalisation kept no statistics")
            gain = (layer.weight / (layer.running_var + layer.eps).sqrt()).detach().double().numpy()
            weight, bias = found[-1]
            shift = layer.bias.detach().double().numpy() - layer.running_mean.double().numpy() * gain
            found[-1] = [weight * gain, bias * gain + shift]
    return {
        f"{name}{i}": array
        for i, pair in enumerate(found)
        for name, array in zip(("weight", "bias"), pair, strict=True)
    }


def _batches(
    classes: NDArray[np.bool_], single: bool, config: Trained, together: int
) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(config.seed)
    n, batch = len(classes), min(config.batch, len(classes))
    if single and together and batch < together * classes.shape[1]:
        yield from class_balanced(classes.argmax(1).astype(np.int64), batch, together, rng)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - batch + 1, batch):
            yield order[start : start + batch]
