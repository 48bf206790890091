"""What a training has to show: sums over an epoch's steps, a record per epoch, `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semblance.contracts import Loss
from semblance.errors import TrainingCollapsed
from semblance.files import write_atomic
from semblance.training import health

__all__ = ["Ledger"]

Array = np.ndarray[Any, np.dtype[Any]]
LOOK_EVERY = 50
"""Steps between two looks at the loss on a device where looking means waiting."""


class Ledger:
    """The books of one training: `history` has a record per finished epoch, `sums` the open epoch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kind = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPU has no float64
        self.history: list[dict[str, Any]] = []
        self.sums: dict[str, Tensor] = {}

    def add(self, loss: Loss, epoch: int, step: int) -> None:
        """Take in one step. Raises `TrainingCollapsed` where the sum of the losses is not finite."""
        seen = {"loss": loss.total, **{f"terms.{k}": v for k, v in loss.terms.items()}}
        seen |= {f"stats.{k}": v for k, v in loss.stats.items()}
        for name, value in seen.items():
            wide = value.detach().to(self.kind)
            self.sums[name] = self.sums[name] + wide if name in self.sums else wide.clone()
        look = self.device.type == "cpu" or step % LOOK_EVERY == 0
        if look and not torch.isfinite(self.sums["loss"]):
            raise TrainingCollapsed(
                f"the loss is not finite at epoch {epoch + 1}, step {step + 1}",
                "lower --training.lr or use --precision 32",
            )

    def mean_loss(self, steps: int) -> float:
        """The mean loss of the open epoch's `steps` so far."""
        return float(self.sums["loss"]) / steps

    def close(self, epoch: int, steps: int, seconds: float, rate: float, sample: Array) -> None:
        """End an epoch of `steps` steps: means of the sums, and the health of `sample` `(n, d)`."""
        if not np.isfinite(sample).all():
            raise TrainingCollapsed(
                f"the embedding is not finite after epoch {epoch + 1}", "lower --training.lr"
            )
        means = {name: float(value) / steps for name, value in self.sums.items()}
        self.sums = {}
        stats = {k[6:]: v for k, v in means.items() if k.startswith("stats.")}
        signs: dict[str, Any] = {k: stats.pop(k) for k in ("positive_cosine", "used_clusters") if k in stats}
        stats.pop("mean_cosine", None)
        shares = {k[6:]: stats.pop(k) for k in list(stats) if k.startswith("share.")}
        if shares:
            signs["gradient_shares"] = shares
        self.history.append(
            {
                "epoch": epoch + 1,
                "seconds": round(seconds, 3),
                "lr": rate,
                "loss": means["loss"],
                "terms": {k[6:]: v for k, v in means.items() if k.startswith("terms.")},
                "stats": stats,
                "health": health.measure(sample) | signs,
            }
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {"history": self.history, "sums": {name: float(value) for name, value in self.sums.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put a checkpoint's `state()` back."""
        self.history = list(state["history"])
        self.sums = {
            name: torch.tensor(value, dtype=self.kind, device=self.device)
            for name, value in state["sums"].items()
        }

    def write(self, path: Path) -> None:
        """Replace `path` by one line of JSON per finished epoch."""
        lines = "".join(json.dumps(record) + "\n" for record in self.history)
        write_atomic(path, lines.encode())
