"""How fast, and how much do ties decide? Scores of codes from histograms beside scores of sorted lists.

    python benchmarks/hashing_eval.py --part speed    # prints, adds to docs/results/hashing_eval.jsonl
    python benchmarks/hashing_eval.py --part ties     # the same; resumes
    python benchmarks/hashing_eval.py --part table    # writes docs/results/hashing_eval.md

Speed, on one core: all tie-aware mAP of 10,000 queries against 60,000 items of 48 bits in 10 classes. The
obvious way beside it: one product with +-1 codes and one argsort per query; it answers for one order of the
ties, the one that the sort happens to leave.

Ties: scikit-learn's digits, 400 queries, 1,397 items on which the coder is fitted. A table without a tie
policy may show any argsort: of the database sorted by class, or of one of 20 shuffles of it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
from sklearn.datasets import load_digits

from learn import machine
from lines import records
from semblance import plugins
from semblance.codes import pack, unpack
from semblance.errors import ConfigError
from semblance.evaluation.hashing import TIES, Measures, score_codes
from semblance.evaluation.statistics import t_interval
from semblance.index import _kernel

QUERIES, ITEMS, BITS, CLASSES = 10_000, 60_000, 48, 10
DIGIT_BITS = (8, 12, 24, 48)
SEEDS = (0, 1, 2)
SHUFFLES = 20
AT = 100
Array = np.ndarray[Any, np.dtype[Any]]
Record = dict[str, Any]


def drawn(seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """Queries, items and their classes: a random code per class, each bit turned with probability 1/4."""
    rng = np.random.default_rng(seed)
    centres = rng.random((CLASSES, BITS)) < 0.5

    def some(n: int) -> tuple[Array, Array]:
        classes = rng.integers(0, CLASSES, n)
        return pack(centres[classes] ^ (rng.random((n, BITS)) < 0.25)), classes

    (queries, asked), (items, theirs) = some(QUERIES), some(ITEMS)
    return queries, items, asked, theirs


def sorted_ap(queries: Array, items: Array, asked: Array, theirs: Array) -> Array:
    """Average precision `(q,)` of each query, the obvious way: distances, argsort, precision at each hit."""
    signs = 2 * unpack(items).astype(np.float32) - 1
    scores = np.empty(len(queries))
    ranks = np.arange(1, len(items) + 1)
    for i, code in enumerate(2 * unpack(queries).astype(np.float32) - 1):
        order = np.argsort(-(signs @ code))
        hits = theirs[order] == asked[i]
        scores[i] = (np.cumsum(hits)[hits] / ranks[hits]).mean()
    return scores


def seconds(call: Callable[[], object], times: int) -> list[float]:
    """Wall times, rising."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return sorted(found)


def speed() -> Iterator[Record]:
    """Seconds of every way of scoring the same codes."""
    queries, items, asked, theirs = drawn()
    some = 100
    ways: dict[str, tuple[Callable[[], object], int, float]] = {}
    for path in _kernel.paths():

        def mean_ap(path: str = path, measures: Measures | None = None) -> object:
            os.environ["SEMBLANCE_KERNEL"] = path
            try:
                return score_codes(queries, items, asked, theirs, measures=measures)
            finally:
                del os.environ["SEMBLANCE_KERNEL"]

        ways[f"histograms, kernel {path}: mAP and its bounds"] = (mean_ap, 3, 1)
    best = _kernel.paths()[0]
    extra = {
        "mAP@1000, both divisors, beside it": Measures(at=(1_000,)),
        "precision@100 beside it": Measures(precision=(100,)),
    }
    for name, measures in extra.items():
        ways[f"histograms, kernel {best}: {name}"] = (lambda m=measures: mean_ap(best, m), 3, 1)
    ways[f"argsort, {some} queries measured, times {QUERIES // some}: mAP of one order of ties"] = (
        lambda: sorted_ap(queries[:some], items, asked[:some], theirs),
        3,
        QUERIES / some,
    )
    for name, (call, times, factor) in ways.items():
        found = [round(value * factor, 2) for value in seconds(call, times)]
        yield {"part": "speed", "way": name, "seconds": found, "machine": machine()}
    scores = score_codes(queries, items, asked, theirs)
    one = sorted_ap(queries[:some], items, asked[:some], theirs)
    low, high = (scores.per_query[f"map_{order}"][:some] for order in ("pessimistic", "optimistic"))
    inside = bool(((one >= low - 1e-9) & (one <= high + 1e-9)).all())
    yield {
        "part": "check",
        "argsort within the bounds": inside,
        **digest(scores.summary),
        "machine": machine(),
    }


def digest(summary: dict[str, float]) -> Record:
    """Every number rounded; None for what is not there."""
    return {name: None if np.isnan(value) else round(value, 5) for name, value in summary.items()}


def encoded(name: str, bits: int, seed: int, x: Array, y: Array, q: Array) -> tuple[Array, Array]:
    """Codes of the items `x` and the queries `q`. 12 bits are no whole bytes: the first 12 of LSH's 16, whose
    bits do not know of each other; other coders refuse."""
    if bits % 8 and name != "lsh":
        raise ConfigError(f"{bits} bits are no whole bytes")
    whole = -(-bits // 8) * 8
    module = plugins.get("codes", name)
    coder = module.Coder(plugins.configure("codes", name, {"bits": whole, "seed": seed}))
    coder.fit(x, y if coder.labels else None)
    kept = np.arange(whole) < bits
    items, queries = (pack(unpack(coder.encode(rows)) & kept) for rows in (x, q))
    return items, queries


def ties(out: Path) -> Iterator[Record]:
    """One record per coder, bits and seed that is not in the file."""
    there = {(r["coder"], r["bits"], r["seed"]) for r in records(out) if r["part"] == "ties"}
    data = load_digits()
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(data.target))
        asked, kept = order[:400], order[400:]
        kept = kept[np.argsort(data.target[kept], kind="stable")]
        x, y = data.data[kept].astype(np.float32), data.target[kept]
        q, z = data.data[asked].astype(np.float32), data.target[asked]
        for name in plugins.names("codes"):
            for bits in DIGIT_BITS:
                if (name, bits, seed) in there:
                    continue
                try:
                    items, queries = encoded(name, bits, seed, x, y, q)
                except ConfigError:
                    continue
                scores = score_codes(queries, items, z, y, measures=Measures(at=(AT,), eleven_point=True))
                lists = {"sorted by class": float(sorted_stable(queries, items, z, y).mean())}
                rng = np.random.default_rng(seed)
                shuffled = []
                for _ in range(SHUFFLES):
                    new = rng.permutation(len(items))
                    shuffled.append(float(sorted_stable(queries, items[new], z, y[new]).mean()))
                base = {"part": "ties", "coder": name, "bits": bits, "seed": seed}
                base |= {"distinct": scores.codes.distinct, **digest(scores.summary), **lists}
                yield base | {"shuffled": [min(shuffled), max(shuffled)], "machine": machine()}


def sorted_stable(queries: Array, items: Array, asked: Array, theirs: Array) -> Array:
    """As `sorted_ap`, all queries at once, equal distances in the order of the database."""
    signs = [2 * unpack(codes).astype(np.float32) - 1 for codes in (queries, items)]
    hits = theirs[np.argsort(-(signs[0] @ signs[1].T), axis=1, kind="stable")] == asked[:, None]
    precision = np.cumsum(hits, axis=1) / np.arange(1, len(items) + 1)
    return np.asarray((precision * hits).sum(axis=1) / hits.sum(axis=1))


def page(found: list[Record]) -> Iterator[str]:
    """docs/results/hashing_eval.md, line by line."""
    yield "# Scores of codes: how fast, and how much do ties decide?\n"
    machines = sorted({record["machine"] for record in found})
    yield f"Made by `benchmarks/hashing_eval.py` on {'; '.join(machines)}.\n"
    yield f"## {QUERIES:,} queries against {ITEMS:,} items of {BITS} bits, one core\n"
    yield "| way | seconds, median (least to most of 3) |"
    yield "| --- | --- |"
    latest = {record["way"]: record["seconds"] for record in found if record["part"] == "speed"}
    for way, values in latest.items():
        yield f"| {way} | {values[len(values) // 2]:.2f} ({values[0]:.2f} to {values[-1]:.2f}) |"
    checks = [record for record in found if record["part"] == "check"]
    if checks:
        one = checks[-1]
        inside = "lies" if one["argsort within the bounds"] else "DOES NOT LIE"
        shown = f"{one['map']:.4f} [{one['map_pessimistic']:.4f}, {one['map_optimistic']:.4f}]"
        yield f"\nmAP of these codes: {shown}. The sorted list's {inside} within the bounds for each query."
    yield "\n## Digits: the same codes under every order of ties\n"
    yield f"Means over {len(SEEDS)} seeds (of split and coder), ± half of the 95 % t-interval. {TIES}."
    yield "The same codes by one stable argsort of a database sorted by class, and of 20 shuffles of it"
    yield "(least to most): what a table without a tie policy may show. Precision within radius 2: empty"
    yield "balls counted as 0 / left out.\n"
    heads = (
        "coder",
        "bits",
        "distinct codes",
        "mAP",
        "pessimistic, optimistic",
        "sorted by class",
        "shuffled",
    )
    heads += (f"mAP@{AT} / found", f"mAP@{AT} / possible", "11-point", "precision, radius 2", "empty balls")
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    runs: dict[tuple[str, int], list[Record]] = {}
    for record in found:
        if record["part"] == "ties":
            runs.setdefault((record["coder"], record["bits"]), []).append(record)
    for (name, bits), rows in sorted(runs.items()):
        yield line(name, bits, rows)


def line(name: str, bits: int, rows: list[Record]) -> str:
    """One coder at one length."""

    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    interval = t_interval([row["map"] for row in rows])
    half = "" if interval.high is None else f" ± {interval.high - interval.mean:.3f}"
    full = [row for row in rows if row["precision@radius2_nonempty"] is not None]
    nonempty = f"{np.mean([row['precision@radius2_nonempty'] for row in full]):.3f}" if full else "-"
    cells = [
        name,
        str(bits),
        f"{mean('distinct'):.0f}",
        f"{interval.mean:.3f}{half}",
        f"{mean('map_pessimistic'):.3f}, {mean('map_optimistic'):.3f}",
        f"{mean('sorted by class'):.3f}",
        " to ".join(f"{np.mean([row['shuffled'][end] for row in rows]):.3f}" for end in (0, 1)),
        f"{mean(f'map@{AT}_found'):.3f}",
        f"{mean(f'map@{AT}_possible'):.3f}",
        f"{mean('map11'):.3f} [{mean('map11_pessimistic'):.3f}, {mean('map11_optimistic'):.3f}]",
        f"{mean('precision@radius2'):.3f} / {nonempty}",
        f"{100 * mean('empty@radius2'):.0f} %",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=["speed", "ties", "table"], required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/results/hashing_eval.jsonl"))
    wanted = parser.parse_args()
    if wanted.part == "table":
        text = "\n".join(page(records(wanted.out))) + "\n"
        wanted.out.with_suffix(".md").write_text(text, encoding="utf-8")
        print(text)
        return
    for record in speed() if wanted.part == "speed" else ties(wanted.out):
        with wanted.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)


if __name__ == "__main__":
    main()
