"""What the pretrained encoder needs to know about `transformers`: loading, preprocessors, token grids."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semblance.errors import ConfigError

__all__ = ["fixed_positions", "from_folder_or_hub", "from_json", "layout", "preprocessor", "quiet", "side"]


def from_json(transformers: Any, text: str) -> nn.Module:
    """The model that a configuration describes, with random weights. Raises `ConfigError`."""
    try:
        described = json.loads(text)
        family = transformers.CONFIG_MAPPING[described["model_type"]]
        model: nn.Module = transformers.AutoModel.from_config(family.from_dict(described))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"pretrained.hf_config describes no model that transformers {transformers.__version__} knows",
            "it must be the JSON of a model configuration with its model_type",
        ) from error
    return model


def from_folder_or_hub(transformers: Any, name: str) -> tuple[nn.Module, set[str], dict[str, Any]]:
    """The model, names of weights that its files lack, and what its preprocessor says.

    The network is touched only where `name` is no folder. Raises `ConfigError`.
    """
    folder = Path(name).expanduser()
    local = folder.is_dir()
    if not local and (name.startswith((".", "/", "~", "\\")) or name.count("/") > 1):
        raise ConfigError(f"pretrained.name: there is no folder {name}")
    where = str(folder) if local else name
    try:
        model, info = transformers.AutoModel.from_pretrained(
            where,
            local_files_only=local,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{name} cannot be loaded: {str(error).strip().partition(chr(10))[0]}",
            "expected a folder or hub name with config.json and model.safetensors",
        ) from error
    return model, set(info["missing_keys"]), preprocessor(transformers, where, local)


def preprocessor(transformers: Any, where: str, local: bool) -> dict[str, Any]:
    """What the model says about its images; empty if it says nothing."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        found = transformers.utils.cached_file(
            where, name, local_files_only=local, _raise_exceptions_for_missing_entries=False
        )
        if found:
            says: dict[str, Any] = json.loads(Path(found).read_text(encoding="utf-8"))
            says = says.get("image_processor", says)
            if says.get("do_normalize") is False:
                says.update(image_mean=[0.0], image_std=[1.0])
            return says
    return {}


def side(says: dict[str, Any]) -> int | None:
    """The side of the square that the model's preprocessor makes."""
    for key in ("crop_size", "size"):
        value = says.get(key)
        if isinstance(value, dict):
            value = value.get("height") or value.get("shortest_edge")
        if value and (key == "size" or says.get("do_center_crop", True)):
            return int(value)
    return None


def layout(tokens: int, side: int, described: Any) -> tuple[tuple[int, int], int]:
    """Places of the patch tokens, and how many other tokens come before them."""
    patch = getattr(described, "patch_size", None)
    patch = patch[0] if isinstance(patch, (list, tuple)) and patch else patch
    if isinstance(patch, int):
        places = side // patch
        if tokens >= places * places:
            return (places, places), tokens - places * places
        while places > 1:  # stages that merge patches, as in Swin
            places = (places + 1) // 2
            if places * places == tokens:
                return (places, places), 0
    raise ConfigError(f"{described.model_type} gives {tokens} tokens, which are not a grid of patches")


@contextlib.contextmanager
def fixed_positions(model: nn.Module) -> Iterator[None]:
    """While a graph is recorded, stretched position embeddings are a constant of it.

    Images have one size there, and ONNX has no operator for some ways of stretching (DINOv2 with registers).
    """
    embeddings: Any = getattr(model, "embeddings", None)
    stretch = getattr(embeddings, "interpolate_pos_encoding", None)
    if stretch is None or not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        yield
        return
    # Recording is per thread: what another one computes enters the graph as its value.
    with ThreadPoolExecutor(1) as other:
        embeddings.interpolate_pos_encoding = lambda x, height, width: other.submit(
            lambda: stretch(x.detach(), int(height), int(width)).detach()
        ).result()
        try:
            yield
        finally:
            del embeddings.interpolate_pos_encoding


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """No progress bars, no advice on standard error, and no request that the hub convert other weights."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    convert = os.environ.get("DISABLE_SAFETENSORS_CONVERSION")
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    try:
        yield
    finally:
        if convert is None:
            del os.environ["DISABLE_SAFETENSORS_CONVERSION"]
        else:
            os.environ["DISABLE_SAFETENSORS_CONVERSION"] = convert
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
