"""What is said of columns after a training that used them: nobody shall take brightness for meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.contracts import Column
from semblance.errors import ConfigError
from semblance.evaluation.columns import explained, share_of_embedding, tells
from semblance.images.formats import PixelFormat
from semblance.images.measure import FILE, measure_store
from semblance.objectives.measure import Config, asked_roles, held_out, roles

__all__ = ["check_columns", "check_roles", "has_roles", "kept_columns", "said_of"]

MOST = 4_000
DOMINATES = 0.5
FORGOTTEN = 0.1


def check_roles(config: Any, given: Mapping[str, Column], kind: PixelFormat) -> None:
    """Raise `ConfigError` where the roles that an objective's `config` names cannot be those of the `given`
    columns and of what is measured on such images."""
    own = _own(config)
    if own is not None:
        blank = np.zeros((1, 16, 16, kind.channels), kind.dtype)
        none = Column(np.zeros(1), source="file")
        columns = {**measure_store(blank, kind), **dict.fromkeys(FILE, none), **given}
        named = asked_roles(own, columns)
        kept = [name for name, one in columns.items() if one.source != "given" and name not in named]
        if not kept and not {"keep", "drop"} & set(named.values()):
            raise ConfigError(
                "measure has nothing to predict: every column is ignored or only shown",
                "ignore fewer, or name some of your own with --objective.keep",
            )


def has_roles(config: Any) -> bool:
    """Whether an objective's configuration speaks of columns."""
    return _own(config) is not None


def _own(config: Any) -> Config | None:
    """The part of an objective's configuration that speaks of columns."""
    own = config if isinstance(config, Config) else getattr(config, "measure", None)
    return own if isinstance(own, Config) else None


def check_columns(
    config: Any, columns: Mapping[str, Column], embeddings: NDArray[Any], paths: Sequence[str]
) -> dict[str, Any] | None:
    """The checks as JSON, None where the objective takes no columns: for each column its `role`, `r2` on
    images whose values were not learned, and its `share` of the embeddings' variance; `suspects`, what folder
    or file order give away. At most 4,000 images are looked at."""
    own = _own(config)
    if own is None or not columns:
        return None
    held = held_out(len(embeddings), own.holdout)
    tested, fitted = np.flatnonzero(held)[: MOST // 2], np.flatnonzero(~held)
    few = np.unique(np.linspace(0, len(fitted) - 1, min(len(fitted), MOST - len(tested))).astype(np.int64))
    rows = np.sort(np.concatenate([tested, fitted[few]]))
    role = {name: one for name, one in roles(own, columns).items() if one != "ignore"}
    some = {name: Column(columns[name].values[rows], columns[name].levels) for name in role}
    vectors = np.asarray(embeddings)[rows]
    r2, share = explained(vectors, some, held[rows]), share_of_embedding(vectors, some)
    given = {name: one for name, one in columns.items() if one.source == "given" or role.get(name) == "drop"}
    return {
        "columns": [
            {"name": name, "role": one, "r2": _number(r2[name]), "share": _number(share[name])}
            for name, one in role.items()
        ],
        "suspects": [
            {"name": name, "by": by, "share": _number(part)}
            for name, (by, part) in tells(given, paths).items()
        ],
    }


def kept_columns(checks: Mapping[str, Any] | None, columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns that the training was to keep."""
    names = [one["name"] for one in checks["columns"] if one["role"] == "keep"] if checks else []
    return {name: columns[name] for name in names if name in columns}


def said_of(checks: Mapping[str, Any] | None) -> list[str]:
    """The checks in a few lines: how well kept and dropped columns are explained, and every warning."""
    if not checks:
        return []
    lines = []
    for role, title in (("keep", "kept"), ("drop", "dropped"), ("show", "only shown")):
        known = [one for one in checks["columns"] if one["role"] == role and one["r2"] is not None]
        if not known:
            continue
        best = sorted(known, key=lambda one: -one["r2"])
        middle = float(np.median([one["r2"] for one in known]))
        shown = best if len(best) <= 6 else [*best[:3], *best[-3:]]
        few = ", ".join(f"{one['name']} {one['r2']:.2f}" for one in shown)
        lines.append(f"{title}: R2 on images held out {middle:.2f} in the middle of {len(known)} ({few})")
    for one in checks["columns"]:
        if one["role"] == "drop" and one["r2"] is not None and one["r2"] > FORGOTTEN:
            lines.append(
                f'warning: "{one["name"]}" was to be dropped and is still explained, R2 {one["r2"]:.2f}'
            )
    large = [one for one in checks["columns"] if one["share"] is not None and one["share"] > DOMINATES]
    if large:
        most = max(large, key=lambda one: one["share"])
        also = f" ({len(large) - 1} more explain above half of it)" if len(large) > 1 else ""
        lines.append(f'warning: "{most["name"]}" alone explains {most["share"]:.0%} of the embedding{also}')
    role_of = {one["name"]: one["role"] for one in checks["columns"]}
    for one in checks["suspects"]:
        if role_of.get(one["name"]) != "drop":
            what = "the folder" if one["by"] == "folder" else "the order of the files"
            hint = "if it is a batch, --objective.drop it"
            lines.append(f'"{one["name"]}" is given away by {what} ({one["share"]:.0%}): {hint}')
    return lines


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
