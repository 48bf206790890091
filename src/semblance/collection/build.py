"""From images to a collection: scan, decode, train, embed, report, each stage resumable.

Everything is made in a hidden folder beside the target and put in place when it is whole. Killed at any
moment, the same command goes on: decoded images are in the store's journal, the training in its
checkpoint. An existing collection is updated: what is new or changed is decoded and embedded with the
model it has.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semblance import plugins
from semblance.collection import columns, disk, labelled, plan, together
from semblance.collection._job import Job, clean, finish, save_progress, start
from semblance.collection.checks import check_columns, check_roles, has_roles
from semblance.collection.codes import choose_and_write
from semblance.collection.conflicts import conflicts
from semblance.collection.learn import embed_rows, follow, learn_model, paths_of, views_preset
from semblance.collection.log import Log, now
from semblance.collection.model import Model, plain, versions
from semblance.collection.plan import Plan
from semblance.collection.settings import Options, Settings, resolve, with_manifest
from semblance.collection.store import FORMAT, Collection, is_collection, source_record
from semblance.collection.update import changes, count, describe, update
from semblance.contracts import PAIR, Progress
from semblance.errors import CollectionError, InputError
from semblance.images.sources import Source, scan
from semblance.images.store import build_store, open_store
from semblance.training.positives import check_views

__all__ = ["learn", "run", "target_of"]


def run(
    source: Any,
    out: str | Path | None = None,
    *,
    progress: Progress | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    report: Callable[[Collection], object] | None = None,
    **options: Any,
) -> Collection:
    """The collection made from `source`: planned, decoded, learned, embedded and, with `report`, shown.

    `source`: a folder, glob, manifest, list of files or array `(n, h, w, c)`. `out`: the collection's
    folder, by default `<name of the source>.smb` here. `options`: see `Options`. `on_plan` is given the bill
    before anything is made; `report` is called with the finished collection before it is put in place.

    A collection that is already there is updated (nothing is retrained) or left as it is. Raises
    `CollectionError` where it was made with other options and `overwrite` is not given, where another process
    is building it, or where the disk is too small; `InputError` for images, `ConfigError` for options,
    `TrainingCollapsed`.
    """
    return _build(source, out, Options.read(options), progress, on_plan, report, planned=True)


def learn(
    source: Any, out: str | Path | None = None, *, progress: Progress | None = None, **options: Any
) -> Collection:
    """The same without the bill's calibration and without the report."""
    return _build(source, out, Options.read(options), progress, None, None, planned=False)


def target_of(source: Any, out: str | Path | None) -> Path:
    """Where the collection goes: `out`, or `<name>.smb` in the current folder.

    >>> target_of("some/photos/", None).name, target_of("cats.csv", None).name
    ('photos.smb', 'cats.smb')
    """
    if out is not None:
        return Path(out).expanduser().absolute()
    if isinstance(source, (str, Path)):
        whole = Path(source).expanduser().absolute()
        plain_parts = itertools.takewhile(lambda part: not set(part) & set("*?["), whole.parts)
        place = whole if whole.exists() else Path(*plain_parts)
        return Path(f"{(place.stem if place.is_file() else place.name) or 'images'}.smb").absolute()
    return Path("images.smb").absolute()


def _build(
    source: Any,
    out: str | Path | None,
    options: Options,
    progress: Progress | None,
    on_plan: Callable[[Plan], None] | None,
    report: Callable[[Collection], object] | None,
    planned: bool,
) -> Collection:
    if together.follows():
        done = Collection.open(follow()["target"])
        done.outcome = "followed"
        return done
    target = target_of(source, out)
    with disk.explain_disk_errors(f"building {target.name}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with disk.hold_lock(target):
            disk.recover(target, is_collection)
            _check_target(target)
            found = scan(source, options.where)
            options = with_manifest(options, source, found)
            name = Path(source).name if isinstance(source, (str, Path)) else None
            origin = {**source_record(found.root, found.kind, target), "name": name}
            job = Job(found, origin, target, options, progress, on_plan, report, planned)
            done = _refresh(job) if is_collection(target) and not options.overwrite else _make(job)
            together.tell({"target": target})
            together.finish()
            return done


def _check_target(target: Path) -> None:
    if target.exists() and not is_collection(target) and (not target.is_dir() or any(target.iterdir())):
        raise CollectionError(f"{target} is there and is not a collection", "choose another place with --out")


def _refresh(job: Job) -> Collection:
    """Bring an existing collection up to date with its images, with the model it has."""
    clean(job.target)
    old = Collection.open(job.target)
    record, was = old.info["config"], old.info["source"]
    differing = conflicts(job.options, record)
    same_place = job.origin["root"] in (was["root"], str(old.source)) and job.origin["kind"] == was["kind"]
    if not same_place or (was["kind"] != "folder" and job.origin["name"] != was.get("name")):
        differing.insert(0, f"it was made from {was['root'] or was['kind']}")
    if differing:
        raise CollectionError(
            f"{job.target.name} was made with other settings: {'; '.join(differing)}",
            "--overwrite replaces it, --out puts the new one elsewhere",
        )
    difference = changes(old, job.source)
    if difference.nothing:
        if job.report is not None and not (job.target / "report.html").is_file():
            job.report(old)
        old.outcome = "up to date"
        return old
    start(job, {"update": old.info["model"], "of": old.info["created"]})
    log = Log(job.folder / "log.jsonl", job.target / "log.jsonl")
    log.write(
        "update", new=len(difference.added), changed=len(difference.changed), removed=len(difference.removed)
    )
    info = update(old, job.source, job.folder, job.options, job.progress)
    if info is None:
        shutil.rmtree(job.folder)
        old.outcome = "up to date"
        return old
    log.write("updated", images=info["counts"]["images"])
    return finish(job, {**info, "source": job.origin}, describe(difference))


def _make(job: Job) -> Collection:
    """A new collection, or the rest of one whose build was cut off."""
    seen = plan.survey(job.source, job.options)
    settings = resolve(job.options, len(job.source.items), seen.side, seen.pixels)
    _check_columns(job.source, settings)
    labelled.check(settings.lesson, job.source)
    request = {"settings": settings.record(), "version": versions()["semblance"]}
    resumed = start(job, request)
    log = Log(job.folder / "log.jsonl")
    log.write("resume" if resumed else "start", files=len(job.source.items), request=request)
    bill = _plan(job, settings)
    with job.stage("decode"):
        previous = job.target if is_collection(job.target) else None
        table = build_store(
            job.source,
            job.folder,
            settings.size,
            settings.fit,
            job.options.threads,
            job.progress,
            previous,
            settings.pixels,
        )
    columns.write_given(job.folder, job.source.table, table)
    labelled.write(job.folder, settings.lesson, paths_of(table))
    pixels = open_store(job.folder / "pixels.npy")
    log.write("decoded", readable=len(pixels), unreadable=len(table) - len(pixels))
    _check_images(pixels, table)
    save_progress(job, request, bill)
    with job.stage("train"):
        model = learn_model(settings, pixels, table, job.folder, job.progress)
    epochs = Collection(job.folder, {}).metrics()  # a run that was killed told nobody else of its seconds
    job.seconds["train"] = max([job.seconds["train"], *(one["seconds"] for one in epochs)])
    log.write("learned", model=model.identity, epochs=model.facts["training"]["epochs"])
    save_progress(job, request, bill)
    with job.stage("embed"):
        rows = embed_rows(model, pixels, job.folder, job.options.device, job.progress)
    log.write("embedded", rows=len(rows))
    info = _describe(job, settings, table, model, bill, views_preset(settings, pixels))
    info["columns"] = None
    if has_roles(settings.objective_config):
        told = columns.read(job.folder)
        info["columns"] = check_columns(settings.objective_config, told, rows, paths_of(table))
    save_progress(job, request, bill)
    with job.stage("encode"):
        info |= choose_and_write(job.folder, rows, model.identity, job.progress)
    if info["codes"]:
        log.write("encoded", coder=info["codes"]["coder"], bits=info["codes"]["bits"])
    del pixels, rows
    return finish(job, info, "resumed" if resumed else "built")


def _check_columns(source: Source, settings: Settings) -> None:
    """Raise `ConfigError` before anything is decoded where there are no second views or they could not be
    found, or where a column is named that is none."""
    if settings.positives != "view":
        check_views(getattr(plugins.get("objectives", settings.objective).Objective, "views", PAIR))
    manifest = source.table
    given = {} if manifest is None else columns.given_columns(manifest)
    columns.positives(settings.positives, given, [item.path for item in source.items])
    check_roles(settings.objective_config, given, settings.pixels)


def _plan(job: Job, settings: Settings) -> dict[str, Any] | None:
    """The bill, computed once for a build and kept over its restarts; the disk is checked either way."""
    plan.check_disk(job.target, settings, len(job.source.items))
    if not job.planned:
        return None
    before = disk.read_json(job.folder / "building.json").get("bill")
    if before:
        return dict(before)
    bill = plan.make_bill(job.source, job.target, settings, job.options.threads, job.progress)
    if job.on_plan is not None:
        job.on_plan(bill)
    return bill.record()


def _check_images(pixels: Any, table: Any) -> None:
    if len(pixels) < 2:
        raise InputError("there is 1 readable image", "at least 2 are needed to learn what sets images apart")
    if len({value for value in table.column("hash").to_pylist() if value is not None}) < 2:
        raise InputError(
            f"all {len(pixels)} images are the same file", "at least 2 different ones are needed"
        )
    first = pixels[0]
    if not first.std() and all((pixels[i] == first).all() for i in range(len(pixels))):
        raise InputError(
            f"all {len(pixels)} images show one flat colour", "there is nothing in them to learn"
        )


def _describe(
    job: Job, settings: Settings, table: Any, model: Model, bill: dict[str, Any] | None, views: Any
) -> dict[str, Any]:
    config = settings.record()
    config["views"] = {**config["views"], "chosen": views[0], "values": plain(views[1])}
    return {
        "format": FORMAT,
        "name": job.target.stem,
        "model": model.identity,
        "source": job.origin,
        "counts": count(table),
        "config": config,
        "bill": bill,
        "actual": None,
        "evaluation": None,
        "created": now(),
        "version": versions()["semblance"],
    }
