"""An index on disk: a folder of arrays and `index.json`, written whole or not at all, read by mapping."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.errors import CollectionError
from semblance.files import disk_error

__all__ = ["read_about", "read_array", "unreadable", "write_folder"]

FORMAT = 1


def write_folder(
    path: str | os.PathLike[str],
    kind: str,
    about: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    overwrite: bool = False,
) -> None:
    """The folder `path` holds `index.json` (`about`) and one `name.npy` for each of `arrays`; all or nothing.

    `kind` is the index's name. Raises `CollectionError` if `path` exists and `overwrite` is not set, if it
    is anything but an index, or if the disk is full or not writable; what was there stays then.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise CollectionError(f"{target} is already there", "set overwrite to replace it")
    if target.exists() and not (target / "index.json").is_file():
        raise CollectionError(f"{target} is not an index", "choose another path, or delete it yourself")
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        for name, array in arrays.items():
            with (beside / f"{name}.npy").open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        with (beside / "index.json").open("w", encoding="utf-8") as text:
            json.dump({"format": FORMAT, "index": kind, **about}, text, indent=2)
            text.flush()
            os.fsync(text.fileno())
        _exchange(beside, target)
    except OSError as error:
        raise disk_error(target, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _exchange(beside: Path, target: Path) -> None:
    """`beside` takes the place of `target`; a failure puts the old one back."""
    if not target.exists():
        beside.rename(target)
        return
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(old)
    try:
        beside.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def read_about(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """What `write_folder` was told about the index in `path`.

    Raises `CollectionError` if there is none, or one of another kind or format.
    """
    folder = Path(path)
    try:
        about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if not isinstance(about, dict) or not {"format", "index"} <= about.keys():
            raise ValueError("index.json is not one of an index")
    except (OSError, ValueError) as error:
        raise unreadable(folder, kind, error) from error
    if about["index"] != kind:
        raise unreadable(folder, kind, f'it holds an index called "{about["index"]}"')
    if about["format"] != FORMAT:
        raise unreadable(folder, kind, f"format {about['format']}, this version reads {FORMAT}")
    return about


def read_array(path: str | os.PathLike[str], name: str, kind: str) -> NDArray[Any]:
    """The array `name` of the folder, mapped from disk and read-only; raises `CollectionError`."""
    folder = Path(path)
    try:
        array: NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise unreadable(folder, kind, error) from error
    return array


def unreadable(path: str | os.PathLike[str], kind: str, why: object) -> CollectionError:
    """The error to raise for a folder that is not a sound index of this kind."""
    reason = " ".join(str(why).split())
    article = "an" if kind[:1] in "aeiou" else "a"
    return CollectionError(f"{path} cannot be read as {article} {kind} index: {reason}", "build it again")
