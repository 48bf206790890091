"""The bill: what a run will find, take and leave, measured on a sample of these images on this machine.

Nothing in it is a constant of some other machine: a sample is decoded into a real store, a few real training
steps are taken with the real encoder and batch, and the rest is arithmetic.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semblance.collection import labelled
from semblance.collection.memory import forget_peak, peak_memory
from semblance.collection.model import plain
from semblance.collection.price import GALLERY
from semblance.collection.settings import Options, Settings, resolve, with_manifest
from semblance.collection.trial import count_unreadable, try_decoding, try_training
from semblance.contracts import Progress
from semblance.errors import CollectionError, ConfigError
from semblance.images.look import Look, look
from semblance.images.sources import Source, scan
from semblance.training.loop import SAMPLE as LOOKED

__all__ = ["Plan", "check_disk", "make_bill", "peak_memory", "plan", "survey"]

ROW = 1_200
"""Bytes of memory per image for its name, time, hash and table row while a store is built."""
MEASURED = 480
"""Bytes of what is measured on an image."""
MARGIN = 64 << 20
CODE = 16
"""Bytes of a code: 64 or 128 bits, as the price table mostly chooses."""
LATER = 80 << 20
"""Bytes of memory for what no trial does: checks between epochs, codes, map and libraries of the report."""


@dataclass(frozen=True)
class Plan:
    """The bill. `seconds` by stage, `memory` (peak, bytes), `disk` (bytes that stay).

    `unreadable` counts by what `checked` says, `pixels` says what an image holds. `encoder`, `size`,
    `objective`, `epochs`, `batch` and `views` are what a run would use; `reason` says why this encoder.
    """

    images: int
    unreadable: int
    checked: str
    size: int
    encoder: str
    encoder_options: dict[str, Any]
    pixels: str
    reason: str
    objective: str
    views: str
    epochs: int
    batch: int
    steps: int
    parameters: int
    seconds: dict[str, float]
    memory: int
    disk: int

    def record(self) -> dict[str, Any]:
        """The bill as JSON."""
        record: dict[str, Any] = plain(self)
        return record

    @property
    def total_seconds(self) -> float:
        """All stages together."""
        return sum(self.seconds.values())


def plan(
    source: Any, out: str | Path | None = None, *, progress: Progress | None = None, **options: Any
) -> Plan:
    """The bill of `run(source, out, **options)`, without making anything. Takes a few seconds.

    Raises what `run` would raise about the options and the images.
    """
    asked = Options.read(options)
    found = scan(source, asked.where)
    asked = with_manifest(asked, source, found)
    seen = survey(found, asked)
    settings = resolve(asked, len(found.items), seen.side, seen.pixels)
    labelled.check(settings.lesson, found)
    place = Path(out).absolute() if out is not None else Path.cwd() / "images.smb"
    return make_bill(found, place, settings, asked.threads, progress)


def survey(source: Source, options: Options) -> Look:
    """A look at some of the images: their size, and what their pixels are. Raises `ConfigError`."""
    if options.pixels not in (None, "auto", "photo"):
        raise ConfigError(f"pixels is {options.pixels!r}", "auto or photo")
    return look(source, options.threads, photo=options.pixels == "photo")


def check_disk(target: Path, settings: Settings, images: int) -> None:
    """Raise `CollectionError` where the collection and what its build needs would not fit on the disk."""
    needed = _disk(settings, images, 0) + MARGIN
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise CollectionError(
            f"{target.name} needs about {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free on its disk",
            "free some space, choose another place with --out, or a smaller --size",
        )


def make_bill(
    source: Source,
    target: Path,
    settings: Settings,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Plan:
    """The bill for images that are already found. Raises `InputError` where the sample cannot be read."""
    n = len(source.items)
    forget_peak()
    with tempfile.TemporaryDirectory(prefix="semblance-plan-") as name:
        folder = Path(name)
        rate, files, pixels = try_decoding(source, settings, folder, threads)
        bad, checked = count_unreadable(source, files, files - len(pixels), threads)
        measured = try_training(source, settings, pixels, max(2, n - bad), folder, progress)
        sampled = pixels.nbytes
        del pixels
    good = max(2, n - bad)
    training = settings.training
    batch = min(training.batch, good)
    steps = good // batch
    per_epoch = steps * measured.step + min(good, LOOKED) / measured.embed_rate + measured.save
    if measured.partners:
        per_epoch += good / measured.embed_rate
    epochs = training.epochs
    if training.budget is not None:
        epochs = max(1, int((training.budget - measured.warm) / per_epoch))
    learning = epochs * per_epoch
    closing = min(good, measured.closing) / measured.embed_rate
    seconds = {
        "decode": n / rate,
        "train": good * measured.columns + learning + measured.warm + closing,
        "embed": good / measured.embed_rate,
        "encode": ENCODE_SECONDS[0] + ENCODE_SECONDS[1] * min(good, GALLERY),
        "report": REPORT_SECONDS[0] + REPORT_SECONDS[1] * min(good, REPORT_IMAGES),
    }
    store = good * settings.size**2 * settings.pixels.bytes_per_pixel
    rows = 2 * good * measured.dim * 4 + n * ROW + good * (2 * MEASURED if measured.columns else 0)
    return Plan(
        images=n + len(source.problems),
        unreadable=bad + len(source.problems),
        checked=checked,
        size=settings.size,
        encoder=settings.encoder,
        encoder_options=plain(settings.encoder_config),
        pixels=settings.pixels.described,
        reason=settings.reason,
        objective=settings.objective,
        views=measured.views,
        epochs=epochs,
        batch=batch,
        steps=steps * epochs,
        parameters=measured.parameters,
        seconds={stage: round(value, 2) for stage, value in seconds.items()},
        memory=peak_memory() + max(0, store - sampled) + rows + LATER,
        disk=_disk(settings, good, measured.parameters),
    )


ENCODE_SECONDS = (0.5, 0.00006)
REPORT_SECONDS = (2.0, 0.0005)
REPORT_IMAGES = 3_000


def _disk(settings: Settings, images: int, parameters: int) -> int:
    """Bytes that a collection takes: pixels, embeddings, codes, tables, weights twice, report."""
    dim = int(settings.objective_config.dim)
    return (
        images * (settings.size**2 * settings.pixels.bytes_per_pixel + 4 * dim + CODE + 150 + MEASURED)
        + 8 * parameters
        + (1 << 20)
    )
