"""Exact search against a sort of all distances, where rounding makes it hard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semblance.errors import CollectionError, ConfigError
from semblance.index.exact import Config, Index, nearest, within

rng = np.random.default_rng


def brute(queries: np.ndarray, x: np.ndarray, ids: np.ndarray | None = None) -> list[list[tuple[float, int]]]:
    rows = []
    names = range(len(x)) if ids is None else ids.tolist()
    for query in queries.astype(np.float64):
        squares = ((x.astype(np.float64) - query) ** 2).sum(axis=1)
        rows.append(sorted(zip(np.sqrt(squares).astype(np.float32).tolist(), names, strict=True)))
    return rows


def check(queries: np.ndarray, x: np.ndarray, k: int, ids: np.ndarray | None, block_bytes: int) -> None:
    found = nearest(queries, x, k, ids=ids, block_bytes=block_bytes)
    for i, row in enumerate(brute(queries, x, ids)):
        assert list(zip(found.distances[i].tolist(), found.ids[i].tolist(), strict=True))[: len(x)] == row[:k]


HARD = {
    "spread": lambda r: r.standard_normal((260, 24)),
    "ties everywhere": lambda r: r.integers(0, 2, (260, 6)),
    "far from the origin": lambda r: 1000 + 1e-2 * r.standard_normal((260, 24)),
    "almost collapsed": lambda r: 1 + 1e-6 * r.standard_normal((260, 24)),
    "collapsed": lambda r: np.ones((260, 8)),
    "huge": lambda r: 1e37 * r.standard_normal((260, 8)),
    "tiny": lambda r: 1e-37 * r.standard_normal((260, 8)),
    "outliers": lambda r: np.concatenate([r.standard_normal((250, 8)), 1e7 * r.standard_normal((10, 8))]),
    "one dimension": lambda r: r.integers(-20, 20, (260, 1)),
}


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("block_bytes", [1, 40_000, 2**28])
def test_equals_a_sort_of_all_distances(kind: str, block_bytes: int) -> None:
    x = HARD[kind](rng(3)).astype(np.float32)
    ids = rng(4).permutation(1000)[: len(x)].astype(np.int64)
    check(x[::9], x, 7, ids, block_bytes)


@settings(max_examples=60, deadline=None)
@given(
    x=arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.floats(-4, 4, width=16)),
    k=st.integers(1, 45),
    block_bytes=st.sampled_from([1, 20_000, 2**28]),
)
def test_any_small_array(x: np.ndarray, k: int, block_bytes: int) -> None:
    check(x, x, k, None, block_bytes)


@pytest.mark.parametrize("block_bytes", [1, 30_000, 2**28])
def test_several_gallery_blocks(block_bytes: int) -> None:
    x = rng(0).standard_normal((1500, 4)).astype(np.float32)
    x[700:] = x[:800]
    check(x[::100], x, 40, None, block_bytes)
    found = within(x[::100], x, 0.7, block_bytes=block_bytes)
    for i, row in enumerate(brute(x[::100], x)):
        inside = [pair for pair in row if pair[0] <= np.float32(0.7)]
        got = list(zip(found.distances[i].tolist(), found.ids[i].tolist(), strict=True))
        assert got[: len(inside)] == inside
        assert got[len(inside) :] == [(np.inf, -1)] * (len(got) - len(inside))


@pytest.mark.parametrize("kind", ["spread", "bytes", "narrow", "skewed"])
def test_wide_vectors(kind: str) -> None:
    """The bound of the product's rounding error is a narrower one above 140 dimensions."""
    r = rng(11)
    x = {
        "spread": lambda: r.standard_normal((200, 2000)),
        "bytes": lambda: r.integers(0, 256, (200, 2000)) / 255,
        "narrow": lambda: 1 + 1e-5 * r.standard_normal((200, 2000)),
        "skewed": lambda: np.sort(np.abs(r.standard_normal((200, 2000))) ** 4, axis=1),
    }[kind]()
    x = x.astype(np.float32)
    check(x[::20], x, 5, None, 2**28)


def test_self_is_left_out_by_id_and_its_duplicates_stay() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)
    found = nearest(x, x, 2, exclude=np.arange(9))
    assert found.ids.tolist() == [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4], [7, 8], [6, 8], [6, 7]]
    assert (found.distances == 0).all()
    assert nearest(x[:1], x, 9, exclude=np.array([-1])).ids[0].tolist() == list(range(9))
    assert nearest(x[:1], x, 9, exclude=np.array([0])).ids[0].tolist() == [*range(1, 9), -1]


def test_distances_do_not_depend_on_the_neighbourhood() -> None:
    x = rng(1).standard_normal((400, 128)).astype(np.float32)
    one = nearest(x[:1], x[5:6], 1).distances[0, 0]
    found = nearest(x, x, 400)
    assert found.distances[0][found.ids[0] == 5] == one
    assert found.distances[5][found.ids[5] == 0] == one


def test_within_takes_what_lies_on_the_limit() -> None:
    index = Index()
    index.add([[0.0], [0.1], [0.2]])
    assert index.within([0.0], 0.1).ids.tolist() == [[0, 1]]
    assert index.within([0.0], 0).ids.tolist() == [[0]]
    assert index.within([0.0], 1e300).ids.tolist() == [[0, 1, 2]]
    for radius in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="radius"):
            index.within([0.0], radius)


def test_options_out_of_range() -> None:
    with pytest.raises(ConfigError, match="k is 0"):
        Index().search([1.0], 0)
    with pytest.raises(ConfigError, match="memory_mb"):
        Index(Config(memory_mb=0))


def test_loaded_vectors_stay_on_disk(tmp_path) -> None:
    index = Index(Config(memory_mb=7))
    index.add(rng(0).standard_normal((20, 4)))
    index.save(tmp_path / "a")
    again = Index.load(tmp_path / "a")
    assert isinstance(again._parts[0], np.memmap)
    assert again.config.memory_mb == 7
    (tmp_path / "a" / "ids.npy").write_bytes((tmp_path / "a" / "vectors.npy").read_bytes())
    with pytest.raises(CollectionError, match="do not fit"):
        Index.load(tmp_path / "a")
