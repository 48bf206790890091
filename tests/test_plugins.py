"""Names to modules, options to configs, and the errors on the way."""

from __future__ import annotations

import types
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import pytest

from semblance import plugins
from semblance.errors import ConfigError
from semblance.objectives import sme


@dataclass(frozen=True)
class Config:
    count: int = 3
    share: float = 0.5
    sides: tuple[float, ...] = (1.0,)
    on: bool = False
    name: str = "x"
    kind: Literal["soft", "hard"] | None = None
    most: int | None = None


class Point:
    """An entry point that loads `module`."""

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.value, self.module = name, "other.package", module

    def load(self) -> Any:
        return self.module


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module "other" that another package adds to the objectives."""
    module = types.ModuleType("other")
    module.Config = Config  # type: ignore[attr-defined]
    add(monkeypatch, Point("other", module))
    return module


def add(monkeypatch: pytest.MonkeyPatch, *points: Any) -> None:
    found = {"semblance.objectives": points}
    monkeypatch.setattr(metadata, "entry_points", lambda group: found.get(group, ()))


def test_names_are_the_files_that_are_not_private() -> None:
    assert {"cbswr", "sme"} <= set(plugins.names("objectives"))
    assert not [name for name in plugins.names("objectives") if name.startswith("_")]
    assert plugins.get("objectives", "sme") is sme


def test_other_packages_add_methods(other: types.ModuleType) -> None:
    assert "other" in plugins.names("objectives")
    assert "other" not in plugins.names("encoders")
    assert plugins.get("objectives", "other") is other
    assert ("other", "from other.package") in plugins.describe("objectives")
    assert plugins.configure("objectives", "other", {"count": "7"}) == Config(count=7)


def test_two_of_one_name_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, Point("sme", types.ModuleType("sme")))
    with pytest.raises(ConfigError, match='two objectives are called "sme"'):
        plugins.get("objectives", "sme")


def test_an_entry_point_must_be_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, Point("wrong", Config))
    with pytest.raises(ConfigError, match="not a module"):
        plugins.get("objectives", "wrong")


def test_unknown_names_and_groups() -> None:
    with pytest.raises(ConfigError, match='no objective is called "cbswrr"') as caught:
        plugins.get("objectives", "cbswrr")
    assert "cbswr" in caught.value.hint
    with pytest.raises(ConfigError, match='no group "losses"'):
        plugins.names("losses")


def test_descriptions_are_first_lines() -> None:
    lines = dict(plugins.describe("objectives"))
    assert lines["sme"] == (sme.__doc__ or "").splitlines()[0]
    assert list(lines) == sorted(lines)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"count": "4"}, {"count": 4}),
        ({"count": 4.0}, {"count": 4}),
        ({"share": "1e-3"}, {"share": 0.001}),
        ({"share": 1}, {"share": 1.0}),
        ({"sides": "0.5,2"}, {"sides": (0.5, 2.0)}),
        ({"sides": [1, 2]}, {"sides": (1.0, 2.0)}),
        ({"on": "yes"}, {"on": True}),
        ({"on": "0"}, {"on": False}),
        ({"name": "y"}, {"name": "y"}),
        ({"kind": "hard"}, {"kind": "hard"}),
        ({"kind": None}, {"kind": None}),
        ({"most": "none"}, {"most": None}),
        ({"most": "5"}, {"most": 5}),
        ({}, {}),
        (None, {}),
    ],
)
def test_options_are_read_as_their_type(
    given: dict[str, Any], read: dict[str, Any], other: types.ModuleType
) -> None:
    found = plugins.configure("objectives", "other", given)
    assert found == Config(**read)
    assert {name: type(value) for name, value in vars(found).items()} == {
        name: type(value) for name, value in vars(Config(**read)).items()
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": "4.5"}, "other.count is '4.5' (expected a whole number)"),
        ({"count": 4.5}, "other.count is 4.5 (expected a whole number)"),
        ({"count": True}, "other.count is True (expected a whole number)"),
        ({"share": "much"}, "other.share is 'much' (expected a number)"),
        ({"on": "maybe"}, "other.on is 'maybe' (expected true or false)"),
        ({"kind": "sft"}, "other.kind is 'sft' (expected one of soft, hard)"),
        ({"name": 3}, "other.name is 3 (expected text)"),
        ({"count": None}, "other.count must not be empty"),
        ({"count": [1]}, "other.count is [1] (expected a whole number)"),
        ({"count": float("inf")}, "other.count is inf (expected a whole number)"),
        ({"share": "nan"}, "other.share is 'nan' (expected a number)"),
        ({"kind": ["hard"]}, "other.kind is ['hard'] (expected one of soft, hard)"),
        ({"sharee": 3}, 'other has no option "sharee" (known: share)'),
    ],
)
def test_bad_options(given: dict[str, Any], message: str, other: types.ModuleType) -> None:
    with pytest.raises(ConfigError) as caught:
        plugins.configure("objectives", "other", given)
    assert str(caught.value) == message
