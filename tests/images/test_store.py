from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from semblance.errors import CollectionError, ConfigError, InputError
from semblance.images import journal, store
from semblance.images.decode import decode
from semblance.images.sources import scan
from semblance.images.store import build_store, open_store, read_images, store_facts

RNG = np.random.default_rng(11)
FILES = ["images.parquet", "pixels.npy"]


def make(folder: Path, *names: str, size: int = 9) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".txt"):
            path.write_text(name)
        else:
            Image.fromarray(RNG.integers(0, 256, (size, size + 2, 3)).astype(np.uint8)).save(path)


def photos(folder: Path, count: int = 30) -> Path:
    make(folder, *(f"{i:03d}.{'txt' if i % 7 == 3 else 'png'}" for i in range(count)))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reads and decodes that really happen, by file name."""
    names: list[str] = []
    original = store.read_image_bytes

    def spy(path: Path) -> bytes:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(store, "read_image_bytes", spy)
    return names


def test_pixels_and_table(tmp_path: Path) -> None:
    make(tmp_path / "in", "b.png", "a.txt", "c/d.png")
    (tmp_path / "in" / "z.png").write_bytes((tmp_path / "in" / "b.png").read_bytes())
    (tmp_path / "in" / "gone.png").symlink_to("nowhere")
    calls: list[tuple[str, int, int]] = []
    table = build_store(scan(tmp_path / "in"), tmp_path / "out", 8, progress=lambda *call: calls.append(call))
    columns = table.to_pydict()
    assert columns["path"] == ["a.txt", "b.png", "c/d.png", "z.png", "gone.png"]
    assert columns["id"] == [0, 1, 2, 3, 4]
    assert columns["row"] == [-1, 0, 1, 2, -1]
    assert columns["width"] == [0, 11, 11, 11, 0]
    assert columns["height"] == [0, 9, 9, 9, 0]
    assert columns["duplicate_of"] == [None, None, None, 1, None]
    assert columns["status"] == [
        "unreadable: not an image",
        "ok",
        "ok",
        "ok",
        "unreadable: dangling symlink",
    ]
    data = (tmp_path / "in" / "b.png").read_bytes()
    assert columns["hash"][1] == columns["hash"][3] == hashlib.blake2b(data, digest_size=16).hexdigest()
    assert columns["hash"][0] is None
    assert columns["bytes"][1] == len(data)
    assert columns["mtime_ns"][1] == (tmp_path / "in" / "b.png").stat().st_mtime_ns
    pixels = open_store(tmp_path / "out")
    assert (pixels.shape, pixels.dtype) == ((3, 8, 8, 3), np.uint8)
    for row, name in enumerate(["b.png", "c/d.png", "z.png"]):
        assert np.array_equal(pixels[row], decode((tmp_path / "in" / name).read_bytes(), 8).pixels)
    assert sorted(content(tmp_path / "out")) == FILES
    assert pq.read_table(tmp_path / "out" / "images.parquet").equals(table)
    assert calls == [("decode", i, 4) for i in (1, 2, 3, 4)]
    assert [str(field.type) for field in table.schema] == [
        *("int64", "int64", "string", "int32", "int32", "int64", "int64", "string", "int64", "string"),
    ]


def test_every_hostile_file_is_listed_with_its_reason(
    hostile: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, expected = hostile
    table = build_store(scan(folder), tmp_path / "out", 32)
    status = dict(zip(table["path"].to_pylist(), table["status"].to_pylist(), strict=True))
    assert len(expected) >= 200
    assert set(status) == set(expected)
    wrong = {
        path: status[path]
        for path, reason in expected.items()
        if not status[path].startswith("ok" if reason == "ok" else f"unreadable: {reason}")
    }
    assert wrong == {}
    assert len(open_store(tmp_path / "out")) == sum(reason == "ok" for reason in expected.values())


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_threads_do_not_change_the_result(tmp_path: Path, fit: Any) -> None:
    source = scan(photos(tmp_path / "in"))
    build_store(source, tmp_path / "one", 8, fit, threads=1)
    build_store(source, tmp_path / "six", 8, fit, threads=6)
    assert content(tmp_path / "one") == content(tmp_path / "six")
    first = decode((tmp_path / "in" / "000.png").read_bytes(), 8, fit).pixels
    assert np.array_equal(open_store(tmp_path / "one")[0], first)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("size", [6, 4])
def test_arrays_are_stored(tmp_path: Path, channels: tuple[int, ...], size: int) -> None:
    array = RNG.integers(0, 256, (5, 6, 6, *channels)).astype(np.uint8)
    array[3] = array[1]
    table = build_store(scan(array), tmp_path, size)
    full = np.broadcast_to(array.reshape(5, 6, 6, -1), (5, 6, 6, 3))
    if size == 6:
        assert np.array_equal(open_store(tmp_path), full)
    else:
        small = Image.fromarray(np.ascontiguousarray(full[2])).resize((4, 4), Image.Resampling.BICUBIC)
        assert abs(open_store(tmp_path)[2].astype(int) - np.asarray(small)).max() <= 1
    assert table["duplicate_of"].to_pylist() == [None, None, None, 1, None]
    assert table["hash"][2].as_py() == hashlib.blake2b(array[2].tobytes(), digest_size=16).hexdigest()
    build_store(scan(255 - array), tmp_path, size)  # same names and sizes, other pixels
    if size == 6:
        assert np.array_equal(open_store(tmp_path), 255 - full)


def test_only_new_and_changed_files_are_decoded(tmp_path: Path, decoded: list[str]) -> None:
    old = build_store(scan(photos(tmp_path / "in")), tmp_path / "old", 8)
    make(tmp_path / "in", "005.png", "0000.png", "zzz.png", "new.txt", size=12)
    (tmp_path / "in" / "007.png").unlink()
    (tmp_path / "in" / "029.png").unlink()  # the one with the highest id
    decoded.clear()
    table = build_store(scan(tmp_path / "in"), tmp_path / "new", 8, previous=tmp_path / "old")
    assert sorted(decoded) == ["0000.png", "005.png", "new.txt", "zzz.png"]
    assert store_facts(table)["decoded"] == 4
    assert store_facts(table)["reused"] == 27
    before = dict(zip(old["path"].to_pylist(), old["id"].to_pylist(), strict=True))
    after = dict(zip(table["path"].to_pylist(), table["id"].to_pylist(), strict=True))
    assert {path: after[path] for path in after if path in before} == {
        p: before[p] for p in after if p in before
    }
    assert {path: after[path] for path in after if path not in before} == {
        "0000.png": 30,
        "new.txt": 31,
        "zzz.png": 32,
    }
    fresh = build_store(scan(tmp_path / "in"), tmp_path / "fresh", 8)
    assert content(tmp_path / "new")["pixels.npy"] == content(tmp_path / "fresh")["pixels.npy"]
    same = [name for name in table.column_names if name not in ("id", "duplicate_of")]
    assert table.select(same).equals(fresh.select(same))

    make(tmp_path / "in", "late.png")
    (tmp_path / "in" / "zzz.png").unlink()
    build_store(scan(tmp_path / "in"), tmp_path / "new", 8)  # in place; 32 was given and is not given again
    (tmp_path / "in" / "late.png").unlink()
    make(tmp_path / "in", "later.png")
    last = build_store(scan(tmp_path / "in"), tmp_path / "new", 8)
    assert dict(zip(last["path"].to_pylist(), last["id"].to_pylist(), strict=True))["later.png"] == 34


def test_nothing_is_decoded_or_written_twice(tmp_path: Path, decoded: list[str]) -> None:
    source = scan(photos(tmp_path / "in"))
    first = build_store(source, tmp_path / "out", 8)
    stamp = (tmp_path / "out" / "pixels.npy").stat()
    decoded.clear()
    again = build_store(scan(tmp_path / "in"), tmp_path / "out", 8)
    assert again.equals(first)
    assert store_facts(again)["decoded"] == 0
    assert decoded == []
    assert (tmp_path / "out" / "pixels.npy").stat() == stamp
    assert len(set(decoded)) == 0
    other = build_store(source, tmp_path / "out", 8, "crop")
    assert len(decoded) == 30
    assert other["id"].to_pylist() == first["id"].to_pylist()


def test_what_could_not_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = scan(photos(tmp_path / "in"))

    def refuse(path: Path) -> bytes:
        if path.name == "001.png":
            raise InputError("cannot be read: Permission denied")
        return original(path)

    original = store.read_image_bytes
    monkeypatch.setattr(store, "read_image_bytes", refuse)
    table = build_store(source, tmp_path / "out", 8)
    assert table["status"][1].as_py() == "unreadable: cannot be read: Permission denied"
    monkeypatch.undo()
    table = build_store(source, tmp_path / "out", 8)
    assert table["status"][1].as_py() == "ok"
    assert store_facts(table)["decoded"] == 1


class Killed(BaseException):
    """Stands for SIGKILL: everything is written unbuffered, so stopping is all that a kill does."""


def die_at(monkeypatch: pytest.MonkeyPatch, step: int, half: bool) -> list[int]:
    """Dies before the given step that changes the disk; a write may die half done."""
    done = [0]

    def wrap(original: Callable[..., Any], writes: bool) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            done[0] += 1
            if done[0] == step:
                if writes and half:
                    original(args[0], args[1][: len(args[1]) // 2])
                raise Killed
            return original(*args, **options)

        return call

    monkeypatch.setattr(journal, "_write", wrap(journal._write, True))
    monkeypatch.setattr(journal, "write_part", wrap(journal.write_part, False))
    for name in ("replace", "fsync"):
        monkeypatch.setattr(os, name, wrap(getattr(os, name), False))
    monkeypatch.setattr(Path, "unlink", wrap(Path.unlink, False))
    return done


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_killed_at_every_step_and_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str], half: bool, again: bool
) -> None:
    monkeypatch.setattr(journal, "COMMIT_ITEMS", 8)
    source = scan(photos(tmp_path / "in"))
    folder, first = tmp_path / "out", tmp_path / "first"
    if again:  # over an older store, in place
        build_store(source, first, 8)
        make(tmp_path / "in", "004.png", "aaa.png")
        (tmp_path / "in" / "006.png").unlink()
        source = scan(tmp_path / "in")
        fresh = tmp_path / "expected"
        fresh.mkdir()
        for name, data in content(first).items():
            (fresh / name).write_bytes(data)
        build_store(source, fresh, 8)
    else:
        build_store(source, tmp_path / "expected", 8)
    expected = content(tmp_path / "expected")
    step = 0
    while True:
        step += 1
        if folder.exists():
            for path in folder.iterdir():
                path.unlink()
        if again:
            folder.mkdir(exist_ok=True)
            for name in FILES:
                (folder / name).write_bytes((first / name).read_bytes())
        decoded.clear()
        with monkeypatch.context() as patch:
            die_at(patch, step, half)
            try:
                build_store(source, folder, 8, threads=1)
                break
            except Killed:
                pass
        if again and step < 8:  # the old store is whole until the new one replaces it
            assert {name: (folder / name).read_bytes() for name in FILES} == content(first)
        build_store(source, folder, 8, threads=1)
        assert content(folder) == expected
        assert len(decoded) <= len(source.items) + 8 + 8  # a lost commit, and what was being decoded ahead
    assert step > (8 if again else 15)
    assert content(folder) == expected


def test_finished_commits_are_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setattr(journal, "COMMIT_ITEMS", 8)
    source = scan(photos(tmp_path / "in"))

    def stop(stage: str, done: int, total: int) -> None:
        if done == 21:
            raise Killed

    with pytest.raises(Killed):
        build_store(source, tmp_path / "out", 8, progress=stop)
    decoded.clear()
    build_store(source, tmp_path / "out", 8)
    assert sorted(decoded) == [item.path for item in source.items[16:]]


def test_pixels_lost_by_a_power_cut_are_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "COMMIT_ITEMS", 8)
    source = scan(photos(tmp_path / "in"))
    build_store(source, tmp_path / "expected", 8)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "write_part", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            build_store(source, tmp_path / "out", 8)
    with (tmp_path / "out" / "pixels.npy.part").open("r+b") as handle:
        handle.seek(128 + 10 * 8 * 8 * 3)
        handle.write(bytes(600))  # pages that never reached the disk read as zeros
    build_store(source, tmp_path / "out", 8)
    assert content(tmp_path / "out") == content(tmp_path / "expected")


def test_a_source_that_changed_meanwhile_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(journal, "write_part", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            build_store(scan(photos(tmp_path / "in")), tmp_path / "out", 8)
    make(tmp_path / "in", "000.png", size=10)
    build_store(scan(tmp_path / "in"), tmp_path / "out", 8)
    build_store(scan(tmp_path / "in"), tmp_path / "expected", 8)
    assert content(tmp_path / "out") == content(tmp_path / "expected")


CHILD = """
import os, signal, sys
from pathlib import Path
from semblance.images import journal
from semblance.images.sources import scan
from semblance.images.store import build_store
journal.COMMIT_ITEMS = 8
def progress(stage, done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
build_store(scan(sys.argv[1]), Path(sys.argv[2]), 8, progress=progress)
"""


def test_a_real_kill(tmp_path: Path) -> None:
    source = scan(photos(tmp_path / "in"))
    build_store(source, tmp_path / "expected", 8)
    for moment in (27, 29):  # twice in the same folder
        command = [sys.executable, "-c", CHILD, str(tmp_path / "in"), str(tmp_path / "out"), str(moment)]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert sorted(content(tmp_path / "out")) == ["decode.jsonl", "pixels.npy.part"]
    build_store(source, tmp_path / "out", 8)
    assert content(tmp_path / "out") == content(tmp_path / "expected")


@pytest.mark.parametrize("after", [0, 1, 3, 5, 7])
def test_a_full_disk_is_one_line_and_the_old_store_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(journal, "COMMIT_ITEMS", 8)
    build_store(scan(photos(tmp_path / "in")), tmp_path / "out", 8)
    old = content(tmp_path / "out")
    photos(tmp_path / "in")  # all changed
    source = scan(tmp_path / "in")
    original, calls = journal._write, [0]

    def full(handle: Any, data: bytes) -> None:
        calls[0] += 1
        if calls[0] > after:
            original(handle, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        original(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_write", full)
        with pytest.raises(CollectionError, match=r"^the disk is full: .*free some space") as caught:
            build_store(source, tmp_path / "out", 8)
    assert "\n" not in str(caught.value)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == old
    table = build_store(source, tmp_path / "out", 8)
    assert sorted(content(tmp_path / "out")) == FILES
    rows = [row for row in table["row"].to_pylist() if row >= 0]
    names = [
        path
        for path, row in zip(table["path"].to_pylist(), table["row"].to_pylist(), strict=True)
        if row >= 0
    ]
    pixels = open_store(tmp_path / "out")
    assert rows == list(range(len(pixels)))
    for row, name in enumerate(names):
        assert np.array_equal(pixels[row], decode((tmp_path / "in" / name).read_bytes(), 8).pixels)


def test_two_builds_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    source = scan(photos(tmp_path / "in"))
    with journal.Journal(tmp_path / "out", "key", 8), pytest.raises(CollectionError, match="another process"):
        build_store(source, tmp_path / "out", 8)
    assert build_store(source, tmp_path / "out", 8).num_rows == 30


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    make(tmp_path / "in", "a.txt", "b.txt")
    with pytest.raises(InputError, match=r"none of 2 files is an image that can be used \(not an image\)"):
        build_store(scan(tmp_path / "in"), tmp_path / "out", 8)
    assert content(tmp_path / "out") == {}


def test_files_that_vanish_or_turn_into_pipes_do_not_stop_a_build(tmp_path: Path) -> None:
    source = scan(photos(tmp_path / "in", 6))
    (tmp_path / "in" / "000.png").unlink()
    (tmp_path / "in" / "001.png").unlink()
    os.mkfifo(tmp_path / "in" / "001.png")
    status = build_store(source, tmp_path / "out", 8)["status"].to_pylist()
    assert status[:2] == [
        "unreadable: cannot be read: No such file or directory",
        "unreadable: not a regular file",
    ]
    assert status.count("ok") == 3


def test_damaged_stores_say_so(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="not a pixel store"):
        open_store(tmp_path)
    with pytest.raises(CollectionError, match="cannot be read"):
        read_images(tmp_path)
    source = scan(photos(tmp_path / "in"))
    build_store(source, tmp_path / "out", 8)
    pixels = tmp_path / "out" / "pixels.npy"
    pixels.write_bytes(pixels.read_bytes()[:500])
    with pytest.raises(CollectionError, match="not a pixel store"):
        open_store(pixels)
    np.save(pixels, np.zeros((2, 8, 8, 3), np.uint8))
    make(tmp_path / "in", "new.png")
    with pytest.raises(CollectionError, match="not of one build"):
        build_store(scan(tmp_path / "in"), tmp_path / "out", 8)
    with pytest.raises(ConfigError, match="threads"):
        build_store(source, tmp_path / "out", 8, threads=0)


@pytest.mark.parametrize("rows", [0, 1, 123_456_789_012])
def test_the_header_is_what_numpy_reads(tmp_path: Path, rows: int) -> None:
    header = journal.npy_header(rows, 224)
    assert len(header) == 128
    (tmp_path / "x").write_bytes(header)
    with (tmp_path / "x").open("rb") as handle:
        assert np.lib.format.read_magic(handle) == (1, 0)
        assert np.lib.format.read_array_header_1_0(handle) == ((rows, 224, 224, 3), False, np.dtype(np.uint8))
