"""Codes first, floats after: the shortlist is in exact order, and what was given is what is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semblance.errors import CollectionError, ConfigError, InputError
from semblance.index import exact, rerank, scan
from semblance.index.rerank import Config, Index

rng = np.random.default_rng


def unit(n: int, d: int = 24, seed: int = 0) -> np.ndarray:
    r = rng(seed)
    centres = rng(99).standard_normal((40, d))
    x = centres[r.integers(0, 40, n)] + 0.5 * r.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def signs(x: np.ndarray) -> np.ndarray:
    return np.packbits(x >= 0, axis=1, bitorder="little")


@pytest.mark.parametrize("oversample", [1, 3, 20])
def test_the_nearest_of_a_shortlist_by_codes(oversample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank, "_LEAST", 1)
    x, queries = unit(500), unit(20, seed=1)
    ids = rng(2).permutation(900)[:500]
    index = Index(Config(oversample=oversample), encode=signs)
    index.add(x, ids)
    codes = scan.Index()
    codes.add(signs(x), ids)
    short = codes.search(signs(queries), 5 * oversample).ids
    found = index.search(queries, 5)
    for i, query in enumerate(queries):
        there = [int(np.flatnonzero(ids == number)[0]) for number in short[i]]
        far = np.sqrt(((x[there].astype(np.float64) - query) ** 2).sum(axis=1)).astype(np.float32)
        truth = sorted(zip(far.tolist(), short[i].tolist(), strict=True))[:5]
        assert list(zip(found.distances[i].tolist(), found.ids[i].tolist(), strict=True)) == truth


def test_a_shortlist_of_everything_is_exact() -> None:
    x, queries = unit(300), unit(30, seed=1)
    index, truth = Index(Config(oversample=60)), exact.Index()
    index.add(np.concatenate([x, x[:50]]))
    truth.add(np.concatenate([x, x[:50]]))
    for among in (None, np.arange(0, 350, 2)):
        found, right = index.search(queries, 7, among), truth.search(queries, 7, among)
        assert np.array_equal(found.ids, right.ids)
        assert np.array_equal(found.distances, right.distances)
        found, right = index.within(queries, 0.9, among), truth.within(queries, 0.9, among)
        assert np.array_equal(found.ids, right.ids)
        assert np.array_equal(found.distances, right.distances)


def test_recall_is_what_it_promises() -> None:
    x, queries = unit(6000, 64), unit(50, 64, seed=1)
    index, truth = Index(), exact.Index()
    index.add(x)
    truth.add(x)
    found, right = index.search(queries, 10).ids, truth.search(queries, 10).ids
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), right.tolist(), strict=True)])
    assert share >= Index.recall


def test_a_radius_widens_the_shortlist_until_it_holds_all() -> None:
    x = np.concatenate([unit(3000), np.repeat(unit(1, seed=5), 700, axis=0)])
    index, truth = Index(encode=signs), exact.Index()
    index.add(x)
    truth.add(x)
    found, right = index.within(x[-2:], 0.05), truth.within(x[-2:], 0.05)
    assert found.ids.shape == (2, 700)
    assert np.array_equal(found.ids, right.ids)


def test_codes_may_come_with_the_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank, "_LEAST", 1)
    x = unit(100)
    index = Index(Config(oversample=1), encode=signs)
    index.add(x, codes=~signs(x))  # wrong on purpose: the opposite of the nearest is found
    assert index.bits == 24
    found = index.search(x[:5], 1)
    assert (found.distances > 0.5).all()
    for codes, message in [
        (signs(x)[:3], "100 vectors came with 3 codes"),
        (signs(unit(100, 32)), "32 bits, the index has 24"),
        (x, "packed codes are uint8"),
    ]:
        with pytest.raises(InputError, match=message):
            index.add(x, codes=codes)
    assert len(index) == 100


def test_an_encoder_of_another_width_is_refused() -> None:
    widths = iter([24, 32])
    index = Index(encode=lambda x: np.zeros((len(x), next(widths) // 8), dtype=np.uint8))
    index.add(unit(3))
    with pytest.raises(InputError, match="32 bits, the index has 24"):
        index.search(unit(1), 1)


def test_a_search_before_anything_is_added_decides_nothing() -> None:
    index = Index()
    assert index.search(unit(1, 7), 2).ids.tolist() == [[-1, -1]]
    index.add(unit(5, 24))
    assert index.search(unit(5, 24), 1).ids[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_saved_with_codes_of_an_encoder(tmp_path: Path) -> None:
    x = unit(400)
    index = Index(Config(oversample=3), encode=signs)
    index.add(x, np.arange(400)[::-1])
    assert index.reason.startswith("scan: 400 codes")
    index.save(tmp_path / "a")
    with pytest.raises(CollectionError, match="made with an encoder"):
        Index.load(tmp_path / "a")
    again = Index.load(tmp_path / "a", encode=signs)
    assert again.config == Config(oversample=3)
    assert again.ids.tolist() == list(range(400))[::-1]
    assert again.bits == 24
    assert isinstance(again._floats.vectors._parts[0], np.memmap)
    assert np.array_equal(again.search(x[:20], 4).ids, index.search(x[:20], 4).ids)
    (tmp_path / "a" / "vector_ids.npy").write_bytes((tmp_path / "a" / "vectors.npy").read_bytes())
    with pytest.raises(CollectionError, match="do not fit"):
        Index.load(tmp_path / "a", encode=signs)


def test_options_out_of_range() -> None:
    for wrong in ({"oversample": 0}, {"bits": 12}, {"bits": 0}, {"threads": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Config(**wrong)
    with pytest.raises(ConfigError, match="radius"):
        Index().within(unit(1), -1)
