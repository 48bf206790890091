"""Writing to disk so that a kill or a full disk at any moment leaves the old state or the new, never half.

A collection `photos.smb` is built in `.photos.smb.building` beside it and put in place by renaming:

    photos.smb -> .photos.smb.old,  .photos.smb.building -> photos.smb,  .photos.smb.old removed

`recover` finishes or undoes whatever a killed process left of these three steps.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from semblance.errors import CollectionError
from semblance.files import is_full

__all__ = [
    "building_folder",
    "explain_disk_errors",
    "file_hash",
    "hold_lock",
    "put_in_place",
    "read_json",
    "recover",
    "size_of",
    "share",
    "write_atomically",
    "write_json",
]

FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> Path:
    """`path`, filled by `write(file)`: beside it first, flushed to the disk, then renamed over it."""
    beside = path.with_name(f".{path.name}.part")
    try:
        with open(beside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return path


def write_json(path: Path, value: object) -> Path:
    """`path` with `value` as indented JSON, written atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogatepass") + b"\n"))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `CollectionError` where it is missing, cut short or no object."""
    try:
        value = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    except OSError as error:
        raise CollectionError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CollectionError(f"{path} is damaged: not JSON", "build it again with --overwrite") from error
    if not isinstance(value, dict):
        raise CollectionError(f"{path} is damaged: not a JSON object", "build it again with --overwrite")
    return value


def file_hash(path: Path) -> str:
    """BLAKE2b-128 of a file's bytes, in hex."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def size_of(folder: Path) -> int:
    """Bytes of all files under `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def share(source: Path, target: Path) -> None:
    """Make `target` what `source` is, by hard links or, where there are none, by copy."""
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for path in source.iterdir():
            share(path, target / path.name)
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


@contextlib.contextmanager
def explain_disk_errors(what: str) -> Iterator[None]:
    """Turn a full or forbidden disk into one clear `CollectionError`; other errors pass."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if is_full(error):
            raise CollectionError(
                f"{what}: the disk is full{where}", "free some space and run the same command again"
            ) from error
        if error.errno in FORBIDDEN:
            raise CollectionError(
                f"{what}: no permission{where}", "make it writable, or choose another place"
            ) from error
        raise


@contextlib.contextmanager
def hold_lock(target: Path) -> Iterator[None]:
    """Hold the only right to build `target`; released by the system if the process dies.

    Raises `CollectionError` naming the process that has it.
    """
    path = target.with_name(f".{target.name}.lock")
    file = _lock(path)
    try:
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows cannot remove an open file; the next build will
            path.unlink()
        file.close()


def _lock(path: Path) -> IO[str]:
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held until the build ends
        if not _try_lock(file):
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise CollectionError(
                f"another process (number {owner}) is building {path.name[1:].removesuffix('.lock')}",
                "wait until it has finished",
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # the previous holder removed the file between open and lock


def _try_lock(file: IO[str]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 20)  # beyond the text, so that others can still read who holds it
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def building_folder(target: Path) -> Path:
    """Where `target` is built before it is put in place."""
    return target.with_name(f".{target.name}.building")


def put_in_place(target: Path) -> None:
    """Swap the finished building folder in for `target`. Killed half-way, `recover` completes it."""
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        os.rename(target, old)
    os.rename(building_folder(target), target)
    _sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(target: Path, finished: Callable[[Path], bool]) -> None:
    """Complete or undo a swap that was cut off. `finished(folder)` says whether a folder is whole."""
    old, building = target.with_name(f".{target.name}.old"), building_folder(target)
    if not old.exists():
        return
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif building.exists() and finished(building):
        os.rename(building, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(old, target)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
