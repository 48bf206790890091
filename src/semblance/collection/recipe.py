"""A recipe: one experiment written down, as TOML.

The names are those of `semblance learn` and its configuration file. `[data]` says which images learn and
which are scored, `[protocol]` how, `[get]` what to tell a person who lacks the images or the weights.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semblance import plugins
from semblance.collection.settings import Options, read_fields, resolve
from semblance.errors import ConfigError, InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Data", "Get", "Protocol", "Recipe", "Rows", "read_recipe"]

Rows = Mapping[str, tuple[str, ...]]
"""Column -> the values that are meant; several columns must all agree."""
GROUPS = ("objective", "encoder", "views", "training")
PARTS = ("train", "score", "bank")
NOT_HERE = {
    "seed": "give --seeds when it is run",
    "overwrite": "every run is kept",
    "where": "[data] has train and score",
    "labels": "[data] has table and column",
    "column": "[data] has it",
}
"""Options of `learn` that a recipe does not take, and what it has instead."""
KINDS = {**dict.fromkeys(("size", "epochs", "batch", "threads"), int), "budget": float, "freeze": bool}
"""Types of the options that are no text."""


@dataclass(frozen=True)
class Data:
    """Which images learn and which are scored.

    `folder`; `table` in it (None: labels.csv where there is one, else names of folders); `column` of
    classes. What is scored: rows of `score` (and learned from: of `train`, by default the others), or the
    classes beyond the share `train_classes`, or the share `held_out` of the images. `bank`: rows that
    vote under knn. `images`, `scored`: at most so many of each.
    """

    folder: str = "."
    table: str | None = None
    column: str = "class"
    train: Rows | None = None
    score: Rows | None = None
    bank: Rows | None = None
    train_classes: float | None = None
    held_out: float | None = None
    images: int | None = None
    scored: int | None = None


@dataclass(frozen=True)
class Protocol:
    """How is scored: `retrieval` (each image asks all others; `clusters`: k-means too) or `knn` (the bank's
    `neighbours` vote, weights `exp(cosine / temperature)`). `balanced`: means over classes beside those over
    images, for classes of very different sizes."""

    name: Literal["retrieval", "knn"] = "retrieval"
    clusters: bool = True
    neighbours: int = 200
    temperature: float = 0.1
    balanced: bool = False

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.temperature <= 0:
            raise ConfigError("protocol needs neighbours >= 1 and temperature > 0")


@dataclass(frozen=True)
class Get:
    """What to get, and where it goes: said where the images or the weights are missing."""

    data: str = ""
    weights: str = ""


@dataclass(frozen=True)
class Recipe:
    """One experiment. `name`: the file's; `options`: what `learn` takes, checked."""

    name: str
    options: Options
    data: Data
    protocol: Protocol
    get: Get


def read_recipe(path: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in the file at `path`; `changes`, options as `learn` takes them, come first where not None.

    Raises `InputError` for a file that cannot be read, `ConfigError` for a key that is unknown (naming the
    nearest) or a value of the wrong type, each with the file's name. Images and weights need not be there.
    """
    path = Path(path)
    table = _load(path)
    try:
        options = Options.read(_merge(_values(table), changes or {}))
        _check_options(options)
        given = _table("data", table.get("data", {}))
        rows = {name: _rows(name, given.pop(name)) for name in PARTS if name in given}
        data: Data = dataclasses.replace(read_fields("data", Data(), given), **rows)
        _check_data(data)
        protocol: Protocol = read_fields(
            "protocol", Protocol(), _table("protocol", table.get("protocol", {}))
        )
        get: Get = read_fields("get", Get(), _table("get", table.get("get", {})))
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error.message}", error.hint) from error
    return Recipe(path.stem, options, data, protocol, get)


def _load(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted(one.name for one in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, known, n=3, cutoff=0.5) or known
        hint = f"in {path.parent} there is {', '.join(near)}" if near else "give a recipe, a TOML file"
        raise InputError(f"there is no recipe {path}", hint) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error
    return table


def _values(table: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `learn`: `[encoder] name = "resnet", width = 16` is `encoder` and `encoder_options`."""
    names = [one.name for one in dataclasses.fields(Options) if not one.name.endswith("_options")]
    known = [*(name for name in names if name not in (*NOT_HERE, "start_from")), "from", "training"]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in ("data", "protocol", "get"):
            continue
        if key in NOT_HERE:
            raise ConfigError(f'a recipe does not take "{key}"', NOT_HERE[key])
        if key not in known:
            known += ["data", "protocol", "get"]
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5) or sorted(known)
            raise ConfigError(f'there is no option "{key}"', f"known: {', '.join(near)}")
        if key in GROUPS and (isinstance(value, Mapping) or key == "training"):
            options = _table(key, value)
            if key != "training" and "name" in options:
                values[key] = _read(f"{key}.name", options.pop("name"), str)
            values[f"{key}_options"] = options
        else:
            values["start_from" if key == "from" else key] = _read(key, value, KINDS.get(key, str))
    return values


def _merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        if key.endswith("_options"):
            merged[key] = {**merged.get(key, {}), **(value or {})}
        elif value is not None:
            merged[key] = value
    return merged


def _check_options(options: Options) -> None:
    """Raise what a collection made with `options` would raise, as far as no file need be there."""
    resolve(dataclasses.replace(options, weights=None, start_from=None, freeze=False), images=1000, side=64)


def _check_data(data: Data) -> None:
    ways = [data.score, data.train_classes, data.held_out]
    if sum(way is not None for way in ways) != 1 or (data.train is not None and data.score is None):
        raise ConfigError(
            "[data] must say in one way which images are scored",
            'score = { column = "value" } beside train, train_classes = 0.5, or held_out = 0.25',
        )
    for name in ("train_classes", "held_out"):
        share = getattr(data, name)
        if share is not None and not 0 < share < 1:
            raise ConfigError(f"data.{name} is {share}", "expected a share between 0 and 1")
    for name in ("images", "scored"):
        most = getattr(data, name)
        if most is not None and most < 2:
            raise ConfigError(f"data.{name} is {most}", "at least 2")


def _rows(name: str, value: Any) -> Rows:
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"data.{name} is {value!r}", 'expected { column = "value" }')
    return {column: tuple(_value(name, one) for one in _listed(wanted)) for column, wanted in value.items()}


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) and value else [value]


def _value(name: str, value: Any) -> str:
    if isinstance(value, (Mapping, list)):
        raise ConfigError(f"data.{name} has the value {value!r}", "expected a text, or a list of texts")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}", f"expected a table [{name}]")
    return dict(value)


def _read(name: str, value: Any, kind: Any) -> Any:
    """One value of the type `kind`, not empty."""
    if isinstance(value, (Mapping, list)):
        raise ConfigError(f"{name} is {value!r}", "expected one value")
    if value == "":
        raise ConfigError(f"{name} must not be empty")
    return plugins.read(name, value, kind)
