"""Is every answer that of brute force? Random cases over every index that takes packed codes.

    python benchmarks/search_cases.py                    # 100,000 cases, resumes, writes search_cases.md
    python benchmarks/search_cases.py --cases 1000 --index scan

A case draws a size, a width, a kind of codes (uniform, clustered, few distinct ones, skewed), ids in any
order, removals, a filter, k and a radius, a way to run (one of the compiled paths or NumPy, threads), and
sometimes saves and loads between. The nearest k and all within the radius must be, id for id and in order,
what sorting all (distance, id) gives; distances come from unpacked bits, which no index uses. The first
difference stops the run and prints the case's number, which `--first` repeats.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
import types
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from search import RESULTS, machine
from semblance import plugins
from semblance.index import _cost, _kernel

WIDTHS = (1, 2, 3, 4, 6, 8, 8, 8, 12, 16, 16, 24, 32, 33, 64)
OUT = RESULTS / "search_cases.jsonl"
SLICE = 1_000
ASKED = 100_000
Record = dict[str, Any]
KINDS = ("uniform", "clustered", "few distinct", "skewed")


price = _cost.scan_cost


def scan_cost(*given: Any, scale: float) -> float:
    """What tables think a scan costs: nothing, so that all is scanned, the truth, or far too much."""
    return scale * price(*given)


def draw(kind: str, n: int, width: int, r: np.random.Generator, seed: int) -> np.ndarray:
    """Codes `(n, width)` uint8 of a kind; equal seeds share centres."""
    centres = np.random.default_rng(seed).integers(0, 256, (7, width), dtype=np.uint8)
    if kind == "clustered":
        flips = np.packbits(r.random((n, 8 * width)) < 0.06, axis=1, bitorder="little")
        return centres[r.integers(0, 7, n)] ^ flips
    if kind == "few distinct":
        return centres[r.integers(0, 7, n)]
    if kind == "skewed":
        return np.packbits(r.random((n, 8 * width)) < 0.05, axis=1, bitorder="little")
    return r.integers(0, 256, (n, width), dtype=np.uint8)


def brute(queries: np.ndarray, codes: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances and ids `(q, n)`, sorted."""
    bits = np.unpackbits(codes, axis=1).astype(np.float32)
    asked = np.unpackbits(queries, axis=1).astype(np.float32)
    far = asked @ (1 - bits).T + (1 - asked) @ bits.T  # whole numbers below 2^24: exact
    order = np.lexsort((np.broadcast_to(ids, far.shape), far))
    return np.take_along_axis(far, order, axis=1), ids[order]


@dataclasses.dataclass(frozen=True)
class Case:
    """Everything that one case draws, and what brute force answers."""

    number: int
    codes: np.ndarray
    queries: np.ndarray
    ids: np.ndarray
    cut: int  # codes added first
    early: bool  # a search before all are there
    gone: np.ndarray | None  # ids removed
    reloaded: bool
    among: np.ndarray | None
    k: int
    radius: int
    path: str
    threads: int
    far: np.ndarray
    names: np.ndarray


def case(number: int) -> Case:
    """Case `number`, always the same on machines with the same paths."""
    r = np.random.default_rng([number, 1])
    large = r.random() < 0.005
    n = int(r.choice([2000, 34_000])) if large else int(r.integers(0, 300))
    width = int(r.choice(WIDTHS[:-4] if large else WIDTHS))
    q, k = int(r.choice([1, 1, 2, 5, 8, 17, 40])), int(r.choice([1, 2, 10, 100, 400]))
    kind = str(r.choice(KINDS))
    codes, queries = draw(kind, n, width, r, number), draw(kind, q, width, r, number)
    ids = np.arange(n) if r.random() < 0.3 else r.permutation(2 * n + 1)[:n]
    left, gone, among = np.ones(n, dtype=bool), None, None
    if r.random() < 0.5:
        left = r.random(n) < r.choice([0.1, 0.5, 0.95])
        gone = ids[~left]
    if r.random() < 0.4:
        among = ids[r.random(n) < r.choice([0.02, 0.5, 1.0])]
        left = left & np.isin(ids, among)
    path, threads = str(r.choice(_kernel.paths())), int(r.integers(1, 4))
    cut, radius = int(r.integers(0, n + 1)), int(r.integers(0, max(1, 3 * width)))
    early, reloaded = r.random() < 0.3, r.random() < 0.05
    answers = brute(queries, codes[left], ids[left])
    drawn = (codes, queries, ids, cut, early, gone, reloaded, among, k, radius, path, threads)
    return Case(number, *drawn, *answers)


def asked_codes(index: type) -> bool:
    """Whether an index takes packed codes, is asked packed codes and promises all neighbours."""
    return index.takes == getattr(index, "asks", index.takes) == "codes" and index.recall == 1


def check(name: str, module: types.ModuleType, one: Case) -> None:
    """Raises AssertionError where an answer of the index `name`, found in `module`, is wrong."""
    os.environ["SEMBLANCE_KERNEL"] = one.path
    r, width, config = np.random.default_rng([one.number, 2]), one.codes.shape[1], {"threads": one.threads}
    if name == "mih" and r.random() < 0.9:  # tables also where they are not worth it
        least = -(-8 * width // 12)
        config["m"] = int(r.integers(least, max(least, 2 * width) + 1))
    dear = float(r.choice([0, 1, 300 if one.path == "numpy" else 1e4]))
    _cost.scan_cost = partial(scan_cost, scale=dear)
    index = module.Index(module.Config(**config))
    index.add(one.codes[: one.cut], one.ids[: one.cut])
    if one.early:
        index.search(one.queries, 1)
    index.add(one.codes[one.cut :], one.ids[one.cut :])
    if one.gone is not None:
        index.remove(one.gone)
    if one.reloaded:
        with tempfile.TemporaryDirectory() as folder:
            index.save(Path(folder) / "index")
            index = module.Index.load(Path(folder) / "index")
    found = index.search(one.queries, one.k, among=one.among)
    count = min(one.k, one.far.shape[1])
    assert np.array_equal(found.distances[:, :count], one.far[:, :count])
    assert np.array_equal(found.ids[:, :count], one.names[:, :count])
    assert (found.ids[:, count:] == -1).all()
    assert np.isinf(found.distances[:, count:]).all()
    near = index.within(one.queries, one.radius, among=one.among)
    for i in range(len(one.queries)):
        inside = int((one.far[i] <= one.radius).sum())
        assert np.array_equal(near.ids[i, :inside], one.names[i, :inside])
        assert (near.ids[i, inside:] == -1).all()


def run(modules: dict[str, types.ModuleType], numbers: range) -> Record:
    """What the cases `numbers` were, as it is kept; ends the program at the first wrong answer."""
    ways: Counter[str] = Counter()
    started = time.process_time()
    for number in numbers:
        one = case(number)
        for name, module in modules.items():
            try:
                check(name, module, one)
            except AssertionError as error:
                raise SystemExit(f"{name} is wrong in case {number}: --first {number} --cases 1") from error
            ways[f"{name} {one.path}"] += 1
    minutes = (time.process_time() - started) / 60
    found = {"first": numbers.start, "cases": len(numbers), "minutes": round(minutes, 3)}
    return {**found, "machine": machine(), "ways": dict(sorted(ways.items()))}


def page(found: list[Record]) -> str:
    """docs/results/search_cases.md."""
    ways = sum((Counter(one["ways"]) for one in found), Counter[str]())
    cases, minutes = sum(one["cases"] for one in found), sum(one["minutes"] for one in found)
    machines = "; ".join(sorted({one["machine"] for one in found}))
    lines = [
        "# Is every answer that of brute force?",
        "",
        f"Made by `benchmarks/search_cases.py` on {machines}: {cases:,} random cases for each",
        f"index that takes packed codes, {minutes:.0f} minutes of one core. A difference would have stopped",
        "the run."
        + (f" {ASKED:,} are asked for; the script goes on where it was stopped." if cases < ASKED else ""),
        "",
        "A case draws 0 to 300 codes (one in 200: 2,000 or 34,000) of 8 to 512 bits, uniform, clustered,",
        "skewed or with few distinct ones; 1 to 40 queries from the same law; ids in or out of order; often",
        "removals, a filter, a search half way, sometimes a save and a load; k from 1 to 400, a radius, a",
        "path, 1 to 3 threads. The k nearest and all within the radius must be what sorting all",
        "(distance, id) gives, id for id. Small collections are made to use threads and tables that they",
        "would do without.",
        "",
        "| index | path | cases | wrong |",
        "| --- | --- | --- | --- |",
        *(f"| {way.replace(' ', ' | ')} | {count:,} | 0 |" for way, count in sorted(ways.items())),
    ]
    return "\n".join(lines) + "\n"


def kept() -> dict[int, Record]:
    """First case -> the slice, of all that were run; several processes may share the work."""
    lines = OUT.read_text(encoding="utf-8").splitlines() if OUT.exists() else []
    return {one["first"]: one for one in map(json.loads, lines)}


def main() -> None:
    """Runs what is missing of the cases, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=ASKED)
    parser.add_argument("--first", type=int, help="begin here, all over, and keep nothing")
    parser.add_argument("--index", help="one index, and keep nothing; else all that take codes")
    options = parser.parse_args()
    _kernel._WORTH_A_THREAD = 2**10  # small cases are to be shared by threads as well
    names = [options.index] if options.index else plugins.names("index")
    every = {name: plugins.get("index", name) for name in names}
    modules = {name: module for name, module in every.items() if asked_codes(module.Index)}
    if options.index or options.first is not None:
        first = options.first or 0
        print(page([run(modules, range(first, first + options.cases))]))
        return
    for first in range(0, options.cases, SLICE):
        if first not in kept():
            found = run(modules, range(first, first + SLICE))
            with OUT.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(
                f"{first + SLICE:,} cases, {', '.join(modules)}: every answer that of brute force", flush=True
            )
            OUT.with_suffix(".md").write_text(page(list(kept().values())), encoding="utf-8")


if __name__ == "__main__":
    main()
