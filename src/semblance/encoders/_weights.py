"""Filling an encoder from a safetensors file, completely or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from semblance.errors import ConfigError, InputError

__all__ = ["load_weights"]

PARTS = ("encoder.", "head.")


def load_weights(encoder: nn.Module, path: str | Path) -> None:
    """`encoder` with every parameter and buffer of the file at `path`; nothing else changes.

    The names must be the encoder's own, all of them. In a file whose names all begin with "encoder." or
    "head.", such as `model.safetensors` of a collection, the head is left out and the prefix dropped. The
    file's pixel statistics come along. Raises `ConfigError` if the file is no safetensors file or belongs to
    another network, naming the first tensors that do not fit, and `InputError` if it is missing, damaged
    or holds values that are not finite.
    """
    path = Path(path)
    weights = _read(path)
    if weights and all(name.startswith(PARTS) for name in weights):
        inside = [name for name in weights if name.startswith("encoder.")]
        weights = {name.removeprefix("encoder."): weights[name] for name in inside}
    wanted = encoder.state_dict()
    problems = _differences(weights, wanted)
    if problems:
        raise ConfigError(
            f"{path.name} does not fit the encoder: {'; '.join(problems)}",
            "build the encoder with the options the weights were trained with",
        )
    broken = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise InputError(f"{path.name} holds values that are not finite, first in {broken[0]}")
    encoder.load_state_dict(weights)
    follow: Any = getattr(encoder, "set_statistics", None)
    if follow is not None:
        follow(weights["mean"].flatten().tolist(), weights["std"].flatten().tolist())


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"{path.name} is not a .safetensors file",
            "convert the weights first: safetensors.torch.save_file(state_dict, 'weights.safetensors')",
        )
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path.name} cannot be read: {error}") from error


def _differences(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What keeps `given` from being `wanted`, one phrase per kind with a count and the first names."""
    shapes = [
        f"{name} is {tuple(given[name].shape)} and should be {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    kinds = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": sorted(name for name in given if name not in wanted),
        "of another shape": shapes,
    }
    return [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in kinds.items()
        if names
    ]
