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
import json
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from semblance.contracts import Progress
from semblance.errors import CollectionError, ConfigError, InputError
from semblance.images.decode import (
    DECODE_VERSION,
    Decoded,
    Fit,
    Pixels,
    decode,
    fit_pixels,
)
from semblance.images.formats import PHOTO, PixelFormat
from semblance.images.journal import IMAGES, PIXELS, Journal, Record, settle
from semblance.images.raw import fit_values
from semblance.images.signature import read_image_bytes
from semblance.images.sources import Item, Problem, Source, locate

__all__ = ["build_store", "open_store", "read_images", "store_facts"]

_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("row", pa.int64()),
        ("path", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("hash", pa.string()),
        ("duplicate_of", pa.int64()),
        ("status", pa.string()),
    ]
)


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
    plan = _plan(source, folder, size, fit, previous, wanted)
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
        table = _table(plan, source, journal.records)
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        plan.old = None  # lets go of the mapped file that is about to be replaced
        journal.finish(buffer.getvalue())
    return table


def open_store(path: Path) -> np.memmap[Any, np.dtype[Any]]:
    """The pixels of a store (its folder or its `pixels.npy`), mapped read-only: uint8 or uint16
    `(n, size, size, c)`.

    Raises `CollectionError` where there is none or it is damaged.
    """
    path = path / PIXELS if path.is_dir() else path
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise CollectionError(
            f"{path} is not a pixel store: {error}", "build the collection again"
        ) from error
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 4 or not isinstance(pixels, np.memmap):
        raise CollectionError(f"{path} is not a pixel store", "build the collection again")
    return pixels


def read_images(folder: Path) -> pa.Table:
    """The image table in `folder`. Raises `CollectionError` where there is none or it is damaged."""
    path = folder / IMAGES
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CollectionError(
            f"{path} cannot be read: {str(error).splitlines()[0]}", "build the collection again"
        ) from error


def store_facts(table: pa.Table) -> dict[str, Any]:
    """How `table` was built: `key`, `version`, `size`, `fit`, `next_id`, and how many items were `decoded`
    and how many `reused` from the previous store; empty where the table does not say."""
    facts: dict[str, Any] = json.loads((table.schema.metadata or {}).get(b"semblance", b"{}"))
    return facts


@dataclass
class _Plan:
    """What to do with each item: `reuse[i]` is its index in `old_records`, or -1 to decode it."""

    key: str
    facts: dict[str, Any]
    ids: list[int]
    problems: list[Problem]
    reuse: list[int]
    old_records: list[tuple[Record, int]]
    old: Pixels | None
    finished: pa.Table | None = None


def _plan(
    source: Source, folder: Path, size: int, fit: Fit, previous: Path | None, wanted: PixelFormat
) -> _Plan:
    here = _try_images(folder)
    in_place = previous is None or previous.absolute() == folder.absolute()
    before = here if in_place else read_images(previous) if previous else None
    known = {path.as_py(): i for i, path in enumerate(before["path"])} if before else {}
    names = {item.path for item in source.items}
    first: dict[str, Problem] = {}
    for problem in source.problems:
        if problem.path not in names:
            first.setdefault(problem.path, problem)
    problems = list(first.values())
    paths = [item.path for item in source.items] + [problem.path for problem in problems]
    ids, next_id = _ids(paths, before, known)

    facts: dict[str, Any] = {"version": DECODE_VERSION, "size": size, "fit": fit}
    if not wanted.photo:
        facts["pixels"] = json.loads(json.dumps(asdict(wanted)))
    old_facts = store_facts(before) if before else {}
    usable = source.kind != "array" and _made_like(old_facts, facts)
    records = _old_records(before) if before and usable else []
    reuse = _reusable(source.items, before, known) if records else [-1] * len(source.items)
    reused = sum(index >= 0 for index in reuse)
    facts |= {"next_id": next_id, "decoded": len(reuse) - reused, "reused": reused}
    facts["key"] = _key(source, problems, facts, ids, reuse, old_facts.get("key"))
    old = _old_pixels(previous or folder, size, records, wanted) if reused else None
    plan = _Plan(facts["key"], facts, ids, problems, reuse, records, old)

    if here and store_facts(here).get("key") == plan.key:
        plan.finished = here
    elif here and in_place and facts["decoded"] == 0 and here["id"].to_pylist() == ids:
        new = _table(plan, source, [records[index][0] for index in reuse])
        plan.finished = new if new.equals(here.select(_SCHEMA.names)) else None
    return plan


def _ids(paths: Sequence[str], before: pa.Table | None, known: dict[str, int]) -> tuple[list[int], int]:
    """An id for each path: the one it had, or the next that was never given."""
    if before is None:
        return list(range(len(paths))), len(paths)
    old = before["id"].to_pylist()
    next_id = max([store_facts(before).get("next_id", 0), *(i + 1 for i in old)])
    ids = []
    for path in paths:
        if path in known:
            ids.append(old[known[path]])
        else:
            ids.append(next_id)
            next_id += 1
    return ids, next_id


def _reusable(items: Sequence[Item], before: pa.Table, known: dict[str, int]) -> list[int]:
    """For each item the index in `before` of what it still is, or -1. Unread files are tried again."""
    stamps = list(zip(before["bytes"].to_pylist(), before["mtime_ns"].to_pylist(), strict=True))
    lasting = [not status.startswith(_PASSING) for status in before["status"].to_pylist()]
    found = []
    for item in items:
        index = known.get(item.path, -1)
        same = index >= 0 and lasting[index] and stamps[index] == (item.bytes, item.mtime_ns)
        found.append(index if same else -1)
    return found


_PASSING = ("unreadable: cannot be read", "unreadable: needs too much memory")


def _old_records(before: pa.Table) -> list[tuple[Record, int]]:
    columns = [before[name].to_pylist() for name in ("status", "width", "height", "hash", "row")]
    return [
        (Record("" if status == "ok" else status.removeprefix("unreadable: "), width, height, digest), row)
        for status, width, height, digest, row in zip(*columns, strict=True)
    ]


def _made_like(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return all(old.get(name) == new.get(name) for name in ("version", "size", "fit", "pixels"))


def _old_pixels(folder: Path, size: int, records: list[tuple[Record, int]], wanted: PixelFormat) -> Pixels:
    pixels = open_store(folder)
    if pixels.shape[1:] != (size, size, wanted.channels) or len(pixels) != sum(
        not record.reason for record, _ in records
    ):
        raise CollectionError(
            f"{folder / PIXELS} and {IMAGES} beside it are not of one build", f"delete {folder / IMAGES}"
        )
    return pixels


def _key(source: Source, problems: list[Problem], *parts: Any) -> str:
    """Equal only for builds that give the same bytes."""
    hasher = hashlib.blake2b(json.dumps([source.kind, *parts], sort_keys=True).encode(), digest_size=16)
    for item in source.items:
        hasher.update(f"{item.path}\0{item.bytes} {item.mtime_ns}\0".encode())
    for problem in problems:
        hasher.update(f"{problem.path}\0{problem.reason}\0".encode())
    if source.array is not None:
        for image in source.array:
            hasher.update(np.ascontiguousarray(image).data)
    return hasher.hexdigest()


def _fill(
    journal: Journal, plan: _Plan, source: Source, fit: Fit, threads: int, progress: Progress | None
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


def _table(plan: _Plan, source: Source, records: Sequence[Record]) -> pa.Table:
    first: dict[str | None, int] = {}
    columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    rows = 0
    nothing = Record("", 0, 0, None)
    listed = [*source.items, *(Item(problem.path, 0, 0) for problem in plan.problems)]
    reasons = [*records, *(nothing._replace(reason=problem.reason) for problem in plan.problems)]
    for number, item, record in zip(plan.ids, listed, reasons, strict=True):
        ok = not record.reason
        original = first.setdefault(record.hash, number) if ok else number
        values = (
            number,
            rows if ok else -1,
            item.path,
            record.width,
            record.height,
            item.bytes,
            item.mtime_ns,
            record.hash,
            None if original == number else original,
            "ok" if ok else f"unreadable: {record.reason}",
        )
        rows += ok
        for name, value in zip(_SCHEMA.names, values, strict=True):
            columns[name].append(value)
    metadata = {"semblance": json.dumps(plan.facts, sort_keys=True)}
    return pa.table(columns, schema=_SCHEMA.with_metadata(metadata))


def _try_images(folder: Path) -> pa.Table | None:
    if not ((folder / IMAGES).exists() and (folder / PIXELS).exists()):
        return None
    return read_images(folder)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1
