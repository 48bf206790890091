"""What every index must do, for each name that the room finds.

An index says what it `takes`: "vectors" or packed "codes"; and what it `asks`, where queries are something
else: "projections", real-valued queries against codes. Each kind has its own items, queries and distance
here, written out slowly.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from semblance import plugins
from semblance.contracts import Matches
from semblance.errors import CollectionError, ConfigError, InputError

NAMES = plugins.names("index")


def make(name: str):
    return plugins.get("index", name).Index(plugins.configure("index", name))


def points(n: int, seed: int = 0, d: int = 16) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def codes(n: int, seed: int = 0, d: int = 16) -> np.ndarray:
    """Codes of 8 d bits around a few centres, so that near ones, ties and duplicates come up."""
    r = np.random.default_rng(seed)
    centres = np.random.default_rng(99).integers(0, 256, (5, d), dtype=np.uint8)
    flips = np.packbits(r.random((n, 8 * d)) < r.choice([0.02, 0.2], (n, 1)), axis=1, bitorder="little")
    return centres[r.integers(0, 5, n)] ^ flips


def projections(n: int, seed: int = 0, d: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 8 * d)).astype(np.float32)


def of(items: np.ndarray) -> np.ndarray:
    """Projections that have these codes."""
    signs = np.unpackbits(items, axis=1, bitorder="little").astype(np.float32) * 2 - 1
    return signs * np.linspace(0.5, 2, signs.shape[1], dtype=np.float32)


def euclidean(query: np.ndarray, item: np.ndarray) -> float:
    total = sum((a - b) ** 2 for a, b in zip(query.tolist(), item.tolist(), strict=True))
    return float(np.float32(total**0.5))


def hamming(query: np.ndarray, item: np.ndarray) -> float:
    return float(
        bin(int.from_bytes(query.tobytes(), "big") ^ int.from_bytes(item.tobytes(), "big")).count("1")
    )


def weighted(query: np.ndarray, item: np.ndarray) -> float:
    total, numbers = 0.0, query.tolist()
    for byte, value in enumerate(item.tolist()):
        of_byte = 0.0
        for bit, q in enumerate(numbers[8 * byte : 8 * byte + 8]):
            if (value >> bit) & 1 != (q >= 0):
                of_byte += abs(q)
        total += of_byte
    return float(np.float32(total))


@dataclass(frozen=True)
class Kind:
    items: Callable[..., np.ndarray]
    queries: Callable[..., np.ndarray]
    query_of: Callable[[np.ndarray], np.ndarray]
    distance: Callable[[np.ndarray, np.ndarray], float]
    radius: float


KINDS = {
    ("vectors", "vectors"): Kind(points, points, lambda x: x, euclidean, 1.0),
    ("codes", "codes"): Kind(codes, codes, lambda x: x, hamming, 25.0),
    ("codes", "projections"): Kind(codes, projections, of, weighted, 45.0),
}


def kind_of(name: str) -> Kind:
    index = make(name)
    return KINDS[index.takes, getattr(index, "asks", index.takes)]


def brute(name: str, query: np.ndarray, x: np.ndarray, ids: list[int]) -> list[tuple[float, int]]:
    """(distance, id) of all, in order."""
    distance = kind_of(name).distance
    return sorted((distance(query, row), number) for row, number in zip(x, ids, strict=True))


def pairs(found: Matches, i: int) -> list[tuple[float, int]]:
    return [
        (distance, number)
        for distance, number in zip(found.distances[i].tolist(), found.ids[i].tolist(), strict=True)
        if number >= 0
    ]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_room_has_its_indexes() -> None:
    assert {"exact", "scan", "asymmetric"} <= set(NAMES)


@pytest.mark.parametrize("d", [16, 8, 5])
def test_search_finds_what_it_promises(name: str, d: int) -> None:
    kind, index = kind_of(name), make(name)
    x, queries = kind.items(300, d=d), kind.queries(20, seed=1, d=d)
    index.add(x)
    found = index.search(queries, 10)
    assert isinstance(found, Matches)
    assert found.ids.dtype == np.int64
    assert found.distances.dtype == np.float32
    right = 0
    for i, query in enumerate(queries):
        truth = brute(name, query, x, list(range(300)))[:10]
        got = pairs(found, i)
        assert got == sorted(got)
        assert len(got) == 10
        right += len(set(truth) & set(got))
    assert right >= index.recall * 200


def test_one_query_and_many_give_the_same(name: str) -> None:
    kind, index = kind_of(name), make(name)
    index.add(kind.items(200))
    queries = kind.queries(30, seed=2)
    together, again = index.search(queries, 7), index.search(queries, 7)
    assert np.array_equal(together.ids, again.ids)
    for i, query in enumerate(queries):
        alone = index.search(query, 7)
        assert alone.ids.shape == (1, 7)
        assert np.array_equal(alone.ids[0], together.ids[i])
        assert np.array_equal(alone.distances[0], together.distances[i])


def test_fewer_than_k_and_none_at_all(name: str) -> None:
    kind, index = kind_of(name), make(name)
    empty = index.search(kind.queries(2), 3)
    assert empty.ids.tolist() == [[-1] * 3] * 2
    assert np.isinf(empty.distances).all()
    assert index.within(kind.queries(2), 1.0).ids.shape == (2, 0)
    index.add(kind.items(2))
    found = index.search(kind.queries(2), 5)
    assert (found.ids[:, 2:] == -1).all()
    assert np.isinf(found.distances[:, 2:]).all()
    assert sorted(found.ids[0, :2].tolist()) == [0, 1]
    assert index.search(kind.queries(0), 5).ids.shape == (0, 5)
    with pytest.raises(ConfigError, match="k is 0"):
        index.search(kind.queries(1), 0)


def test_an_item_is_at_distance_zero_from_itself_and_duplicates_come_by_id(name: str) -> None:
    kind, index = kind_of(name), make(name)
    x = points(50, d=128) if kind.items is points else codes(50, d=128)
    index.add(np.concatenate([x, x[:5], x[:5]]), ids=np.arange(60)[::-1].copy())
    found = index.search(kind.query_of(x[:5]), 3)
    assert (found.distances == 0).all()
    assert found.ids.tolist() == [[4 - i, 9 - i, 59 - i] for i in range(5)]


def test_within_is_search_with_a_limit(name: str) -> None:
    kind, index = kind_of(name), make(name)
    x, queries = kind.items(100), kind.query_of(kind.items(100))[:8]
    index.add(x)
    found = index.within(queries, kind.radius)
    assert found.ids.shape[1] > 1
    for i in range(8):
        all_of_them = brute(name, queries[i], x, list(range(100)))
        truth = [pair for pair in all_of_them if pair[0] <= kind.radius]
        assert len(truth) < 100
        got = pairs(found, i)
        assert got == sorted(got)
        assert set(got) <= set(truth)
        assert len(got) >= index.recall * len(truth)
        assert np.isinf(found.distances[i][len(got) :]).all()
    for radius in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="radius"):
            index.within(queries, radius)


def test_a_filter_confines_the_search(name: str) -> None:
    kind, index = kind_of(name), make(name)
    x, queries = kind.items(120), kind.queries(6, seed=3)
    ids = np.random.default_rng(4).permutation(400)[:120]
    index.add(x, ids)
    for among in (
        ids[::3],
        ids[:2],
        ids,
        np.array([], dtype=np.int64),
        np.array([401, int(ids[5]), int(ids[5])]),
    ):
        allowed = np.isin(ids, among)
        found = index.search(queries, 9, among=among)
        near = index.within(queries, kind.radius, among=among)
        right, all_of_them = 0, 0
        for i, query in enumerate(queries):
            truth = brute(name, query, x[allowed], ids[allowed].tolist())
            got = pairs(found, i)
            assert len(got) == min(9, len(truth))
            right += len(set(got) & set(truth[:9]))
            all_of_them += len(truth[:9])
            inside = {pair for pair in truth if pair[0] <= kind.radius}
            assert set(pairs(near, i)) <= inside
            assert len(pairs(near, i)) >= index.recall * len(inside)
        assert right >= index.recall * all_of_them
    with pytest.raises(InputError, match="whole numbers"):
        index.search(queries, 1, among=[0.5])


def test_removed_items_are_not_found_and_their_ids_are_free(name: str) -> None:
    kind, index = kind_of(name), make(name)
    x = kind.items(30)
    asked = kind.query_of(x)
    index.add(x)
    index.remove([0, 7])
    assert len(index) == 28
    assert not np.isin(index.search(asked, 28).ids, [0, 7]).any()
    index.add(x[7], ids=7)
    again = index.search(asked[7], 28)
    assert again.distances[0, again.ids[0] == 7].tolist() == [0]
    with pytest.raises(InputError, match="id 0 is not"):
        index.remove([1, 0])
    assert len(index) == 29
    index.remove([])
    index.remove(index.ids)
    assert len(index) == 0
    assert index.search(asked[:1], 1).ids.tolist() == [[-1]]


def test_any_sequence_of_changes_ends_where_a_new_index_begins(name: str) -> None:
    kind, r = kind_of(name), np.random.default_rng(6)
    x, queries = kind.items(200), kind.queries(5, seed=7)
    index, there = make(name), np.zeros(200, dtype=bool)
    for _ in range(25):
        if there.any() and r.random() < 0.4:
            gone = r.permutation(np.flatnonzero(there))[: r.integers(1, 30)]
            index.remove(gone)
            there[gone] = False
        elif not there.all():
            new = r.permutation(np.flatnonzero(~there))[: r.integers(1, 30)]
            index.add(x[new], new)
            there[new] = True
        if r.random() < 0.3:
            index.search(queries, 3)
    ids = np.flatnonzero(there)
    assert sorted(index.ids.tolist()) == ids.tolist()
    found, right = index.search(queries, 8), 0
    for i, query in enumerate(queries):
        right += len(set(brute(name, query, x[ids], ids.tolist())[:8]) & set(pairs(found, i)))
    assert right >= index.recall * 8 * len(queries)


def test_saved_is_loaded(name: str, tmp_path: Path) -> None:
    kind, index = kind_of(name), make(name)
    x = kind.items(40)
    asked = kind.query_of(x)
    index.add(x, ids=np.arange(40) * 3)
    index.save(tmp_path / "index")
    again = type(index).load(tmp_path / "index")
    before, after = index.search(asked, 5), again.search(asked, 5)
    assert np.array_equal(before.ids, after.ids)
    assert np.array_equal(before.distances, after.distances)
    assert again.config == index.config
    with pytest.raises(CollectionError, match="already there"):
        again.save(tmp_path / "index")
    again.add(kind.items(1, seed=5))
    again.remove([0])
    again.save(tmp_path / "index", overwrite=True)
    third = type(index).load(tmp_path / "index")
    assert third.ids.tolist() == [*range(3, 120, 3), 118]
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_empty_index_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    kind, index = kind_of(name), make(name)
    index.save(tmp_path / "index")
    again = type(index).load(tmp_path / "index")
    assert len(again) == 0
    x = kind.items(3)
    again.add(x)
    assert len(again) == 3
    assert (again.search(kind.query_of(x), 1).distances == 0).all()


def test_what_is_no_index_is_refused_and_left_alone(name: str, tmp_path: Path) -> None:
    index = make(name)
    kind = type(index)
    with pytest.raises(CollectionError):
        kind.load(tmp_path / "nothing")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(CollectionError, match="not an index"):
        index.save(tmp_path / "precious", overwrite=True)
    assert (tmp_path / "precious" / "photo.jpg").read_bytes() == b"x"
    for text in (
        "{",
        "[]",
        "{}",
        '{"format": 1, "index": "another"}',
        f'{{"format": 99, "index": "{name}"}}',
    ):
        (tmp_path / "index.json").write_text(text, encoding="utf-8")
        with pytest.raises(CollectionError):
            kind.load(tmp_path)


def test_a_truncated_index_is_refused(name: str, tmp_path: Path) -> None:
    kind, index = kind_of(name), make(name)
    index.add(kind.items(60), ids=np.arange(60) * 2)
    index.save(tmp_path / "index")
    for path in sorted((tmp_path / "index").rglob("*.*")):
        whole = path.read_bytes()
        for kept in (0, len(whole) // 2, len(whole) - 8):
            path.write_bytes(whole[:kept])
            with pytest.raises(CollectionError) as caught:
                type(index).load(tmp_path / "index")
            assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    assert len(type(index).load(tmp_path / "index")) == 60


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_leaves_the_old_index(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, index = kind_of(name), make(name)
    index.add(kind.items(20))
    index.save(tmp_path / "index")
    index.add(kind.items(20, seed=1))

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(CollectionError, match=r"disk is full|Read-only"):
            index.save(tmp_path / "index", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert len(type(index).load(tmp_path / "index")) == 20


def test_bad_items_and_ids_are_refused_and_nothing_is_added(name: str) -> None:
    kind, index = kind_of(name), make(name)
    index.add(kind.items(4))
    bad = points(2)
    bad[1, 3] = np.nan
    cases = [
        (kind.items(2), [4], "2 (vectors|codes) came with 1 ids"),
        (kind.items(2), [4, 4], "already taken"),
        (kind.items(2), [9, 3], "already taken"),
        (kind.items(1), [-1], "whole numbers"),
        (kind.items(1), [1.5], "whole numbers"),
        (np.zeros((2, 2, 2), dtype=np.uint8), None, "shape"),
    ]
    if make(name).takes == "vectors":
        cases += [
            (bad, None, "row 1 .* not finite"),
            (points(2, d=8), None, "8 dimensions"),
            ([["a"]], None, "not an array of numbers"),
        ]
    else:
        cases += [
            (bad, None, "float32, packed codes are uint8"),
            (codes(2, d=8), None, "64 bits, the index has 128"),
            (codes(2) > 0, None, "bool, packed codes are uint8"),
            ([["a"]], None, "packed codes are uint8"),
        ]
    for items, ids, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            index.add(items, ids)
        assert "\n" not in str(caught.value)
    assert len(index) == 4
    for query in (bad, kind.queries(2, d=8)):
        with pytest.raises(InputError):
            index.search(query, 1)


def test_the_index_keeps_its_own_copy(name: str) -> None:
    kind, index = kind_of(name), make(name)
    x = kind.items(10)
    index.add(x)
    asked = kind.query_of(x)[3].copy()
    before = index.search(asked, 10)
    x[:] = 0
    after = index.search(asked, 10)
    assert np.array_equal(before.ids, after.ids)
    assert np.array_equal(before.distances, after.distances)
