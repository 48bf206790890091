"""Muon: weight matrices move along the nearest orthogonal matrix of their momentum, the rest as in AdamW.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. All directions of a matrix
move at one pace, those that its gradient hardly shows too: it learns more per step than AdamW, and steps are
what a few minutes are short of (docs/results/sweep.md). A convolution's filters are the rows of its matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon", "is_matrix", "orthogonal"]

CURVE = (3.4445, -4.7750, 2.0315)
ROUNDS = 3
"""Five are usual; three taught as much in trials, and 16 bits are enough for their products."""
PACE = 10.0
"""A matrix's learning rate, in those of the other weights."""
MEMORY = 0.95
LEAST = 16


def is_matrix(weight: Tensor) -> bool:
    """Whether `weight` is moved as a matrix: both sides of it, rows by all the rest, are at least 16."""
    return weight.ndim >= 2 and min(weight.shape[0], weight[0].numel()) >= LEAST


def orthogonal(x: Tensor, narrow: bool = False) -> Tensor:
    """`U f(S) V^T` of `x = U S V^T` `(r, c)` over its Frobenius norm; f is CURVE's odd quintic, three times,
    which lifts small singular values up to 40 times and holds large ones near 1.

    The rounds run on the Gram matrix of the shorter side, whose powers commute: `x` itself takes part in two
    products in place of nine. `narrow`: in bfloat16, for matrices of a network within 3 percent.
    """
    wide = x if x.shape[0] <= x.shape[1] else x.mT
    wide = wide / wide.norm().clamp(min=1e-7)
    wide = wide.bfloat16() if narrow else wide
    gram, product = wide @ wide.mT, None
    a, b, c = CURVE
    for number in range(ROUNDS):
        step = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal().add_(a)
        product = step if product is None else product @ step
        if number + 1 < ROUNDS:
            gram = step @ (step @ gram)
    assert product is not None
    found: Tensor = (product @ wide).to(x.dtype)
    return found if x.shape[0] <= x.shape[1] else found.mT


class Muon(torch.optim.AdamW):
    """AdamW whose groups with `matrices` set move by the orthogonal part of their Nesterov momentum.

    Per step: `M <- 0.95 M + 0.05 G`, `W <- (1 - lr decay) W - 10 lr sqrt(max(1, r / c)) orthogonal(0.95 M +
    0.05 G)`, with `(r, c)` the matrix's sides. `narrow`: the products of matrices are taken in bfloat16.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, weight_decay: float, narrow: bool = False
    ) -> None:
        self.narrow = narrow
        parts = []
        for group in groups:
            for matrices in (True, False):
                own = [weight for weight in group["params"] if is_matrix(weight) is matrices]
                if own:
                    parts.append({**group, "params": own, "matrices": matrices})
        super().__init__(parts, lr=lr, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step; the gradients of matrices are let go of."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"] if group["matrices"] else ():
                if weight.grad is not None:
                    self._turn(weight, weight.grad, group["lr"], group["weight_decay"])
                    weight.grad = None
        super().step()
        return loss

    def _turn(self, weight: Tensor, gradient: Tensor, lr: float, decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)  # which AdamW wants to find on loading
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(gradient, 1 - MEMORY)
        ahead = torch.lerp(gradient, momentum, MEMORY).flatten(1)
        tall = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
        turned = orthogonal(ahead, self.narrow).reshape(weight.shape)
        weight.mul_(1 - lr * decay).sub_(turned, alpha=PACE * lr * tall)
