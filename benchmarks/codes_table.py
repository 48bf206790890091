"""docs/results/codes.md from docs/results/codes.jsonl: what `benchmarks/codes.py --part table` writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lines import records
from semblance.evaluation.statistics import difference, t_interval

__all__ = ["page", "records"]

Record = dict[str, Any]
KINDS = {
    "hamming": "10 nearest by Hamming distance",
    "reranked": "100 nearest by Hamming distance, which the floats then put in order",
    "asymmetric": "10 nearest by the query's real values against the signs of the codes",
}
FLOOR = "itq"


def page(found: list[Record]) -> Iterator[str]:
    """The page, line by line."""
    machines = "; ".join(sorted({r["machine"] for r in found if "machine" in r}))
    yield "# What do bits keep?\n"
    yield f"Made by `benchmarks/codes.py` on {machines}."
    yield "Coders without labels, each with its defaults. Retrieval by class, and coders with labels:"
    yield "[hash_tables.md](hash_tables.md). Numbers: % of a query's 10 nearest neighbours by the float"
    yield "embedding, mean over 3 seeds ± half of the 95 % t-interval; equal Hamming distances in random"
    yield "order (expected value); - : the coder refuses so many bits. Floats take 512 bytes an image."
    recall = [r for r in found if r["part"] == "recall"]
    for name in dict.fromkeys(r["set"] for r in recall):
        yield from recall_tables(name, [r for r in recall if r["set"] == name])
    yield from shift_table([r for r in found if r["part"] == "shift"])
    yield from time_table([r for r in found if r["part"] == "time"])


def recall_tables(name: str, mine: list[Record]) -> Iterator[str]:
    """One table per kind of search, the coders' distance to ITQ, and the looks of the codes."""
    rows = [r for r in mine if "refused" not in r]
    widths = sorted({r["bits"] for r in mine})
    coders = list(dict.fromkeys(r["coder"] for r in mine))
    first = rows[0]
    yield f"\n## {name}: {first['queries']:,} queries, {first['gallery']:,} images\n"
    yield f"Embedding: {first['embedding']}. Coders are fitted on the images searched.\n"
    for bits in widths:
        mean = {kind: 100 * np.mean([r[kind] for r in pick(rows, FLOOR, bits)]) for kind in KINDS}
        yield (
            f"- {bits} bits of {FLOOR}, 1/{4096 // bits} of the floats, keep {mean['hamming']:.0f} % of 10 "
            f"neighbours, {mean['reranked']:.0f} % with 100 in order by the floats."
        )
    for kind, text in KINDS.items():
        yield f"\nAmong the {text}:\n"
        yield from head(["coder", *(f"{bits} bits" for bits in widths)])
        for coder in coders:
            cells = [cell([r[kind] for r in pick(rows, coder, bits)]) for bits in widths]
            yield f"| {coder} | {' | '.join(cells)} |"
    yield f"\nBy Hamming distance, points above {FLOOR}, paired by seed; in brackets: 0 is in the interval:\n"
    yield from head(["coder", *(f"{bits} bits" for bits in widths)])
    for coder in coders:
        if coder != FLOOR:
            gaps = [against_floor(rows, coder, bits) for bits in widths]
            yield f"| {coder} | {' | '.join(gaps)} |"
    yield "\nCodes of 64 bits: mean |share of ones - 0.5|, mean |correlation| of bits, distinct codes:\n"
    yield from head(["coder", "imbalance", "correlation", "distinct"])
    for coder in coders:
        same = pick(rows, coder, 64)
        looks = [np.mean([r[key] for r in same]) for key in ("balance", "correlation", "distinct")]
        yield f"| {coder} | {looks[0]:.3f} | {looks[1]:.3f} | {looks[2]:,.0f} |"


def shift_table(mine: list[Record]) -> Iterator[str]:
    """A coder from one half of the classes on the other."""
    if not mine:
        return
    yield "\n## Another domain: coders from cifar10's vehicles, 64 bits, used on its animals\n"
    yield "% of the 10 nearest animals among the 10 nearest by Hamming distance; the imbalance of the bits.\n"
    states = ("as fitted", "rethresholded", "refitted")
    yield from head(["coder", *states, *(f"imbalance {state}" for state in states)])
    for coder in dict.fromkeys(r["coder"] for r in mine):
        rows = [r for r in mine if r["coder"] == coder]
        shares = [cell([r[state] for r in rows]) for state in states]
        looks = [f"{np.mean([r[f'balance {state}'] for r in rows]):.3f}" for state in states]
        yield f"| {coder} | {' | '.join((*shares, *looks))} |"


def time_table(mine: list[Record]) -> Iterator[str]:
    """Seconds to fit and to encode."""
    if not mine:
        return
    yield "\n## Seconds for 60,000 embeddings of 128 dimensions, one thread\n"
    latest = {(r["coder"], r["bits"]): r for r in mine}
    widths = sorted({bits for _, bits in latest})
    yield from head(["coder", *(f"{what} {bits} bits" for bits in widths for what in ("fit", "encode"))])
    for coder in dict.fromkeys(name for name, _ in latest):
        cells = [f"{latest[coder, bits][what]:.2f}" for bits in widths for what in ("fit_s", "encode_s")]
        yield f"| {coder} | {' | '.join(cells)} |"


def head(titles: list[str]) -> Iterator[str]:
    """The two lines above a table's rows."""
    yield f"| {' | '.join(titles)} |"
    yield "| --- " * len(titles) + "|"


def pick(rows: list[Record], coder: str, bits: int) -> list[Record]:
    """The seeds of one cell, in order."""
    return sorted((r for r in rows if (r["coder"], r["bits"]) == (coder, bits)), key=lambda r: r["seed"])


def cell(values: list[float]) -> str:
    """`28.6 ± 0.4`, of shares."""
    if not values:
        return "-"
    interval = t_interval(100 * np.array(values))
    half = "" if interval.high is None else f" ± {interval.high - interval.mean:.1f}"
    return f"{interval.mean:.1f}{half}"


def against_floor(rows: list[Record], coder: str, bits: int) -> str:
    """Points of recall above ITQ."""
    pairs = zip(pick(rows, coder, bits), pick(rows, FLOOR, bits), strict=False)
    gaps = [100 * (one["hamming"] - other["hamming"]) for one, other in pairs]
    if not gaps:
        return "-"
    found = difference(*t_interval(gaps), "one seed")
    return f"{found.mean:+.1f}" if found.significant else f"({found.mean:+.1f})"
