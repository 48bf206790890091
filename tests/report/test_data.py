"""What is taken out of a collection, and how names are made fit to be shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semblance.errors import CollectionError
from semblance.report.data import from_collection, number, printable


def test_rows_names_and_copies(collection: Any) -> None:
    data = from_collection(collection)
    assert data.paths[5] == "b/0005 & <b>.png"
    assert len(data.paths) == len(data.embeddings) == 60
    assert data.copies == ((0, 57, 58, 59),)
    assert data.unreadable[0] == ("empty\\nfile.jpg", "bad <chunk> 0")
    assert (data.images, data.unreadable_count, data.duplicate_count) == (67, 7, 3)


def test_rows_in_another_order_than_ids(build: Any) -> None:
    collection = build(n=4, bad=1, copies=0)
    shuffled = collection.images.take([3, 0, 4, 1, 2])
    collection.images = shuffled
    assert [path[2:6] for path in from_collection(collection).paths] == ["0000", "0001", "0002", "0003"]


def test_parts_that_do_not_fit_are_refused(build: Any) -> None:
    collection = build(n=10)
    collection.embeddings = collection.embeddings[:9]
    with pytest.raises(CollectionError, match=r"10 readable images, 10 rows of pixels and 9 embeddings"):
        from_collection(collection)


def test_a_report_written_while_building_names_the_finished_folder(build: Any) -> None:
    assert from_collection(build(folder=".photos.smb.building")).folder == "photos.smb"
    assert from_collection(build(folder=".hidden.smb")).folder == ".hidden.smb"


def test_labels_by_path_by_column_or_by_folder(build: Any, evaluation: dict[str, Any]) -> None:
    assert from_collection(build()).labels is None
    named = from_collection(build(labels=True)).labels
    assert named is not None
    assert named[:3] == ("class r <i>", "class g <i>", "class b <i>")
    by_path = from_collection(build(), {"r/0000 & <b>.png": 7}).labels
    assert by_path is not None
    assert by_path[:2] == ("7", None)
    folders = from_collection(build(evaluation={**evaluation, "column": "folder"})).labels
    assert folders is not None
    assert folders[:3] == ("r", "g", "b")
    assert from_collection(build(), {"elsewhere.png": 1}).labels is None


@given(st.text(st.characters(), max_size=30))
def test_printable_text_can_be_written_and_hides_nothing(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert not set(shown) & set("\n\r\t\x00\x1b\u202e\u2028\u200b")
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ü 日本.jpg", "plain – ü 日本.jpg"),
        ("a\r\tb", "a\\r\\tb"),
        ("caf\udce9", "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202egpj", "\\u202egpj"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_numbers_are_finite_or_nothing() -> None:
    assert number(2) == 2.0
    assert [number(value) for value in (None, True, "1", float("nan"), float("inf"), [])] == [None] * 6
