from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semblance.errors import ConfigError, InputError
from semblance.images.sources import (
    Problem,
    folder_labels,
    locate,
    real_path,
    scan,
    stored_path,
)


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def paths(source: Any, **options: Any) -> list[str]:
    return [item.path for item in scan(source, **options).items]


def test_a_folder_is_listed_whole_and_sorted(tmp_path: Path) -> None:
    write(
        tmp_path,
        "b.jpg",
        "a/z.png",
        "a/b/c d.txt",
        ".hidden/x.jpg",
        ".y.jpg",
        "old.smb/p.png",
        "Z.SMB/p.png",
        "labels.csv",
    )
    found = scan(tmp_path)
    assert [item.path for item in found.items] == ["a/b/c d.txt", "a/z.png", "b.jpg", "labels.csv"]
    assert (found.kind, found.root, found.problems) == ("folder", tmp_path, ())
    status = (tmp_path / "b.jpg").stat()
    assert (found.items[2].bytes, found.items[2].mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert scan(str(tmp_path)) == found


def test_the_hostile_folder_is_listed_at_once(hostile: tuple[Path, dict[str, str]]) -> None:
    folder, expected = hostile
    start = time.monotonic()
    found = scan(folder)
    assert time.monotonic() - start < 10
    listed = [item.path for item in found.items] + [problem.path for problem in found.problems]
    assert sorted(listed) == sorted(expected)
    for problem in found.problems:
        assert problem.reason.startswith(expected[problem.path])


def test_folders_linked_many_times_are_listed_once(tmp_path: Path) -> None:
    for level in range(30):  # 2^30 ways to the last folder
        (tmp_path / f"d{level}").mkdir()
        for name in ("x", "y"):
            (tmp_path / f"d{level}" / name).symlink_to(f"../d{level + 1}")
    write(tmp_path, "d30/end.jpg")
    found = scan(tmp_path)
    assert [item.path for item in found.items] == ["d30/end.jpg"]
    assert len(found.problems) == 60


def test_a_linked_folder_outside_is_followed_once(tmp_path: Path) -> None:
    write(tmp_path, "outside/a.jpg", "outside/deep/b.jpg", "in/c.jpg")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "outside" / "deep")
    found = scan(tmp_path / "in")
    assert [item.path for item in found.items] == ["c.jpg", "link/a.jpg", "link/deep/b.jpg"]
    assert [problem.path for problem in found.problems] == ["more"]


def test_an_unreadable_folder_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.jpg", "locked/b.jpg")
    original = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)  # permissions do not bind the superuser
    found = scan(tmp_path)
    assert [item.path for item in found.items] == ["a.jpg"]
    assert found.problems == (Problem("locked", "cannot be read: Permission denied"),)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("**/*.jpg", ["a.jpg", "s/b.jpg", "s/t/c.jpg"]),
        ("s/**", ["s/b.jpg", "s/t/c.jpg", "s/t/d.png"]),
        ("**/t/*", ["s/t/c.jpg", "s/t/d.png"]),
        ("?/[!c]*.jpg", ["s/b.jpg"]),
        ("s/*/*.png", ["s/t/d.png"]),
    ],
)
def test_globs(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    write(tmp_path, "a.jpg", "s/b.jpg", "s/t/c.jpg", "s/t/d.png", ".h/e.jpg")
    found = scan(tmp_path / pattern)
    assert found.kind == "glob"
    assert [locate(found.root, item.path) for item in found.items] == [tmp_path / name for name in expected]


def test_a_file_with_brackets_in_its_name_is_no_glob(tmp_path: Path) -> None:
    write(tmp_path, "a[1].jpg")
    assert paths(tmp_path / "a[1].jpg") == ["a[1].jpg"]


def test_a_manifest_lists_its_rows(tmp_path: Path) -> None:
    write(tmp_path, "x/b.jpg", "a, b.jpg", "new\nline.jpg", "007")
    other = tmp_path.parent / f"{tmp_path.name} elsewhere.jpg"
    other.write_bytes(b"1")
    lines = [
        "class,path",
        "007,x/b.jpg",
        '1,"a, b.jpg"',
        "2,./x/b.jpg",
        f"3,{other}",
        "4,",
        '5,"new\nline.jpg"',
    ]
    lines += ["6,gone.jpg", "7,x", f"8,{tmp_path}/007", "", "9,nul\0"]
    (tmp_path / "list.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    found = scan(tmp_path / "list.csv")
    assert [item.path for item in found.items] == ["x/b.jpg", "a, b.jpg", str(other), "new\nline.jpg", "007"]
    assert found.table is not None
    assert found.table["class"].to_pylist() == ["007", "1", "3", "5", "8"]
    assert set(found.problems) == {
        Problem("", "1 rows have an empty path: 5"),
        Problem("gone.jpg", "no such file"),
        Problem("x", "a folder, not an image"),
        Problem("x/b.jpg", "listed 2 times, the first is kept"),
        Problem("nul\0", "no such file"),
    }


def test_parquet_and_where(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table = pa.table(
        {
            "path": pa.array(["a.jpg", None, "b.jpg", "c.jpg"]).dictionary_encode(),
            "split": ["x", "x", "y", "y"],
            "fold": [1, 1, 1, 2],
            "good": [True, True, True, None],
        }
    )
    pq.write_table(table, tmp_path / "list.parquet")
    assert paths(tmp_path / "list.parquet") == ["a.jpg", "b.jpg", "c.jpg"]
    assert paths(tmp_path / "list.parquet", where={"split": "y"}) == ["b.jpg", "c.jpg"]
    assert paths(tmp_path / "list.parquet", where={"split": "y", "fold": 1}) == ["b.jpg"]
    assert paths(tmp_path / "list.parquet", where={"good": True}) == ["a.jpg", "b.jpg"]
    with pytest.raises(InputError, match=r'split = "z".*found: x, y'):
        scan(tmp_path / "list.parquet", where={"split": "z"})
    with pytest.raises(ConfigError, match=r'"Split".*known: path, split'):
        scan(tmp_path / "list.parquet", where={"Split": "y"})
    with pytest.raises(ConfigError, match="manifest"):
        scan(tmp_path, where={"split": "y"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"file,class\na,b\n", "its columns are: file, class"),
        (b"path;class\na;b\n", "separate columns by commas"),
        (b"path,path\na,b\n", "more than one column"),
        (b"path,class\na,b\nc,d,e\n", "line 3: 3 columns"),
        (b"path\ncaf\xe9.jpg\n", "not UTF-8"),
        (b'path\n"open', "cannot be read as CSV"),
        (b"path\n", "no rows"),
        (b"", "no column"),
        (b"path\ngone.jpg\n", "gone.jpg: no such file"),
    ],
)
def test_bad_manifests_say_why(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        scan(tmp_path / "list.csv")


def test_bad_parquet_says_why(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"path,class\n")
    with pytest.raises(InputError, match="as Parquet"):
        scan(tmp_path / "list.parquet")
    pq.write_table(pa.table({"path": [[1], [2]]}), tmp_path / "list.parquet")
    with pytest.raises(InputError, match="not text but list"):
        scan(tmp_path / "list.parquet")


def test_a_list_keeps_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "b/two.jpg", "b/one.jpg", "b/c/.three.jpg")
    monkeypatch.chdir(tmp_path)
    found = scan(["b/two.jpg", Path("b/c/.three.jpg"), tmp_path / "b/one.jpg", "b/gone.jpg", "b/two.jpg"])
    assert [item.path for item in found.items] == ["two.jpg", "c/.three.jpg", "one.jpg"]
    assert found.root == tmp_path / "b"
    assert {problem.path for problem in found.problems} == {"gone.jpg", "two.jpg"}
    assert paths("b/one.jpg") == ["one.jpg"]


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 3)])
def test_arrays(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.zeros(shape, np.uint8)
    found = scan(array)
    assert [item.path for item in found.items] == ["000000", "000001", "000002", "000003"]
    assert (found.kind, found.root, found.items[0].bytes) == ("array", None, array[0].nbytes)
    np.save(tmp_path / "a.npy", array)
    again = scan(tmp_path / "a.npy")
    assert again.items == found.items
    assert again.array is not None
    assert again.array.shape == shape


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((2, 3, 3, 3), np.complex64), "complex64, not numbers"),
        (np.zeros((2, 5, 32, 32), np.uint8), r"looks like \(n, c, h, w\)"),
        (np.zeros((3, 3), np.uint8), "shape"),
        (np.zeros((0, 3, 3), np.uint8), "empty"),
        ([], "empty"),
        (7, "from a int"),
        ([1, 2], "from a list"),
        ("no/such/folder", "does not exist"),
        ("no/such/*.jpg", "no/such does not exist"),
        ("x" * 5000, "does not exist"),
        ("nul\0", "does not exist"),
    ],
)
def test_bad_sources_say_why(source: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        scan(source)
    assert caught.value.hint or source == []


def test_empty_places_say_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no files found in .*hidden"):
        scan(tmp_path)
    with pytest.raises(InputError, match=r"no file matches .*a,b"):
        scan(tmp_path / "*.{jpg,png}")
    (tmp_path / "x.jpg").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"x.jpg: dangling symlink"):
        scan(tmp_path)
    (tmp_path / "a.smb").mkdir()
    with pytest.raises(InputError, match="is a collection"):
        scan(tmp_path / "a.smb")


def test_folder_labels() -> None:
    assert folder_labels(["train/cat/1.jpg", "test/cat/2.jpg", "test/dog/1.jpg", "x.jpg"]) == [
        "cat",
        "cat",
        "dog",
        ".",
    ]
    assert folder_labels(["all/1.jpg", "all/2.jpg"]) is None
    assert folder_labels(["1.jpg", "2.jpg"]) is None
    assert folder_labels([]) is None


@given(st.binary(max_size=40) | st.text("\\x89fé/").map(os.fsencode))
def test_stored_paths_are_text_and_reversible(name: bytes) -> None:
    real = os.fsdecode(name)
    stored = stored_path(real)
    stored.encode("utf-8")
    assert os.fsencode(real_path(stored)) == name


def test_ordinary_names_are_stored_as_they_are() -> None:
    for name in ("a b.jpg", "back\\slash.png", "日本.png", "x\\x41.png"):
        assert stored_path(name) == name
