"""Everything with state, in one safetensors file: module, optimiser, position, history.

Random streams are not stored because they need not be: every one is derived from (seed, epoch, step).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from semblance.errors import CollectionError
from semblance.files import disk_error

__all__ = ["load", "save", "stream"]


def stream(seed: int, *position: int) -> torch.Generator:
    """A generator of its own for every (seed, epoch, step, ...): nothing to save, nothing to drift."""
    digest = hashlib.blake2b(json.dumps([seed, *position]).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def save(path: Path, module: nn.Module, optimiser: Optimizer, meta: Mapping[str, Any]) -> None:
    """Write a checkpoint beside `path` and rename: the old one stands until the new one is whole."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value
    whole = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".writing")
    try:
        save_file(whole, beside, metadata={"semblance": json.dumps(meta)})
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise disk_error(path, _system_error(error)) from error


def _system_error(error: Exception) -> OSError:
    """What the system said; safetensors hands its number on in words only."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def load(path: Path, module: nn.Module, optimiser: Optimizer) -> dict[str, Any]:
    """Put a checkpoint's state into `module` and `optimiser`; returns its `meta`.

    Raises `CollectionError` for a damaged file or one of another network.
    """
    try:
        with safe_open(path, "pt") as file:
            meta: dict[str, Any] = json.loads((file.metadata() or {})["semblance"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CollectionError(
            f"the checkpoint {path} is damaged: {error}", "delete it to start again"
        ) from error
    modules = {n.removeprefix("module."): t for n, t in tensors.items() if n.startswith("module.")}
    _grow_buffers(module, modules)
    try:
        module.load_state_dict(modules)
    except RuntimeError as error:
        raise CollectionError(
            f"the checkpoint {path} is of another network", "delete it to start again"
        ) from error
    state = optimiser.state_dict()
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            state["state"].setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(state)
    _lay_out_like_weights(optimiser)
    return meta


def _lay_out_like_weights(optimiser: Optimizer) -> None:
    """Moments take the strides of their weights: a fused step walks the memory of both side by side, and
    would pair wrong numbers where the weights are channels-last and the stored moments are not."""
    for weight, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _grow_buffers(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Buffers that grow with the collection (neighbour tables) take the stored size."""
    for name, buffer in list(module.named_buffers()):
        if name in tensors and tensors[name].shape != buffer.shape and buffer.numel() == 0:
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner)._buffers[leaf] = tensors[name].to(buffer.device)
