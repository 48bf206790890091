"""Which columns `measure` keeps, drops, shows or ignores, by the names in its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semblance.contracts import Column
from semblance.errors import ConfigError
from semblance.objectives._targets import given_away, read_circles, read_names, too_fine

__all__ = ["asked_roles", "roles"]

TELLS = 0.1
"""The share of a measurement's variance from which on it gives a dropped column away."""


def asked_roles(config: Any, columns: Mapping[str, Column]) -> dict[str, str]:
    """Name -> role of the columns that `config` names, of measurements by their names alone.

    Raises `ConfigError` for a name that is no column or stands in two roles, and for a column of the user's
    that says the same of every image, nothing at all, or something else of nearly each.
    """
    named: dict[str, str] = {}
    for role in ("keep", "drop", "ignore"):
        for name in read_names(getattr(config, role), columns, role):
            if named.setdefault(name, role) != role:
                verbs = {"keep": "kept", "drop": "dropped", "ignore": "ignored"}
                both = f"both {verbs[named[name]]} and {verbs[role]}"
                raise ConfigError(f'the column "{name}" is to be {both}', "choose one role")
            column = columns[name]
            exact = role != "ignore" and name in (part.strip() for part in getattr(config, role).split(","))
            seen = column.values[np.isfinite(column.values)]
            if exact and column.source == "given" and not (len(seen) and np.ptp(seen)):
                what = "holds the same for every image" if len(seen) else "is empty"
                raise ConfigError(
                    f'measure.{role} names "{name}", which {what}: nothing to predict', "leave it out"
                )
            if exact and too_fine(column):
                raise ConfigError(
                    f'measure.{role} names "{name}", of which most images have a value of their own',
                    "give it fewer values, each of several images",
                )
    for name in read_circles(config.circular):
        if name not in columns:
            raise ConfigError(f'measure.circular names "{name}", which is no column', ", ".join(columns))
    return named


def roles(config: Any, columns: Mapping[str, Column]) -> dict[str, str]:
    """Name -> "keep", "drop", "show" or "ignore". Raises what `asked_roles` raises. A measurement that was
    not named and of whose variance a dropped column accounts for more than a tenth is ignored."""
    found = {name: "show" if column.source == "given" else "keep" for name, column in columns.items()}
    named = asked_roles(config, columns)
    found |= named
    dropped = [column for name, column in columns.items() if found[name] == "drop"]
    for name, column in columns.items():
        free = found[name] == "keep" and name not in named
        if free and any(given_away(column, by) > TELLS for by in dropped):
            found[name] = "ignore"  # to keep it would be to keep what is to be dropped
    return found
