"""The training loop: pixel store in, trained objective out; stop anywhere, go on with the same command.

Every random stream is derived from (seed, epoch, step), so a training that was killed and started again
from its checkpoint takes exactly the steps it would have taken: the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semblance import ranks
from semblance.contracts import Loss, Progress
from semblance.errors import ConfigError
from semblance.training import checkpoint, health
from semblance.training.batches import Batches
from semblance.training.config import TrainConfig, choose_precision, learning_rate
from semblance.training.embed import embed
from semblance.training.ledger import Ledger
from semblance.training.machine import (
    ctrl_c,
    device_of_rank,
    fabric_on,
    keep_memory,
    least,
    optimiser_for,
)
from semblance.training.positives import Positives

__all__ = ["READ", "TrainResult", "train"]

Array = np.ndarray[Any, np.dtype[Any]]
SAMPLE = 2000
READ = 10_000
"""Images that say how what an encoder makes of them varies."""
SAVE_EVERY = 120.0
TIMING_STEPS = 8
ASK_EVERY = 10
SAY_EVERY = 1.0


@dataclass
class TrainResult:
    """What a training came to: epochs done, seconds in all (earlier runs included), a record per epoch."""

    epochs: int
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)


def train(
    pixels: Array,
    objective: nn.Module,
    config: TrainConfig,
    folder: Path,
    size: int,
    progress: Progress | None = None,
    positives: Positives | None = None,
) -> TrainResult:
    """Train `objective` (in place) on `pixels` `(n, h, w, c)` uint8 or uint16; views of `size` pixels.

    `positives` says whose images make the second views, in place of what the objective says.

    Writes `folder/checkpoint/last.safetensors` (every epoch, every two minutes, on Ctrl-C) and
    `folder/metrics.jsonl`; continues from them where they are. Where a process group of torch is open, the
    batch is shared among its ranks. Raises `ConfigError` (nothing to train on, budget below an epoch, more
    clusters than images in a batch), `TrainingCollapsed`, `CollectionError` for a damaged checkpoint or a
    full disk, and `KeyboardInterrupt` after a clean stop.
    """
    if len(pixels) < 2:
        raise ConfigError(f"{len(pixels)} image cannot be learned from", "at least 2 are needed")
    return _Training(pixels, objective, config, Path(folder), size, progress, positives).run()


class _Training:
    def __init__(
        self,
        pixels: Array,
        objective: Any,
        config: TrainConfig,
        folder: Path,
        size: int,
        progress: Progress | None,
        positives: Positives | None,
    ) -> None:
        self.pixels, self.config, self.size, self.progress = pixels, config, size, progress
        self.folder, self.path = folder, folder / "checkpoint" / "last.safetensors"
        self.batch = min(config.batch, len(pixels)) // ranks.count() * ranks.count()
        if self.batch < 2:
            raise ConfigError(
                f"{len(pixels)} images in batches of {config.batch} cannot be shared by {ranks.count()}",
                "fewer processes",
            )
        if hasattr(objective, "check_batch"):
            objective.check_batch(self.batch)
        keep_memory()
        self.device = device_of_rank(config.device)
        self.fabric = fabric_on(self.device, choose_precision(config.precision, self.device))
        self.objective = objective.to(self.device).to(memory_format=torch.channels_last)
        self.optimiser = optimiser_for(self.objective, config, self.device)
        module, self.stepper = self.fabric.setup(self.objective, self.optimiser)
        self.module: Any = module
        self.steps = len(pixels) // self.batch
        self.epochs = config.epochs
        self.ledger = Ledger(self.device)
        self.refit = False  # another budget than the checkpoint's
        self.before = self.said = 0.0
        self.once = self.ahead = 0.0  # seconds that come once, and those before every epoch's first step
        self.first: float | None = None  # when the first step of all was done
        self.draw = Batches(pixels, self.objective, config, size, self.batch, self.device, positives)

    def run(self) -> TrainResult:
        epoch, step = self._resume()
        self.started = self.saved = time.monotonic()
        if self.refit:
            self._fit_budget(epoch, 0)
        with ctrl_c(getattr(self.progress, "say", None)) as interrupted:
            while epoch < self.epochs:
                if step == 0 and hasattr(self.objective, "before_epoch"):
                    begin = time.monotonic()
                    self.objective.before_epoch(self._features)
                    self.ahead = time.monotonic() - begin
                while step < self.steps:
                    self._step(epoch, step)
                    step += 1
                    if (epoch, step) == (0, 1):
                        self.first = self._elapsed()
                    if epoch == 0 and step == min(TIMING_STEPS, max(2, self.steps // 2)):
                        self._fit_budget(0, step)
                    stop = self._stops(interrupted, step)
                    if stop or time.monotonic() - self.saved > SAVE_EVERY:
                        self._save(epoch, step)
                        if stop:
                            raise KeyboardInterrupt
                self._end_epoch(epoch)
                epoch, step = epoch + 1, 0
                self._fit_budget(epoch, 0)
                self._save(epoch, 0)
                self._check()
                if self._stops(interrupted, 0):
                    raise KeyboardInterrupt
        if hasattr(self.objective, "read"):
            self.objective.head = self.objective.read(self._features("finish", READ, levels=True))
        elif hasattr(self.objective, "finish"):
            self.objective.finish(functools.partial(self._features, "finish"), self.objective.head)
        self.objective.eval()
        return TrainResult(epoch, self._elapsed(), self.ledger.history)

    def _stops(self, interrupted: threading.Event, step: int) -> bool:
        """Whether all ranks stop after this step; several ask each other now and then: it means waiting."""
        if ranks.count() > 1 and step % ASK_EVERY and step < self.steps:
            return False
        return least(-float(interrupted.is_set()), self.device) < 0

    def _step(self, epoch: int, step: int) -> None:
        batch = self.draw(epoch, step)
        rate = learning_rate(self.config, epoch * self.steps + step, self.steps, self.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.objective.train()
        loss: Loss = self.module(batch)
        self.fabric.backward(loss.total)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        if hasattr(self.objective, "after_step"):
            self.objective.after_step()
        self.ledger.add(loss, epoch, step)
        if self.progress:
            done = (epoch * self.steps + step + 1) * self.batch
            self.progress("learn", done, self.epochs * self.steps * self.batch)
            self._say(epoch, step + 1)

    def _say(self, epoch: int, steps: int) -> None:
        """Tell who wants to hear it how the open epoch goes, once a second: on a device, asking waits."""
        note = getattr(self.progress, "note", None)
        if note is not None and time.monotonic() - self.said > SAY_EVERY:
            self.said = time.monotonic()
            note("learn", f"epoch {epoch + 1} of {self.epochs}, loss {self.ledger.mean_loss(steps):.3f}")

    def _end_epoch(self, epoch: int) -> None:
        sample = self._embed(self.objective.head, self.pixels[self._some(SAMPLE)])
        rate = learning_rate(self.config, (epoch + 1) * self.steps - 1, self.steps, self.epochs)
        self.ledger.close(epoch, self.steps, self._elapsed(), rate, sample)

    def _check(self) -> None:
        name = type(self.objective).__module__.split(".")[-1]
        health.check(self.ledger.history, self.config, name)

    def _fit_budget(self, epoch: int, step: int) -> None:
        """With a budget: as many whole epochs as fit, from the pace so far; what the first step takes longer
        than the others is spent once."""
        if self.config.budget is None:
            return
        if step and self.first is not None:
            each = (self._elapsed() - self.first) / (step - 1)
            pace = self.ahead + each * self.steps
            self.once = max(0.0, self._elapsed() - self.ahead - each * step)
        else:
            pace = (self._elapsed() - self.once) / (epoch + step / self.steps)
        fits = int(least((self.config.budget - self.once) / max(pace, 1e-9), self.device))
        if step and fits < 1:
            raise ConfigError(
                f"one epoch takes about {pace:.0f} s here, the budget is {self.config.budget:.0f} s",
                "give more --budget, fewer images or a smaller encoder",
            )
        self.epochs = max(epoch, fits)

    def _resume(self) -> tuple[int, int]:
        if not self.path.exists():
            return 0, 0
        meta = checkpoint.load(self.path, self.objective, self.optimiser)
        if meta["identity"] != self._identity():
            raise ConfigError(
                f"{self.path} is of a training with other settings",
                "repeat them, or delete it to start again",
            )
        self.ledger.restore(meta)
        self.before, self.once = meta["seconds"], meta.get("once", 0.0)
        same = self.config.budget == meta.get("budget", self.config.budget)
        self.epochs = meta["epochs"] if self.config.budget is not None else self.config.epochs
        self.refit = not same and meta["epoch"] > 0 and meta["step"] == 0
        if ranks.index() == 0:  # a kill may have fallen between the checkpoint and its metrics
            self.ledger.write(self.folder / "metrics.jsonl")
        if meta["step"] == 0:
            self._check()
        return meta["epoch"], meta["step"]

    def _save(self, epoch: int, step: int) -> None:
        self.saved = time.monotonic()
        if ranks.index() != 0:
            return
        position: dict[str, Any] = {"epoch": epoch, "step": step, "epochs": self.epochs}
        position |= {"seconds": self._elapsed(), "once": self.once, "budget": self.config.budget}
        meta = {"identity": self._identity(), **position, **self.ledger.state()}
        checkpoint.save(self.path, self.objective, self.optimiser, meta)
        self.ledger.write(self.folder / "metrics.jsonl")

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued, as JSON."""
        objective = getattr(self.objective, "config", None)
        described = None
        if dataclasses.is_dataclass(objective) and not isinstance(objective, type):
            described = dataclasses.asdict(objective)
        facts = {
            "objective": [type(self.objective).__module__, described],
            "images": len(self.pixels),
            "size": self.size,
            "steps": [self.steps, self.batch],
        }
        if self.draw.positives:
            facts["positives"] = self.draw.positives.name
        identity: dict[str, Any] = json.loads(json.dumps(self.config.identity() | facts))
        return identity

    def _elapsed(self) -> float:
        return self.before + time.monotonic() - self.started

    def _features(self, stage: str = "neighbours", most: int | None = None, levels: bool = False) -> Tensor:
        pixels = self.pixels if most is None or most >= len(self.pixels) else self.pixels[self._some(most)]
        return torch.from_numpy(self._embed(None, pixels, self.progress, stage, levels)).to(self.device)

    def _some(self, most: int) -> Array:
        return np.linspace(0, len(self.pixels) - 1, min(most, len(self.pixels))).astype(np.int64)

    def _embed(
        self,
        head: Any,
        pixels: Array,
        progress: Progress | None = None,
        stage: str = "",
        levels: bool = False,
    ) -> Array:
        return embed(
            self.objective.encoder,
            head,
            pixels,
            self.size,
            device=str(self.device),
            precision=self.config.precision,
            crop=self.config.views.crop,
            levels=levels,
            progress=progress,
            stage=stage,
        )
