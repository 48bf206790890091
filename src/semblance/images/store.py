"""The pixel store: every image decoded once into one memory-mapped array, with a table of what each one is.

`build_store` writes `pixels.npy`, `(n_ok, size, size, c)` in uint8 (pictures: c = 3) or uint16 (`formats`),
and `images.parquet`:

| column | type | what it says |
| --- | --- | --- |
| id | int64 | stays with the path through every later build |
| row | int64 | row of `pixels.npy`, -1 if unreadable |
| path | string | POSIX, relative to the source's root |
| width, height | int32 | of the upright original; 0 if unreadable |
| bytes, mtime_ns | int64 | of the file when it was listed |
| hash | string, null | hexadecimal blake2b-128 of the file's bytes; null if nothing was read |
| duplicate_of | int64, null | id of the first usable image with the same bytes |
| status | string | `ok` or `unreadable: reason` |

First come the source's items in its order, then the paths that were no candidates at all. What the build
itself is stands in the table's schema metadata: see `store_facts`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from semblance.contracts import Progress
from semblance.errors import ConfigError, InputError
from semblance.images._plan import Plan, image_table, make_plan, open_store, read_images, store_facts
from semblance.images.decode import Decoded, Fit, Pixels, decode, fit_pixels
from semblance.images.formats import PHOTO, PixelFormat
from semblance.images.journal import Journal, Record, settle
from semblance.images.raw import fit_values
from semblance.images.signature import read_image_bytes
from semblance.images.sources import Source, locate

__all__ = ["build_store", "open_store", "read_images", "store_facts"]


def build_store(
    source: Source,
    folder: Path,
    size: int,
    fit: Fit = "squash",
    threads: int | None = None,
    progress: Progress | None = None,
    previous: Path | None = None,
    wanted: PixelFormat = PHOTO,
) -> pa.Table:
    """The image table (see above), after writing `pixels.npy` and `images.parquet` into `folder`.

    `wanted` says how pixels are stored (`look` finds out); what does not fit it is unreadable.

    Killed at any moment, the same call goes on where it was, and the files come out byte for byte as if
    it had never been killed. `previous` is a folder with an older store (`folder` itself where it has
    one): ids stay with their paths, and a file with the same path, size and time there is not decoded
    again. Old files in `folder` stay as they are until both new ones are safely on disk.

    Memory: a few hundred images at `size`, and of big files (64 MiB, 24 million pixels) one at a time.
    `progress("decode", done, total)` is called after every image. `threads`: the cores there are.
    Raises `InputError` where no image is usable, `CollectionError` where the disk is full or another
    process is building in `folder`.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}", "give at least 1")
    settle(folder)
    plan = make_plan(source, folder, size, fit, previous, wanted)
    if plan.finished is not None:
        return plan.finished
    with Journal(folder, plan.key, size, wanted) as journal:
        _fill(journal, plan, source, fit, threads or _cores(), progress)
        if journal.rows == 0:
            journal.discard()
            reasons = sorted({record.reason for record in journal.records})
            raise InputError(
                f"none of {len(source.items)} files is an image that can be used", "; ".join(reasons[:4])
            )
        table = image_table(plan, source, journal.records)
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        plan.old = None  # lets go of the mapped file that is about to be replaced
        journal.finish(buffer.getvalue())
    return table


def _fill(
    journal: Journal, plan: Plan, source: Source, fit: Fit, threads: int, progress: Progress | None
) -> None:
    """Decodes what the journal does not have yet, a little ahead of what is written, in item order."""
    total, start = len(source.items), len(journal.records)

    def work(index: int) -> tuple[Record, Pixels | None]:
        if plan.reuse[index] >= 0 and plan.old is not None:
            record, row = plan.old_records[plan.reuse[index]]
            return record, None if record.reason else plan.old[row]
        return _decode_one(source, index, journal.size, fit, journal.kind)

    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        coming: deque[Future[tuple[Record, Pixels | None]]] = deque()
        try:
            for index in range(start, total):
                while len(coming) < 8 * threads and index + len(coming) < total:
                    coming.append(pool.submit(work, index + len(coming)))
                journal.add(*coming.popleft().result())
                if progress is not None:
                    progress("decode", index + 1, total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    journal.commit()


def _decode_one(
    source: Source, index: int, size: int, fit: Fit, wanted: PixelFormat
) -> tuple[Record, Pixels | None]:
    digest = None
    try:
        if source.array is not None:
            array = np.ascontiguousarray(source.array[index])
            digest = hashlib.blake2b(array.data, digest_size=16).hexdigest()
            done = _from_array(array, size, fit, wanted)
        else:
            data = read_image_bytes(locate(source.root, source.items[index].path))
            digest = hashlib.blake2b(data, digest_size=16).hexdigest()
            done = decode(data, size, fit, wanted)
    except InputError as error:
        return Record(error.message, 0, 0, digest), None
    return Record("", done.width, done.height, digest), done.pixels


def _from_array(array: Pixels, size: int, fit: Fit, wanted: PixelFormat) -> Decoded:
    if not wanted.photo:
        height, width = array.shape[:2]
        return Decoded(fit_values(array.reshape(height, width, -1), size, fit, wanted), width, height)
    image = Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
    return Decoded(np.asarray(fit_pixels(image, size, fit).convert("RGB")), *image.size)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1
