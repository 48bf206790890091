from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from semblance.cli import options
from semblance.errors import ConfigError, InputError


@click.command(cls=options.Verb)
@click.argument("source")
@options.training_options
def probe(source: str, **choices: Any) -> None:
    """Print what was understood."""
    probe_seen.clear()
    probe_seen.update(source=source, **choices, **options.dotted())


probe_seen: dict[str, Any] = {}


def understood(*words: str) -> dict[str, Any]:
    """What a verb with the training options makes of a line; only what was asked for."""
    result = CliRunner().invoke(probe, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    resting = {None, False, "auto"}
    return {
        key: value for key, value in probe_seen.items() if isinstance(value, dict) or value not in resting
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["photos"], {}),
        (["photos", "--objective.variant", "fixed"], {"objective_options": {"variant": "fixed"}}),
        (["--encoder.width", "16", "photos"], {"encoder_options": {"width": "16"}}),
        (["--views.scale=0.3,1", "photos"], {"views_options": {"scale": "0.3,1"}}),
        (["photos", "--training.weight-decay", "0.1"], {"training_options": {"weight_decay": "0.1"}}),
        (["photos", "--objective.share", "-1"], {"objective_options": {"share": "-1"}}),
        (["photos", "--objective.note=a=b"], {"objective_options": {"note": "a=b"}}),
        (["photos", "--budget", "10m", "--seed", "3"], {"budget": 600.0, "seed": 3}),
        (["photos", "--where", "split=seen", "--where", "x=a=b"], {"where": {"split": "seen", "x": "a=b"}}),
    ],
)
def test_lines_are_understood(words: list[str], expected: dict[str, Any]) -> None:
    assert understood(*words) == {"source": "photos", **expected}


def test_words_after_two_dashes_are_no_options() -> None:
    assert understood("--", "--encoder.width") == {"source": "--encoder.width"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objectiv.variant", "fixed"], "known: objective"),
        (["--encoder.width"], "--encoder.width needs a value"),
        (["--encoder.width", "--seed", "1"], "--encoder.width needs a value"),
        (["--where", "split"], "COLUMN=VALUE"),
        (["--where", "=seen"], "COLUMN=VALUE"),
        (["--where", "split=seen", "--where", "split=unseen"], "split to be seen and unseen"),
        (["--budget", "soon"], "'soon' is no duration"),
        (["--budget", "0s"], "'0s' is no duration"),
        (["--budget", ""], "is no duration"),
    ],
)
def test_lines_that_cannot_be_understood(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        understood("photos", *words)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("1h1m1s", 3661), ("1.5m", 90)],
)
def test_durations(text: str, seconds: float) -> None:
    assert options.read_duration(text) == seconds


FILE = """
epochs = 7
seed = 1
overwrite = true
"encoder.width" = 8
views = "photo"

[objective]
name = "sme"
tau = 0.2

[encoder]
depth = 18

[where]
split = "seen"
"""


def test_a_file_gives_defaults_and_the_line_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(FILE, encoding="utf-8")
    common = {
        "source": "photos",
        "overwrite": True,
        "views": "photo",
        "objective": "sme",
        "where": {"split": "seen"},
    }
    assert understood("photos", "--config", str(path)) == {
        **common,
        "epochs": 7,
        "seed": 1,
        "objective_options": {"tau": 0.2},
        "encoder_options": {"width": 8, "depth": 18},
    }
    line = [
        "--epochs",
        "2",
        "photos",
        "--config",
        str(path),
        "--objective.tau",
        "0.5",
        "--encoder.depth",
        "34",
    ]
    assert understood(*line) == {
        **common,
        "epochs": 2,
        "seed": 1,
        "objective_options": {"tau": "0.5"},
        "encoder_options": {"width": 8, "depth": "34"},
    }


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("epoch = 3", ConfigError, "known: epochs"),
        ("config = 'x'", ConfigError, 'unknown option "config"'),
        ("[objektive]\nx = 1", ConfigError, "known: objective"),
        ("epochs = ", InputError, "cannot be read as TOML"),
        ("budget = 'x'", ConfigError, "no duration"),
    ],
)
def test_files_that_cannot_be_understood(
    text: str, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(kind, match=message):
        understood("photos", "--config", str(path))


def test_a_file_may_speak_of_sums_and_of_other_collections(tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(
        f'from = "{tmp_path}"\nfreeze = true\n'
        '[objective]\nname = "sme+cbswr"\nshares = [2, 1]\n[objective.cbswr]\nclusters = 8\n',
        encoding="utf-8",
    )
    assert understood("photos", "--config", str(path)) == {
        "source": "photos",
        "start_from": tmp_path,
        "freeze": True,
        "objective": "sme+cbswr",
        "objective_options": {"shares": [2, 1], "cbswr.clusters": 8},
        **{key: value for key, value in understood("photos").items() if key not in ("source",)},
    }
    line = ("photos", "--objective.sme.tau", "0.2", "--from", str(tmp_path))
    assert understood(*line)["objective_options"] == {"sme.tau": "0.2"}
