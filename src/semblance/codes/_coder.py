"""What every coder shares: real values, a threshold per bit, and the sign of the difference.

A method subclasses `ThresholdCoder` and writes `learn` (rows -> arrays). The values are linear,
`x @ arrays["weights"]`, unless it writes `values` too. It says with `level` which threshold it takes where
`learn` returns none, and which `rethreshold` sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.codes._bits import check_bits, pack
from semblance.codes._rows import Floats, Labels, Rows, Wide, as_labels, as_rows, blocks, check_spread, sample
from semblance.errors import CollectionError, ConfigError

__all__ = ["ThresholdCoder", "halfway"]

THRESHOLD_ROWS = 50_000
"""Medians are those of at most this many rows, drawn by the seed."""

Arrays = dict[str, NDArray[Any]]
Self = TypeVar("Self", bound="ThresholdCoder")


class Configured(Protocol):
    """What the configuration of every coder has."""

    @property
    def bits(self) -> int:
        """Length of a code, a multiple of 8."""
        ...

    @property
    def seed(self) -> int:
        """Start of every random number."""
        ...


class ThresholdCoder:
    """A coder: bit i is set where value i of a row is at least threshold i.

    `labels`: whether `fit` needs them. `level`: the threshold is the "mean" or the "median" of the values.
    """

    labels: ClassVar[bool] = False
    level: ClassVar[Literal["mean", "median"]] = "mean"

    def __init__(self, config: Configured) -> None:
        check_bits(config.bits)
        self.config: Any = config
        self._arrays: Arrays = {}
        self._dim: int | None = None

    def learn(self, x: Rows, y: Labels | None) -> Arrays:
        """What the method learns from rows `(n, d)`, finite and not all alike, by name.

        With "threshold" `(bits,)` among them it is taken as it is; else it is set by `level`.
        """
        raise ConfigError(f"{type(self).__module__} does not say how it learns", "write learn(x, y)")

    def values(self, x: Wide, arrays: Arrays) -> Wide:
        """The real values `(n, bits)` of rows `(n, d)`, both float64, before the threshold."""
        values: Wide = x @ arrays["weights"]
        return values

    @property
    def dim_in(self) -> int | None:
        """How many dimensions an embedding has; None before `fit`."""
        return self._dim

    def fit(self: Self, x: ArrayLike, y: ArrayLike | None = None) -> Self:
        """This coder, fitted on embeddings `(n, d)`; see the room's contract for `y`.

        Raises `InputError` for embeddings or labels that cannot be used, `ConfigError` where the method
        cannot give so many bits. The coder stays as it was then.
        """
        rows = as_rows(x)
        check_spread(rows)
        arrays = self.learn(rows, as_labels(y, len(rows)) if self.labels else None)
        if "threshold" not in arrays:
            arrays["threshold"] = self._level(rows, arrays)
        self._arrays, self._dim = arrays, rows.shape[1]
        return self

    def rethreshold(self: Self, x: ArrayLike) -> Self:
        """This coder with the thresholds that the embeddings `(n, d)` of another domain ask for.

        What was learned beside them stays, and so do distances between codes made after; codes made before
        are of another kind. Raises `InputError` as `fit` does.
        """
        rows = as_rows(x, self._fitted())
        check_spread(rows)
        self._arrays = {**self._arrays, "threshold": self._level(rows, self._arrays)}
        return self

    def project(self, x: ArrayLike) -> Floats:
        """The real values before the sign, `(n, bits)` float32, of embeddings `(n, d)`."""
        rows = as_rows(x, self._fitted())
        out = np.empty((len(rows), self.config.bits), dtype=np.float32)
        for first, block in blocks(rows, self.config.bits):
            out[first : first + len(block)] = self._signed(block)
        return out

    def encode(self, x: ArrayLike) -> NDArray[np.uint8]:
        """The codes `(n, bits / 8)` uint8 of embeddings `(n, d)`."""
        rows = as_rows(x, self._fitted())
        out = np.empty((len(rows), self.config.bits // 8), dtype=np.uint8)
        for first, block in blocks(rows, self.config.bits):
            out[first : first + len(block)] = pack(self._signed(block) >= 0)
        return out

    def state(self) -> Arrays:
        """Everything that was learned, by name; `restore` takes it back."""
        return {"dim_in": np.array([self._fitted()], dtype=np.int64), **self._arrays}

    @classmethod
    def restore(cls: type[Self], config: Any, state: Mapping[str, NDArray[Any]]) -> Self:
        """The coder whose `state` this is. Raises `CollectionError` for the state of another."""
        coder = cls(config)
        arrays = {name: np.array(value) for name, value in state.items()}
        try:
            dim = int(arrays.pop("dim_in")[0])
            coder._arrays, coder._dim = arrays, dim
            sound = arrays["threshold"].shape == (config.bits,) and dim > 0
            if not sound or coder._signed(np.zeros((1, dim))).shape != (1, config.bits):
                raise ValueError("its parts do not fit together")
        except (KeyError, ValueError, TypeError, IndexError) as error:
            what = f"this is not the state of a {config.bits}-bit {cls.__module__.rpartition('.')[2]} coder"
            raise CollectionError(f"{what}: {error}", "fit it again") from error
        return coder

    def _fitted(self) -> int:
        if self._dim is None:
            raise ConfigError("the coder was not fitted", "call fit(x) first")
        return self._dim

    def _signed(self, block: Wide) -> Floats:
        """Values less thresholds. In float64 until here: a row's bits do not depend on its neighbours."""
        with np.errstate(over="ignore", under="ignore"):
            return (self.values(block, self._arrays) - self._arrays["threshold"]).astype(np.float32)

    def _level(self, x: Rows, arrays: Arrays) -> Wide:
        if self.level == "mean":
            total = np.zeros(self.config.bits)
            for _, block in blocks(x, self.config.bits):
                total += self.values(block, arrays).sum(axis=0)
            return total / len(x)
        kept = x[sample(x, THRESHOLD_ROWS, self.config.seed)]
        values = np.empty((len(kept), self.config.bits))
        for first, block in blocks(kept, self.config.bits):
            values[first : first + len(block)] = self.values(block, arrays)
        return halfway(values)


def halfway(values: Wide) -> Wide:
    """The threshold `(bits,)` of each column of `values` `(n, bits)` that parts it most evenly.

    It lies half way between two neighbouring values, never on one, so that no rounding decides a bit.

    >>> halfway(np.array([[0.0], [1.0], [1.0], [4.0]])).tolist()
    [0.5]
    """
    n, bits = values.shape
    out = np.empty(bits)
    for i in range(bits):
        column = np.sort(values[:, i])
        steps = np.flatnonzero(np.diff(column) > 1e-7 * max(abs(column[0]), abs(column[-1])))
        if len(steps) == 0:
            out[i] = column[0]
            continue
        cut = steps[np.argmin(np.abs(steps + 1 - n / 2))]
        out[i] = (column[cut] + column[cut + 1]) / 2
    return out
