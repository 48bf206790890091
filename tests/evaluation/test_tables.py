"""Labels from CSV and Parquet, in the order of the images."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semblance.errors import ConfigError, InputError
from semblance.evaluation.tables import read_labels

PATHS = ["a/1.png", "a/2.png", "b/ü 3.png"]


def csv(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_come_in_the_order_of_the_images(tmp_path: Path) -> None:
    text = '\ufeffpath,class,n\nb/ü 3.png,"x, y",3\n./a/1.png,one,001\na\\2.png,two,2\nc/9.png,nine,9\n'
    table = csv(tmp_path, text)
    labels = read_labels(table, "class", PATHS)
    assert labels.values == ("one", "two", "x, y")
    assert (labels.unlabelled, labels.unused, labels.column) == (0, 1, "class")
    assert read_labels(table, "n", PATHS).values == ("001", "2", "3")


def test_the_first_column_names_the_images_if_none_is_called_path(tmp_path: Path) -> None:
    table = csv(tmp_path, "file\tkind\na/1.png\tcat\n", "labels.tsv")
    assert read_labels(table, "kind", PATHS).values == ("cat", None, None)
    table = csv(tmp_path, "kind,path\ncat,a/1.png\n")
    assert read_labels(table, "kind", PATHS[:1]).values == ("cat",)


def test_missing_labels_are_counted(tmp_path: Path) -> None:
    labels = read_labels(csv(tmp_path, "path,class\na/1.png,\na/2.png,NaN\nb/ü 3.png,x\n"), "class", PATHS)
    assert labels.values == (None, None, "x")
    assert labels.unlabelled == 2


def test_parquet_numbers_become_text(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    columns = {
        "path": PATHS,
        "whole": [1, None, 3],
        "real": [1.0, float("nan"), 2.5],
        "name": ["a", None, "b"],
    }
    pq.write_table(pa.table(columns), path)
    assert read_labels(path, "whole", PATHS).values == ("1", None, "3")
    assert read_labels(path, "real", PATHS).values == ("1", None, "2.5")
    assert read_labels(path, "name", PATHS).values == ("a", None, "b")


def test_leading_folders_may_differ_on_one_side(tmp_path: Path) -> None:
    table = csv(tmp_path, "path,class\ndata/images/a/1.png,x\ndata/images/a/2.png,y\n")
    assert read_labels(table, "class", PATHS).values == ("x", "y", None)
    table = csv(tmp_path, "path,class\n1.png,x\n2.png,y\n")
    assert read_labels(table, "class", PATHS).values == ("x", "y", None)
    # Two images of one name: which row is whose cannot be known.
    with pytest.raises(InputError, match="no image of the collection"):
        read_labels(table, "class", ["a/1.png", "b/1.png"])
    table = csv(tmp_path, "path,class\na/1.png,x\nb/1.png,y\n")
    with pytest.raises(InputError, match="no image of the collection"):
        read_labels(table, "class", ["1.png"])


def test_the_same_row_twice_is_fine_and_two_labels_are_not(tmp_path: Path) -> None:
    table = csv(tmp_path, "path,class\na/1.png,x\na/1.png,x\n")
    assert read_labels(table, "class", PATHS).values == ("x", None, None)
    table = csv(tmp_path, "path,class\na/1.png,x\na/1.png,y\n")
    with pytest.raises(InputError, match=r'"a/1.png" two labels: x and y'):
        read_labels(table, "class", PATHS)


def test_what_cannot_be_used_says_why(tmp_path: Path) -> None:
    table = csv(tmp_path, "path,class\nz.png,x\n")
    with pytest.raises(ConfigError, match=r'no column "clas" .*class'):
        read_labels(table, "clas", PATHS)
    with pytest.raises(InputError, match=r'has "a/1.png", the table "z.png"'):
        read_labels(table, "class", PATHS)
    with pytest.raises(InputError, match="is empty"):
        read_labels(csv(tmp_path, ""), "class", PATHS)
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(tmp_path / "none.csv", "class", PATHS)
    for name in ("bad.parquet", "bad.csv"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00bad")
        with pytest.raises(InputError, match="cannot be read"):
            read_labels(tmp_path / name, "class", PATHS)
