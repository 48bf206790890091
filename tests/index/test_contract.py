"""What every index must do, for each name that the room finds."""

from __future__ import annotations

import numpy as np
import pytest

from semblance import plugins
from semblance.contracts import Matches
from semblance.errors import CollectionError, InputError

NAMES = plugins.names("index")


def make(name: str):
    return plugins.get("index", name).Index(plugins.configure("index", name))


def points(n: int, seed: int = 0, d: int = 16) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def brute(query: np.ndarray, x: np.ndarray, ids: list[int]) -> list[tuple[float, int]]:
    """(distance, id) of all, in order, one coordinate at a time."""
    found = []
    for row, number in zip(x, ids, strict=True):
        total = sum((float(a) - float(b)) ** 2 for a, b in zip(query, row, strict=True))
        found.append((float(np.float32(total**0.5)), number))
    return sorted(found)


def test_the_room_has_the_exact_index() -> None:
    assert "exact" in NAMES


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_search_finds_what_it_promises(name: str) -> None:
    x, index = points(300), make(name)
    index.add(x)
    queries = points(20, seed=1)
    found = index.search(queries, 10)
    assert isinstance(found, Matches)
    assert found.ids.dtype == np.int64
    assert found.distances.dtype == np.float32
    right = 0
    for i, query in enumerate(queries):
        truth = brute(query, x, list(range(300)))[:10]
        right += len({number for _, number in truth} & set(found.ids[i].tolist()))
        pairs = list(zip(found.distances[i].tolist(), found.ids[i].tolist(), strict=True))
        assert pairs == sorted(pairs)
    assert right >= index.recall * 200


def test_fewer_than_k_and_none_at_all(name: str) -> None:
    index = make(name)
    empty = index.search(points(2), 3)
    assert empty.ids.tolist() == [[-1] * 3] * 2
    assert np.isinf(empty.distances).all()
    assert index.within(points(2), 1.0).ids.shape == (2, 0)
    index.add(points(2))
    found = index.search(points(2), 5)
    assert (found.ids[:, 2:] == -1).all()
    assert np.isinf(found.distances[:, 2:]).all()
    assert sorted(found.ids[0, :2].tolist()) == [0, 1]


def test_a_vector_is_at_distance_zero_from_itself_and_duplicates_come_by_id(name: str) -> None:
    x = points(50, d=128)
    index = make(name)
    index.add(np.concatenate([x, x[:5], x[:5]]), ids=np.arange(60)[::-1].copy())
    found = index.search(x[:5], 3)
    assert (found.distances == 0).all()
    assert found.ids.tolist() == [[4 - i, 9 - i, 59 - i] for i in range(5)]


def test_within_is_search_with_a_limit(name: str) -> None:
    x, index = points(100), make(name)
    index.add(x)
    radius = 1.0
    found = index.within(x[:8], radius)
    for i in range(8):
        truth = [number for distance, number in brute(x[i], x, list(range(100))) if distance <= radius]
        got = [number for number in found.ids[i].tolist() if number >= 0]
        assert set(got) <= set(truth)
        assert len(got) >= index.recall * len(truth)
        assert np.isinf(found.distances[i][len(got) :]).all()


def test_removed_vectors_are_not_found_and_their_ids_are_free(name: str) -> None:
    x, index = points(30), make(name)
    index.add(x)
    index.remove([0, 7])
    assert len(index) == 28
    assert not np.isin(index.search(x, 28).ids, [0, 7]).any()
    index.add(x[7], ids=7)
    assert index.search(x[7], 1).ids.tolist() == [[7]]
    with pytest.raises(InputError, match="id 0 is not"):
        index.remove([1, 0])
    assert len(index) == 29
    index.remove(index.ids)
    assert len(index) == 0
    assert index.search(x[:1], 1).ids.tolist() == [[-1]]


def test_saved_is_loaded(name: str, tmp_path) -> None:
    x, index = points(40), make(name)
    index.add(x, ids=np.arange(40) * 3)
    index.save(tmp_path / "index")
    again = type(index).load(tmp_path / "index")
    before, after = index.search(x, 5), again.search(x, 5)
    assert np.array_equal(before.ids, after.ids)
    assert np.array_equal(before.distances, after.distances)
    assert again.config == index.config
    with pytest.raises(CollectionError, match="already there"):
        again.save(tmp_path / "index")
    again.add(points(1, seed=5))
    again.remove([0])
    again.save(tmp_path / "index", overwrite=True)
    third = type(index).load(tmp_path / "index")
    assert third.ids.tolist() == [*range(3, 120, 3), 118]
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_empty_index_is_saved_and_loaded(name: str, tmp_path) -> None:
    index = make(name)
    index.save(tmp_path / "index")
    again = type(index).load(tmp_path / "index")
    assert len(again) == 0
    again.add(points(3))
    assert again.search(points(3), 1).ids[:, 0].tolist() == [0, 1, 2]


def test_what_is_no_index_is_refused(name: str, tmp_path) -> None:
    kind = type(make(name))
    with pytest.raises(CollectionError):
        kind.load(tmp_path / "nothing")
    (tmp_path / "index.json").write_text("{", encoding="utf-8")
    with pytest.raises(CollectionError):
        kind.load(tmp_path)


def test_bad_vectors_and_ids_are_refused_and_nothing_is_added(name: str) -> None:
    index = make(name)
    index.add(points(4))
    bad = points(2)
    bad[1, 3] = np.nan
    for vectors, ids, message in [
        (bad, None, "row 1 .* not finite"),
        (points(2, d=8), None, "8 dimensions"),
        (points(2), [4], "2 vectors came with 1 ids"),
        (points(2), [4, 4], "already taken"),
        (points(2), [9, 3], "already taken"),
        (points(1), [-1], "whole numbers"),
        (points(1), [1.5], "whole numbers"),
        ([["a"]], None, "not an array of numbers"),
        (np.zeros((2, 2, 2)), None, "shape"),
    ]:
        with pytest.raises(InputError, match=message):
            index.add(vectors, ids)
    assert len(index) == 4
    for query in (bad, points(2, d=8)):
        with pytest.raises(InputError):
            index.search(query, 1)


def test_the_index_keeps_its_own_copy(name: str) -> None:
    x, index = points(10), make(name)
    index.add(x)
    query = x[3].copy()
    x[:] = 0
    assert index.search(query, 1).ids.tolist() == [[3]]
