"""Atomic writes, shared files and what the system's errors become."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from semblance.collection import disk
from semblance.errors import CollectionError


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    disk.write_json(path, {"a": "\udce9"})

    def broken(file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        disk.write_atomically(path, broken)
    assert disk.read_json(path) == {"a": "\udce9"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["[1]", "{", "\x00", ""])
def test_json_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CollectionError, match="damaged"):
        disk.read_json(tmp_path / "a.json")


def test_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "from" / "deep").mkdir(parents=True)
    (tmp_path / "from" / "deep" / "x").write_bytes(b"1")
    disk.share(tmp_path / "from", tmp_path / "linked")
    assert os.path.samefile(tmp_path / "from" / "deep" / "x", tmp_path / "linked" / "deep" / "x")

    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(disk.os, "link", refuse)
    disk.share(tmp_path / "from", tmp_path / "copied")
    assert (tmp_path / "copied" / "deep" / "x").read_bytes() == b"1"
    assert disk.size_of(tmp_path) == 3


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "disk is full"), (errno.EFBIG, "disk is full"), (errno.EACCES, "permission")],
)
def test_what_the_system_says(number: int, said: str) -> None:
    with pytest.raises(CollectionError, match=said), disk.explain_disk_errors("building"):
        raise OSError(number, os.strerror(number), "file")
    with pytest.raises(CollectionError, match="disk is full"), disk.explain_disk_errors("building"):
        raise OSError("14376 requested and 1920 written")  # as numpy.save says it
    with pytest.raises(OSError, match="interrupted"), disk.explain_disk_errors("building"):
        raise OSError(errno.EINTR, "interrupted")


def test_file_hash(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "x").write_bytes(data)
    assert disk.file_hash(tmp_path / "x") == hashlib.blake2b(data, digest_size=16).hexdigest()
