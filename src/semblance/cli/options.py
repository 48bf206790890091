"""What several verbs take: `--group.key value`, durations, `--where`, a configuration file."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from semblance.errors import ConfigError, InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "GROUPS",
    "Duration",
    "Verb",
    "dotted",
    "json_option",
    "read_duration",
    "read_numbers",
    "take_dotted",
    "training_options",
    "verbose_option",
]

GROUPS = ("objective", "encoder", "views", "training", "coder")
"""What `--group.key value` may be set for."""

F = TypeVar("F", bound=Callable[..., Any])
_DOTTED = "semblance.dotted"


class Verb(click.Command):
    """A click command that takes `--group.key value` out of the line before click reads it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the dotted options in the context; click reads what is left."""
        rest, ctx.meta[_DOTTED] = take_dotted(args)
        return super().parse_args(ctx, rest)


def dotted() -> dict[str, dict[str, Any]]:
    """`{"objective_options": {key: value}, ...}` of the line and, below it, of the configuration file."""
    found = click.get_current_context().meta[_DOTTED]
    return {f"{group}_options": options for group, options in found.items()}


def take_dotted(args: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """(what click should read, `{group: {key: value}}`).

    >>> take_dotted(["photos", "--encoder.width", "16", "--views.scale=0.3,1"])
    (['photos'], {'encoder': {'width': '16'}, 'views': {'scale': '0.3,1'}})

    Raises `ConfigError` for a group that does not exist (naming the nearest) or a value left out.
    """
    rest: list[str] = []
    found: dict[str, dict[str, Any]] = {}
    words = iter(args)
    for word in words:
        if word == "--":
            return [*rest, word, *words], found
        match = re.fullmatch(r"--([A-Za-z_-]+)\.([A-Za-z0-9_.-]+)(?:=(.*))?", word, flags=re.DOTALL)
        if match is None:
            rest.append(word)
            continue
        group, key, value = match.groups()
        if value is None:
            value = next(words, None)
        if value is None or value.startswith("--"):
            raise ConfigError(f"--{group}.{key} needs a value", f"for example --{group}.{key}=1")
        _group(found, group)[key.replace("-", "_")] = value
    return rest, found


def _group(found: dict[str, dict[str, Any]], group: str) -> dict[str, Any]:
    if group not in GROUPS:
        near = difflib.get_close_matches(group, GROUPS, n=1, cutoff=0.5) or GROUPS
        raise ConfigError(f'there is no group of options "{group}"', f"known: {', '.join(near)}")
    return found.setdefault(group, {})


def read_duration(text: str) -> float:
    """Seconds.

    >>> [read_duration(text) for text in ("90s", "10m", "1h30m", "45")]
    [90.0, 600.0, 5400.0, 45.0]

    Raises `ConfigError` for anything else.
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    total = hours * 3600 + minutes * 60 + seconds
    if total <= 0:
        raise ConfigError(f"{text!r} is no duration", "write 90s, 10m, 1h or 1h30m")
    return total


def read_numbers(text: str) -> list[int]:
    """Whole numbers with commas between. Raises `ConfigError` for anything else.

    >>> read_numbers("16, 32")
    [16, 32]
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{text!r} is no list of numbers", "write 16,32,64") from error


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A click type: `10m` -> 600.0 seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; a number is taken as seconds."""
        return read_duration(str(value))


def _read_where(ctx: click.Context, param: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str] | None:
    where: dict[str, str] = {}
    for pair in pairs:
        column, sign, value = pair.partition("=")
        if not sign or not column:
            raise ConfigError(f"--where {pair} is no condition", "write --where COLUMN=VALUE")
        if where.get(column, value) != value:
            raise ConfigError(f"--where asks {column} to be {where[column]} and {value}")
        where[column] = value
    return where or None


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Take the options of a TOML file as defaults: what the line says comes first."""
    if path is None:
        return
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error
    params = [param for param in ctx.command.params if param.name not in ("config", "help")]
    known = {word.lstrip("-").replace("-", "_"): param.name or "" for param in params for word in param.opts}
    defaults: dict[str, Any] = {}
    groups = ctx.meta[_DOTTED]
    for key, value in _flatten(table):
        group, dot, option = key.partition(".")
        if dot:
            _group(groups, group).setdefault(option.replace("-", "_"), value)
        elif key.replace("-", "_") in known:
            defaults[known[key.replace("-", "_")]] = value
        else:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5) or sorted(known)
            raise ConfigError(f'{path} has an unknown option "{key}"', f"known: {', '.join(near)}")
    ctx.default_map = defaults


def _flatten(table: dict[str, Any]) -> list[tuple[str, Any]]:
    """(`key` or `group.key`, value) pairs: `[encoder] name = "resnet"` is `encoder = "resnet"`."""
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        if key == "where" and isinstance(value, dict):
            pairs.append((key, [f"{column}={wanted}" for column, wanted in value.items()]))
        elif isinstance(value, dict):
            for name, inner in value.items():
                if isinstance(inner, dict):  # [objective.cbswr] of a sum
                    pairs += [(f"{key}.{name}.{option}", one) for option, one in inner.items()]
                else:
                    pairs.append((key if name == "name" else f"{key}.{name}", inner))
        else:
            pairs.append((key, value))
    return pairs


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value on stdout.")(function)


def verbose_option(function: F) -> F:
    """Add `-v`, which also shows the traceback of an unexpected error."""
    wording = "Say more, and show the traceback of an unexpected error."
    return click.option("-v", "--verbose", is_flag=True, help=wording)(function)


def training_options(function: F) -> F:
    """Add what `run` and `learn` share. An option that was not given is None: not asked for."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    choices = (
        click.option("--out", type=click.Path(path_type=Path), help="The collection.  [SOURCE.smb]"),
        click.option("--objective", help="See `semblance objectives`; a+b is a sum.  [cbswr]"),
        click.option("--setting", help="A published setting of the objective, as default for all else."),
        click.option("--encoder", help="See `semblance encoders`.  [chosen from the collection]"),
        click.option("--weights", type=file, help="A safetensors file to start the encoder from."),
        click.option(
            "--from",
            "start_from",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Another collection, whose model is continued.",
        ),
        click.option("--freeze", is_flag=True, help="Learn the head alone, on an encoder that has learned."),
        click.option("--views", help="Augmentations: photo, grey, sky, ... or auto.  [auto]"),
        click.option("--size", type=int, help="Side in pixels.  [chosen from the collection]"),
        click.option("--fit", type=click.Choice(["squash", "crop"]), help="How to become square.  [squash]"),
        click.option(
            "--pixels",
            type=click.Choice(["auto", "photo"]),
            help="photo: 8-bit RGB; auto: other channels and wider values where most files are so.  [auto]",
        ),
        click.option(
            "--positives",
            metavar="WHAT",
            help="What a second view shows: view, folder, column:NAME or time:NAME of a manifest.  [view]",
        ),
        click.option(
            "--labels",
            type=click.Path(path_type=Path),
            help="CSV or Parquet, for an objective that learns from labels.  [names of the folders]",
        ),
        click.option("--column", help="The column of labels, in the table or the manifest.  [the only one]"),
        click.option("--epochs", type=int, help="How often to see every image.  [from the collection]"),
        click.option("--budget", type=Duration(), help="Last whole epoch that fits: 90s, 10m, 1h30m."),
        click.option("--batch", type=int, help="Images in a step, all processes together.  [64]"),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto."),
        click.option(
            "--precision",
            type=click.Choice(["auto", "32", "bf16"]),
            default="auto",
            show_default=True,
            help="auto: bf16 where the hardware has it.",
        ),
        click.option("--threads", type=int, help="Threads that decode.  [one for each core]"),
        click.option("--seed", type=int, help="Of everything random.  [0]"),
        click.option(
            "--where",
            multiple=True,
            metavar="COLUMN=VALUE",
            callback=_read_where,
            help="Only these rows of a manifest. Repeatable.",
        ),
        click.option("--overwrite", is_flag=True, help="Replace a collection made from other options."),
        click.option("--dry-run", is_flag=True, help="Print the bill, and do nothing."),
        click.option(
            "--config",
            type=file,
            is_eager=True,
            expose_value=False,
            callback=_read_config,
            help="A TOML file with these names; the line comes first.",
        ),
    )
    for choice in reversed(choices):
        function = choice(function)
    return function
