"""What `run` and `learn` show: the bill before, a line of health per epoch, where it all is at the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semblance.amounts import bytes_text, seconds_text
from semblance.cli import screen

if TYPE_CHECKING:
    from semblance.collection.plan import Plan
    from semblance.collection.store import Collection

__all__ = ["Watch", "bill_lines", "finish", "health_line", "print_plan", "shown"]

PAUSE = 0.5
"""Seconds between two looks at the metrics file."""


class Watch(screen.Screen):
    """A screen that also reads `metrics.jsonl` while it grows and shows each new epoch."""

    def __init__(self, metrics: Path) -> None:
        super().__init__()
        self.metrics = metrics
        self._epochs = len(_records(metrics))
        self._looked = 0.0
        self._stage = ""

    def __exit__(self, *error: Any) -> None:
        self._look()
        super().__exit__(*error)

    def progress(self, stage: str, done: int, total: int) -> None:
        """As `Screen.progress`."""
        if stage != self._stage or time.monotonic() - self._looked > PAUSE:
            self._stage = stage
            self._look()
        super().progress(stage, done, total)

    def epochs(self, records: list[dict[str, Any]]) -> None:
        """Show those of `records` that have not been shown."""
        new, self._epochs = records[self._epochs :], max(self._epochs, len(records))
        for record in new:
            self.say(health_line(record))

    def _look(self) -> None:
        self._looked = time.monotonic()
        self.epochs(_records(self.metrics))


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):  # not there yet, or just being replaced
        return []


def health_line(record: Mapping[str, Any]) -> str:
    """One epoch in one line.

    >>> health_line({"epoch": 3, "loss": 1.25, "terms": {"metric": 1.0, "rim": 0.25},
    ...              "health": {"effective_rank": 17.4, "used_clusters": 0.9, "positive_cosine": 0.8}})
    'epoch 3: loss 1.250 (metric 1.000, rim 0.250), rank 17.4, clusters 90 %, positives 0.80'
    """
    terms = ", ".join(f"{name} {value:.3f}" for name, value in record.get("terms", {}).items())
    health = record.get("health", {})
    parts = [f"loss {record['loss']:.3f}" + (f" ({terms})" if terms else "")]
    if "effective_rank" in health:
        parts.append(f"rank {health['effective_rank']:.1f}")
    if "used_clusters" in health:
        parts.append(f"clusters {health['used_clusters']:.0%}".replace("%", " %"))
    if "positive_cosine" in health:
        parts.append(f"positives {health['positive_cosine']:.2f}")
    return f"epoch {record['epoch']}: {', '.join(parts)}"


def bill_lines(plan: Plan) -> list[str]:
    """The bill as a small table."""
    stages = ", ".join(f"{stage} {seconds_text(value)}" for stage, value in plan.seconds.items())
    options = ", ".join(f"{key} {value}" for key, value in plan.encoder_options.items() if value is not None)
    length = f"{plan.epochs:,} epochs of {plan.batch:,} images a step, {plan.steps:,} steps"
    rows = [
        ["images", f"{plan.images:,} found, {plan.unreadable:,} unreadable ({plan.checked})"],
        *([["pixels", plan.pixels]] if plan.pixels != "RGB" else []),
        ["encoder", f"{plan.encoder} at {plan.size} px, {plan.parameters:,} parameters ({options})"],
        ["", plan.reason],
        ["objective", f"{plan.objective}, views {plan.views}, {length}"],
        ["time", f"{seconds_text(plan.total_seconds)} ({stages})"],
        ["memory", f"{bytes_text(plan.memory)} at most"],
        ["disk", bytes_text(plan.disk)],
    ]
    return screen.table_lines(["", ""], rows)


def print_plan(source: str, out: Path | None, asked: Mapping[str, Any], as_json: bool) -> None:
    """Print the bill of a run and make nothing."""
    from semblance.collection.plan import plan

    with screen.Screen() as watched:
        bill = plan(source, out, progress=watched.progress, **asked)
    if as_json:
        screen.print_json({**bill.record(), "total_seconds": bill.total_seconds})
        return
    for line in bill_lines(bill):
        click.echo(line)


def shown(path: Path) -> str:
    """`path` as a person would type it here.

    >>> shown(Path.cwd() / "photos.smb").replace("\\\\", "/")
    'photos.smb'
    """
    try:
        near = os.path.relpath(path)
    except ValueError:  # another drive on Windows
        return str(path)
    return str(path) if near.startswith("..") else near


def finish(collection: Collection, say: Callable[[str], None], as_json: bool) -> None:
    """Say what came of it, and on the last line where it is."""
    from semblance.collection.checks import said_of

    counts = collection.info["counts"]
    report = collection.path / "report.html"
    if as_json:
        kept = ("name", "model", "counts", "bill", "actual", "config", "columns")
        where = {"collection": collection.path, "report": report if report.is_file() else None}
        facts = {key: collection.info.get(key) for key in kept}
        screen.print_json({**where, "outcome": collection.outcome, **facts})
        return
    say(
        f"{collection.outcome}: {counts['images']:,} files, {counts['unreadable']:,} unreadable, "
        f"{counts['duplicates']:,} exact duplicates"
    )
    for line in said_of(collection.info.get("columns")):
        say(line)
    where_report = f"  ·  open {shown(report)}" if report.is_file() else ""
    click.echo(shown(collection.path) + where_report)
