"""The choice between scanning and tables: what is chosen, why, and that answers do not depend on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semblance.errors import CollectionError, ConfigError
from semblance.index import _cost, _tabled, auto, mih, scan
from semblance.index.auto import Config, Index

rng = np.random.default_rng


def uniform(n: int, bits: int, seed: int = 0) -> np.ndarray:
    return rng(seed).integers(0, 256, (n, bits // 8), dtype=np.uint8)


def tight(n: int, bits: int) -> np.ndarray:
    """Groups of about twenty codes, a few bits apart."""
    centres, r = uniform(n // 20, bits), rng(1)
    return centres[r.integers(0, len(centres), n)] ^ np.packbits(r.random((n, bits)) < 0.02, axis=1)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the collections here were large."""
    monkeypatch.setattr(_tabled, "CALL", 0)
    monkeypatch.setattr(auto, "FEW", 10_000)


def test_few_codes_are_scanned_and_it_says_so() -> None:
    index = Index()
    assert index.reason == "scan: there are no codes"
    index.add(uniform(500, 64))
    assert index.reason == "scan: 500 codes are compared before tables are asked"
    index = Index()
    index.add(uniform(mih.FEW, mih.MOST_BITS + 8))
    assert index.reason.startswith("scan: codes of 1,032 bits")


@pytest.mark.usefixtures("large")
def test_near_neighbours_lead_to_tables_and_far_ones_to_a_scan() -> None:
    near, far = Index(), Index()
    near.add(tight(30_000, 128))
    far.add(uniform(30_000, 128))
    assert near.reason.startswith("mih: the 10th neighbour lies at about ")
    assert " of 128 bits, so " in near.reason
    assert "tables look at 0." in near.reason
    assert far.reason.startswith("scan: the 10th neighbour lies at about ")
    assert "tables would look at " in far.reason
    assert near._tabled is not None
    assert far._tabled is None
    for index, items in ((near, tight(30_000, 128)), (far, uniform(30_000, 128))):
        plain = scan.Index()
        plain.add(items)
        queries = np.concatenate([items[:5], uniform(5, 128, seed=3)])
        for found, truth in (
            (index.search(queries, 10), plain.search(queries, 10)),
            (index.within(queries, 20), plain.within(queries, 20)),
        ):
            assert np.array_equal(found.ids, truth.ids)
            assert np.array_equal(found.distances, truth.distances)
        assert np.array_equal(index.count(queries), plain.count(queries))


@pytest.mark.usefixtures("large")
def test_tables_take_no_more_memory_than_they_may() -> None:
    index = Index(Config(memory_mb=1))
    index.add(tight(30_000, 128))
    assert index.reason.startswith("scan: tables would take ")
    assert index.reason.endswith(" MiB, more than memory_mb allows")
    assert index._tabled is None


@pytest.mark.usefixtures("large")
def test_it_is_asked_again_when_the_codes_have_doubled_or_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    best = _cost.best
    monkeypatch.setattr(
        _cost, "best", lambda *given: asked.append(int(given[0][0].sum()) + 1) or best(*given)
    )
    index = Index()
    index.add(uniform(20_000, 128))
    for _ in range(3):
        index.search(uniform(1, 128), 1)
    index.add(uniform(15_000, 128, seed=1))
    index.search(uniform(1, 128), 1)
    assert asked == [20_000]
    index.add(uniform(15_000, 128, seed=2))
    index.search(uniform(1, 128), 1)
    index.remove(range(30_000))
    index.search(uniform(1, 128), 1)
    assert asked == [20_000, 50_000, 20_000]
    index.remove(range(30_000, 45_000))
    assert index.reason.startswith("scan: 5,000 codes")
    index.remove(index.ids)
    assert index.reason == "scan: there are no codes"


@pytest.mark.usefixtures("large")
def test_a_choice_is_saved_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, items in (("near", tight(20_000, 64)), ("far", uniform(20_000, 256))):
        index = Index(Config(memory_mb=100))
        index.add(items)
        index.save(tmp_path / name)
        with monkeypatch.context() as patched:
            patched.delattr(_cost, "best")
            again = Index.load(tmp_path / name)
            assert again.reason == index.reason
            assert again.config == Config(memory_mb=100)
            assert (again._tabled is None) == (name == "far")
            assert np.array_equal(again.search(items[:9], 5).ids, index.search(items[:9], 5).ids)
    with pytest.raises(CollectionError, match='an index called "auto"'):
        mih.Index.load(tmp_path / "near")


def test_options_out_of_range() -> None:
    for wrong in ({"memory_mb": -1}, {"threads": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Config(**wrong)
