"""Retrieval scores of binary codes, with protocol and tie policy beside every number.

Each query's items are counted by Hamming distance, all of them and the relevant ones; `hashing_ties` turns
the two histograms into scores. Nothing is sorted, and no matrix of queries by items is made. Relevant is what
shares a class, or any of several labels. Cost: at most two distances per query and item, one where there are
many classes; memory: some 40 numbers per query and bin in blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.codes._bits import Diagnosis, diagnose
from semblance.contracts import Progress
from semblance.errors import InputError
from semblance.evaluation.hashing_counts import Asked, Counts, Ids, by_labels, by_lists
from semblance.evaluation.hashing_ties import (
    average_precision,
    eleven_point,
    precision_at,
    precision_within,
)
from semblance.index._codes import as_codes
from semblance.index.exact import BLOCK_BYTES

__all__ = ["TIES", "HashScores", "Measures", "score_codes", "score_lists", "score_splits", "table"]

TIES = "Ties: mean over all orders of items at equal distance [least, greatest over orders, query by query]"
"""What every number of `table` says about ties."""

Split = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Measures:
    """What to measure beside mAP over the whole database.

    `at`: each R of mAP@R, in both conventions. `precision`: each k of precision@k. `radius`: of the Hamming
    ball whose precision is taken. `eleven_point`: the "mAP" of the QSMI demo.
    """

    at: tuple[int, ...] = ()
    precision: tuple[int, ...] = ()
    radius: int = 2
    eleven_point: bool = False


@dataclass(frozen=True)
class HashScores:
    """What codes scored.

    `summary`: measure -> mean over queries. "map", "map@R_found" and "map@R_possible" (divided by the
    relevant items found, or by min(R, relevant items)), "precision@k", "map11": means over tie orders, with
    "_pessimistic" and "_optimistic" beside each. "precision@radius2": an empty ball counts as 0;
    "precision@radius2_nonempty": empty ones left out, NaN if all are; "empty@radius2": their share.
    `per_query`: measure -> `(q,)` float64, what the bootstrap needs. `queries`: `(q,)` rows that were asked;
    `classes`: `(q,)`, equal where the labels are (a number of its own for each query of `score_lists`).
    `left_out`: queries without a relevant item. `database`: items. `codes`: the database's `Diagnosis`.
    """

    protocol: str
    bits: int
    database: int
    summary: dict[str, float]
    per_query: dict[str, NDArray[np.float64]]
    queries: Ids
    classes: Ids
    left_out: int
    codes: Diagnosis

    def table(self) -> str:
        """A markdown table of one row, with protocol and tie policy."""
        return table({"codes": self})


def score_codes(
    queries: ArrayLike,
    database: ArrayLike,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    *,
    query_ids: ArrayLike | None = None,
    database_ids: ArrayLike | None = None,
    measures: Measures | None = None,
    protocol: str = "as given",
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> HashScores:
    """How well the codes of `queries` find those of `database` that share a label.

    Codes: `(q, bytes)` and `(n, bytes)` uint8. Labels: `(q,)` and `(n,)` numbers or names, a number below 0
    where there is none; or `(q, c)` and `(n, c)` bool, where one label in common is enough. With ids (both,
    whole numbers) an item with the query's own id does not count. Queries without a relevant item are left
    out and counted. Raises `InputError` for codes of different lengths, labels that do not fit, or if no
    query has a relevant item.
    """
    asked = by_labels(queries, database, query_labels, database_labels, query_ids, database_ids)
    return _score(asked, database, measures or Measures(), protocol, block_bytes, progress)


def score_lists(
    queries: ArrayLike,
    database: ArrayLike,
    relevant: Sequence[ArrayLike],
    ignored: Sequence[ArrayLike] | None = None,
    *,
    measures: Measures | None = None,
    protocol: str = "as given",
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> HashScores:
    """As `score_codes`, where each query names its relevant rows of the database, as landmark sets do.

    `relevant`, `ignored`: one list of rows per query; ignored rows count as if they were not there.
    """
    asked = by_lists(queries, database, relevant, ignored)
    return _score(asked, database, measures or Measures(), protocol, block_bytes, progress)


def score_splits(
    codes: ArrayLike,
    labels: ArrayLike,
    splits: Mapping[str, Split],
    *,
    measures: Measures | None = None,
    protocol: str = "as given",
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> dict[str, HashScores]:
    """Scores of several splits of the same codes, "seen" classes and "unseen" ones side by side.

    `codes` `(n, bytes)` and `labels` `(n,)` or `(n, c)` of all rows. Each split has the rows "query" and
    "database", and "train", those the coder was fitted on; a query in the database does not find itself.
    Raises `InputError` if a class of the split "unseen" is among its training rows.
    """
    array, names = as_codes(codes), np.asarray(labels)
    if len(names) != len(array):
        raise InputError(f"{len(array)} codes came with labels of shape {names.shape}", "one per code")
    scores = {}
    for name, split in splits.items():
        query, database = split["query"], split["database"]
        if name == "unseen":
            _check_unseen(names, split)
        scores[name] = score_codes(
            array[query],
            array[database],
            names[query],
            names[database],
            query_ids=query,
            database_ids=database,
            measures=measures,
            protocol=protocol if len(splits) == 1 else f"{protocol}, {name}",
            block_bytes=block_bytes,
            progress=progress,
        )
    return scores


def table(rows: Mapping[str, HashScores]) -> str:
    """A markdown table with a line per entry: protocol, bits, every measure with its tie orders, and below
    it what the numbers mean. Rows must have the same measures."""
    if not rows:
        raise InputError("there is no row for the table")
    first = next(iter(rows.values())).summary
    if any(scores.summary.keys() != first.keys() for scores in rows.values()):
        raise InputError("the rows have different measures", "make one table of each kind")
    shown = [key for key in first if not key.endswith(("_pessimistic", "_optimistic"))]
    looks = ("distinct codes", "bit balance", "bit correlation")
    head = ["row", "protocol", "bits", "queries", "database", *looks, *shown]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for name, scores in rows.items():
        codes, sizes = scores.codes, (scores.bits, len(scores.queries), scores.database)
        cells = [name, scores.protocol, *(f"{size:,}" for size in (*sizes, codes.distinct))]
        cells += [f"{codes.balance:.3f}", f"{codes.mean_correlation:.3f}"]
        cells += [_cell(scores.summary, key) for key in shown]
        lines.append(f"| {' | '.join(cells)} |")
    left_out = sum(scores.left_out for scores in rows.values())
    lines += ["", f"{TIES}. {left_out} queries without a relevant item left out."]
    return "\n".join(lines)


def _cell(summary: Mapping[str, float], key: str) -> str:
    """`0.710 [0.616, 0.838]`; "-" for what is not there."""
    if np.isnan(summary[key]):
        return "-"
    text = f"{summary[key]:.3f}"
    if f"{key}_pessimistic" not in summary:
        return text
    return f"{text} [{summary[f'{key}_pessimistic']:.3f}, {summary[f'{key}_optimistic']:.3f}]"


def _score(
    asked: Asked,
    database: ArrayLike,
    measures: Measures,
    protocol: str,
    block_bytes: int,
    progress: Progress | None,
) -> HashScores:
    order = np.argsort(asked.sets, kind="stable")  # queries of one set of labels are counted together
    step = max(1, block_bytes // (320 * (asked.bits + 1)))
    parts: list[dict[str, NDArray[np.float64]]] = []
    kept: list[Ids] = []
    for start in range(0, len(order), step):
        counts, relevant = asked.histograms(order[start : start + step])
        some = relevant.any(axis=1)
        kept.append(order[start : start + step][some])
        parts.append(_measure(counts[some], relevant[some], measures))
        if progress:
            progress("score codes", start + len(counts), len(order))
    queries = np.concatenate(kept) if kept else order
    if not len(queries):
        raise InputError(f"none of {len(order)} queries has a relevant item in the database")
    back = np.argsort(queries)
    per_query = {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}
    summary: dict[str, float] = {}
    for name, values in per_query.items():
        summary[name] = float(values.mean())
        if name.startswith("precision@radius"):
            empty = per_query[name.replace("precision", "empty")].sum()
            full = len(values) - empty
            summary[f"{name}_nonempty"] = float(values.sum() / full) if full else float("nan")
    database_codes = diagnose(as_codes(database))
    return HashScores(
        protocol=protocol,
        bits=asked.bits,
        database=database_codes.n,
        summary=summary,
        per_query=per_query,
        queries=queries[back],
        classes=asked.sets[queries[back]],
        left_out=len(order) - len(queries),
        codes=database_codes,
    )


def _measure(counts: Counts, relevant: Counts, measures: Measures) -> dict[str, NDArray[np.float64]]:
    """Every measure of queries that all have a relevant item."""
    scores = {"map": average_precision(counts, relevant)}
    for at in measures.at:
        scores[f"map@{at}_found"] = average_precision(counts, relevant, at, "found")
        scores[f"map@{at}_possible"] = average_precision(counts, relevant, at)
    for k in measures.precision:
        scores[f"precision@{k}"] = precision_at(counts, relevant, k)
    if measures.eleven_point:
        scores["map11"] = eleven_point(counts, relevant)
    out = {}
    for name, ties in scores.items():
        out[name] = ties.expected
        out[f"{name}_pessimistic"], out[f"{name}_optimistic"] = ties.pessimistic, ties.optimistic
    ball = precision_within(counts, relevant, measures.radius)
    out[f"precision@radius{measures.radius}"] = np.nan_to_num(ball)
    out[f"empty@radius{measures.radius}"] = np.isnan(ball).astype(np.float64)
    return out


def _check_unseen(labels: NDArray[Any], split: Split) -> None:
    tested = labels[np.concatenate([split["query"], split["database"]])]
    trained = labels[split["train"]]
    if labels.ndim == 2:
        shared = np.flatnonzero(tested.any(axis=0) & trained.any(axis=0))
    else:
        shared = np.intersect1d(tested, trained)
        shared = shared[shared >= 0] if shared.dtype.kind == "i" else shared
    if len(shared):
        raise InputError(f'the class "{shared[0]}" is called unseen and was trained on', "split by class")
