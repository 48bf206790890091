"""Where images come from: a folder, a glob, a manifest, a list of files or an array -> a list of items.

Nothing is opened here but manifests and folders. Every regular file that is not hidden is an item; whether
it is an image is found when it is decoded. What can be told without opening (a dangling or looping link,
a pipe, a folder that may not be read, a manifest row without a file) is a problem with its reason.

Links to files and folders are followed; each folder is visited once, so loops end and no image is found
twice by way of a linked folder.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from semblance.errors import ConfigError, InputError
from semblance.images._files import OF_FOLDERS, Item, Problem, find, locate, real_path, stored_path, walk
from semblance.images.manifest import SUFFIXES, filter_rows, read_manifest

__all__ = ["Item", "Problem", "Source", "folder_labels", "locate", "real_path", "scan", "stored_path"]

Kind = Literal["folder", "glob", "manifest", "list", "array"]
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Source:
    """What `scan` found. `table`: the manifest's rows, one for each item, in the same order; `array`: the
    pixels themselves, `(n, h, w[, c])` numbers, where `kind` is "array" (then `root` is None)."""

    kind: Kind
    root: Path | None
    items: tuple[Item, ...]
    problems: tuple[Problem, ...]
    table: pa.Table | None = None
    array: np.ndarray[Any, np.dtype[Any]] | None = None


def scan(source: Any, where: Mapping[str, Any] | None = None) -> Source:
    """The images that `source` names, in a stable order (folder and glob: sorted; else: as given).

    `source` is one of: a folder (recursive; hidden names and `*.smb` are left out); a glob such as
    `photos/**/*.jpg`; a `.csv`, `.tsv`, `.parquet` manifest with a `path` column relative to itself; one
    image file or a sequence of them; an array `(n, h, w)` or `(n, h, w, c)` of whole or real numbers, or the
    `.npy` file of one. `where={"split": "train"}` keeps those rows of a manifest.
    Raises `InputError` where nothing usable is named, `ConfigError` for `where` without a manifest.
    """
    found = _scan(source, where)
    if where and found.kind != "manifest":
        raise ConfigError("rows can only be chosen from a manifest", "give a CSV or Parquet file")
    if not found.items:
        reasons = "; ".join(f"{problem.path}: {problem.reason}" for problem in found.problems[:3])
        name = source if isinstance(source, (str, os.PathLike)) else "the list"
        raise InputError(f"no files found in {name}", reasons or "hidden files and *.smb are left out")
    return found


def folder_labels(paths: Iterable[str]) -> list[str] | None:
    """The name of each image's folder (`.` at the top), or None where all of them have the same.

    Only the innermost folder counts, so `train/cat/1.jpg` and `test/cat/2.jpg` are of one class.

    >>> folder_labels(["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"])
    ['cat', 'cat', 'dog']
    """
    labels = [PurePosixPath(path).parent.name or "." for path in paths]
    return labels if len(set(labels)) > 1 else None


def _scan(source: Any, where: Mapping[str, Any] | None) -> Source:
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(os.path.expanduser(os.fspath(source)))
        if os.path.isdir(path):
            return _from_folder(path)
        if not os.path.exists(path) and _MAGIC.search(str(path)):
            return _from_glob(path)
        if not os.path.exists(path):
            raise InputError(f"{path} does not exist", "give a folder, a glob, a manifest or an image file")
        if path.suffix.lower() in SUFFIXES:
            return _from_manifest(path, where)
        return _from_npy(path) if path.suffix.lower() == ".npy" else _from_list([path])
    if isinstance(source, Sequence) and all(isinstance(entry, (str, os.PathLike)) for entry in source):
        return _from_list([Path(entry) for entry in source])
    raise InputError(
        f"images cannot be read from a {type(source).__name__}",
        "give a folder, a glob, a manifest, a list of paths or an array (n, h, w, c)",
    )


def _from_folder(folder: Path) -> Source:
    if folder.suffix.lower() == ".smb":
        raise InputError(f"{folder} is a collection", "give the folder of images it was made from")
    root = Path(os.path.abspath(folder))
    items, problems = walk(root)
    return Source("folder", root, tuple(items), tuple(problems))


def _from_glob(pattern: Path) -> Source:
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    root, rest = Path(os.path.abspath(Path(*parts[:first]))), parts[first:]
    if not root.is_dir():
        raise InputError(f"{root} does not exist", f"it is the folder that {pattern} starts from")
    items, problems = walk(root, depth=None if "**" in rest else len(rest))
    chosen = [item for item in items if _matches(real_path(item.path).split("/"), rest)]
    told = [p for p in problems if p.reason in OF_FOLDERS or _matches(real_path(p.path).split("/"), rest)]
    if not chosen:
        hint = "a pattern names files, for example photos/**/*.jpg; {a,b} is not understood"
        raise InputError(f"no file matches {pattern}", hint)
    return Source("glob", root, tuple(chosen), tuple(told))


def _from_manifest(path: Path, where: Mapping[str, Any] | None) -> Source:
    table = filter_rows(read_manifest(path), where or {})
    names = table["path"].to_pylist()
    if not names:
        raise InputError(f"{path} has no rows")
    root = Path(os.path.abspath(path)).parent
    items, problems, kept = find([real_path(name) for name in names], root)
    rows = table.take(kept) if kept else table.slice(0, 0)
    return Source("manifest", root, tuple(items), tuple(problems), rows)


def _from_list(paths: Sequence[Path]) -> Source:
    if not paths:
        raise InputError("the list of images is empty")
    whole = [os.path.abspath(path) for path in paths]
    try:
        root = Path(os.path.commonpath([os.path.dirname(name) for name in whole]))
    except ValueError:  # several drives on Windows have nothing in common
        root = None
    items, problems, _ = find(whole, root)
    return Source("list", root, tuple(items), tuple(problems))


def _from_npy(path: Path) -> Source:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array: {error}", "save it with numpy.save") from error
    return _from_array(array)


def _from_array(array: np.ndarray[Any, Any]) -> Source:
    hint = "images are (n, h, w) or (n, h, w, c), of whole or real numbers"
    if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
        raise InputError(f"the array holds {array.dtype}, not numbers", hint)
    if array.ndim not in (3, 4):
        raise InputError(f"the array has the shape {array.shape}", hint)
    if 0 in array.shape:
        raise InputError(f"the array is empty: {array.shape}", hint)
    width = max(6, len(str(len(array) - 1)))
    if array.ndim == 4 and array.shape[1] < array.shape[2] and 16 < array.shape[3] > array.shape[1]:
        raise InputError(f"the array has the shape {array.shape}, which looks like (n, c, h, w)", hint)
    size = int(np.prod(array.shape[1:])) * array.dtype.itemsize
    items = tuple(Item(f"{i:0{width}d}", size, 0) for i in range(len(array)))
    return Source("array", None, items, (), array=array)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether path `parts` match a glob by parts; `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(parts)
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
