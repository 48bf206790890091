"""The pixel store while it grows, and the journal that lets a killed build go on.

Beside each other in one folder:

    pixels.npy.part   a header of 128 bytes, then the rows decoded so far
    decode.jsonl      {"key": ...}, for each commit {"records": [...], "digest": ...}, at last {"done": true}

Rows count only once the journal tells of them with a digest that they match, so nothing has to be forced
to the disk while decoding: whatever a kill or a power cut tore is cut off and decoded again. At the end
both new files are synced under their `.part` names, the journal says `done`, and only then do they replace
the old ones; a kill between the two renames is mended by `settle`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from semblance.errors import CollectionError
from semblance.files import disk_error, part_of, put_in_place, write_part
from semblance.images.decode import Pixels
from semblance.images.formats import PHOTO, PixelFormat

__all__ = ["IMAGES", "PIXELS", "Journal", "Record", "npy_header", "settle"]

PIXELS, IMAGES, JOURNAL = "pixels.npy", "images.parquet", "decode.jsonl"
HEADER = 128
COMMIT_ITEMS, COMMIT_BYTES, COMMIT_SECONDS = 256, 32 << 20, 2.0


class Record(NamedTuple):
    """What decoding one item gave; `reason` is empty where it is usable, `hash` None if it was not read."""

    reason: str
    width: int
    height: int
    hash: str | None


class Journal:
    """An unfinished build: `records` of the first items, and their pixels on disk.

    Opening it takes up what an earlier build with the same `key` left, and drops what one with another
    `key` left. Raises `CollectionError` where another process is building here or the disk is full.
    """

    def __init__(self, folder: Path, key: str, size: int, kind: PixelFormat = PHOTO) -> None:
        self.folder, self.size, self.kind = folder, size, kind
        self.row_bytes = size * size * kind.bytes_per_pixel
        self.records: list[Record] = []
        self.rows = 0
        self.waiting: list[Record] = []
        self.waiting_pixels: list[bytes] = []
        self.committed_at = time.monotonic()
        self.path = part_of(folder / PIXELS)
        with _told(self.path), contextlib.ExitStack() as files:
            folder.mkdir(parents=True, exist_ok=True)
            self.lines = files.enter_context((folder / JOURNAL).open("a+b", buffering=0))
            _lock(self.lines, folder)
            self.pixels = files.enter_context(
                self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
            )
            self._take_up(key)
            files.pop_all()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.commit()
        self.pixels.close()
        self.lines.close()  # lets go of the lock

    def add(self, record: Record, pixels: Pixels | None) -> None:
        """Appends the next item; `pixels` `(size, size, c)` as stored, None where it is unreadable."""
        self.waiting.append(record)
        if pixels is not None:
            self.waiting_pixels.append(pixels.tobytes())
        if (
            len(self.waiting) >= COMMIT_ITEMS
            or len(self.waiting_pixels) * self.row_bytes >= COMMIT_BYTES
            or time.monotonic() - self.committed_at > COMMIT_SECONDS
        ):
            self.commit()

    def commit(self) -> None:
        """Makes everything added so far survive a kill."""
        if not self.waiting:
            return
        block = b"".join(self.waiting_pixels)
        line = {"records": self.waiting, "digest": hashlib.blake2b(block, digest_size=16).hexdigest()}
        with _told(self.path):
            self.pixels.seek(HEADER + self.rows * self.row_bytes)
            _write(self.pixels, block)
            _write(self.lines, json.dumps(line).encode() + b"\n")
        self.records += self.waiting
        self.rows += len(self.waiting_pixels)
        self.waiting, self.waiting_pixels = [], []
        self.committed_at = time.monotonic()

    def finish(self, images: bytes) -> None:
        """The pixels become `pixels.npy` and `images` becomes `images.parquet`; the journal is gone."""
        self.commit()
        with _told(self.path):
            self.pixels.seek(0)
            _write(self.pixels, npy_header(self.rows, self.size, self.kind))
            self.pixels.truncate(HEADER + self.rows * self.row_bytes)
            os.fsync(self.pixels.fileno())
            self.pixels.close()
        write_part(self.folder / IMAGES, images)
        with _told(self.path):
            _write(self.lines, b'{"done": true}\n')
            os.fsync(self.lines.fileno())
        _replace(self.folder)

    def discard(self) -> None:
        """Forgets the build and deletes what it wrote."""
        self.pixels.close()
        self.path.unlink(missing_ok=True)
        (self.folder / JOURNAL).unlink(missing_ok=True)

    def _take_up(self, key: str) -> None:
        self.lines.seek(0)
        lines = self.lines.readall()
        good = 0
        for number, line in enumerate(lines.splitlines(keepends=True)):
            entry = _parse(line)
            if entry is None or not (entry.get("key") == key if number == 0 else self._holds(entry)):
                break
            good += len(line)
        self.lines.truncate(good)
        if good == 0:
            _write(self.lines, json.dumps({"key": key}).encode() + b"\n")
        self.pixels.truncate(max(HEADER, HEADER + self.rows * self.row_bytes))

    def _holds(self, entry: dict[str, Any]) -> bool:
        """Takes up one commit if its rows are on disk as the journal says."""
        if "records" not in entry:
            return False
        records = [Record(*record) for record in entry["records"]]
        rows = sum(not record.reason for record in records)
        self.pixels.seek(HEADER + self.rows * self.row_bytes)
        block = _read(self.pixels, rows * self.row_bytes)
        if hashlib.blake2b(block, digest_size=16).hexdigest() != entry["digest"]:
            return False
        self.records += records
        self.rows += rows
        return True


def settle(folder: Path) -> None:
    """Finishes a build in `folder` that was killed between its last renames; else does nothing."""
    path = folder / JOURNAL
    if not path.exists():
        return
    with _told(path), path.open("r+b", buffering=0) as lines:
        _lock(lines, folder)
        last = lines.readall().splitlines()[-1:]
        if last and _parse(last[0] + b"\n") == {"done": True}:
            _replace(folder)


def npy_header(rows: int, size: int, kind: PixelFormat = PHOTO) -> bytes:
    """The first 128 bytes of a `.npy` file (format 1.0) of shape `(rows, size, size, c)`, uint8 or uint16."""
    shape = f"({rows}, {size}, {size}, {kind.channels})"
    text = f"{{'descr': '{kind.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    return (
        b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.encode().ljust(HEADER - 11) + b"\n"
    )


def _replace(folder: Path) -> None:
    put_in_place(folder / PIXELS)
    put_in_place(folder / IMAGES)
    (folder / JOURNAL).unlink(missing_ok=True)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:  # torn by a kill
        return None
    return entry if isinstance(entry, dict) else None


def _lock(lines: IO[bytes], folder: Path) -> None:
    """Held until `lines` is closed, also by a kill. Windows has no such lock: there it is left out."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CollectionError(
                f"another process is building {folder}", "wait until it has ended"
            ) from error


def _write(handle: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:  # unbuffered: a write may take only part, and the next one tells why
        view = view[handle.write(view) :]


def _read(handle: IO[bytes], count: int) -> bytes:
    parts = []
    while count > 0 and (part := handle.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error
