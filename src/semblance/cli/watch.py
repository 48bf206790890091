"""What `run` and `learn` show: the bill before, a line of health per epoch, where it all is at the end."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
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
        self._epochs = len(_records(metrics) or [])
        self._looked = 0.0
        self._stage = ""
        self._learned = (0, 0)
        self._end: tuple[str, int, int] | None = None

    def __exit__(self, *error: Any) -> None:
        self._look()
        self._close()
        super().__exit__(*error)

    def progress(self, stage: str, done: int, total: int) -> None:
        """As `Screen.progress`; that learning is done is said after its last epoch."""
        if stage == "learn":
            self._learned = (done, total)
        if stage != self._stage or time.monotonic() - self._looked > PAUSE:
            self._stage = stage
            self._look()
        if stage != "learn":
            self._close()
        elif done >= total:
            self._end = (stage, done, total)
            return
        super().progress(stage, done, total)

    __call__ = progress

    def _close(self) -> None:
        if self._end is not None:
            end, self._end = self._end, None
            super().progress(*end)

    def epochs(self, records: list[dict[str, Any]]) -> None:
        """Show those of `records` that have not been shown."""
        if len(records) < self._epochs:  # a training that started over
            self._epochs = 0
        new, self._epochs = records[self._epochs :], len(records)
        done, total = self._learned
        left = self.left("learn", done, total) if new and done < total else None
        for record in new:
            known = left is not None and left >= 1 and record is new[-1]
            self.say(health_line(record) + (f", {seconds_text(left or 0.0)} left" if known else ""))

    def _look(self) -> None:
        self._looked = time.monotonic()
        records = _records(self.metrics)
        if records is not None:
            self.epochs(records)


def _records(path: Path) -> list[dict[str, Any]] | None:
    """Those of every epoch so far; None while the file is being replaced."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        return None


def health_line(record: Mapping[str, Any]) -> str:
    """One epoch in one line.

    >>> health_line({"epoch": 3, "loss": 1.25, "terms": {"metric": 1.0, "rim": 0.25},
    ...              "health": {"effective_rank": 17.4, "used_clusters": 0.9, "positive_cosine": 0.8}})
    'epoch 3: loss 1.250 (metric 1.000, rim 0.250), rank 17.4, clusters 90 %, positives 0.80'

    Positives are the cosines of two views of an image, others those of two images: apart is well. An epoch
    without any spread left is marked: after `--training.patience` of them the run stops.
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
    if "mean_cosine" in health:
        parts.append(f"others {health['mean_cosine']:.2f}")
    if health.get("flat"):
        parts.append("no spread left")
    return f"epoch {record['epoch']}: {', '.join(parts)}"


def bill_lines(plan: Plan) -> list[str]:
    """The bill as a small table."""
    stages = ", ".join(f"{stage} {seconds_text(value)}" for stage, value in plan.seconds.items())
    options = ", ".join(f"{key} {value}" for key, value in plan.encoder_options.items() if value is not None)
    epochs = f"{plan.epochs:,} epoch{'s' * (plan.epochs != 1)}"
    length = f"{epochs} of {plan.batch:,} images a step, {plan.steps:,} steps"
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


def _reasons(collection: Collection) -> Counter[str]:
    """Why files could not be used, and how many each."""
    if not collection.info["counts"]["unreadable"]:
        return Counter()
    status = collection.images["status"].to_pylist()
    return Counter(one.removeprefix("unreadable: ") for one in status if one != "ok")


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
    for reason, times in _reasons(collection).most_common(3):
        say(f"unreadable: {times:,} ({reason})")
    say(
        f"{collection.outcome}: {counts['images']:,} files, {counts['unreadable']:,} unreadable, "
        f"{counts['duplicates']:,} exact duplicates"
    )
    for line in said_of(collection.info.get("columns")):
        say(line)
    where_report = f"  ·  open {shown(report)}" if report.is_file() else ""
    click.echo(shown(collection.path) + where_report)
