"""Real-valued queries against packed codes: the formula, its two readings, blocks, threads and paths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance.errors import CollectionError, ConfigError, InputError
from semblance.index import _kernel, asymmetric
from semblance.index.asymmetric import Config, Index
from semblance.index.scan import Index as Scan


def signs(codes: np.ndarray) -> np.ndarray:
    return np.unpackbits(codes, axis=1, bitorder="little") * 2.0 - 1


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    width=st.integers(1, 10),
    k=st.integers(1, 70),
    whole=st.booleans(),
    block=st.sampled_from([1, 7, 2**16]),
    path=st.sampled_from(_kernel.paths()),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_a_sort_of_all_distances(
    n: int, width: int, k: int, whole: bool, block: int, path: str, seed: int
) -> None:
    """Whole numbers add up exactly in any order, so ties are ties for the reference too."""
    r = np.random.default_rng(seed)
    codes = r.integers(0, 256, (n, width), dtype=np.uint8)
    queries = r.integers(-3, 4, (3, 8 * width)) if whole else r.standard_normal((3, 8 * width))
    queries = queries.astype(np.float32)
    ids = r.permutation(200)[:n]
    index = Index()
    index.add(codes, ids)
    radius = float(r.integers(0, 4 * width))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SEMBLANCE_KERNEL", path)
        patched.setattr(asymmetric, "_BLOCK", block)
        found, near = index.search(queries, k), index.within(queries, radius)
    for i, query in enumerate(queries.astype(np.float64)):
        differs = signs(codes) != np.where(query >= 0, 1, -1)
        far = (np.abs(query) * differs).sum(axis=1).astype(np.float32)
        order = np.lexsort((ids, far))
        count = min(k, n)
        assert np.allclose(found.distances[i, :count], far[order[:count]], rtol=1e-6)
        assert np.isinf(found.distances[i, count:]).all()
        if whole:
            assert found.ids[i, :count].tolist() == ids[order[:count]].tolist()
            inside = order[far[order] <= radius]
            assert near.ids[i, : len(inside)].tolist() == ids[inside].tolist()
            assert (near.ids[i, len(inside) :] == -1).all()


def test_it_orders_as_the_euclidean_distance_and_is_hamming_for_signs() -> None:
    r = np.random.default_rng(0)
    codes = r.integers(0, 256, (300, 8), dtype=np.uint8)
    queries = r.standard_normal((5, 64)).astype(np.float32)
    index, scan = Index(), Scan()
    index.add(codes)
    scan.add(codes)
    found = index.search(queries, 300)
    for i, query in enumerate(queries.astype(np.float64)):
        squared = ((query - signs(codes)) ** 2).sum(axis=1)
        own = ((query - np.where(query >= 0, 1, -1)) ** 2).sum()
        assert np.allclose(found.distances[i], (squared[found.ids[i]] - own) / 4, atol=1e-4)
    asked = codes[:20]
    one, other = index.search(signs(asked), 50), scan.search(asked, 50)
    assert np.array_equal(one.ids, other.ids)
    assert np.array_equal(one.distances, other.distances)


def test_threads_change_nothing_and_options_out_of_range_are_refused(tmp_path) -> None:
    r = np.random.default_rng(1)
    index, threaded = Index(), Index(Config(threads=3))
    for each in (index, threaded):
        each.add(np.random.default_rng(2).integers(0, 256, (99, 4), dtype=np.uint8))
    queries = r.standard_normal((7, 32))
    assert np.array_equal(index.search(queries, 9).ids, threaded.search(queries, 9).ids)
    assert np.array_equal(index.within(queries, 9).ids, threaded.within(queries, 9).ids)
    with pytest.raises(ConfigError, match="threads is 0"):
        Config(threads=0)
    threaded.save(tmp_path / "a")
    about = tmp_path / "a" / "index.json"
    about.write_text(about.read_text().replace('"threads": 3', '"threads": 0'))
    with pytest.raises(CollectionError, match="an asymmetric index"):
        Index.load(tmp_path / "a")


def test_sums_beyond_float32_are_the_largest_and_not_missing() -> None:
    index = Index()
    index.add(np.array([[0], [255]], dtype=np.uint8))
    found = index.search(np.full((1, 8), 3e38), 3)
    assert found.ids.tolist() == [[1, 0, -1]]
    assert found.distances[0].tolist() == [0, float(np.finfo(np.float32).max), np.inf]


def test_queries_that_are_no_projections_are_refused() -> None:
    index = Index()
    index.add(np.zeros((1, 4), dtype=np.uint8))
    for queries, message in [
        (np.zeros((1, 16)), "16 dimensions, the index has 32"),
        (np.full((1, 32), np.nan), "not finite"),
    ]:
        with pytest.raises(InputError, match=message):
            index.search(queries, 1)
