"""Packed codes with ids, in memory and on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance.errors import CollectionError, InputError
from semblance.index._codes import Codes, as_codes, as_ids, to_words


def some(n: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, width), dtype=np.uint8)


@pytest.mark.parametrize("width", [1, 3, 7, 8, 9, 16, 31])
def test_bit_i_is_bit_i_of_the_words(width: int) -> None:
    packed = some(5, width)
    words = to_words(packed)
    assert words.shape == (5, -(-width // 8))
    for code, row in zip(packed, words, strict=True):
        bits = np.unpackbits(code, bitorder="little")
        for i in range(64 * words.shape[1]):
            assert (int(row[i // 64]) >> (i % 64)) & 1 == (bits[i] if i < len(bits) else 0)
    codes = Codes()
    codes.add(packed)
    assert np.array_equal(codes.packed, packed)
    assert np.array_equal(codes.queries(packed), words)
    assert codes.bits == 8 * width


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 25), max_size=8, unique=True)), max_size=8))
def test_any_changes_keep_codes_with_their_ids(changes: list[tuple[bool, list[int]]]) -> None:
    codes, truth, content = Codes(), {}, some(26, 9, seed=3)
    for adding, ids in changes:
        if adding and not set(ids) & truth.keys():
            codes.add(content[ids], ids)
            truth.update({i: content[i].tolist() for i in ids})
        elif not adding and set(ids) <= truth.keys():
            codes.remove(ids)
            for i in ids:
                del truth[i]
        elif ids:
            with pytest.raises(InputError, match=r"already taken|not in the index"):
                codes.add(content[ids], ids) if adding else codes.remove(ids)
    assert codes.ids.tolist() == sorted(truth)
    assert codes.packed.tolist() == [truth[i] for i in sorted(truth)] or not truth
    assert codes.names(codes.rows(range(26))).tolist() == sorted(truth)


def test_ids_that_count_from_nought_take_no_memory() -> None:
    codes = Codes()
    assert codes.add(some(3, 2)).tolist() == [0, 1, 2]
    codes.add(some(2, 2), ids=[4, 3])
    assert codes._names is None
    codes.add(some(1, 2), ids=[9])
    assert codes.add(some(1, 2)).tolist() == [10]
    assert codes.ids.tolist() == [0, 1, 2, 3, 4, 9, 10]
    codes.remove([9, 10])
    assert codes._names is None
    codes.remove([0])
    codes.add(some(1, 2), ids=[0])
    assert codes._names is None
    codes.remove(codes.ids)
    assert codes.add(some(2, 2)).tolist() == [0, 1]
    assert codes.names(np.array([[1, -1]])).tolist() == [[1, -1]]


def test_many_small_additions_do_not_copy_each_time() -> None:
    codes, rooms = Codes(), set()
    for i in range(300):
        codes.add(some(1, 8, seed=i))
        rooms.add(len(codes._room))
    assert len(rooms) < 20
    assert np.array_equal(codes.packed, np.concatenate([some(1, 8, seed=i) for i in range(300)]))


def test_what_the_caller_does_to_the_array_later_does_not_matter() -> None:
    packed = some(4, 8)
    codes = Codes()
    codes.add(packed)
    before = codes.packed.copy()
    packed[:] = 0
    assert np.array_equal(codes.packed, before)


@pytest.mark.parametrize("name", ["codes", "ids"])
def test_loaded_codes_stay_on_disk_until_they_change(name: str, tmp_path: Path) -> None:
    codes = Codes()
    codes.add(some(50, 8), ids=np.arange(50) * 2)
    codes.save(tmp_path / "a", "scan", {"x": 1})
    again, more = Codes.load(tmp_path / "a", "scan")
    assert more == {"x": 1}
    assert isinstance(again._room, np.memmap)
    again.add(some(1, 8, seed=1))
    again.remove([0])
    assert again.ids.tolist() == [*range(2, 100, 2), 99]
    assert len(Codes.load(tmp_path / "a", "scan")[0]) == 50
    (tmp_path / "a" / f"{name}.npy").unlink()
    with pytest.raises(CollectionError, match="cannot be read as a scan index"):
        Codes.load(tmp_path / "a", "scan")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bits", 63),
        ("bits", 7),
        ("bits", "64"),
        ("bits", 128),
        ("count", 51),
        ("count", None),
        ("named", False),
    ],
)
def test_facts_that_do_not_fit_the_arrays_are_refused(key: str, value: object, tmp_path: Path) -> None:
    codes = Codes()
    codes.add(some(50, 8), ids=np.arange(50) * 2)
    codes.save(tmp_path / "a", "scan", {})
    about = json.loads((tmp_path / "a" / "index.json").read_text(encoding="utf-8"))
    about[key] = value
    (tmp_path / "a" / "index.json").write_text(json.dumps(about), encoding="utf-8")
    if key == "named":  # ids that are there and not asked for do no harm
        assert Codes.load(tmp_path / "a", "scan")[0].ids.tolist() == list(range(50))
        return
    with pytest.raises(CollectionError, match="cannot be read as a scan index"):
        Codes.load(tmp_path / "a", "scan")


def test_ids_out_of_order_and_other_types_on_disk_are_refused(tmp_path: Path) -> None:
    codes = Codes()
    codes.add(some(50, 8), ids=np.arange(50) * 2)
    codes.save(tmp_path / "a", "scan", {})
    for ids in (np.arange(50)[::-1] * 2, np.arange(50) - 1, np.arange(50.0), np.zeros(50, dtype=np.int64)):
        np.save(tmp_path / "a" / "ids.npy", ids)
        with pytest.raises(CollectionError, match="do not fit together"):
            Codes.load(tmp_path / "a", "scan")


def test_what_codes_and_ids_may_be() -> None:
    assert as_codes([np.uint8(3), np.uint8(4)]).shape == (1, 2)
    assert as_codes(some(2, 4)[:, ::2]).flags.c_contiguous
    for values, message in [
        (np.zeros((2, 2), dtype=np.int8), "int8"),
        (np.array([[np.nan]]), "float64"),
        (np.zeros((2, 0), dtype=np.uint8), "shape"),
        (np.uint8(3), "shape"),
        ([[1, 2], [3]], "not an array"),
        (np.zeros((1, 8185), dtype=np.uint8), "65480 bits"),
    ]:
        with pytest.raises(InputError, match=message):
            as_codes(values)
    assert as_ids(7).tolist() == [7]
    assert as_ids([]).dtype == np.int64
    for bad in ([-1], [0.0], [[1]], ["a"], np.array([2**63], dtype=np.uint64)):
        with pytest.raises(InputError, match=r"whole numbers|too large"):
            as_ids(bad)
