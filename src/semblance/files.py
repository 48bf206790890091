"""Writing to disk so that a kill or a full disk leaves the old file or the new one, never half of one.

Every write goes beside its target (`name.part`), is forced to the disk and renamed over it. A leftover
`.part` file belongs to a write that never finished and is replaced by the next.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from semblance.errors import CollectionError

__all__ = ["disk_error", "free_bytes", "is_full", "part_of", "put_in_place", "write_atomic", "write_part"]

_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def write_atomic(path: Path, data: bytes) -> None:
    """`data` becomes the whole content of `path`, or `path` stays as it was.

    Makes missing parent folders. Raises `CollectionError` where the disk is full or not writable.
    """
    write_part(path, data)
    put_in_place(path)


def write_part(path: Path, data: bytes) -> None:
    """`data`, safely on disk under `part_of(path)`; `put_in_place(path)` makes it count.

    Two steps let several files be finished before any of them replaces an old one.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        part.unlink(missing_ok=True)
        raise disk_error(path, error) from error


def part_of(path: Path) -> Path:
    """The name under which `path` is written before it is renamed.

    >>> part_of(Path("a/pixels.npy")).name
    'pixels.npy.part'
    """
    return path.with_name(path.name + ".part")


def put_in_place(path: Path) -> None:
    """Renames the finished, synced `part_of(path)` to `path`, and makes the rename itself durable.

    Nothing happens where there is no part: calling it again after a kill is safe.
    """
    part = part_of(path)
    try:
        if part.exists():
            os.replace(part, path)
            _sync_folder(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error


def free_bytes(path: Path) -> int:
    """Bytes that can still be written at `path`, which need not exist yet."""
    path = Path(os.path.abspath(path))
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def is_full(error: OSError) -> bool:
    """Whether there was no room; also NumPy's short write, which has no number."""
    return error.errno in _FULL or " requested and " in str(error)


def disk_error(path: Path, error: OSError) -> CollectionError:
    """The error to raise for a write to `path` that failed with `error`."""
    if is_full(error):
        what = f"the disk is full: {path} could not be written"
        return CollectionError(what, "free some space and run the same again")
    reason = error.strerror or str(error)
    return CollectionError(f"{path} could not be written: {reason}", "choose a folder that can be written to")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and renames are durable there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
