"""The bill: what a run will find, take and leave, measured on a sample of these images on this machine.

Nothing in it is a constant of some other machine: a sample is decoded into a real store, a few real training
steps are taken with the real encoder and batch, and the rest is arithmetic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.collection import labelled
from semblance.collection.columns import trial_columns
from semblance.collection.learn import prepare, spread_rows, views_preset
from semblance.collection.memory import forget_peak, peak_memory
from semblance.collection.model import plain, view_size
from semblance.collection.price import GALLERY
from semblance.collection.settings import Options, Settings, resolve, with_manifest
from semblance.contracts import Progress
from semblance.errors import CollectionError, ConfigError, InputError
from semblance.images.look import Look, look
from semblance.images.signature import identify
from semblance.images.sources import Source, locate, scan
from semblance.images.store import build_store, open_store
from semblance.training.embed import embed
from semblance.training.loop import train

__all__ = ["Plan", "check_disk", "make_bill", "peak_memory", "plan", "survey"]

FEW = 32
SAMPLE = 2_000
DECODE_SECONDS = 1.5
PATIENCE = 4.0
TRAIN_SECONDS = 2.5
ROW = 1_200
"""Bytes of memory per image for its name, time, hash and table row while a store is built."""
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
        rate, files, pixels = _try_decoding(source, settings, folder, threads)
        bad, checked = _count_unreadable(source, files, files - len(pixels), threads)
        measured = _try_training(source, settings, pixels, max(2, n - bad), folder, progress)
        sampled = pixels.nbytes
        del pixels
    good = max(2, n - bad)
    training = settings.training
    batch = min(training.batch, good)
    steps = good // batch
    per_epoch = steps * measured.step + min(good, SAMPLE) / measured.embed_rate + measured.save
    if measured.partners:
        per_epoch += good / measured.embed_rate
    learning = training.epochs * per_epoch
    if training.budget is not None:
        learning = min(learning, training.budget)
    closing = good / measured.embed_rate if measured.finishes else 0.0
    seconds = {
        "decode": n / rate,
        "train": learning + measured.warm + closing,
        "embed": good / measured.embed_rate,
        "encode": ENCODE_SECONDS[0] + ENCODE_SECONDS[1] * min(good, GALLERY),
        "report": REPORT_SECONDS[0] + REPORT_SECONDS[1] * min(good, REPORT_IMAGES),
    }
    store = good * settings.size**2 * settings.pixels.bytes_per_pixel
    rows = 2 * good * measured.dim * 4 + n * ROW
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
        epochs=training.epochs,
        batch=batch,
        steps=steps * training.epochs,
        parameters=measured.parameters,
        seconds={stage: round(value, 2) for stage, value in seconds.items()},
        memory=peak_memory() + max(0, store - sampled) + rows + LATER,
        disk=_disk(settings, good, measured.parameters),
    )


ENCODE_SECONDS = (0.5, 0.00006)
REPORT_SECONDS = (2.0, 0.0005)
REPORT_IMAGES = 3_000


@dataclass(frozen=True)
class _Measured:
    step: float
    warm: float
    save: float
    embed_rate: float
    dim: int
    parameters: int
    views: str
    partners: bool
    finishes: bool


class _EnoughError(Exception):
    """Raised by the calibration's own progress callback: the steps taken are enough."""


def _try_decoding(
    source: Source, settings: Settings, folder: Path, threads: int | None
) -> tuple[float, int, NDArray[np.uint8]]:
    """Files per second, how many were tried (all of a small collection), and the readable ones' pixels."""
    n = len(source.items)
    few, spent = _decode_part(source, _runs(n, min(n, FEW)), settings, folder / "few", threads)
    if few == n or spent > PATIENCE:
        return few / spent, few, open_store(folder / "few" / "pixels.npy")
    # The first time also paid for imports and threads; the rate is that of a second, larger part.
    rate = few / spent
    most = (
        n if n <= SAMPLE and n / rate < PATIENCE else min(n, SAMPLE, max(8 * few, int(rate * DECODE_SECONDS)))
    )
    most, spent = _decode_part(source, _runs(n, most), settings, folder / "more", threads)
    return most / spent, most, open_store(folder / "more" / "pixels.npy")


def _decode_part(
    source: Source, rows: NDArray[np.int64], settings: Settings, folder: Path, threads: int | None
) -> tuple[int, float]:
    """How many files were tried and the seconds it took; more files where none of these can be used."""
    folder.mkdir()
    for part in (rows, spread_rows(len(source.items), SAMPLE)):
        started = time.monotonic()
        try:
            build_store(
                _part_of(source, part), folder, settings.size, settings.fit, threads, wanted=settings.pixels
            )
            break
        except InputError:
            if len(part) == len(source.items) or part is not rows:
                raise
    return len(part), max(time.monotonic() - started, 1e-4)


def _runs(n: int, most: int) -> NDArray[np.int64]:
    """`most` of `n` row numbers in eight runs: neighbours on the disk, as the real run reads them."""
    if most >= n:
        return np.arange(n)
    length = -(-most // 8)
    starts = np.linspace(0, n - length, 8).astype(np.int64)
    rows: NDArray[np.int64] = np.unique((starts[:, None] + np.arange(length)).ravel())[:most]
    return rows


def _count_unreadable(source: Source, tried: int, bad: int, threads: int | None) -> tuple[int, str]:
    """How many files cannot be used, and how that is known: counted, or estimated from the sample and from
    the first bytes of all files (damage further inside shows only when they are decoded)."""
    n = len(source.items)
    if tried == n:
        return bad, "every file was decoded"
    if source.array is not None:
        return 0, "an array"
    with ThreadPoolExecutor(threads or 8) as pool:
        paths = (locate(source.root, item.path) for item in source.items)
        foreign = sum(not ok for ok in pool.map(_begins_like_an_image, paths))
    return max(
        foreign, round(bad / tried * n)
    ), f"estimated: {tried:,} files decoded, the first bytes of all read"


def _try_training(
    source: Source,
    settings: Settings,
    pixels: NDArray[Any],
    n: int,
    folder: Path,
    progress: Progress | None,
) -> _Measured:
    """A few steps of the real training on the sample, and the rate of embedding it."""
    batch = min(settings.training.batch, n)
    rows = np.resize(np.arange(len(pixels)), max(2, min(n, max(len(pixels), 8 * batch))))
    sample = pixels if len(rows) == len(pixels) else pixels[rows]
    preset, views = views_preset(settings, pixels)
    objective: Any = prepare(
        settings,
        pixels,
        views,
        lambda: trial_columns(source.table, sample, settings.pixels),
        lambda: labelled.trial(settings.lesson, source, len(sample)),
    )[0]
    side = view_size(settings.size, views.crop)
    config = dataclasses.replace(settings.train_config(views), epochs=10_000, budget=None, patience=0)
    times = [time.monotonic()]

    def watch(stage: str, done: int, total: int) -> None:
        if stage != "learn":
            return
        times.append(time.monotonic())
        if progress is not None:
            progress("plan", min(len(times) - 1, 20), 20)
        if (len(times) > 4 and times[-1] - times[0] > TRAIN_SECONDS) or len(times) > 60:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        train(sample, objective, config, folder / "trial", side, watch)
    steps = np.diff(times)[1:]
    device = settings.training.device
    some = sample[: min(len(sample), 1024)]
    embed(objective.encoder, objective.head, some[: min(64, len(some))], side, device=device, crop=views.crop)
    started = time.monotonic()
    embed(objective.encoder, objective.head, some, side, device=device, crop=views.crop)
    rate = len(some) / max(time.monotonic() - started, 1e-4)
    parameters = sum(weight.numel() for weight in objective.parameters())
    partner = getattr(getattr(objective, "partner", None), "share", 0.0)
    return _Measured(
        step=float(np.median(steps)),
        warm=float(max(0.0, times[1] - times[0] - np.median(steps))),
        save=_time_writing(folder, 3 * 4 * parameters),
        embed_rate=rate,
        dim=int(settings.objective_config.dim),
        parameters=parameters,
        views=preset,
        partners=bool(partner) or hasattr(objective, "neighbours"),
        finishes=hasattr(objective, "finish"),
    )


def _time_writing(folder: Path, count: int) -> float:
    """Seconds to write `count` bytes and be sure of them: what a checkpoint takes."""
    from semblance.collection.disk import write_atomically

    data = bytes(count)
    started = time.monotonic()
    write_atomically(folder / "checkpoint", lambda file: file.write(data))
    return time.monotonic() - started


def _disk(settings: Settings, images: int, parameters: int) -> int:
    """Bytes that a collection takes: pixels, embeddings, codes, table, weights twice, report."""
    dim = int(settings.objective_config.dim)
    return (
        images * (settings.size**2 * settings.pixels.bytes_per_pixel + 4 * dim + CODE + 150)
        + 8 * parameters
        + (1 << 20)
    )


def _part_of(source: Source, rows: Sequence[int] | NDArray[np.int64]) -> Source:
    items = tuple(source.items[int(i)] for i in rows)
    array = None if source.array is None else np.ascontiguousarray(source.array[np.asarray(rows)])
    return dataclasses.replace(source, items=items, problems=(), table=None, array=array)


def _begins_like_an_image(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return identify(file.read(32)) is not None
    except (OSError, ValueError):  # ValueError: a NUL character in the path
        return False
