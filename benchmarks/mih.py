"""How fast is exact search in tables? Multi-index hashing beside our own scan, and what `auto` makes of it.

    python benchmarks/mih.py --part speed --kind loose --bits 64     # uniform, loose, tight; 64, 128, 256
    python benchmarks/mih.py --part radius
    python benchmarks/mih.py --part real --data .data
    python benchmarks/mih.py --part paths
    python benchmarks/mih.py --part threads
    python benchmarks/mih.py --part open
    python benchmarks/mih.py --part change
    python benchmarks/mih.py --part table                            # writes docs/results/mih.md

Each part adds records to docs/results/mih.jsonl, in place of its own earlier ones. "loose": 10,000 random
centres, each bit flipped with probability 1/8; "tight": 1/16; queries from the same law. Tables and scan
take turns, round after round; a figure is the median of the rounds and its spread their least and largest; a
ratio is taken round by round. Every answer of the tables is compared with the scan's, id for id.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from search import RESULTS, SCRATCH, machine, one_by_one, ratios, rounds, summary
from semblance import plugins
from semblance.index import _cost, _kernel, auto, mih, scan
from semblance.index._codes import Codes

Record = dict[str, Any]
LEDGER = RESULTS / "mih.jsonl"
FLIPS = {"loose": 3, "tight": 4}  # masks whose common bits are flipped: probability 1/8 and 1/16
KS = (1, 10, 100)


def draw(kind: str, n: int, bits: int, seed: int) -> np.ndarray:
    """Codes `(n, bits / 8)` of a kind."""
    centres = np.random.default_rng(0).integers(0, 2**64, (10_000, bits // 64), dtype=np.uint64)
    words = np.empty((n, bits // 64), dtype=np.uint64)
    for start in range(0, n, 10**6):
        r, part = np.random.default_rng([seed, start]), words[start : start + 10**6]
        part[:] = r.integers(0, 2**64, part.shape, dtype=np.uint64)
        if kind in FLIPS:
            for _ in range(FLIPS[kind] - 1):
                part &= r.integers(0, 2**64, part.shape, dtype=np.uint64)
            part ^= centres[r.integers(0, len(centres), len(part))]
    return words.view(np.uint8)


def indexes(codes: np.ndarray, threads: int = 1) -> tuple[mih.Index, scan.Index, auto.Index]:
    """The three over one copy of the codes."""
    held = Codes()
    held.add(codes)
    tables, plain = mih.Index(mih.Config(threads=threads)), scan.Index(scan.Config(threads))
    choice = auto.Index(auto.Config(threads=threads))
    tables._hold(held)
    choice._hold(held)
    plain._codes = held
    return tables, plain, choice


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal, id for id."""
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.distances, other.distances)


def by_tables(tables: mih.Index, parts: list[np.ndarray], k: int) -> float:
    """The share of queries, asked in these parts, whose answers came from the tables."""
    tabled, words = tables._tabled, tables._codes.words
    if tabled is None:
        return 0.0
    plans = [tables._plan(len(part), None) for part in parts]
    asked = [tables._codes.queries(part) for part in parts]
    found = [tabled.nearest(words, part, k, plan)[1] for part, plan in zip(asked, plans, strict=True)]
    return float(np.concatenate(found).mean())


def paired(
    tables: mih.Index, plain: scan.Index, some: np.ndarray, batch: np.ndarray, k: int, count: int
) -> Record:
    """Milliseconds a query of both, alone and in a batch, and the ratios."""
    assert same(tables.search(batch, k), plain.search(batch, k))
    assert all(same(tables.search(query, k), plain.search(query, k)) for query in some)
    sides = {
        "single": one_by_one(lambda q: tables.search(q, k), some),
        "scan single": one_by_one(lambda q: plain.search(q, k), some),
        "batch": lambda: tables.search(batch, k),
        "scan batch": lambda: plain.search(batch, k),
    }
    times = rounds(sides, count)
    asked = {name: len(some) if "single" in name else len(batch) for name in sides}
    each = {name: [t / asked[name] for t in seconds] for name, seconds in times.items()}
    done = {"single": by_tables(tables, [some[i : i + 1] for i in range(len(some))], k)}
    done["batch"] = by_tables(tables, [batch], k)
    return {
        "k": k,
        "distance": float(np.median(plain.search(batch, k).distances[:, -1])),
        "ms": {name: summary(seconds, 1e-3) for name, seconds in each.items()},
        "single_ratio": ratios(each["scan single"], each["single"]),
        "batch_ratio": ratios(each["scan batch"], each["batch"]),
        "by_tables": done,
        "queries": asked,
    }


def measure_speed(options: argparse.Namespace) -> list[Record]:
    """Nearest neighbours in codes of one kind."""
    n, bits, records = int(options.codes), options.bits, []
    codes, queries = draw(options.kind, n, bits, 1), draw(options.kind, 256 + 32, bits, 2)
    tables, plain, choice = indexes(codes)
    del codes
    started = time.perf_counter()
    tables.build()
    built = time.perf_counter() - started
    started = time.perf_counter()
    reason = choice.reason
    judged = time.perf_counter() - started
    assert tables._tabled is not None
    about = {
        "kind": options.kind,
        "codes": n,
        "bits": bits,
        "m": tables._tabled.forecast.m,
        "build_s": built,
        "bytes": tables._tabled.tables.nbytes / n,
        "reason": reason,
        "auto_s": judged,
        "forecast_ms": {str(k): tables._tabled.forecast.nearest(k) / 1e9 for k in KS},
    }
    choice._tabled = None
    for k in KS:
        records.append({**about, **paired(tables, plain, queries[:32], queries[32:], k, options.rounds)})
        print(json.dumps(records[-1]), flush=True)
    return records


def measure_radius(options: argparse.Namespace) -> list[Record]:
    """All within a radius: near-duplicates and Hamming balls."""
    records = []
    codes, queries = draw("loose", 10**7, 64, 1), draw("loose", 256, 64, 2)
    tables, plain, _ = indexes(codes)
    for radius in (0, 2, 4, 8, 12):
        assert same(tables.within(queries, radius), plain.within(queries, radius))
        times = rounds(
            {
                "single": one_by_one(lambda q, r=radius: tables.within(q, r), queries[:16]),
                "scan single": one_by_one(lambda q, r=radius: plain.within(q, r), queries[:16]),
                "batch": lambda r=radius: tables.within(queries, r),
                "scan batch": lambda r=radius: plain.within(queries, r),
            },
            options.rounds,
        )
        records.append(
            {
                "radius": radius,
                "found": float((plain.within(queries, radius).ids >= 0).sum() / len(queries)),
                "single_ms": summary(times["single"], 16e-3),
                "batch_ms": summary(times["batch"], 256e-3),
                "single_ratio": ratios(times["scan single"], times["single"]),
                "batch_ratio": ratios(times["scan batch"], times["batch"]),
            }
        )
    return records


def measure_real(options: argparse.Namespace) -> list[Record]:
    """ITQ and LSH codes of the 60,000 real images of cifar10: 59,000 searched by 1,000 others."""
    from codes_sets import open_embedded

    embedded, records = open_embedded(Path(options.data), "cifar10"), []
    asked = np.random.default_rng(0).permutation(len(embedded.x))[:1000]
    searched = np.setdiff1d(np.arange(len(embedded.x)), asked)
    for name in ("itq", "lsh"):
        for bits in (32, 64, 128):
            coder = plugins.get("codes", name).Coder(plugins.configure("codes", name, {"bits": bits}))
            coder.fit(embedded.x[searched])
            codes, queries = coder.encode(embedded.x[searched]), coder.encode(embedded.x[asked])
            tables, plain, choice = indexes(codes)
            counts = _cost.histograms(tables._codes.words, bits)
            forecast = _cost.best(counts, bits, _cost.prices(_kernel.chosen()))
            about = {
                "coder": name,
                "bits": bits,
                "codes": len(codes),
                "distinct": len(np.unique(codes, axis=0)),
                "neighbour": forecast.neighbour,
                "share": forecast.share,
                "reason": choice.reason,
            }
            records.append({**about, **paired(tables, plain, queries[:200], queries, 10, options.rounds)})
    return records


def measure_paths(options: argparse.Namespace) -> list[Record]:
    """Every way the kernels can run here, scan and tables alike."""
    codes, queries = draw("loose", 10**7, 64, 1), draw("loose", 256 + 16, 64, 2)
    records = []
    for path in _kernel.paths():
        os.environ["SEMBLANCE_KERNEL"] = path
        tables, plain, _ = indexes(codes)
        if path == "numpy":
            os.environ["SEMBLANCE_KERNEL"] = _kernel.paths()[0]
        started = time.perf_counter()
        tables.build()
        built = time.perf_counter() - started
        os.environ["SEMBLANCE_KERNEL"] = path
        few = path in ("numpy", "native")
        made = paired(tables, plain, queries[: 4 if few else 16], queries[16 : 24 if few else None], 10, 3)
        assert tables._tabled is not None
        records.append({"path": path, "m": tables._tabled.forecast.m, "build_s": built, **made})
    del os.environ["SEMBLANCE_KERNEL"]
    return records


def measure_threads(options: argparse.Namespace) -> list[Record]:
    """Two threads and one: a batch, and the build."""
    codes, queries = draw("loose", 10**7, 64, 1), draw("loose", 2048, 64, 2)
    made = {}
    builds = {}
    for threads in (1, 2):
        tables, _, _ = indexes(codes, threads)
        started = time.perf_counter()
        tables.build()
        builds[threads] = time.perf_counter() - started
        made[threads] = tables
    assert same(made[1].search(queries, 10), made[2].search(queries, 10))
    times = rounds({str(t): lambda t=t: made[t].search(queries, 10) for t in (1, 2)}, options.rounds)
    each = {name: summary(seconds, 1e-3 * len(queries)) for name, seconds in times.items()}
    return [{"ms": each, "ratio": ratios(times["1"], times["2"]), "build_s": [builds[1], builds[2]]}]


def measure_open(options: argparse.Namespace) -> list[Record]:
    """Opening 10 M codes and their tables, and the first search after."""
    tables, _, _ = indexes(draw("loose", 10**7, 64, 1))
    queries, folder = draw("loose", 1, 64, 2), SCRATCH / "mih-open"
    started = time.perf_counter()
    tables.save(folder, overwrite=True)
    saved = time.perf_counter() - started
    opened, first, second = [], [], []
    for _ in range(9):
        started = time.perf_counter()
        again = mih.Index.load(folder)
        opened.append(time.perf_counter() - started)
        again.search(queries, 10)
        first.append(time.perf_counter() - started)
        started = time.perf_counter()
        again.search(queries, 10)
        second.append(time.perf_counter() - started)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return [
        {
            "save_s": saved,
            "bytes": size,
            "open_ms": summary(opened, 1e-3),
            "first_ms": summary(first, 1e-3),
            "second_ms": summary(second, 1e-3),
        }
    ]


def measure_change(options: argparse.Namespace) -> list[Record]:
    """What coming and going codes cost beside the tables: 10 M, then 1 % more and 1 % fewer; filters."""
    codes, queries = draw("loose", 10_100_000, 64, 1), draw("loose", 256, 64, 2)
    tables, plain, _ = indexes(codes[:10_000_000])
    tables.build()
    some, r, records = queries[:16], np.random.default_rng(3), []

    def measured(what: str, seconds: float, among: np.ndarray | None = None) -> None:
        assert same(tables.search(queries, 10, among), plain.search(queries, 10, among))
        asked = some if among is None else some[:3]  # millions of ids to look up take a while
        sides: dict[str, Callable[[], Any]] = {
            "single": one_by_one(lambda q: tables.search(q, 10, among), asked),
            "scan single": one_by_one(lambda q: plain.search(q, 10, among), asked),
        }
        times = rounds(sides, options.rounds if among is None else 3)
        ms = {name: summary(values, 1e-3 * len(asked)) for name, values in times.items()}
        ratio = ratios(times["scan single"], times["single"])
        records.append({"what": what, "s": seconds, "ms": ms, "ratio": ratio})

    measured("as built", 0.0)
    started = time.perf_counter()
    tables.add(codes[10_000_000:])
    measured("1 % added", time.perf_counter() - started)
    started = time.perf_counter()
    tables.remove(r.permutation(10_000_000)[:100_000])
    measured("1 % removed", time.perf_counter() - started)
    for share in (0.5, 0.01, 0.0001):
        among = np.flatnonzero(r.random(10_000_000) < share)
        measured(f"only {100 * share:g} % allowed", 0.0, among)
    return records


PARTS = {
    "speed": measure_speed,
    "radius": measure_radius,
    "real": measure_real,
    "paths": measure_paths,
    "threads": measure_threads,
    "open": measure_open,
    "change": measure_change,
}


def kept(part: str, options: argparse.Namespace) -> list[Record]:
    """Records of the ledger that this run does not replace."""
    if not LEDGER.exists():
        return []
    old = [json.loads(line) for line in LEDGER.read_text(encoding="utf-8").splitlines()]
    own = {"kind": options.kind, "bits": options.bits, "codes": int(options.codes)} if part == "speed" else {}
    return [one for one in old if one["part"] != part or any(one[key] != own[key] for key in own)]


def main() -> None:
    """Measures one part, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "table"], required=True)
    parser.add_argument("--kind", choices=["uniform", *FLIPS], default="loose")
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--codes", type=float, default=1e7)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", default=".data")
    options = parser.parse_args()
    if options.part == "table":
        from mih_table import page

        lines = LEDGER.read_text(encoding="utf-8").splitlines()
        (RESULTS / "mih.md").write_text(page([json.loads(line) for line in lines]), encoding="utf-8")
        return
    made = PARTS[options.part](options)
    base = {"part": options.part, "machine": machine(), "path": _kernel.chosen(), "rounds": options.rounds}
    lines = [
        json.dumps(record) for record in [*kept(options.part, options), *({**base, **one} for one in made)]
    ]
    LEDGER.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for record in made:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
