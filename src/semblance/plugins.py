"""Name -> module: a method is one file in a room, found by its file name.

`get("objectives", "cbswr")` imports `semblance/objectives/cbswr.py`, and only then. Other packages add
methods with an entry point of the group `semblance.objectives` (`.encoders`, `.codes`, `.index`).
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import types
import typing
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from semblance.errors import ConfigError

__all__ = ["configure", "describe", "get", "names"]

GROUPS = ("codes", "encoders", "engines", "index", "objectives")


def names(group: str) -> list[str]:
    """Sorted names of the methods in `group`, without importing any.

    >>> "cbswr" in names("objectives")
    True
    """
    return sorted({**_files(group), **_entry_points(group)})


def get(group: str, name: str) -> types.ModuleType:
    """The module of one method, or what stands for one: `a+b` is the sum of two objectives.

    Raises `ConfigError` naming the nearest known ones, or a clash.
    """
    if group == "objectives" and "+" in name:
        combined = importlib.import_module("semblance.objectives._combined").combine(name)
        return typing.cast(types.ModuleType, combined)
    files, points = _files(group), _entry_points(group)
    if name in files and name in points:
        raise ConfigError(f'two {group} are called "{name}": {files[name]} and {points[name].value}')
    if name in files:
        return importlib.import_module(f"semblance.{group}.{name}")
    if name in points:
        module = points[name].load()
        if not isinstance(module, types.ModuleType):
            raise ConfigError(f'the entry point "{name}" of semblance.{group} is not a module')
        return module
    known = names(group)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    raise ConfigError(f'no {group.removesuffix("s")} is called "{name}"', f"known: {', '.join(near)}")


def describe(group: str) -> list[tuple[str, str]]:
    """(name, first line of its docstring) of every method in `group`, read without importing."""
    lines = []
    for name, path in _files(group).items():
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append((name, doc.partition("\n")[0]))
    lines += [(name, f"from {point.value}") for name, point in _entry_points(group).items()]
    return sorted(lines)


def configure(group: str, name: str, options: Mapping[str, Any] | None = None) -> Any:
    """The method's `Config` with `options` set; strings are read as the field's type.

    A field that is a `Config` itself takes `{"field.key": value}` or `{"field": {"key": value}}`. Raises
    `ConfigError` for an unknown key (naming the nearest) or a value of the wrong type.

    >>> configure("objectives", "cbswr", {"clusters": "16"}).clusters
    16
    >>> configure("objectives", "sme+cbswr", {"cbswr.clusters": "16"}).cbswr.clusters
    16
    """
    return _fill(name, get(group, name).Config, options or {})


def _fill(where: str, kind: Any, options: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    parts = {name: inner for name, inner in fields.items() if dataclasses.is_dataclass(inner)}
    values: dict[str, Any] = {}
    inside: dict[str, dict[str, Any]] = {}
    for key, value in options.items():
        part, dot, rest = key.partition(".")
        if part in parts and (dot or isinstance(value, Mapping)):
            inside.setdefault(part, {}).update({rest: value} if dot else value)
        elif key in fields and key not in parts:
            values[key] = read(f"{where}.{key}", value, fields[key])
        else:
            known = [name for name in fields if name not in parts]
            known += [
                f"{name}.{one.name}" for name, inner in parts.items() for one in dataclasses.fields(inner)
            ]
            near = [name for name in known if name.endswith(f".{key}")]
            near = near or difflib.get_close_matches(key, known, n=3, cutoff=0.5) or sorted(known)
            raise ConfigError(f'{where} has no option "{key}"', f"known: {', '.join(near)}")
    values |= {part: _fill(part, parts[part], given) for part, given in inside.items()}
    return kind(**values)


def read(where: str, value: Any, kind: Any) -> Any:
    """`value` as the type `kind`; raises `ConfigError` saying what was expected."""
    choices = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    if value is None or (value == "none" and type(None) in choices):
        if type(None) in choices:
            return None
        raise ConfigError(f"{where} must not be empty")
    for choice in choices:
        if choice is not type(None):
            try:
                return _read_one(value, choice)
            except (ValueError, TypeError, OverflowError):
                continue
    wanted = " or ".join(_title(choice) for choice in choices if choice is not type(None))
    raise ConfigError(f"{where} is {value!r}", f"expected {wanted}")


def _read_one(value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is typing.Literal:
        if value in typing.get_args(kind):
            return value
        raise ValueError
    if typing.get_origin(kind) is tuple:
        parts = value.split(",") if isinstance(value, str) else list(value)
        return tuple(_read_one(part, typing.get_args(kind)[0]) for part in parts)
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise ValueError
    if kind in (int, float):
        if isinstance(value, bool):
            raise ValueError
        number = kind(value)
        if number != number or (isinstance(value, float) and number != value):  # not a number, or cut
            raise ValueError
        return number
    if kind is str and isinstance(value, str):
        return value
    raise ValueError


def _title(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(kind))
    names_of = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names_of.get(kind, str(kind))


def _files(group: str) -> dict[str, Path]:
    if group not in GROUPS:
        raise ConfigError(f'there is no group "{group}"', f"known: {', '.join(GROUPS)}")
    room = Path(__file__).parent / group
    return {path.stem: path for path in sorted(room.glob("[a-z]*.py"))}


def _entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=f"semblance.{group}")}
