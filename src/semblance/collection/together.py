"""Several processes that build one collection, started by `torchrun`: the first does all but the training.

The others wait at the rendezvous until the first has decoded the images, train with it, and wait again until
the collection is in place. Outside `torchrun` nothing here does anything.
"""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["finish", "follows", "hear", "tell"]

PATIENCE = datetime.timedelta(days=7)
"""Decoding may take long; if the first process dies, `torchrun` ends the others."""


def follows() -> bool:
    """Whether this process is one of several and not the first."""
    return _count() > 1 and int(os.environ.get("RANK", "0")) > 0


def tell(message: dict[str, Any]) -> None:
    """Hand `message` to the processes that `hear`; called by the first."""
    if _count() > 1:
        _join()
        dist.broadcast_object_list([message], src=0, device=torch.device("cpu"))


def hear() -> dict[str, Any]:
    """The next message of the first process."""
    _join()
    received: list[Any] = [None]
    dist.broadcast_object_list(received, src=0, device=torch.device("cpu"))
    message: dict[str, Any] = received[0]
    return message


def finish() -> None:
    """Part from the others."""
    if _count() > 1 and dist.is_initialized():
        dist.destroy_process_group()


def _count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1


def _join() -> None:
    if dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
