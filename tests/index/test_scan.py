"""The scan against plain Python, where the contract of all indexes does not look: counts, slabs, threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance.errors import CollectionError, ConfigError, InputError
from semblance.index import _kernel
from semblance.index import scan as scan_module
from semblance.index.scan import Config, Index


def some(n: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, width), dtype=np.uint8)


def hamming(a: np.ndarray, b: np.ndarray) -> int:
    return bin(int.from_bytes((a ^ b).tobytes(), "little")).count("1")


def brute(query: np.ndarray, codes: np.ndarray, ids: np.ndarray) -> list[tuple[float, int]]:
    return sorted((float(hamming(query, code)), int(i)) for code, i in zip(codes, ids, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    width=st.integers(1, 20),
    q=st.integers(1, 9),
    k=st.integers(1, 70),
    few=st.booleans(),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
    gone=st.integers(0, 20),
    slab=st.sampled_from([1, 7, 2**23]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_a_sort_of_all_distances(
    n: int, width: int, q: int, k: int, few: bool, share: float | None, gone: int, slab: int, seed: int
) -> None:
    r = np.random.default_rng(seed)
    codes = r.integers(0, 3 if few else 256, (n, width), dtype=np.uint8)
    queries = r.integers(0, 3 if few else 256, (q, width), dtype=np.uint8)
    ids = r.permutation(3 * n)[:n]
    index = Index()
    index.add(codes[: n // 2], ids[: n // 2])
    index.add(codes[n // 2 :], ids[n // 2 :])
    left = np.sort(r.permutation(n)[min(gone, n - 1) :])
    index.remove(np.delete(ids, left))
    among = None if share is None else r.permutation(3 * n)[: int(share * 3 * n)]
    allowed = left if among is None else left[np.isin(ids[left], among)]
    radius = float(r.integers(0, 8 * width + 2))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scan_module, "_SLAB_WORDS", slab)
        found = index.search(queries, k, among=among)
        near = index.within(queries, radius, among=among)
        counts = index.count(queries, among=among)
    assert counts.shape == (q, 8 * width + 1)
    for i, query in enumerate(queries):
        truth = brute(query, codes[allowed], ids[allowed])
        padded = truth[:k] + [(np.inf, -1)] * (k - len(truth))
        assert list(zip(found.distances[i].tolist(), found.ids[i].tolist(), strict=True)) == padded
        inside = [pair for pair in truth if pair[0] <= radius]
        padded = inside + [(np.inf, -1)] * (near.ids.shape[1] - len(inside))
        assert list(zip(near.distances[i].tolist(), near.ids[i].tolist(), strict=True)) == padded
        tally = np.bincount([int(pair[0]) for pair in truth], minlength=8 * width + 1)
        assert counts[i].tolist() == tally.tolist()


@pytest.mark.parametrize("path", _kernel.paths())
def test_threads_change_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMBLANCE_KERNEL", path)
    monkeypatch.setattr(_kernel, "_WORTH_A_THREAD", 1)
    codes, queries = some(999, 6), some(7, 6, seed=1)
    alone, together = Index(), Index(Config(threads=4))
    alone.add(codes)
    together.add(codes)
    for method, limit in (("search", 40), ("within", 12)):
        one, four = getattr(alone, method)(queries, limit), getattr(together, method)(queries, limit)
        assert np.array_equal(one.ids, four.ids)
        assert np.array_equal(one.distances, four.distances)
    assert np.array_equal(alone.count(queries), together.count(queries))


def test_a_radius_between_whole_numbers_and_beyond_all_bits() -> None:
    index = Index()
    index.add(np.array([[0], [1], [3], [255]], dtype=np.uint8))
    for radius, expected in [
        (0, [0]),
        (1.9, [0, 1]),
        (2, [0, 1, 2]),
        (8, [0, 1, 2, 3]),
        (np.inf, [0, 1, 2, 3]),
    ]:
        assert index.within(np.array([0], dtype=np.uint8), radius).ids[0].tolist() == expected


def test_an_empty_index_counts_nothing() -> None:
    index = Index()
    assert index.bits is None
    assert index.count(some(2, 3)).tolist() == [[0] * 25] * 2
    index.add(some(2, 3))
    index.remove([0, 1])
    assert index.bits == 24
    assert index.count(some(2, 3)).sum() == 0
    assert index.search(some(2, 3), 1, among=[0]).ids.tolist() == [[-1], [-1]]


def test_queries_of_another_width_or_type_are_refused() -> None:
    index = Index()
    index.add(some(3, 8))
    for queries, message in [
        (some(1, 4), "queries have 32 bits, the index has 64"),
        (np.zeros((1, 8)), "queries are float64"),
    ]:
        for call in (
            lambda q: index.search(q, 1),
            lambda q: index.within(q, 1),
            lambda q: index.count(q),
        ):
            with pytest.raises(InputError, match=message):
                call(queries)
    with pytest.raises(ConfigError, match="threads is 0"):
        Config(threads=0)


def test_configuration_survives_and_nonsense_is_refused(tmp_path) -> None:
    index = Index(Config(threads=2))
    index.add(some(3, 8))
    index.save(tmp_path / "a")
    assert Index.load(tmp_path / "a").config == Config(threads=2)
    about = tmp_path / "a" / "index.json"
    for config in ('"threads": 0', '"threads": "x"', '"speed": 1'):
        about.write_text(about.read_text().replace('"threads": 2', config))
        with pytest.raises(CollectionError, match="scan index"):
            Index.load(tmp_path / "a")
        about.write_text(about.read_text().replace(config, '"threads": 2'))
