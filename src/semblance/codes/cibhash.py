"""CIBHash: contrastive learning of bits with an information bottleneck, on embeddings.

Qiu et al. (IJCAI 2021), "Unsupervised hashing with contrastive information bottleneck". A small network gives
each bit a probability; the codes of two views of one image must be found among those of a batch (NT-Xent on
signs, the gradient passing straight through), and the two views must agree on the probabilities (symmetric
KL divergence, weight beta), which takes from the code what depends on the view.

Known to us through its public code, where a view is of the image, through a frozen VGG-16. Here nothing but
the embedding is at hand, and a view of it is the embedding plus Gaussian noise of a quarter of its own
spread. Chosen by measurement, on neighbours kept and not on labels: noise of a tenth to a half and dropout
of a fifth are within two points of it, more of either is worse. Width, rate and rows are ours as well;
temperature and beta are the paper's.

When: 16 bits, where it keeps as many neighbours as `itq`; of longer codes `itq` keeps more in less time
(`docs/results/codes.md`).

Cost: `epochs` passes over `rows` rows, seconds; `n hidden (d + bits)` operations to encode.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._rows import Labels, Rows, Wide, moments, sample
from semblance.errors import ConfigError

__all__ = ["Coder", "Config", "contrast", "divergence", "signs"]

SMALL = 1e-8


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: of weights, rows, order and noise. `noise`: standard deviation of a
    view's noise in units of the embeddings' own. `hidden`: width of the layer between. `temperature`, `beta`:
    of the contrast and of the bottleneck. `epochs`, `batch`, `lr`: of the training on at most `rows` rows."""

    bits: int = 64
    seed: int = 0
    noise: float = 0.25
    hidden: int = 256
    temperature: float = 0.3
    beta: float = 0.001
    epochs: int = 5
    batch: int = 128
    lr: float = 3e-3
    rows: int = 20_000

    def __post_init__(self) -> None:
        """Raises `ConfigError` for numbers that no training can use."""
        if min(self.epochs, self.batch // 2, self.rows // 2, self.hidden) < 1:
            raise ConfigError(
                f"epochs={self.epochs}, batch={self.batch}, rows={self.rows}, hidden={self.hidden}",
                "at least 1 epoch, 1 hidden unit, and 2 rows a batch",
            )
        if min(self.lr, self.temperature, self.noise) <= 0 or self.beta < 0:
            raise ConfigError(
                f"lr={self.lr}, temperature={self.temperature}, noise={self.noise}, beta={self.beta}",
                "the first three above 0",
            )


def signs(u: Tensor) -> Tensor:
    """+1 where `u` is at least 0, else -1; its gradient is that of the probability sigmoid(u)."""
    p = u.sigmoid()
    b = torch.where(u >= 0, 1.0, -1.0)
    return b + p - p.detach()


def contrast(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views `(m, bits)`: the other view among the 2m - 1 other codes, by cosine."""
    z = F.normalize(torch.cat([one, other]), dim=1)
    logits = z @ z.T / temperature
    logits = logits - torch.diag(torch.full((len(z),), torch.inf))
    m = len(one)
    return F.cross_entropy(logits, torch.arange(2 * m).roll(m))


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of independent bits with probabilities `(m, bits)`, mean over rows; `q` is held fixed."""
    q = q.detach()
    terms = p * ((p + SMALL).log() - (q + SMALL).log())
    terms = terms + (1 - p) * ((1 - p + SMALL).log() - (1 - q + SMALL).log())
    return terms.sum(1).mean()


class Coder(ThresholdCoder):
    """A trained network of one hidden layer; its bits are the likelier ones."""

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """Both layers. The embeddings are centred and scaled to a mean variance of 1 before the first."""
        config = self.config
        mean, covariance, _ = moments(x)
        scale = np.sqrt(np.trace(covariance) / x.shape[1])
        rows = (np.asarray(x[sample(x, config.rows, config.seed)]) - mean) / scale
        first, bias, second, offset = train(torch.from_numpy(rows.astype(np.float32)), config)
        return {
            "first": first / scale,
            "bias": bias - mean @ first / scale,
            "second": second,
            "threshold": -offset,
        }

    def values(self, x: Wide, arrays: Arrays) -> Wide:
        """The second layer's products, without its offset: that is the threshold."""
        values: Wide = np.maximum(x @ arrays["first"] + arrays["bias"], 0) @ arrays["second"]
        return values


def train(x: Tensor, config: Config) -> tuple[Wide, Wide, Wide, Wide]:
    """First weights and bias, second weights and bias, after training on rows `(n, d)` of variance 1."""
    generator = torch.Generator().manual_seed(config.seed)
    net = [
        torch.randn(x.shape[1], config.hidden, generator=generator) * (2 / x.shape[1]) ** 0.5,
        torch.zeros(config.hidden),
        torch.randn(config.hidden, config.bits, generator=generator) * config.hidden**-0.5,
        torch.zeros(config.bits),
    ]
    for tensor in net:
        tensor.requires_grad_()
    optimiser = torch.optim.Adam(net, lr=config.lr)
    batch = min(config.batch, len(x))
    for _ in range(config.epochs):
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - batch + 1, batch):
            part = x[order[start : start + batch]].repeat(2, 1)
            part = part + config.noise * torch.randn(part.shape, generator=generator)
            one, other = ((part @ net[0] + net[1]).relu() @ net[2] + net[3]).chunk(2)
            p, q = one.sigmoid(), other.sigmoid()
            total = contrast(signs(one), signs(other), config.temperature)
            total = total + config.beta * (divergence(p, q) + divergence(q, p)) / 2
            optimiser.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    a, b, c, d = (tensor.detach().numpy().astype(np.float64) for tensor in net)
    return a, b, c, d
