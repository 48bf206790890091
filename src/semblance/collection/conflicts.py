"""Does what is asked for contradict what a collection was made with?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from semblance import plugins
from semblance.collection.begin import beginning
from semblance.collection.labelled import said_of
from semblance.collection.model import plain
from semblance.collection.settings import Options, read_fields, setting_of
from semblance.errors import ConfigError
from semblance.images.views import PRESETS
from semblance.training.config import TrainConfig

__all__ = ["conflicts"]

_ABSENT = object()


def conflicts(options: Options, record: Mapping[str, Any]) -> list[str]:
    """What was asked for and differs from a collection's `record`, as "name is x, asked for y".

    Raises `ConfigError` for an option that there is not.
    """
    options = _with_setting(options, record)
    _check(options, record)
    found = []
    for name, value in _asked(options).items():
        has = _look_up(record, name)
        if has is _ABSENT:
            found.append(f"{name} was not there yet, asked for {value}")
        elif plain(_like(has, value)) != has:
            found.append(f"{name} is {has}, asked for {value}")
    return found


def _with_setting(options: Options, record: Mapping[str, Any]) -> Options:
    """What a setting stands for, asked for by name, where nothing else was."""
    base = setting_of(options.objective or record["objective"]["name"], options.setting)
    more: dict[str, Any] = {
        name: getattr(options, name) or base.get(name) for name in ("encoder", "size", "fit", "views")
    }
    more |= {
        name: {**base.get(name, {}), **getattr(options, name)}
        for name in ("objective_options", "encoder_options")
    }
    training = {k: v for k, v in base.get("training", {}).items() if getattr(options, k, None) is None}
    return dataclasses.replace(options, **more, training_options={**training, **options.training_options})


def _check(options: Options, record: Mapping[str, Any]) -> None:
    plugins.configure(
        "objectives", options.objective or record["objective"]["name"], options.objective_options
    )
    encoder = record["encoder"]["name"] if options.encoder in (None, "auto") else options.encoder
    plugins.configure("encoders", encoder, options.encoder_options)
    read_fields("training", TrainConfig(), options.training_options)
    read_fields("views", PRESETS["photo"], options.views_options)


def _asked(options: Options) -> dict[str, Any]:
    """Dotted places in a record -> what was asked for there."""
    begin = beginning(options.weights, options.start_from, options.encoder, options.encoder_options)
    asked: dict[str, Any] = {
        "objective.name": options.objective,
        "encoder.name": None if options.encoder == "auto" else options.encoder,
        "views.name": None if options.views == "auto" else options.views,
        "size": options.size,
        "fit": options.fit,
        "positives": options.positives,
        "labels": None if options.labels is None else said_of(options.labels, options.column),
        "pixels.photo": True if options.pixels == "photo" else None,
        "where": options.where,
        "weights": None if begin is None else begin.hash,
        "freeze": True if options.freeze else None,
        **{f"training.{name}": getattr(options, name) for name in ("epochs", "budget", "batch", "seed")},
        **{f"objective.config.{key}": value for key, value in options.objective_options.items()},
        **{f"encoder.config.{key}": value for key, value in options.encoder_options.items()},
        **{f"views.options.{key}": value for key, value in options.views_options.items()},
        **{f"training.{key}": value for key, value in options.training_options.items()},
    }
    return {name: value for name, value in asked.items() if value is not None}


def _look_up(record: Mapping[str, Any], name: str) -> Any:
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None if name.startswith("views.options") else _ABSENT
        value = value[part]
    return value


def _like(has: Any, value: Any) -> Any:
    """`value` (perhaps text) read as the kind of what is there."""
    if isinstance(has, list):
        parts = value.split(",") if isinstance(value, str) else list(value)
        return [_like(has[0], part) for part in parts] if has else parts
    if isinstance(has, (bool, int, float, str)):
        try:
            return plugins.read("option", value, type(has))
        except ConfigError:
            return value
    return value
