"""Supervised discrete hashing: bits from which the classes can be read linearly, found without relaxing them.

Shen et al. (CVPR 2015). With kernel features phi (RBF to random anchors), codes B of -1 and
1, labels Y and two ridge regressions,

    min over W, P, B of  |Y - B W|^2 + l |W|^2 + v ( |B - phi(X) P|^2 + e |P|^2 ) + g tr(B^T L B),

each in turn: W and P in closed form, B one bit after another, each exactly (discrete cyclic coordinate
descent). New rows are encoded by sign(phi(x) P). The last term, off by default, is the projection
constraint of OPSDH (Zhang, Liu and Sun), of which only the abstract could be read, realised as smoothness
over an anchor graph: L = I - Z D^-1 Z^T, Z the row's weights of its nearest anchors.

When: frozen embeddings and labels; strong on many classes, no gradient anywhere, single or several labels.

Cost: `n anchors (d + bits rounds)` operations and `4 n anchors` bytes while it is fitted, at most 50,000
labelled rows (of more the seed draws); `anchors (d + bits)` operations to encode a row.

The paper starts from random codes. Here a class starts at the signs of its mean features under a random
projection: no bit is the same for all, similar classes start alike, and codes found so were better on every
set tried. With one label a row and a small v that start is often where the descent ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from semblance.codes._coder import Arrays, ThresholdCoder
from semblance.codes._rows import Labels, Rows, Wide, sample
from semblance.errors import ConfigError, InputError

__all__ = [
    "Coder",
    "Config",
    "Graph",
    "anchor_graph",
    "descend",
    "first_codes",
    "objective",
    "rbf",
    "ridge",
]

MOST_ROWS = 50_000
SWEEPS = 5
"""Most passes over the bits in one round; a round ends when a pass changes nothing."""
BLOCK = 4096
NEAREST = 3
"""Anchors that a row of the graph is made of."""


@dataclass(frozen=True)
class Config:
    """`bits`: length of a code. `seed`: of anchors and first codes. `anchors`: of the kernel, at most as many
    as labelled rows. `width`: of the kernel, as a share of the mean distance between rows and anchors.
    `rounds`: of W, P and B. `l`: ridge of W. `v`: weight of the fit to the features. `e`: ridge of P, as a
    share of the mean square of a feature, summed over rows. `graph`: weight of the anchor graph.
    """

    bits: int = 64
    seed: int = 0
    anchors: int = 1000
    width: float = 0.5
    rounds: int = 5
    l: float = 1.0  # noqa: E741
    v: float = 1e-5
    e: float = 1e-3
    graph: float = 0.0

    def __post_init__(self) -> None:
        if self.anchors < 1 or self.rounds < 1 or min(self.width, self.l, self.v, self.e) <= 0:
            raise ConfigError(
                f"anchors={self.anchors}, rounds={self.rounds}, width={self.width}, l={self.l}, v={self.v}, "
                f"e={self.e}",
                "sdh needs all of them above 0",
            )
        if self.graph < 0:
            raise ConfigError(f"graph is {self.graph}", "sdh needs a weight of at least 0")


@dataclass(frozen=True)
class Graph:
    """An anchor graph: similarity A = Z D^-1 Z^T with `z` `(n, anchors)`, rows summing to 1, and `mass` the
    diagonal of D, the column sums of Z."""

    z: csr_array
    mass: Wide

    def smooth(self, b: Wide) -> Wide:
        """A b for `(n,)` or `(n, bits)`."""
        mass = self.mass if b.ndim == 1 else self.mass[:, None]
        smoothed: Wide = self.z @ ((self.z.T @ b) / mass)
        return smoothed


def rbf(x: Wide, anchors: Wide, width: float) -> Wide:
    """phi `(n, anchors)` of rows `(n, d)`: exp(-|x - a|^2 / (2 width^2))."""
    features: Wide = np.exp(squares(x, anchors) / (-2 * width**2))
    return features


def squares(x: Wide, anchors: Wide) -> Wide:
    """Squared distances `(n, anchors)`, none below 0."""
    far = np.square(x).sum(1)[:, None] + np.square(anchors).sum(1)[None] - 2 * (x @ anchors.T)
    kept: Wide = np.maximum(far, 0.0)
    return kept


def ridge(gram: Wide, right: Wide, weight: float) -> Wide:
    """(gram + weight I)^-1 right."""
    solved: Wide = cho_solve(cho_factor(gram + weight * np.eye(len(gram))), right)
    return solved


def anchor_graph(far: NDArray[Any], nearest: int = NEAREST) -> Graph:
    """The graph of rows whose squared distances to the anchors are `far` `(n, anchors)`.

    A row is made of its `nearest` anchors by Gaussian weights as wide as its mean distance to these.
    """
    n, m = far.shape
    nearest = min(nearest, m)
    columns = np.argpartition(far, nearest - 1, axis=1)[:, :nearest]
    near = np.take_along_axis(far, columns, axis=1)
    weights = np.exp(-near / np.maximum(near.mean(1, keepdims=True), 1e-12))
    weights /= weights.sum(1, keepdims=True)
    rows = np.repeat(np.arange(n), nearest)
    z = csr_array((weights.ravel(), (rows, columns.ravel())), shape=(n, m))
    return Graph(z, np.maximum(np.asarray(z.sum(axis=0)), 1e-12))


def descend(b: Wide, q: Wide, w: Wide, graph: Graph | None = None, weight: float = 0.0) -> int:
    """Change codes `b` `(n, bits)` of -1 and 1 in place, bit after bit, until none changes; how many did.

    With all other bits fixed bit k is sign(q_k - B' W' w_k), where W' and B' leave out row and column k of
    `w` `(bits, c)` and `b`; `q` = Y W^T + v phi P `(n, bits)`. With a graph of weight g, g A b_k is added,
    which lowers the objective too: b^T A b is convex. A bit with no preference stays.
    """
    products = w @ w.T
    changed = 0
    for _ in range(SWEEPS):
        before = changed
        for k in range(b.shape[1]):
            wanted = q[:, k] - b @ products[:, k] + b[:, k] * products[k, k]
            if graph is not None:
                wanted = wanted + weight * graph.smooth(b[:, k])
            new = np.where(wanted == 0, b[:, k], np.sign(wanted))
            changed += int((new != b[:, k]).sum())
            b[:, k] = new
        if changed == before:
            break
    return changed


def objective(
    b: Wide, w: Wide, p: Wide, y: Wide, phi: Wide, config: Config, graph: Graph | None = None
) -> float:
    """What is minimised, at codes `b` `(n, bits)`, `w` `(bits, c)`, `p` `(anchors, bits)`."""
    fit = np.square(y - b @ w).sum() + config.l * np.square(w).sum()
    small = config.e * np.square(phi).sum() / phi.shape[1]
    features = np.square(b - phi @ p).sum() + small * np.square(p).sum()
    smooth = 0.0 if graph is None else config.graph * (b.size - (b * graph.smooth(b)).sum())
    return float(fit + config.v * features + smooth)


class Coder(ThresholdCoder):
    """Codes by discrete cyclic coordinate descent, and a kernel regression onto them.

    >>> x, y = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    >>> code = Coder(Config(bits=8)).fit(x, y).encode(x)
    >>> bool((code[0] == code[1]).all()), bool((code[0] == code[2]).all())
    (True, False)
    """

    labels = True

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """Anchors, the kernel's width and P; bits are the signs of phi(x) P."""
        config: Config = self.config
        if y is None:
            raise InputError("this coder learns from labels and was given none", "give y")
        rng = np.random.default_rng(config.seed)
        chosen = sample(y.rows, MOST_ROWS, config.seed)
        rows = np.asarray(x[y.rows[chosen]], dtype=np.float64)
        labels = y.classes[chosen].astype(np.float64)
        anchors = rows[np.sort(rng.choice(len(rows), min(config.anchors, len(rows)), replace=False))]
        far = np.empty((len(rows), len(anchors)), dtype=np.float32)
        for start in range(0, len(rows), BLOCK):
            far[start : start + BLOCK] = squares(rows[start : start + BLOCK], anchors)
        width = config.width * float(np.sqrt(far).mean(dtype=np.float64))
        if width <= 1e-6 * float(np.abs(rows).max()):
            raise InputError("all labelled embeddings are the same", "label images that differ")
        graph = anchor_graph(far) if config.graph else None
        phi = np.exp(far / np.float32(-2 * width**2), out=far)
        p = _alternate(phi, labels, config, graph, rng)
        return {"anchors": anchors, "width": np.array([width]), "p": p, "threshold": np.zeros(config.bits)}

    def values(self, x: Wide, arrays: Arrays) -> Wide:
        """phi(x) P."""
        out = np.empty((len(x), arrays["p"].shape[1]))
        for start in range(0, len(x), BLOCK):  # a row of features is longer than the row
            block = rbf(x[start : start + BLOCK], arrays["anchors"], float(arrays["width"][0]))
            out[start : start + BLOCK] = block @ arrays["p"]
        return out


def first_codes(phi: NDArray[np.float32], y: Wide, bits: int, rng: np.random.Generator) -> Wide:
    """Codes `(n, bits)` of -1 and 1 to start from: random projections of the classes' mean features, each
    parted at the median class, and for a row the sign of the sum over its classes."""
    drawn = phi @ rng.standard_normal((phi.shape[1], bits)).astype(np.float32)
    means: Wide = (y.T @ drawn) / y.sum(0)[:, None]
    return np.where(y @ (means - np.median(means, axis=0)) >= 0, 1.0, -1.0)


def _alternate(
    phi: NDArray[np.float32], y: Wide, config: Config, graph: Graph | None, rng: np.random.Generator
) -> Wide:
    """P `(anchors, bits)` after the rounds, for features `(n, anchors)` and labels `(n, c)` of 0 and 1."""
    gram = (phi.T @ phi).astype(np.float64)
    small = config.e * float(np.trace(gram)) / len(gram)
    factor = cho_factor(gram + small * np.eye(len(gram)))
    b = first_codes(phi, y, config.bits, rng)
    p: Wide = cho_solve(factor, (phi.T @ b.astype(np.float32)).astype(np.float64))
    for _ in range(config.rounds):
        w = ridge(b.T @ b, b.T @ y, config.l)
        q: Wide = y @ w.T + config.v * (phi @ p.astype(np.float32))
        changed = descend(b, q, w, graph, config.graph)
        p = cho_solve(factor, (phi.T @ b.astype(np.float32)).astype(np.float64))
        if not changed:
            break
    return p
