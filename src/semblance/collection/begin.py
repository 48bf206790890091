"""What a training begins with: nothing, a file of weights, or the model of another collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from semblance import plugins
from semblance.collection import disk
from semblance.collection.model import load, plain, read_weights
from semblance.encoders._weights import load_weights
from semblance.errors import ConfigError

__all__ = ["Beginning", "beginning", "fill_encoder", "fill_head", "said"]


@dataclass(frozen=True)
class Beginning:
    """Weights for an encoder and, from another collection's model (`continues`), for its head.

    `path`: a safetensors file. `hash`: of the file or, where it continues, the model's identity. `name`: as
    the card says it. `settings`: encoder, its options, size, fit and pixels of the model that is continued.
    """

    path: Path
    hash: str
    name: str
    continues: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def beginning(
    weights: str | Path | None,
    start_from: str | Path | None,
    encoder: str | None,
    encoder_options: Mapping[str, Any],
) -> Beginning | None:
    """What was asked to begin with; None: random weights, or those that the encoder brings along.

    Raises `ConfigError` where both were asked for, where a file is missing, or where the encoder asked for
    is not that of the model to continue; what `load` raises for a folder that holds no whole model.
    """
    if weights is not None and start_from is not None:
        raise ConfigError("--weights and --from are both given", "a training begins with one of them")
    if weights is not None:
        path = Path(weights)
        if not path.is_file():
            raise ConfigError(f"the weights {path} do not exist", "give a safetensors file")
        return Beginning(path, disk.file_hash(path), path.name)
    if start_from is None:
        return None
    folder = Path(start_from).expanduser()
    model = load(folder)
    facts, described = model.facts, model.facts["encoder"]
    if encoder not in (None, "auto", described["name"]):
        raise ConfigError(
            f"the model of {folder.name} has the encoder {described['name']}, asked for {encoder}",
            "leave --encoder out, or begin without --from",
        )
    own = plugins.configure("encoders", described["name"], described["config"])
    asked = plain(
        plugins.configure("encoders", described["name"], {**described["config"], **encoder_options})
    )
    differing = [key for key, value in plain(own).items() if asked[key] != value]
    if differing:
        key = differing[0]
        raise ConfigError(
            f"the encoder of {folder.name} has {key} {plain(own)[key]}, asked for {asked[key]}",
            f"leave --encoder.{key} out, or begin without --from",
        )
    file = folder / "model" if (folder / "model").is_dir() else folder
    return Beginning(
        path=(file / "model.safetensors").absolute(),
        hash=model.identity,
        name=f"the model {model.identity} of {folder.name}",
        continues=True,
        settings={
            "encoder": described["name"],
            "encoder_options": described["config"],
            "size": facts["size"],
            "fit": facts["fit"],
            "pixels": model.pixels,
        },
    )


def fill_encoder(encoder: nn.Module, begin: Beginning) -> None:
    """`encoder` with the weights to begin with. Raises what `load_weights` raises."""
    load_weights(encoder, begin.path)


def fill_head(head: nn.Module, begin: Beginning) -> bool:
    """`head` with the weights of the model that is continued; False, and nothing done, if they do not fit."""
    if not begin.continues:
        return False
    found = read_weights(begin.path)
    given = {name.removeprefix("head."): value for name, value in found.items() if name.startswith("head.")}
    shapes = {name: value.shape for name, value in head.state_dict().items()}
    if shapes != {name: value.shape for name, value in given.items()}:
        return False
    head.load_state_dict(given)
    return True


def said(begin: Beginning | None, head: bool, nothing: str) -> str:
    """How a card says what a training began with; `nothing`: what it says of random weights."""
    if begin is None or not begin.continues:
        return nothing if begin is None else begin.name
    return f"{begin.name}, {'encoder and head' if head else 'encoder; its head does not fit and is new'}"
