"""What is on the disk: files with their sizes and times, and why some of what is named is no candidate.

A path is stored as text. A name that is not UTF-8 is kept reversibly: its undecodable bytes become `\\xNN`
and its backslashes are doubled (`stored_path`, `real_path`); every other name is stored as it is.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OF_FOLDERS", "Item", "Problem", "find", "locate", "real_path", "stored_path", "walk"]

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


def find(names: Sequence[str], root: Path | None) -> tuple[list[Item], list[Problem], list[int]]:
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
OF_FOLDERS = (_LOOP, _AGAIN)


def walk(root: Path, depth: int | None = None) -> tuple[list[Item], list[Problem]]:
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
