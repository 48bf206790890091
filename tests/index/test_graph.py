"""The graph of neighbours: recall, filters, changes, and the exact measure of what it proposes."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest

from semblance.errors import CollectionError, ConfigError, MissingExtra
from semblance.index import exact
from semblance.index.graph import Config, Index

pytest.importorskip("usearch", reason='the extra "graph" is not installed')

rng = np.random.default_rng


def unit(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    r = rng(seed)
    centres = rng(99).standard_normal((40, d))
    x = centres[r.integers(0, 40, n)] + 0.5 * r.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    shares = [
        len(set(a) & set(b) - {-1}) / max(1, len(set(b) - {-1}))
        for a, b in zip(found.tolist(), truth.tolist(), strict=True)
        if set(b) - {-1}
    ]
    return float(np.mean(shares)) if shares else 1.0


@pytest.fixture(scope="module")
def both() -> tuple[Index, exact.Index, np.ndarray]:
    x = unit(2500)
    ids = rng(1).permutation(5000)[:2500]
    index, truth = Index(), exact.Index()
    index.add(x, ids)
    truth.add(x, ids)
    return index, truth, ids


def test_recall_is_what_it_promises_and_distances_are_exact(both) -> None:
    index, truth, _ = both
    queries = unit(40, seed=2)
    for k in (1, 10, 40):
        found, right = index.search(queries, k), truth.search(queries, k)
        assert recall(found.ids, right.ids) >= Index.recall
        everything = truth.search(queries, 2500)
        for i in range(40):
            far = dict(zip(everything.ids[i].tolist(), everything.distances[i].tolist(), strict=True))
            pairs = list(zip(found.distances[i].tolist(), found.ids[i].tolist(), strict=True))
            assert pairs == sorted(pairs)
            assert all(far[number] == distance for distance, number in pairs)
    assert index._graph is not None


@pytest.mark.parametrize("kept", [2000, 600, 30, 0])
def test_a_filter_of_any_size(both, kept: int) -> None:
    index, truth, ids = both
    queries, among = unit(15, seed=3), np.concatenate([ids[:kept], [999_999]])
    found, right = index.search(queries, 10, among), truth.search(queries, 10, among)
    assert recall(found.ids, right.ids) >= Index.recall
    assert ((found.ids < 0) == (right.ids < 0)).all()
    found, right = index.within(queries, 0.5, among), truth.within(queries, 0.5, among)
    assert recall(found.ids, right.ids) >= Index.recall


def test_a_radius_finds_few_and_all(both) -> None:
    index, truth, _ = both
    queries = unit(10, seed=4)
    for radius in (0.0, 0.4, 0.9, 2.0):
        assert recall(index.within(queries, radius).ids, truth.within(queries, radius).ids) >= Index.recall
    with pytest.raises(ConfigError, match="radius"):
        index.within(queries, -1)


def test_what_comes_goes_and_comes_again() -> None:
    x = unit(1600)
    index, truth = Index(), exact.Index()
    for one in (index, truth):
        one.add(x[:1200])
    index.search(x[:1], 1)
    queries = unit(20, seed=5)
    for step in range(4):
        gone = np.arange(100 * step, 100 * step + 90)
        for one in (index, truth):
            one.remove(gone)
            one.add(x[1200 + 100 * step : 1300 + 100 * step])
            one.add(x[gone[:20]], gone[:20])
        found, right = index.search(queries, 10), truth.search(queries, 10)
        assert recall(found.ids, right.ids) >= Index.recall
        assert not np.isin(found.ids, gone[20:]).any()
        assert np.array_equal(index.ids, truth.ids)
    index.remove(index.ids[: len(index) // 2])
    assert len(index._linked) == len(index)
    index.build()
    assert index._graph is None
    assert len(index.search(queries, 3).ids) == 20


def test_many_removals_lead_to_a_new_graph() -> None:
    index = Index()
    index.add(unit(2400))
    index.build()
    first = index._graph
    index.remove(range(400))
    index.build()
    assert index._graph is first
    index.remove(range(400, 700))
    index.build()
    assert index._graph is not first
    assert index.search(unit(2400)[1000], 1).ids.tolist() == [[1000]]


def test_a_saved_graph_is_mapped_and_can_be_changed(both, tmp_path: Path) -> None:
    index, truth, _ = both
    queries = unit(20, seed=6)
    index.save(tmp_path / "a")
    again = Index.load(tmp_path / "a")
    assert again._frozen is not None
    assert isinstance(again._floats.vectors._parts[0], np.memmap)
    assert np.array_equal(again.search(queries, 5).ids, index.search(queries, 5).ids)
    again.save(tmp_path / "b")
    third = Index.load(tmp_path / "b")
    third.remove(truth.ids[:5])
    third.add(unit(3, seed=7), [6000, 6001, 6002])
    assert third.search(unit(3, seed=7), 1).ids[:, 0].tolist() == [6000, 6001, 6002]
    assert third._frozen is None
    third.save(tmp_path / "b", overwrite=True)
    assert len(Index.load(tmp_path / "b")) == 2498
    (tmp_path / "a" / "graph.npy").write_bytes((tmp_path / "b" / "graph.npy").read_bytes())
    with pytest.raises(CollectionError, match="cannot be read as a graph index"):
        Index.load(tmp_path / "a")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.startswith("usearch"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"semblance\[graph\]"):
        Index()


def test_options_out_of_range() -> None:
    for name in ("m", "ef_construction", "ef_search", "threads"):
        with pytest.raises(ConfigError, match=f"{name} is 0"):
            Config(**{name: 0})
