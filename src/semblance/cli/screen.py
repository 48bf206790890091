"""The screen: progress to stderr, results to stdout, plain lines where nobody watches."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import click

from semblance.amounts import seconds_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Screen", "print_json", "print_table", "say", "table_lines"]

PATIENCE = 30.0
"""Seconds between two lines of one stage where there is no terminal."""


def say(text: str) -> None:
    """Print one line on stderr."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """Print one JSON value on stdout; numbers that JSON does not know become null."""
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """Print a small table on stdout (see `table_lines`)."""
    for line in table_lines(columns, rows, title):
        click.echo(line)


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> list[str]:
    """The lines of a small table: text to the left, numbers to the right; no head where it is all empty."""
    lines = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in lines) and bool(lines) for i in range(len(columns))]
    widths = [max(len(text) for text in texts) for texts in zip(columns, *lines, strict=True)]
    shown = [list(columns), *lines] if any(columns) else lines
    cells = [zip(line, widths, numeric, strict=True) for line in shown]
    texts = [
        "  ".join(f"{text:>{w}}" if n else f"{text:<{w}}" for text, w, n in line).rstrip() for line in cells
    ]
    return [title, *texts] if title else texts


class Screen:
    """One bar per stage on a terminal, a plain line now and then elsewhere; the first Ctrl-C is kept
    until the work is at a place where it may stop.

    Use it as a context; `progress` is the callable that the library takes. A second Ctrl-C stops at once.
    """

    def __init__(self) -> None:
        self.bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._starts: dict[str, tuple[float, int]] = {}
        self._notes: dict[str, str] = {}
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()
        self._interrupted = False
        self._handler: Any = None

    def __enter__(self) -> Screen:
        if sys.stderr.isatty():
            self.bars = _bars()
            self.bars.start()
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        if self.bars is not None:
            self.bars.stop()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` are through `stage`. Raises the Ctrl-C that was kept."""
        if self._interrupted and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        with self._lock:
            now = time.monotonic()
            self._starts.setdefault(stage, (now, done))
            if self.bars is None:
                self._line(stage, done, total, now)
                return
            if stage not in self._tasks:
                self._tasks[stage] = self.bars.add_task(stage, total=total, note="")
            note = "" if done >= total else self._notes.get(stage, "")
            self.bars.update(self._tasks[stage], completed=done, total=total, note=note)

    __call__ = progress

    def note(self, stage: str, text: str) -> None:
        """Show `text` beside the stage while it goes on."""
        self._notes[stage] = text

    def left(self, stage: str, done: int, total: int) -> float | None:
        """Seconds that the rest of a stage takes at its pace so far; None before there is one."""
        started, first = self._starts.get(stage, (0.0, done))
        seconds = time.monotonic() - started
        return seconds * (total - done) / (done - first) if done > first and seconds > 0 else None

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        if self.bars is not None:
            self.bars.console.print(text, markup=False, highlight=False)
        else:
            say(text)

    def _line(self, stage: str, done: int, total: int, now: float) -> None:
        finished = total > 0 and done >= total
        if self._said.get(stage) == float("inf") or not (
            finished or now - self._said.setdefault(stage, now) > PATIENCE
        ):
            return
        self._said[stage] = float("inf") if finished else now
        started, first = self._starts[stage]
        seconds, made = now - started, done - first
        rate = f", {made / seconds:,.0f}/s" if seconds > 0.01 and made else ""
        share = f"{done:,}" if finished else f"{done:,} of {total:,}"
        left = "" if finished or not made else f", {seconds_text(seconds * (total - done) / made)} left"
        note = "" if finished or stage not in self._notes else f" ({self._notes[stage]})"
        say(f"{stage}: {share} in {seconds_text(seconds)}{rate}{left}{note}")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        self.say("stopping at the next safe place (Ctrl-C again: at once)")


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many a second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed else "")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        expand=False,
    )


def _plain(value: Any) -> Any:
    """`value` as JSON knows it: arrays as lists, paths as text, infinities and NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "", 1).replace(",", "").lstrip("-").isdigit()
