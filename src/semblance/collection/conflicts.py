"""Does what is asked for contradict what a collection was made with?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semblance import plugins
from semblance.collection.begin import beginning
from semblance.collection.labelled import said_of
from semblance.collection.model import plain
from semblance.collection.settings import Options
from semblance.errors import ConfigError

__all__ = ["conflicts"]

_ABSENT = object()


def conflicts(options: Options, record: Mapping[str, Any]) -> list[str]:
    """What was asked for and differs from a collection's `record`, as "name: has x, asked for y"."""
    asked = _asked(options)
    found = []
    for name, value in asked.items():
        has = _look_up(record, name)
        if has is not _ABSENT and plain(_like(has, value)) != has:
            found.append(f"{name} is {has}, asked for {value}")
    return found


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
