"""What a training runs on: Fabric for one process or several, the optimiser, memory, Ctrl-C."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from semblance import ranks
from semblance.training.config import TrainConfig, choose_device, choose_precision
from semblance.training.muon import Muon

__all__ = ["ctrl_c", "device_of_rank", "fabric_on", "keep_memory", "least", "optimiser_for", "resident"]

Array = np.ndarray[Any, np.dtype[Any]]
# Fabric names its precision at every start; the line would stand in the middle of a progress bar.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def device_of_rank(wanted: str) -> torch.device:
    """The device that `choose_device` finds; with several processes each its own GPU."""
    device = choose_device(wanted)
    if ranks.count() > 1 and device.type == "cuda" and device.index is None:
        return torch.device("cuda", _local_rank() % torch.cuda.device_count())
    return device


def fabric_on(device: torch.device, precision: str) -> Fabric:
    """Fabric for this process, data-parallel over the ranks where there are several."""
    if ranks.count() == 1:
        devices: Any = [device.index or 0] if device.type == "cuda" else 1
        fabric = Fabric(accelerator=device.type, devices=devices, precision=_mixed(precision))
        fabric.launch()
        return fabric
    from lightning_fabric.plugins.environments import TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    for name, value in {
        "LOCAL_RANK": _local_rank(),
        "RANK": ranks.index(),
        "WORLD_SIZE": ranks.count(),
    }.items():
        os.environ.setdefault(name, str(value))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.count()))
    strategy = DDPStrategy(cluster_environment=TorchElasticEnvironment(), find_unused_parameters=True)
    fabric = Fabric(
        accelerator=device.type,
        strategy=strategy,
        devices=here,
        num_nodes=ranks.count() // here,
        precision=_mixed(precision),
    )
    fabric.launch()
    return fabric


def optimiser_for(objective: Any, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """Muon, AdamW or SGD over the objective's parameter groups; only what takes a gradient."""
    groups = (
        objective.parameter_groups()
        if hasattr(objective, "parameter_groups")
        else [{"params": list(objective.parameters())}]
    )
    groups = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    lr, decay = config.base_lr(), config.weight_decay
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, weight_decay=decay, fused=True)
    if config.optimiser == "muon":
        return Muon(groups, lr, decay, choose_precision(config.precision, device) == "bf16")
    return torch.optim.AdamW(groups, lr=lr, weight_decay=decay, fused=True)


def resident(pixels: Array, device: torch.device) -> Tensor | None:
    """The whole store on the GPU, where it takes less than half of the free memory."""
    if device.type != "cuda" or pixels.nbytes * 2 > torch.cuda.mem_get_info(device)[0]:
        return None
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device)


def keep_memory() -> None:
    """Have the C library keep what is freed (glibc; elsewhere nothing happens).

    A step frees and takes the same large blocks as the one before. By default glibc hands each back to the
    system, which then clears every page again: up to a third of a step.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, value in ((-3, 2**30), (-1, 2**31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            library.mallopt(option, value)


def least(value: float, device: torch.device) -> float:
    """The smallest of the ranks' values: what all can agree on."""
    if ranks.count() == 1:
        return value
    shared = torch.tensor(float(value), device=device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MIN)
    return float(shared)


@contextlib.contextmanager
def ctrl_c(say: Callable[[str], object] | None = None) -> Iterator[threading.Event]:
    """While training, the first Ctrl-C only raises a flag, and is said; a second one interrupts at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handle(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()
        if say is not None:
            say("stopping at the next safe place (Ctrl-C again: at once)")

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", ranks.index()))


def _mixed(precision: str) -> Any:
    return "bf16-mixed" if precision == "bf16" else "32-true"
