"""Where images come from: a folder, a glob, a manifest, a list of files or an array -> a list of items.

Nothing is opened here but manifests and folders. Every regular file that is not hidden is an item; whether
it is an image is found when it is decoded. What can be told without opening (a dangling or looping link,
a pipe, a folder that may not be read, a manifest row without a file) is a problem with its reason.

Links to files and folders are followed; each folder is visited once, so loops end and no image is found
twice by way of a linked folder.

A path is stored as text. A name that is not UTF-8 is kept reversibly: its undecodable bytes become `\\xNN`
and its backslashes are doubled (`stored_path`, `real_path`); every other name is stored as it is.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from semblance.errors import ConfigError, InputError
from semblance.images.manifest import SUFFIXES, filter_rows, read_manifest

__all__ = ["Item", "Problem", "Source", "folder_labels", "locate", "real_path", "scan", "stored_path"]

Kind = Literal["folder", "glob", "manifest", "list", "array"]
_MAGIC = re.compile(r"[*?\[]")
_ESCAPED = re.compile(r"\\x[89a-f][0-9a-f]")


@dataclass(frozen=True)
class Item:
    """One candidate image. `path`: POSIX, relative to the source's root (absolute where it lies outside);
    `bytes` and `mtime_ns` (nanoseconds since 1970) tell whether it changed."""

    path: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Problem:
    """Something that was listed or found and is no candidate, with the reason."""

    path: str
    reason: str


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


def locate(root: Path | None, path: str) -> Path:
    """The file that an item's `path` stands for, under `root`."""
    return Path(real_path(path)) if root is None else root / real_path(path)


def stored_path(path: str) -> str:
    """`path`, as the system gives it, as text that any file format can hold.

    >>> stored_path("caf\\udce9.jpg")
    'caf\\\\xe9.jpg'
    """
    if not _ESCAPED.search(path) and not any("\ud800" <= letter <= "\udfff" for letter in path):
        return path
    doubled = path.replace("\\", "\\\\")
    text = "".join(f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in doubled)
    return text.encode("utf-8", "replace").decode("utf-8")  # half a pair, which Windows allows, is lost


def real_path(path: str) -> str:
    """The inverse of `stored_path`."""
    if not _ESCAPED.search(path):
        return path
    one = re.compile(r"\\(\\|x[89a-f][0-9a-f])")
    return one.sub(lambda m: "\\" if m[1] == "\\" else chr(0xDC00 + int(m[1][1:], 16)), path)


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
    items, problems = _walk(root)
    return Source("folder", root, tuple(items), tuple(problems))


def _from_glob(pattern: Path) -> Source:
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    root, rest = Path(os.path.abspath(Path(*parts[:first]))), parts[first:]
    if not root.is_dir():
        raise InputError(f"{root} does not exist", f"it is the folder that {pattern} starts from")
    items, problems = _walk(root, depth=None if "**" in rest else len(rest))
    chosen = [item for item in items if _matches(real_path(item.path).split("/"), rest)]
    told = [p for p in problems if p.reason in _OF_FOLDERS or _matches(real_path(p.path).split("/"), rest)]
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
    items, problems, kept = _stat_all([real_path(name) for name in names], root)
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
    items, problems, _ = _stat_all(whole, root)
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


def _stat_all(names: Sequence[str], root: Path | None) -> tuple[list[Item], list[Problem], list[int]]:
    """Items, problems and the indexes of the names that became items; the first of equal names is kept."""
    items: list[Item] = []
    problems: list[Problem] = []
    kept: list[int] = []
    empty: list[str] = []
    times: dict[str, int] = {}
    for index, name in enumerate(names):
        if not name:
            empty.append(str(index + 1))
            continue
        relative = Path(name)
        if root is not None and relative.is_absolute() and relative.is_relative_to(root):
            relative = relative.relative_to(root)
        path = stored_path(relative.as_posix())
        times[path] = times.get(path, 0) + 1
        if times[path] > 1:
            continue
        result = _stat(locate(root, path), path)
        if isinstance(result, Item):
            items.append(result)
            kept.append(index)
        else:
            problems.append(result)
    if empty:
        problems.append(Problem("", f"{len(empty)} rows have an empty path: {', '.join(empty[:8])}"))
    twice = [Problem(path, f"listed {n} times, the first is kept") for path, n in times.items() if n > 1]
    return items, problems + twice, kept


def _stat(path: Path, name: str) -> Item | Problem:
    try:
        status = os.stat(path)
    except OSError as error:
        return Problem(name, _reason(error, os.path.islink(path)))
    except ValueError:  # a NUL character in the name
        return Problem(name, "no such file")
    if stat.S_ISDIR(status.st_mode):
        return Problem(name, "a folder, not an image")
    if not stat.S_ISREG(status.st_mode):
        return Problem(name, "not a regular file")
    return Item(name, status.st_size, status.st_mtime_ns)


_LOOP, _AGAIN = "symlink loop", "link to a folder that is already included"
_OF_FOLDERS = (_LOOP, _AGAIN)


def _walk(root: Path, depth: int | None = None) -> tuple[list[Item], list[Problem]]:
    """Every file under `root`, sorted, down to `depth` names. Real folders first: a link to one of them is
    told as a problem and not followed again."""
    items: list[Item] = []
    problems: list[Problem] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [""], list[str]()
    while folders or links:
        is_link = not folders
        if is_link:
            links.sort(reverse=True)
        name = links.pop() if is_link else folders.pop()
        try:
            status = os.stat(root / name)
            if is_link and _holds(root / name, (root / name).parent):
                problems.append(Problem(stored_path(name), _LOOP))
                continue
            if (status.st_dev, status.st_ino) in seen:
                problems.append(Problem(stored_path(name), _AGAIN))
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / name) as entries:
                found = sorted(entry.name for entry in entries if not _left_out(entry.name))
        except OSError as error:
            problems.append(Problem(stored_path(name) or ".", _reason(error, is_link)))
            continue
        for entry in found:
            path = f"{name}/{entry}" if name else entry
            full = root / path
            if os.path.isdir(full):
                if depth is None or path.count("/") + 1 < depth:
                    (links if os.path.islink(full) else folders).append(path)
                continue
            result = _stat(full, stored_path(path))
            (items if isinstance(result, Item) else problems).append(result)  # type: ignore[arg-type]
    return sorted(items, key=lambda item: item.path), sorted(problems, key=lambda problem: problem.path)


def _left_out(name: str) -> bool:
    return name.startswith(".") or name.lower().endswith(".smb")


def _holds(folder: Path, other: Path) -> bool:
    return Path(os.path.realpath(other)).is_relative_to(os.path.realpath(folder))


def _reason(error: OSError, is_link: bool) -> str:
    if error.errno == errno.ELOOP:
        return _LOOP
    if error.errno == errno.ENOENT:
        return "dangling symlink" if is_link else "no such file"
    return f"cannot be read: {error.strerror or error}"


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether path `parts` match a glob by parts; `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(parts)
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
