"""How a training runs: length, batch, optimiser, schedule, seed, device, views."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from semblance.errors import ConfigError
from semblance.images.views import Views

__all__ = ["TrainConfig", "choose_device", "choose_precision", "learning_rate"]


@dataclass(frozen=True)
class TrainConfig:
    """Every knob of a training; `epochs` or, where set, `budget` seconds decide its length.

    `batch` is the global one (all ranks together). `lr` None: 2e-3, for SGD 0.03. `schedule`:
    `cosine` to 0, `constant`, or `steps` (`factors[i]` from epoch `milestones[i]` on); each after a linear
    warm-up over the share `warmup` of all steps. `patience`: epochs without spread before a training
    is called collapsed, 0 for never.
    """

    epochs: int = 20
    budget: float | None = None
    batch: int = 64
    optimiser: Literal["muon", "adamw", "sgd"] = "muon"
    lr: float | None = None
    weight_decay: float = 0.01
    momentum: float = 0.9
    schedule: Literal["cosine", "constant", "steps"] = "cosine"
    milestones: tuple[int, ...] = ()
    factors: tuple[float, ...] = ()
    warmup: float = 0.05
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "32", "bf16"] = "auto"
    patience: int = 2
    views: Views = field(default_factory=Views)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise ConfigError(
                f"epochs={self.epochs}, batch={self.batch}", "at least 1 epoch and a batch of 2"
            )
        if self.budget is not None and self.budget <= 0:
            raise ConfigError(f"the budget is {self.budget} seconds", "give a time such as 10m")
        known = self.optimiser in ("muon", "adamw", "sgd")
        if not known or self.schedule not in ("cosine", "constant", "steps"):
            raise ConfigError(
                f"optimiser {self.optimiser!r}, schedule {self.schedule!r}",
                "muon, adamw or sgd; cosine, constant or steps",
            )
        if len(self.milestones) != len(self.factors) or not 0 <= self.warmup < 1:
            raise ConfigError("one factor for each milestone, and a warm-up share below 1 are needed")
        stepped = self.schedule == "steps"
        if list(self.milestones) != sorted(set(self.milestones)) or stepped > bool(self.milestones):
            raise ConfigError(
                f"milestones are {','.join(map(str, self.milestones)) or 'none'}",
                "the schedule steps needs epochs in rising order",
            )
        if not 0 < self.base_lr() < math.inf or not 0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"lr={self.lr}, weight_decay={self.weight_decay}", "lr above 0, weight decay of 0 or more"
            )
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum is {self.momentum}", "0 or more, below 1")

    def base_lr(self) -> float:
        """The peak learning rate."""
        return self.lr if self.lr is not None else (0.03 if self.optimiser == "sgd" else 2e-3)

    def identity(self) -> dict[str, Any]:
        """What must agree for a checkpoint to be continued (not: device, budget, patience)."""
        values = dataclasses.asdict(self)
        for free in ("device", "patience", "budget"):
            values.pop(free)
        if self.budget is not None:
            values.pop("epochs")
        return values


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of step `step` (from 0) in a training of `epochs` epochs."""
    total = max(1, steps_per_epoch * epochs)
    warm = max(1, round(config.warmup * total)) if config.warmup else 0
    if step < warm:
        return config.base_lr() * (step + 1) / warm
    if config.schedule == "cosine":
        return config.base_lr() * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    if config.schedule == "steps":
        passed = [
            f for m, f in zip(config.milestones, config.factors, strict=True) if step // steps_per_epoch >= m
        ]
        return config.base_lr() * (passed[-1] if passed else 1.0)
    return config.base_lr()


def choose_device(wanted: str) -> torch.device:
    """`auto`: CUDA, then Apple's GPU, then the CPU. Raises `ConfigError` for a device that is not there."""
    if wanted == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ConfigError(f'there is no device "{wanted}"', "auto, cpu, cuda, cuda:1 or mps") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise ConfigError(f'the device "{wanted}" is not available here', "try --device auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"there are {torch.cuda.device_count()} CUDA devices, not {wanted}")
    return device


def choose_precision(wanted: str, device: torch.device) -> str:
    """`32` or `bf16`; `auto` takes bf16 where the processor or GPU multiplies it in hardware."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "32"


def cpu_has_bf16() -> bool:
    """Whether this processor has bf16 dot products (AVX-512 BF16 or AMX)."""
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        return bool(
            capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
        )
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(check())
