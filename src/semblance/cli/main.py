"""The command `semblance`: finds the verb, and turns every error into one line and an exit code."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import click

from semblance import __version__
from semblance.cli import screen
from semblance.errors import ConfigError, InputError, SemblanceError

__all__ = ["VERBS", "main", "semblance"]

VERBS = (
    "run",
    "learn",
    "bench",
    "embed",
    "search",
    "encode",
    "price",
    "codes",
    "evaluate",
    "export",
    "report",
    "objectives",
    "encoders",
    "coders",
    "doctor",
)
"""Verb `x` is the click command `command` in `semblance/cli/x.py`, imported when it is asked for."""

INTERRUPTED = 130


class Verbs(click.Group):
    """A group whose verbs are files, and whose `main` reports errors in the house's own way."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's click command, or None where there is no such verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"semblance.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but an unknown verb names the nearest known ones."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=3, cutoff=0.5) or VERBS
            raise ConfigError(f'there is no verb "{args[0]}"', f"known: {', '.join(near)}")
        return super().resolve_command(ctx, args)

    def main(  # type: ignore[override]  # click overloads on standalone_mode, which this one decides
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run the verb and exit the process with its code."""
        words = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(words, prog_name or "semblance", **extra)
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:  # the last frame: whatever arrives becomes a line and a code
            code = report(error, words)
        sys.exit(code if isinstance(code, int) else 0)


def report(error: BaseException, words: Sequence[str]) -> int:
    """Print `error` the way the command line promised to, and return the exit code.

    One line `error: ...` and one `hint: ...` on stderr; with `--json` one object on stdout.
    """
    options = words[: words.index("--")] if "--" in words else words
    verbose = "-v" in options or "--verbose" in options
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        screen.say("stopped; run the same command to go on")
        return INTERRUPTED
    kind, message, hint, code = _describe(error)
    expected = isinstance(error, (SemblanceError, click.ClickException))
    if verbose and not expected:
        traceback.print_exception(error)
    if "--json" in options:
        screen.print_json({"error": {"kind": kind, "message": message, "hint": hint}})
    else:
        screen.say(f"error: {message}")
        if hint:
            screen.say(f"hint: {hint}")
    return code


def _describe(error: BaseException) -> tuple[str, str, str, int]:
    """(kind, message, hint, exit code) of anything that can be raised."""
    if isinstance(error, SemblanceError):
        return error.kind, _one_line(error.message), _one_line(error.hint), error.exit_code
    if isinstance(error, click.FileError):
        return InputError.__name__, _one_line(error.format_message()), "", InputError.exit_code
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        path = context.command_path if context else "semblance"
        return (
            ConfigError.__name__,
            _one_line(error.format_message()),
            f"{path} --help",
            ConfigError.exit_code,
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        hint = "free some space and run the same command again" if full else ""
        return InputError.__name__, _one_line(f"{error.strerror}{where}"), hint, InputError.exit_code
    if isinstance(error, MemoryError):
        return "MemoryError", "out of memory", "a smaller --size needs less", 1
    message = _one_line(f"{type(error).__name__}: {error}")
    return type(error).__name__, f"unexpected {message}", "run it again with -v and report what it prints", 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExample:\n  semblance run photos/",
)
@click.version_option(__version__, prog_name="semblance")
def semblance() -> None:
    """From a folder of unlabelled images to an embedding learned on them, a searchable collection and
    a report."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code: 0, 2 bad use, 3 bad data, 4 collapsed training."""
    # Read by OpenMP when torch is first imported. Threads that never wait awake lose a sixth of a training
    # step to waking up; ones that wait long take a busy machine's time.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    words = sys.argv[1:] if arguments is None else list(arguments)
    verbose = {"-v", "--verbose"} & set(words)
    if not sys.warnoptions and not verbose:
        warnings.simplefilter("ignore")  # a library's remarks to its developers are not the user's business
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process speaks for all
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        sys.stderr = sys.stderr if verbose else sys.stdout
    semblance.main(words, "semblance")


if __name__ == "__main__":
    main()
