"""A coder on disk: one safetensors file with its name, configuration and the model it belongs to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays

from semblance import plugins
from semblance.codes._coder import ThresholdCoder
from semblance.errors import CollectionError, ConfigError, ModelMismatch
from semblance.files import write_atomic

__all__ = ["FORMAT", "identity", "load", "name_of", "save"]

FORMAT = 1


def name_of(coder: ThresholdCoder) -> str:
    """The method's name, such as "itq". Raises `ConfigError` for a class that no method defines."""
    module = type(coder).__module__
    near = module.rpartition(".")[2]
    for name in sorted(plugins.names("codes"), key=lambda name: name != near):
        if getattr(plugins.get("codes", name), "Coder", None) is type(coder):
            return name
    raise ConfigError(f"{module} is no method of the room codes", "its file must define Coder")


def identity(coder: ThresholdCoder, model: str = "") -> str:
    """Sixteen hex digits of what was learned, of its configuration and of the `model`'s identity.

    Codes may be compared with one another only where these are the same.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps(_about(coder, model), sort_keys=True).encode())
    for name, array in sorted(coder.state().items()):
        whole = np.ascontiguousarray(array)
        digest.update(f"{name}{whole.dtype.str}{whole.shape}".encode() + whole.tobytes())
    return digest.hexdigest()


def save(path: str | Path, coder: ThresholdCoder, model: str = "") -> Path:
    """The file `path` with the fitted `coder` in it, for embeddings of the model with this identity.

    Written whole or not at all. Raises `CollectionError` where the disk is full or not writable.
    """
    path = Path(path)
    state = {name: np.ascontiguousarray(array) for name, array in coder.state().items()}
    about = {**_about(coder, model), "identity": identity(coder, model)}
    write_atomic(path, save_arrays(state, {"semblance": json.dumps(about)}))
    return path


def load(path: str | Path, model: str | None = None) -> ThresholdCoder:
    """The coder saved in `path`. With `model` it must belong to the model of that identity.

    Raises `CollectionError` if the file is damaged or no coder, `ModelMismatch` if it is another model's.
    """
    path = Path(path)
    try:
        with safe_open(str(path), "numpy") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})["semblance"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}, this version reads {FORMAT}")
        name, made = str(about["coder"]), plugins.get("codes", about["coder"])
        coder: ThresholdCoder = made.Coder.restore(plugins.configure("codes", name, about["config"]), state)
        if identity(coder, about["model"]) != about["identity"]:
            raise ValueError("it was changed since it was written")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, ConfigError) as error:
        reason = str(error) or type(error).__name__
        raise CollectionError(f"{path} cannot be read as a coder: {reason}", "fit the coder again") from error
    if model is not None and about["model"] != model:
        raise ModelMismatch(
            f"{path} belongs to the model {about['model'] or '(none)'}, not to {model}", "fit the coder again"
        )
    return coder


def _about(coder: ThresholdCoder, model: str) -> dict[str, Any]:
    config = dataclasses.asdict(coder.config)
    return {"format": FORMAT, "coder": name_of(coder), "config": config, "model": model}
