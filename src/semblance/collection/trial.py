"""The trial behind a bill: a sample is decoded into a real store, a few real training steps are taken."""

from __future__ import annotations

import contextlib
import dataclasses
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
from semblance.collection.model import view_size
from semblance.collection.settings import Settings
from semblance.contracts import Column, Progress
from semblance.errors import InputError
from semblance.images.measure import measure_store
from semblance.images.signature import identify
from semblance.images.sources import Source, locate
from semblance.images.store import build_store, open_store
from semblance.training.embed import embed
from semblance.training.loop import READ, train

__all__ = ["Measured", "count_unreadable", "runs", "try_decoding", "try_training"]

FEW = 32
SAMPLE = 2_000
DECODE_SECONDS = 1.5
PATIENCE = 4.0
TRAIN_SECONDS = 2.5


@dataclass(frozen=True)
class Measured:
    """Seconds that an image's columns take, a step, the first one beyond that and a checkpoint; images
    embedded a second; the rest is what the bill has to know of the objective."""

    columns: float
    step: float
    warm: float
    save: float
    embed_rate: float
    dim: int
    parameters: int
    views: str
    partners: bool
    closing: int


class _EnoughError(Exception):
    """Raised by the calibration's own progress callback: the steps taken are enough."""


def try_decoding(
    source: Source, settings: Settings, folder: Path, threads: int | None
) -> tuple[float, int, NDArray[np.uint8]]:
    """Files per second, how many were tried (all of a small collection), and the readable ones' pixels."""
    n = len(source.items)
    few, spent = _decode_part(source, runs(n, min(n, FEW)), settings, folder / "few", threads)
    if few == n or spent > PATIENCE:
        return few / spent, few, open_store(folder / "few" / "pixels.npy")
    # The first time also paid for imports and threads; the rate is that of a second, larger part.
    rate = few / spent
    most = (
        n if n <= SAMPLE and n / rate < PATIENCE else min(n, SAMPLE, max(8 * few, int(rate * DECODE_SECONDS)))
    )
    most, spent = _decode_part(source, runs(n, most), settings, folder / "more", threads)
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


def runs(n: int, most: int) -> NDArray[np.int64]:
    """`most` of `n` row numbers in eight runs: neighbours on the disk, as the real run reads them."""
    if most >= n:
        return np.arange(n)
    length = -(-most // 8)
    starts = np.linspace(0, n - length, 8).astype(np.int64)
    rows: NDArray[np.int64] = np.unique((starts[:, None] + np.arange(length)).ravel())[:most]
    return rows


def count_unreadable(source: Source, tried: int, bad: int, threads: int | None) -> tuple[int, str]:
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


def try_training(
    source: Source,
    settings: Settings,
    pixels: NDArray[Any],
    n: int,
    folder: Path,
    progress: Progress | None,
) -> Measured:
    """A few steps of the real training on the sample, and the rate of embedding it."""
    batch = min(settings.training.batch, n)
    rows = np.resize(np.arange(len(pixels)), max(2, min(n, max(len(pixels), 8 * batch))))
    sample = pixels if len(rows) == len(pixels) else pixels[rows]
    preset, views = views_preset(settings, pixels)
    measuring = 0.0

    def columns() -> dict[str, Column]:
        nonlocal measuring
        started = time.monotonic()
        found = measure_store(sample, settings.pixels)
        measuring = (time.monotonic() - started) / len(sample)
        return {**trial_columns(source.table, len(sample)), **found}

    objective: Any = prepare(
        settings,
        pixels,
        views,
        columns,
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
    levels = hasattr(objective, "read")  # its own head will be gone by then
    how: dict[str, Any] = {"head": None if levels else objective.head, "levels": levels, "crop": views.crop}
    embed(objective.encoder, pixels=some[: min(64, len(some))], size=side, device=device, **how)
    started = time.monotonic()
    embed(objective.encoder, pixels=some, size=side, device=device, **how)
    rate = len(some) / max(time.monotonic() - started, 1e-4)
    parameters = sum(weight.numel() for weight in objective.parameters())
    partner = getattr(getattr(objective, "partner", None), "share", 0.0)
    return Measured(
        columns=measuring,
        step=float(np.median(steps)),
        warm=float(max(0.0, times[1] - times[0] - np.median(steps))),
        save=_time_writing(folder, 3 * 4 * parameters),
        embed_rate=rate,
        dim=int(settings.objective_config.dim),
        parameters=parameters,
        views=preset,
        partners=bool(partner) or hasattr(objective, "neighbours"),
        closing=READ if hasattr(objective, "read") else n * hasattr(objective, "finish"),
    )


def _time_writing(folder: Path, count: int) -> float:
    """Seconds to write `count` bytes and be sure of them: what a checkpoint takes."""
    from semblance.collection.disk import write_atomically

    data = bytes(count)
    started = time.monotonic()
    write_atomically(folder / "checkpoint", lambda file: file.write(data))
    return time.monotonic() - started


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
