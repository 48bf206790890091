from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from semblance.errors import CollectionError
from semblance.files import disk_error, free_bytes, part_of, put_in_place, write_atomic, write_part


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.json"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CollectionError, match="disk is full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert not part_of(path).exists()


def test_a_part_counts_only_once_in_place(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_part(path, b"data")
    assert not path.exists()
    put_in_place(path)
    put_in_place(path)
    assert path.read_bytes() == b"data"


def test_free_bytes_of_a_path_to_come(tmp_path: Path) -> None:
    there = os.statvfs(tmp_path)
    expected = there.f_bavail * there.f_frsize
    assert abs(free_bytes(tmp_path / "not" / "yet") - expected) < 1 << 30


def test_errors_say_what_to_do() -> None:
    error = disk_error(Path("out"), OSError(errno.EROFS, "Read-only file system"))
    assert "Read-only" in error.message
    assert "folder" in error.hint
    assert disk_error(Path("out"), OSError(errno.EFBIG, "File too large")).message.startswith(
        "the disk is full"
    )
