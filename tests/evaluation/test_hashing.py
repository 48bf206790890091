"""Scores of codes against lists of items sorted one query at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semblance.errors import ConfigError, InputError
from semblance.evaluation import hashing
from semblance.evaluation.hashing import HashScores, Measures, score_codes, score_lists, score_splits
from semblance.evaluation.hashing_ties import average_precision, eleven_point, precision_at

EVERYTHING = Measures(at=(1, 5), precision=(3, 50), radius=2, eleven_point=True)


def packed(r: np.random.Generator, rows: int, nbytes: int, few: int) -> np.ndarray:
    """Codes that repeat: each row is one of `few`, with a bit turned here and there."""
    some = r.integers(0, 256, (few, nbytes), dtype=np.uint8)
    codes = some[r.integers(0, few, rows)]
    codes[:, 0] ^= np.uint8(1) << r.integers(0, 8, rows).astype(np.uint8)
    return codes


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return sum(int(x ^ y).bit_count() for x, y in zip(a.tolist(), b.tolist(), strict=True))


def slow_histograms(
    queries: np.ndarray, database: np.ndarray, relevant: Callable[[int, int], bool | None]
) -> tuple[np.ndarray, np.ndarray]:
    """One pair at a time; `relevant` is None for an item that does not count."""
    counts, hits = np.zeros((2, len(queries), 8 * queries.shape[1] + 1), dtype=np.int64)
    for i in range(len(queries)):
        for j in range(len(database)):
            found = relevant(i, j)
            if found is not None:
                d = distance(queries[i], database[j])
                counts[i, d] += 1
                hits[i, d] += found
    return counts, hits


def check(scores: HashScores, counts: np.ndarray, hits: np.ndarray) -> None:
    """Every number of `scores` from histograms made elsewhere."""
    asked = np.flatnonzero(hits.any(axis=1))
    assert scores.queries.tolist() == asked.tolist()
    assert scores.left_out == len(counts) - len(asked)
    counts, hits = counts[asked], hits[asked]
    expected = {
        "map": average_precision(counts, hits),
        "map@1_found": average_precision(counts, hits, 1, "found"),
        "map@5_found": average_precision(counts, hits, 5, "found"),
        "map@5_possible": average_precision(counts, hits, 5),
        "precision@3": precision_at(counts, hits, 3),
        "precision@50": precision_at(counts, hits, 50),
        "map11": eleven_point(counts, hits),
    }
    for name, ties in expected.items():
        for order, values in zip(("", "_pessimistic", "_optimistic"), ties, strict=True):
            np.testing.assert_allclose(scores.per_query[name + order], values, atol=1e-14)
            assert scores.summary[name + order] == pytest.approx(values.mean())
    balls = [(sum(h[:3]), sum(n[:3])) for n, h in zip(counts.tolist(), hits.tolist(), strict=True)]
    shares = [h / n for h, n in balls if n]
    assert scores.summary["precision@radius2"] == pytest.approx(sum(shares) / len(balls))
    assert scores.summary["empty@radius2"] == pytest.approx(1 - len(shares) / len(balls))
    if shares:
        assert scores.summary["precision@radius2_nonempty"] == pytest.approx(sum(shares) / len(shares))
    else:
        assert math.isnan(scores.summary["precision@radius2_nonempty"])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    q=st.integers(1, 6),
    n=st.integers(1, 25),
    nbytes=st.sampled_from([1, 2, 3, 8, 9]),
    classes=st.integers(1, 6),
    few=st.integers(1, 12),
    block_bytes=st.sampled_from([1, 2**26]),
)
def test_one_class_each(
    seed: int, q: int, n: int, nbytes: int, classes: int, few: int, block_bytes: int
) -> None:
    """Any sizes, ties, labels that are missing (-1), queries with nothing to find."""
    r = np.random.default_rng(seed)
    queries, database = packed(r, q, nbytes, few), packed(r, n, nbytes, few)
    asked, theirs = r.integers(-1, classes, q), r.integers(-1, classes, n)
    counts, hits = slow_histograms(queries, database, lambda i, j: asked[i] == theirs[j] and asked[i] >= 0)
    if not hits.any():
        with pytest.raises(InputError, match="has a relevant item"):
            score_codes(queries, database, asked, theirs)
        return
    scores = score_codes(queries, database, asked, theirs, measures=EVERYTHING, block_bytes=block_bytes)
    check(scores, counts, hits)
    assert (scores.bits, scores.database) == (8 * nbytes, n)
    assert scores.codes.distinct == len({row.tobytes() for row in database})
    same = asked[scores.queries][:, None] == asked[scores.queries]
    np.testing.assert_array_equal(scores.classes[:, None] == scores.classes, same)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 20), st.floats(0, 0.6), st.booleans())
def test_several_labels_and_each_image_asking_all_others(
    seed: int, n: int, share: float, exclude: bool
) -> None:
    r = np.random.default_rng(seed)
    codes, labels = packed(r, n, 2, 4), r.random((n, 5)) < share
    ids = r.permutation(100)[:n]

    def relevant(i: int, j: int) -> bool | None:
        if exclude and i == j:
            return None
        return bool((labels[i] & labels[j]).any())

    counts, hits = slow_histograms(codes, codes, relevant)
    if not hits.any():
        with pytest.raises(InputError, match="has a relevant item"):
            score_codes(codes, codes, labels, labels, query_ids=ids, database_ids=ids)
        return
    names = {"query_ids": ids, "database_ids": ids} if exclude else {}
    check(score_codes(codes, codes, labels, labels, measures=EVERYTHING, **names), counts, hits)


def test_only_the_own_id_is_left_out() -> None:
    """Some queries are in the database, in another order; one class; names as labels."""
    r = np.random.default_rng(3)
    codes, names = packed(r, 30, 1, 5), np.array([f"class {number}" for number in r.integers(0, 3, 30)])
    query, database = np.array([3, 29, 4, 11]), r.permutation(np.arange(4, 30))
    scores = score_codes(
        codes[query],
        codes[database],
        names[query].astype(object),
        names[database],
        query_ids=query,
        database_ids=database,
        measures=EVERYTHING,
    )
    same = lambda i, j: None if query[i] == database[j] else bool(names[query[i]] == names[database[j]])  # noqa: E731
    check(scores, *slow_histograms(codes[query], codes[database], same))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 20))
def test_lists_of_relevant_and_ignored_rows(seed: int, q: int, n: int) -> None:
    r = np.random.default_rng(seed)
    queries, database = packed(r, q, 3, 6), packed(r, n, 3, 6)
    kinds = r.integers(-1, 2, (q, n))  # -1: ignored
    lists = [[np.flatnonzero(row == kind) for row in kinds] for kind in (1, -1)]
    counts, hits = slow_histograms(
        queries, database, lambda i, j: None if kinds[i, j] < 0 else bool(kinds[i, j])
    )
    if not hits.any():
        return
    check(score_lists(queries, database, *lists, measures=EVERYTHING), counts, hits)
    if (kinds >= 0).all():
        check(score_lists(queries, database, lists[0], measures=EVERYTHING), counts, hits)


def test_splits_stand_side_by_side_and_unseen_means_unseen() -> None:
    r = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 5)
    codes = packed(r, 30, 1, 6)
    rows = np.arange(30)
    splits = {
        "seen": {"query": rows[:15:5], "train": rows[:15], "database": rows[:15]},
        "unseen": {"query": rows[15::5], "train": rows[:15], "database": rows[15:]},
    }
    scores = score_splits(codes, labels, splits, protocol="six classes", measures=EVERYTHING)
    assert list(scores) == ["seen", "unseen"]
    for name, split in splits.items():
        query, database = split["query"], split["database"]
        alike = lambda i, j: (  # noqa: E731
            None if query[i] == database[j] else bool(labels[query[i]] == labels[database[j]])  # noqa: B023
        )
        check(scores[name], *slow_histograms(codes[query], codes[database], alike))
        assert scores[name].protocol == f"six classes, {name}"
    splits["unseen"]["train"] = rows[:16]
    with pytest.raises(InputError, match='class "3" is called unseen'):
        score_splits(codes, labels, splits)
    with pytest.raises(InputError, match='class "3" is called unseen'):
        score_splits(codes, labels[:, None] == np.arange(6), splits)
    with pytest.raises(InputError, match="one per code"):
        score_splits(codes, labels[1:], splits)


def test_the_table_names_protocol_and_ties() -> None:
    r = np.random.default_rng(0)
    labels = np.arange(20) % 2
    codes = packed(r, 20, 1, 6)
    scores = score_codes(codes, codes, labels, labels, protocol="all ask all", measures=Measures(at=(5,)))
    text = scores.table()
    low, high = scores.summary["map_pessimistic"], scores.summary["map_optimistic"]
    assert f"{scores.summary['map']:.3f} [{low:.3f}, {high:.3f}]" in text
    assert "all ask all" in text
    assert "map@5_found" in text
    assert hashing.TIES in text
    assert "0 queries without a relevant item" in text
    assert hashing.table({"a": scores, "b": scores}).count("all ask all") == 2
    with pytest.raises(InputError, match="different measures"):
        hashing.table({"a": scores, "b": score_codes(codes, codes, labels, labels)})
    with pytest.raises(InputError, match="no row"):
        hashing.table({})


def test_progress_reaches_the_end() -> None:
    codes = np.zeros((9, 1), dtype=np.uint8)
    told: list[tuple[str, int, int]] = []
    score_codes(
        codes,
        codes,
        np.zeros(9, int),
        np.zeros(9, int),
        block_bytes=1,
        progress=lambda *step: told.append(step),
    )
    assert told[-1] == ("score codes", 9, 9)


ONE = np.zeros((3, 1), dtype=np.uint8)
TWO = np.zeros((3, 2), dtype=np.uint8)
YES = np.ones(3, dtype=int)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: score_codes(ONE, TWO, YES, YES), InputError, "8 bits, the database 16"),
        (lambda: score_codes(ONE.astype(float), ONE, YES, YES), InputError, "uint8"),
        (lambda: score_codes(ONE[:0], ONE, YES[:0], YES), InputError, "0 queries"),
        (
            lambda: score_codes(ONE, ONE, YES[:2], YES),
            InputError,
            r"3 queries came with labels of shape \(2,\)",
        ),
        (
            lambda: score_codes(ONE, ONE, YES, YES[:2]),
            InputError,
            r"3 items came with labels of shape \(2,\)",
        ),
        (lambda: score_codes(ONE, ONE, YES, YES[:, None] > 0), InputError, "give both alike"),
        (lambda: score_codes(ONE, ONE, YES[:, None], YES[:, None]), InputError, "give bool"),
        (lambda: score_codes(ONE, ONE, YES, ["a"] * 3), InputError, "all names"),
        (lambda: score_codes(ONE, ONE, YES * 0.5, YES * 0.5), InputError, "all names"),
        (lambda: score_codes(ONE, ONE, YES, YES + 1), InputError, "none of 3 queries"),
        (lambda: score_codes(ONE, ONE, YES, YES, query_ids=YES), ConfigError, "only one side"),
        (
            lambda: score_codes(ONE, ONE, YES, YES, query_ids=YES, database_ids=YES),
            InputError,
            "the same id",
        ),
        (
            lambda: score_codes(ONE, ONE, YES, YES, query_ids=YES[:1], database_ids=YES),
            InputError,
            "ids of shapes",
        ),
        (lambda: score_lists(ONE, ONE, [[0]] * 2), InputError, "relevant rows"),
        (lambda: score_lists(ONE, ONE, [[3]] * 3), InputError, "relevant rows"),
        (lambda: score_lists(ONE, ONE, [[0]] * 3, [[0]] * 3), InputError, "both relevant and ignored"),
        (lambda: score_codes(ONE, ONE, YES, YES, measures=Measures(at=(0,))), ConfigError, "at is 0"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
