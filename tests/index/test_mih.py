"""Multi-index hashing against a sort of all distances and against the algorithm written out slowly."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance.errors import CollectionError, ConfigError, InputError
from semblance.index import _cost, _kernel, _probe, _shares, _tabled, _tables, mih, scan
from semblance.index._codes import to_words
from semblance.index.mih import Config, Index

rng = np.random.default_rng
PATHS = _kernel.paths()
COMPILED = [path for path in PATHS if path != "numpy"]


@pytest.fixture(autouse=True)
def tables_cost_nothing_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the collections here were large."""
    monkeypatch.setattr(_tabled, "CALL", 0)
    monkeypatch.setattr(mih, "FEW", 10_000)


def codes(n: int, bits: int, seed: int = 0, kind: str = "clusters") -> np.ndarray:
    r = rng(seed)
    if kind == "uniform":
        return r.integers(0, 256, (n, bits // 8), dtype=np.uint8)
    if kind == "few":  # many equal codes
        return r.integers(0, 256, (max(1, n // 12), bits // 8), dtype=np.uint8)[
            r.integers(0, max(1, n // 12), n)
        ]
    if kind == "constant":  # bits that never change, so that most buckets are empty
        return r.integers(0, 256, (n, bits // 8), dtype=np.uint8) & np.uint8(0x11)
    centres = r.integers(0, 256, (max(1, n // 20), bits // 8), dtype=np.uint8)
    return centres[r.integers(0, len(centres), n)] ^ np.packbits(r.random((n, bits)) < 0.08, axis=1)


def distances(query: np.ndarray, items: np.ndarray) -> list[int]:
    return np.unpackbits(items ^ query, axis=1).sum(axis=1).tolist()


def brute(query: np.ndarray, items: np.ndarray, ids: list[int]) -> list[tuple[int, int]]:
    return sorted(zip(distances(query, items), ids, strict=True))


def pairs(found, i: int) -> list[tuple[int, int]]:
    return [
        (int(far), number)
        for far, number in zip(found.distances[i].tolist(), found.ids[i].tolist(), strict=True)
        if number >= 0
    ]


def slow_mih(query: str, items: list[str], m: int, k: int) -> tuple[list[tuple[int, int]], int]:
    """The k nearest of texts of 0 and 1, and how many were compared: the algorithm with dictionaries."""

    def flipped(text: str, places: tuple[int, ...]) -> str:
        return "".join("10"[int(c)] if i in places else c for i, c in enumerate(text))

    bits = len(query)
    cuts = [sum(bits // m + (i < bits % m) for i in range(j)) for j in range(m + 1)]
    tables: list[dict[str, list[int]]] = [{} for _ in range(m)]
    for number, item in enumerate(items):
        for j in range(m):
            tables[j].setdefault(item[cuts[j] : cuts[j + 1]], []).append(number)
    met: dict[int, int] = {}
    for s in range(bits + 1):
        for j in range(m):
            part = query[cuts[j] : cuts[j + 1]]
            for places in itertools.combinations(range(len(part)), s):
                for number in tables[j].get(flipped(part, places), []):
                    met[number] = sum(a != b for a, b in zip(query, items[number], strict=True))
            best = sorted((far, number) for number, far in met.items())[:k]
            if len(best) == k and best[-1][0] <= m * s + j:
                return best, len(met)
    return sorted((far, number) for number, far in met.items())[:k], len(met)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_slow_algorithm_agrees(path: str, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMBLANCE_KERNEL", path)
    x = codes(90, 16, seed=m)
    queries = codes(6, 16, seed=9, kind="uniform")
    index = Index(Config(m=m))
    index.add(x)
    texts = ["".join(map(str, row)) for row in np.unpackbits(x, axis=1).tolist()]
    for query, row in zip(queries, np.unpackbits(queries, axis=1).tolist(), strict=True):
        truth, met = slow_mih("".join(map(str, row)), texts, m, 5)
        assert truth == brute(query, x, list(range(90)))[:5]
        assert pairs(index.search(query, 5), 0) == truth
        assert met <= 90


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_collection_any_change_any_filter(data: st.DataObject) -> None:
    """Sizes, bits, k, duplicates, ties, filters, deletions, forced and forbidden scans, every path."""
    bits = data.draw(st.sampled_from([8, 16, 24, 64, 72, 128]), "bits")
    m = data.draw(st.integers(-(-bits // 20), max(-(-bits // 20), bits // 5)), "m")
    n = data.draw(st.integers(1, 150), "n")
    seed = data.draw(st.integers(0, 2**16), "seed")
    x = codes(n, bits, seed, data.draw(st.sampled_from(["clusters", "uniform", "few", "constant"]), "kind"))
    ids = rng(seed).permutation(3 * n)[:n]
    r = rng(seed + 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SEMBLANCE_KERNEL", data.draw(st.sampled_from(PATHS), "path"))
        patched.setattr(_tabled, "_LATER", data.draw(st.sampled_from([0, 20, 1000]), "buffer"))
        scale = data.draw(st.sampled_from([0.0, 1.0, 1e9]), "price of a scan")
        price = _cost.scan_cost
        patched.setattr(_cost, "scan_cost", lambda *given: scale * price(*given))
        index = Index(Config(m=m, threads=data.draw(st.integers(1, 2), "threads")))
        held: dict[int, np.ndarray] = {}
        for part in np.array_split(np.arange(n), data.draw(st.integers(1, 4), "parts")):
            index.add(x[part], ids[part])
            held |= {int(ids[i]): x[i] for i in part}
            queries = np.concatenate([codes(2, bits, seed + 2, "uniform"), x[r.integers(0, n, 20)]])
            if len(held) > 2 and r.random() < 0.6:
                gone = r.permutation(sorted(held))[: r.integers(1, len(held))]
                index.remove(gone)
                for number in gone.tolist():
                    del held[number]
            among = r.permutation(3 * n)[: r.integers(0, 3 * n)] if r.random() < 0.5 else None
            allowed = [number for number in held if among is None or number in among]
            k = int(r.choice([1, 2, 7, len(allowed) + 3]))
            radius = int(r.integers(0, bits))
            found, near = index.search(queries, k, among), index.within(queries, radius, among)
            items = np.array([held[number] for number in allowed], dtype=np.uint8).reshape(-1, bits // 8)
            for i, query in enumerate(queries):
                truth = brute(query, items, allowed)
                assert pairs(found, i) == truth[:k]
                assert pairs(near, i) == [pair for pair in truth if pair[0] <= radius]
            assert index.ids.tolist() == sorted(held)


@pytest.mark.skipif(not COMPILED, reason="no compiled kernel here")
@pytest.mark.parametrize("bits", [8, 40, 64, 136, 200])
@pytest.mark.parametrize("kind", ["clusters", "few", "constant"])
def test_compiled_and_numpy_build_the_same_tables(bits: int, kind: str) -> None:
    words = to_words(codes(700, bits, bits, kind))
    for m in {-(-bits // 20), max(1, bits // 9)}:
        one = _tables.build(words, bits, m, COMPILED[-1], threads=2).arrays()
        other = _tables.build(words, bits, m, "numpy").arrays()
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            assert np.array_equal(one[name], other[name]), name


def test_equal_codes_stand_in_the_tables_once() -> None:
    x = np.repeat(codes(30, 64, kind="uniform"), 50, axis=0)
    index = Index(Config(m=3))
    index.add(x)
    index.build()
    assert index._tabled is not None
    tables = index._tabled.tables
    assert (tables.n, tables.count, len(tables.rows)) == (30, 1500, 1500)
    assert index.search(x[100], 50).ids.tolist() == [list(range(100, 150))]


def test_substrings_share_out_what_the_bits_tell() -> None:
    """Eight bits tell something, each is repeated eight times: no substring holds one twice."""
    telling = rng(0).integers(0, 2, (4000, 8), dtype=np.uint8)
    words = to_words(np.packbits(np.repeat(telling, 8, axis=1), axis=1, bitorder="little"))
    order, low = _shares.share_bits(words, 64, 8)
    assert sorted(order.tolist()) == list(range(64))
    assert low.tolist() == list(range(0, 65, 8))
    for j in range(8):
        assert len(set((order[8 * j : 8 * j + 8] // 8).tolist())) == 8
    dull = np.zeros((4000, 64), dtype=np.uint8)
    dull[:, :32] = rng(1).integers(0, 2, (4000, 32))
    order, _ = _shares.share_bits(to_words(np.packbits(dull, axis=1, bitorder="little")), 64, 4)
    assert [int((order[16 * j : 16 * j + 16] < 32).sum()) for j in range(4)] == [8, 8, 8, 8]


def unlimited(path: str, budget: int = 2**62) -> _probe.Probe:
    return _probe.Probe(path, budget, min(budget, 2**40), 1000, 1, 1)


@pytest.mark.parametrize("path", PATHS)
def test_what_exceeds_the_budget_is_not_done_and_says_so(path: str) -> None:
    words = to_words(codes(3000, 64, kind="uniform"))
    tables = _tables.build(words, 64, 4, path)
    queries = tables.turned(np.concatenate([words[:8], ~words[:8]]), path)  # itself near, and nothing near
    truth, done = _probe.nearest(tables, queries, 1, unlimited(path))
    assert done.all()
    keys, done = _probe.nearest(tables, queries, 1, unlimited(path, 8_000))
    assert done.tolist() == [True] * 8 + [False] * 8
    assert np.array_equal(keys[:8], truth[:8])
    ends, keys, done = _probe.within(tables, queries, 30, unlimited(path, 8_000))
    assert not done.any()
    assert (len(keys), ends.tolist()) == (0, [0] * 17)
    assert _probe.within(tables, queries, 0, unlimited(path, 8_000))[2].all()


@pytest.mark.parametrize("path", PATHS)
def test_what_easy_queries_leave_hard_ones_may_use(path: str) -> None:
    words = to_words(codes(3000, 64, kind="uniform"))
    tables = _tables.build(words, 64, 4, path)
    easy, hard = tables.turned(words[:9], path), tables.turned(~words[:1], path)
    alone = next(
        b for b in range(10**6, 10**9, 10**6) if _probe.nearest(tables, hard, 1, unlimited(path, b))[1]
    )
    for pool, enough in [(alone // 10 + 10_000, [True] * 10), (alone // 20, [True] * 9 + [False])]:
        probe = _probe.Probe(path, 2 * alone, pool, 1000, 1, 1)
        queries = np.concatenate([easy, hard])
        assert _probe.nearest(tables, queries, 1, probe)[1].tolist() == enough
        assert _probe.within(tables, queries[::-1], 3, probe)[2].all()
    drained = _probe.Probe(path, 2 * alone, alone // 40, 1000, 1, 1)
    assert not _probe.nearest(tables, queries[::-1].copy(), 1, drained)[1].any()  # the first takes all


@pytest.mark.parametrize("path", PATHS)
def test_a_bucket_fuller_than_expected_ends_the_budget(path: str) -> None:
    """All values of 12 bits, among 52 that never change: each bucket that is not empty holds 512 codes."""
    values = (np.arange(4096)[:, None] >> np.arange(12)) & 1
    bits = np.zeros((4096, 64), dtype=np.uint8)
    bits[:, 2::5][:, :12] = values
    words = to_words(np.packbits(bits, axis=1, bitorder="little"))
    tables = _tables.build(words, 64, 4, path)
    queries = tables.turned(words[:5], path)
    for budget, enough in [(4 * 1512 + 1, True), (3 * 1512 + 1100, False)]:
        probe = _probe.Probe(path, budget, budget, 1000, 1, 0)
        assert (_probe.within(tables, queries, 3, probe)[2] == enough).all()


def test_far_queries_are_scanned_and_the_rest_of_a_batch_is_not_even_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = codes(20_000, 128, kind="uniform")
    index = Index()
    index.add(x)
    asked: list[int] = []
    search, probe = scan.Index.search, _probe.nearest
    monkeypatch.setattr(
        scan.Index, "search", lambda self, q, *rest: asked.append(len(q)) or search(self, q, *rest)
    )
    tried: list[int] = []
    monkeypatch.setattr(_probe, "nearest", lambda t, q, *rest: tried.append(len(q)) or probe(t, q, *rest))
    far = codes(40, 128, seed=5, kind="uniform")
    found = index.search(np.concatenate([far, x[:3]]), 1)
    assert asked == [43]
    assert tried in ([], [16])
    assert found.ids[40:, 0].tolist() == [0, 1, 2]
    assert index._tabled is not None
    assert index._tabled.forecast.m >= 6


def test_few_codes_and_very_long_ones_are_scanned() -> None:
    index = Index()
    index.add(codes(mih.FEW - 1, 16, kind="uniform"))
    index.search(codes(1, 16), 1)
    assert index._tabled is None
    index.add(codes(mih.FEW, 16, seed=1, kind="uniform"))
    index.search(codes(1, 16), 1)
    assert index._tabled is not None
    index = Index()
    index.add(codes(mih.FEW, mih.MOST_BITS + 8, kind="uniform"))
    index.search(codes(1, mih.MOST_BITS + 8), 1)
    assert index._tabled is None


def test_tables_stay_while_little_changes_and_are_built_again_when_much_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_tabled, "_LATER", 10)
    x = codes(400, 32)
    index = Index(Config(m=2))
    index.add(x[:200])
    index.build()
    first = index._tabled
    assert first is not None
    index.add(x[200:210])
    index.remove(range(40))
    index.build()
    assert index._tabled is first
    assert first.changed
    assert len(first.later) == 10
    index.add(x[210:220])
    index.search(x[:1], 1)
    second = index._tabled
    assert second is not None
    assert second is not first
    assert second.tables.count == 180
    index.remove(range(40, 100))
    index.search(x[:1], 1)
    third = index._tabled
    assert third is not second
    index.remove(index.ids)
    index.search(x[:1], 1)
    assert index._tabled is None


def test_a_saved_index_is_mapped_and_its_tables_are_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = codes(500, 64)
    index = Index(Config(m=4))
    index.add(x, np.arange(500) * 2)
    index.save(tmp_path / "a")
    index.remove([0, 2])
    index.save(tmp_path / "b")
    truth = index.search(x[:9], 12)

    def refuse(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(_tables, "build", refuse)
    again = Index.load(tmp_path / "b")
    assert again.config == Config(m=4)
    assert again._tabled is not None
    assert isinstance(again._tabled.tables.tables, np.memmap)
    assert isinstance(again._codes.words, np.memmap)
    found = again.search(x[:9], 12)
    assert np.array_equal(found.ids, truth.ids)
    assert np.array_equal(found.distances, truth.distances)
    again.add(x[0], 0)
    assert again.search(x[0], 1).ids.tolist() == [[0]]
    (tmp_path / "b" / "where.npy").write_bytes((tmp_path / "a" / "where.npy").read_bytes())
    with pytest.raises(CollectionError, match="do not fit together"):
        Index.load(tmp_path / "b")
    with pytest.raises(CollectionError, match='an index called "mih"'):
        scan.Index.load(tmp_path / "a")


@pytest.mark.parametrize("path", COMPILED)
@pytest.mark.parametrize("name", ["offsets", "where", "start", "rows"])
def test_damaged_tables_lead_nowhere_outside(path: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in a file: an answer or one line, never a crash."""
    monkeypatch.setenv("SEMBLANCE_KERNEL", path)
    x = codes(600, 64, kind="few")
    arrays = _tables.build(to_words(x), 64, 4, path).arrays()
    for seed in range(5):
        array = np.array(arrays[name])
        array[:] = rng(seed).integers(0, 2**32, array.shape, dtype=np.uint32)
        tables = _tables.from_arrays(64, {**arrays, name: array})
        turned = tables.turned(to_words(x[:20]), path)
        keys, done = _probe.nearest(tables, turned, 5, unlimited(path, 10**6))
        assert len(keys) == len(done) == 20
        _probe.within(tables, turned, 9, unlimited(path, 10**6))


def test_arrays_that_do_not_fit_are_refused() -> None:
    arrays = _tables.build(to_words(codes(50, 24)), 24, 2).arrays()
    for name, wrong in [
        ("order", np.zeros(24, dtype=np.int32)),
        ("low", np.array([0, 24, 24], dtype=np.int32)),
        ("low", np.array([0, 12, 23], dtype=np.int32)),
        ("offsets", arrays["offsets"][:-1]),
        ("tables", arrays["tables"][:, :-1]),
        ("where", arrays["where"].astype(np.int64)),
        ("start", np.empty(0, dtype=np.uint32)),
    ]:
        with pytest.raises(ValueError, match=r"its|where is"):
            _tables.from_arrays(24, {**arrays, name: wrong})


def test_options_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"m": -1}, {"threads": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Config(**wrong)
    for m in (2, 65):
        index = Index(Config(m=m))
        index.add(codes(20, 64))
        with pytest.raises(ConfigError, match="need 3 to 64 tables"):
            index.search(codes(1, 64), 1)

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(_tables, "build", full)
    index = Index(Config(m=3))
    index.add(codes(20, 64))
    with pytest.raises(InputError, match=r"3 tables of 20 codes need .* GB") as caught:
        index.search(codes(1, 64), 1)
    assert "\n" not in str(caught.value)
