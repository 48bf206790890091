"""One build: its hidden folder, what a restart finds in it, and how the whole is put in place."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semblance.collection import disk, labelled, plan
from semblance.collection.model import plain
from semblance.collection.plan import Plan
from semblance.collection.settings import Options
from semblance.collection.store import PARTS, Collection
from semblance.contracts import Progress
from semblance.errors import CollectionError
from semblance.images.sources import Source

__all__ = ["Job", "clean", "finish", "save_progress", "start"]

KEPT = ("labels.sqlite", "labels.sqlite-wal", "labels.sqlite-shm")
"""What a person said: carried over into whatever replaces a collection."""


@dataclass
class Job:
    """One build: where from, where to, how, and who is told."""

    source: Source
    origin: dict[str, Any]
    target: Path
    options: Options
    progress: Progress | None
    on_plan: Callable[[Plan], None] | None
    report: Callable[[Collection], object] | None
    planned: bool
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The hidden folder beside the target."""
        return disk.building_folder(self.target)

    @contextmanager
    def stage(self, name: str) -> Any:
        """Count the seconds of a stage; what an earlier, killed run spent on it is in `building.json`."""
        started = time.monotonic()
        try:
            yield
        except BaseException:  # Ctrl-C above all: the next run goes on counting from here
            self._count(name, started)
            record = self.folder / "building.json"
            with suppress(CollectionError, OSError):
                disk.write_json(record, {**disk.read_json(record), "seconds": self.seconds})
            raise
        self._count(name, started)

    def _count(self, name: str, started: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


def start(job: Job, request: dict[str, Any]) -> bool:
    """Make or keep the building folder; True where it is of the same request and goes on."""
    record = job.folder / "building.json"
    if record.is_file():
        try:
            found = disk.read_json(record)
        except CollectionError:
            found = {}
        if _free(found.get("request", {})) == _free(plain(request)):
            job.seconds = {name: float(value) for name, value in found.get("seconds", {}).items()}
            return True
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir()
    disk.write_json(record, {"request": plain(request), "seconds": {}})
    return False


def _free(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request without what may be another when a build goes on: more patience, more time."""
    settings = request.get("settings", {})
    training = dict(settings.get("training", {}))
    training.pop("patience", None)
    if training.get("budget") is not None:
        training |= {"budget": "some", "epochs": None}
    return {**request, "settings": {**settings, "training": training}}


def save_progress(job: Job, request: dict[str, Any], bill: dict[str, Any] | None) -> None:
    """Keep what a restart needs to know."""
    seconds = {name: round(value, 3) for name, value in job.seconds.items()}
    disk.write_json(
        job.folder / "building.json", {"request": plain(request), "seconds": seconds, "bill": bill}
    )


def finish(job: Job, info: dict[str, Any], outcome: str) -> Collection:
    """Write `collection.json` and the report, carry over what a person said, and swap it in."""
    folder = job.folder
    info = {**info, "parts": {name: disk.file_hash(folder / name) for name in PARTS}}
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # the model is saved
    if job.report is not None:
        with job.stage("report"):
            job.report(Collection(folder, {**info, "actual": info["actual"] or _actual(job, folder)}))
    if info["actual"] is None:
        info["actual"] = _actual(job, folder)
    for name in _carried(job.target):
        disk.share(job.target / name, folder / name)
    disk.write_json(folder / "collection.json", info)
    disk.put_in_place(job.target)
    clean(job.target)
    done = Collection.open(job.target)
    done.outcome = outcome
    return done


def _actual(job: Job, folder: Path) -> dict[str, Any]:
    seconds = {name: round(value, 3) for name, value in job.seconds.items()}
    seconds["total"] = round(sum(job.seconds.values()), 3)
    return {"seconds": seconds, "peak_memory": plan.peak_memory(), "disk": disk.size_of(folder)}


def clean(folder: Path) -> None:
    """Remove what only a build needs. It comes after the swap: until then a killed build goes on from it."""
    for name in ("building.json", "checkpoint.of", labelled.TAUGHT):
        (folder / name).unlink(missing_ok=True)


def _carried(target: Path) -> list[str]:
    return [name for name in KEPT if (target / name).exists()]
