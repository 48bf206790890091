"""Every way the kernels can run gives the answers of a plain sort of all distances."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance.errors import ConfigError, InputError
from semblance.index import _kernel, _lookup, _popcount
from semblance.index._kernel import FAR

COMPILED = _kernel.paths()[:-1]
compiled = pytest.mark.skipif(not COMPILED, reason="the kernels are not compiled here")


def brute(codes: np.ndarray, query: np.ndarray) -> list[tuple[int, int]]:
    """(distance, row) of all, in order, in whole numbers of Python."""
    asked = int.from_bytes(query.tobytes(), "little")
    return sorted(
        (bin(int.from_bytes(code.tobytes(), "little") ^ asked).count("1"), row)
        for row, code in enumerate(codes)
    )


def check(codes: np.ndarray, queries: np.ndarray, k: int, radius: int, path: str, threads: int) -> None:
    bits = 64 * codes.shape[1]
    rows, distances = _kernel.nearest(codes, queries, k, path=path, threads=threads)
    ends, near, far = _kernel.within(codes, queries, radius, path=path, threads=threads)
    counts = _kernel.count(codes, queries, bits, path=path, threads=threads)
    assert (rows.dtype, distances.dtype, near.dtype, far.dtype) == (np.int64, np.int32, np.int64, np.int32)
    assert rows.shape == distances.shape == (len(queries), k)
    for i, query in enumerate(queries):
        truth = brute(codes, query)
        padded = truth[:k] + [(FAR, -1)] * (k - len(truth))
        assert list(zip(distances[i].tolist(), rows[i].tolist(), strict=True)) == padded
        inside = slice(ends[i], ends[i + 1])
        got = list(zip(far[inside].tolist(), near[inside].tolist(), strict=True))
        assert got == [pair for pair in truth if pair[0] <= radius]
        assert counts[i].tolist() == np.bincount([pair[0] for pair in truth], minlength=bits + 1).tolist()


def words(kind: str, n: int, w: int, r: np.random.Generator) -> np.ndarray:
    """Codes of a kind that makes searching hard in its own way."""
    if kind == "uniform":
        return r.integers(0, 2**64, (n, w), dtype=np.uint64)
    if kind == "ties":
        return r.integers(0, 4, (n, w), dtype=np.uint64)
    if kind == "duplicates":
        return r.integers(0, 2**64, (3, w), dtype=np.uint64)[r.integers(0, 3, n)]
    centre = r.integers(0, 2**64, (1, w), dtype=np.uint64)
    near = centre ^ (np.uint64(1) << r.integers(0, 64, (n, w), dtype=np.uint64))
    if kind == "ever nearer":  # the last codes are the best: no limit is of use before
        flipped = np.sort(r.integers(0, 2**64, (n, w), dtype=np.uint64), axis=0)[::-1]
        return centre ^ np.where(np.arange(n)[:, None] < n * 3 // 4, ~flipped & flipped[::-1], 1)
    return near


KINDS = ("uniform", "ties", "duplicates", "ever nearer", "one bit off")


@pytest.mark.parametrize("path", _kernel.paths())
@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.sampled_from([0, 1, 2, 63, 64, 65, 127, 128, 129, 255, 257, 511, 512, 513, 700]),
    w=st.sampled_from([1, 2, 3, 4, 5, 8, 9, 17]),
    q=st.sampled_from([1, 2, 5, 6, 16, 17]),
    k=st.sampled_from([1, 2, 10, 100, 800]),
    radius=st.integers(0, 70),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_path_equals_brute_force(
    path: str, kind: str, n: int, w: int, q: int, k: int, radius: int, seed: int
) -> None:
    r = np.random.default_rng(seed)
    codes = words(kind, n, w, r)
    queries = words(kind, q, w, r)
    if n and seed % 2:
        queries = codes[r.integers(0, n, q)]
    check(codes[:200] if q > 6 else codes, queries, k, radius, path, 1)


@compiled
@pytest.mark.parametrize("path", COMPILED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "w", "q"), [(40_000, 1, 40), (33_000, 2, 17), (3000, 3, 9), (5000, 1, 1)])
def test_many_codes_and_threads(
    path: str, kind: str, n: int, w: int, q: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enough codes that a sample sets the first limit; the NumPy path, tested above, says what is right."""
    monkeypatch.setattr(_kernel, "_WORTH_A_THREAD", 1)
    r = np.random.default_rng(n)
    codes, queries = words(kind, n, w, r), words(kind, q, w, r)
    queries[::3] = codes[:: n // len(queries[::3])][: len(queries[::3])]
    for k in (1, 50):
        expected = _popcount.nearest(codes, queries, k)
        for threads in (1, 3):
            for ours, right in zip(
                _kernel.nearest(codes, queries, k, path=path, threads=threads), expected, strict=True
            ):
                assert np.array_equal(ours, right)
    radius = int(np.median(expected[1]))
    reach, tally = _popcount.within(codes, queries, radius), _popcount.count(codes, queries, 64 * w)
    for threads in (1, 3):
        for ours, right in zip(
            _kernel.within(codes, queries, radius, path=path, threads=threads), reach, strict=True
        ):
            assert np.array_equal(ours, right)
        assert np.array_equal(_kernel.count(codes, queries, 64 * w, path=path, threads=threads), tally)


@compiled
def test_a_misleading_sample_costs_time_and_nothing_else() -> None:
    """Codes near the query stand exactly where the sample looks: its limit is far too near for the rest."""
    r = np.random.default_rng(5)
    codes = r.integers(0, 2**64, (40_000, 1), dtype=np.uint64)
    queries = r.integers(0, 2**64, (20, 1), dtype=np.uint64)
    codes[::61] = queries[r.integers(0, 20, len(codes[::61]))]
    for path in COMPILED:
        for ours, right in zip(
            _kernel.nearest(codes, queries, 60, path=path), _popcount.nearest(codes, queries, 60), strict=True
        ):
            assert np.array_equal(ours, right)


@pytest.mark.parametrize("path", _kernel.paths())
def test_more_queries_than_pass_together(path: str) -> None:
    r = np.random.default_rng(8)
    codes, queries = words("uniform", 40, 1, r), words("uniform", 2100, 1, r)
    rows, distances = _kernel.nearest(codes, queries, 3, path=path)
    for i in (0, 1, 2047, 2048, 2049, 2099):
        got = list(zip(distances[i].tolist(), rows[i].tolist(), strict=True))
        assert got == brute(codes, queries[i])[:3]


@pytest.mark.parametrize("path", _kernel.paths())
def test_the_longest_codes(path: str) -> None:
    codes = np.zeros((3, 1023), dtype=np.uint64)
    codes[1], codes[2, 0] = ~np.uint64(0), 1
    check(codes, np.concatenate([codes[:1], codes[1:2]]), 3, 70_000, path, 1)
    for unfit in (np.zeros((3, 1024), dtype=np.uint64), np.zeros((3, 2), dtype=np.uint64)):
        with pytest.raises(InputError, match="words meet queries"):
            _kernel.nearest(unfit, codes if unfit.shape[1] == 2 else unfit, 1, path=path)


def test_without_numpy_2_a_table_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    r = np.random.default_rng(1)
    codes = words("uniform", 50, 3, r)
    expected = [pair[0] for pair in sorted(brute(codes, codes[0]), key=lambda pair: pair[1])]
    assert _popcount.distances(codes, codes[0]).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert _popcount.distances(codes, codes[0]).tolist() == expected


def test_the_path_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEMBLANCE_KERNEL", raising=False)
    assert _kernel.chosen() == _kernel.paths()[0]
    assert _kernel.chosen("numpy") == "numpy"
    monkeypatch.setenv("SEMBLANCE_KERNEL", "numpy")
    assert _kernel.chosen() == "numpy"
    monkeypatch.setenv("SEMBLANCE_KERNEL", "abacus")
    with pytest.raises(ConfigError, match='"abacus" cannot run here'):
        _kernel.nearest(np.zeros((1, 1), dtype=np.uint64), np.zeros((1, 1), dtype=np.uint64), 1)


def test_a_library_that_is_absent_or_of_another_version_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fresh() -> tuple[str, ...]:
        _kernel.library.cache_clear()
        _kernel.paths.cache_clear()
        return _kernel.paths()

    try:
        with monkeypatch.context() as patched:
            patched.setattr(_kernel.importlib.util, "find_spec", lambda _: None)
            assert fresh() == ("numpy",)
        with monkeypatch.context() as patched:
            patched.setattr(_kernel, "_ABI", -1)
            assert fresh() == ("numpy",)

        def broken(_: str) -> None:
            raise OSError("cannot be loaded")

        with monkeypatch.context() as patched:
            patched.setattr(ctypes, "CDLL", broken)
            assert fresh() == ("numpy",)
    finally:
        assert fresh()[-1] == "numpy"


@compiled
def test_no_memory_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __getattr__(self, name: str):
            return lambda *_: -1 if name == "semblance_nearest" else None

    monkeypatch.setattr(_kernel, "library", Full)
    one = np.zeros((1, 1), dtype=np.uint64)
    with pytest.raises(InputError, match="does not fit in memory"):
        _kernel.nearest(one, one, 1, path=COMPILED[0])


@compiled
@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 30), size=st.integers(1, 20), scale=st.integers(-30, 38), seed=st.integers(0, 2**32 - 1)
)
def test_look_ups_agree_bit_for_bit(n: int, size: int, scale: int, seed: int) -> None:
    r = np.random.default_rng(seed)
    codes = np.zeros((n, -(-size // 8)), dtype=np.uint64)
    codes.view(np.uint8)[:, :size] = r.integers(0, 256, (n, size))
    query = (r.standard_normal(8 * size) * 10.0 ** r.integers(-3, 3, 8 * size)).astype(np.float32)
    query = np.clip(query.astype(np.float64) * 10.0**scale, -3e38, 3e38).astype(np.float32)
    tables, own = _lookup.tables_of(query)
    ours = _lookup.distances(codes, tables, own)
    assert ours.tobytes() == _lookup.distances(codes, tables, own, "numpy").tobytes()
    differ = np.unpackbits(codes.view(np.uint8)[:, :size], axis=1, bitorder="little").astype(bool) != (
        query >= 0
    )
    right = (differ * np.abs(query.astype(np.float64))).sum(axis=1)
    assert np.allclose(ours, np.minimum(right, np.finfo(np.float32).max), rtol=1e-6)


def test_the_environment_does_not_leak_into_the_tests() -> None:
    assert os.environ.get("SEMBLANCE_KERNEL", "") in ("", *_kernel.paths())
