from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import semblance as package
from semblance import plugins
from semblance.cli import main as entry
from semblance.errors import ConfigError, MissingExtra, ModelMismatch, TrainingCollapsed


def call(*words: str) -> Result:
    """What the whole command line prints for these words."""
    return CliRunner().invoke(entry.semblance, list(words))


def test_help_names_every_verb_and_an_example() -> None:
    result = call("--help")
    assert result.exit_code == 0
    assert "semblance run photos/" in result.stdout
    listed = [
        line.split()[0] for line in result.stdout.split("Commands:")[1].splitlines() if line.startswith("  ")
    ]
    assert [name for name in listed if name in entry.VERBS] == list(entry.VERBS)


def test_version() -> None:
    assert call("--version").stdout.strip().endswith(package.__version__)


@pytest.mark.parametrize("verb", entry.VERBS)
def test_verbs_explain_themselves(verb: str) -> None:
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert f"semblance {verb}" in result.stdout


@pytest.mark.parametrize(("verb", "group"), [("objectives", "objectives"), ("encoders", "encoders")])
def test_methods_are_listed_from_the_files(verb: str, group: str) -> None:
    lines = call(verb).stdout.splitlines()
    assert [line.split()[0] for line in lines] == plugins.names(group)
    listed = json.loads(call(verb, "--json").stdout)
    assert [(one["name"], one["summary"]) for one in listed] == plugins.describe(group)
    assert all(one["summary"] for one in listed)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["serch"], 'there is no verb "serch"', "search"),
        (["objectives", "--jsn"], "--jsn", "semblance objectives --help"),
        (["search", "photos.smb"], "QUERY", "semblance search --help"),
        (["search", "photos.smb", "q.jpg", "-k", "0"], "-k", "semblance search --help"),
        (["run", "photos", "--objectiv.variant", "x"], "objectiv", "known: objective"),
        (["--what"], "--what", "semblance --help"),
    ],
)
def test_bad_use(words: list[str], message: str, hint: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert second.startswith("hint: ")
    assert hint in second
    as_json = call(*words, "--json")
    assert as_json.exit_code == 2
    assert as_json.stderr == ""
    error = json.loads(as_json.stdout)["error"]
    assert error["kind"] == "ConfigError"
    assert hint in error["hint"]


def failing(error: BaseException) -> click.Command:
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    @click.option("-v", "--verbose", is_flag=True)
    def command(as_json: bool, verbose: bool) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (ConfigError("a b", "do c"), "ConfigError", 2),
        (MissingExtra("onnx", "export"), "MissingExtra", 2),
        (ModelMismatch("a b", "do c"), "ModelMismatch", 3),
        (TrainingCollapsed("a b", "do c"), "TrainingCollapsed", 4),
        (OSError(errno.ENOSPC, "No space left on device", "photos.smb"), "InputError", 3),
        (MemoryError(), "MemoryError", 1),
        (KeyError("odd"), "KeyError", 1),
    ],
)
def test_errors_become_a_line_and_a_code(
    error: Exception, kind: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry.Verbs, "get_command", lambda *_: failing(error))
    result = call("doctor")
    assert result.exit_code == code
    assert result.stdout == ""
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["error", "hint"]
    as_json = call("doctor", "--json")
    assert as_json.exit_code == code
    found = json.loads(as_json.stdout)
    assert set(found) == {"error"}
    assert set(found["error"]) == {"kind", "message", "hint"}
    assert found["error"]["kind"] == kind


def test_a_traceback_only_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry.Verbs, "get_command", lambda *_: failing(ZeroDivisionError("odd")))
    assert "Traceback" not in call("doctor").stderr
    assert "-v" in call("doctor").stderr
    told = call("doctor", "-v").stderr
    assert "Traceback" in told
    assert "error: unexpected ZeroDivisionError: odd" in told


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupted(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry.Verbs, "get_command", lambda *_: failing(error))
    result = call("doctor")
    assert result.exit_code == 130
    assert result.stderr.strip() == "stopped; run the same command to go on"


def test_messages_stay_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry.Verbs, "get_command", lambda *_: failing(ConfigError("a\n  b", "c\nd")))
    assert call("doctor").stderr == "error: a b\nhint: c d\n"


def test_a_closed_pipe_is_no_error() -> None:
    code = "from semblance.cli.main import main; main(['encoders', '--json'])"
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=reader.stdin, stderr=subprocess.PIPE, text=True, check=False
    )
    assert reader.stdin is not None
    reader.stdin.close()
    assert done.stderr == ""


def test_threads_are_told_to_wait_a_little_before_torch_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "set, so that it is put back")
        monkeypatch.delenv(name)
    monkeypatch.setattr(
        entry.semblance, "main", lambda *_: seen.append(entry.os.environ.get("GOMP_SPINCOUNT"))
    )
    entry.main([])
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    entry.main([])
    assert seen == ["10000", None]


def test_the_installed_command_is_this_one(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "semblance"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == call("--version").stdout.strip()
