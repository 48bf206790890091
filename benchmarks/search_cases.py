"""Is every answer that of brute force? Random cases over every index that takes packed codes.

    python benchmarks/search_cases.py                    # 100,000 cases, prints and writes search_cases.md
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
import os
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from search import RESULTS, machine
from semblance import plugins
from semblance.index import _cost, _kernel

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


def check(name: str, number: int) -> str:
    """The kind of path that ran; raises AssertionError where an answer is wrong."""
    r = np.random.default_rng([number, 1])
    large = r.random() < 0.005
    n = int(r.choice([2000, 34_000])) if large else int(r.integers(0, 300))
    width = int(r.choice([1, 2, 3, 4, 6, 8, 8, 8, 12, 16, 16, 24, 32, 33, 64]))
    if large:
        width = min(width, 16)
    q = int(r.choice([1, 1, 2, 5, 8, 17, 40]))
    k = int(r.choice([1, 2, 10, 100, 400]))
    kind = str(r.choice(KINDS))
    codes = draw(kind, n, width, r, number)
    queries = draw(kind, q, width, r, number)
    ids = np.arange(n) if r.random() < 0.3 else r.permutation(2 * n + 1)[:n]
    path = str(r.choice(_kernel.paths()))
    os.environ["SEMBLANCE_KERNEL"] = path
    module = plugins.get("index", name)
    fields = {field.name for field in dataclasses.fields(module.Config)}
    drawn = {"threads": int(r.integers(1, 4))} if "threads" in fields else {}
    cut, among_tables = int(r.integers(0, n + 1)), np.random.default_rng([number, 2])
    if "m" in fields and among_tables.random() < 0.9:  # tables also where they are not worth it
        least = -(-8 * width // 12)
        drawn["m"] = int(among_tables.integers(least, max(least, 2 * width) + 1))
    _cost.scan_cost = partial(
        scan_cost, scale=float(among_tables.choice([0, 1, 300 if path == "numpy" else 1e4]))
    )
    index = module.Index(module.Config(**drawn))
    index.add(codes[:cut], ids[:cut])
    if r.random() < 0.3:
        index.search(queries, 1)
    index.add(codes[cut:], ids[cut:])
    left = np.ones(n, dtype=bool)
    if r.random() < 0.5:
        left = r.random(n) < r.choice([0.1, 0.5, 0.95])
        index.remove(ids[~left])
    if r.random() < 0.05:
        with tempfile.TemporaryDirectory() as folder:
            index.save(Path(folder) / "index")
            index = module.Index.load(Path(folder) / "index")
    among = None
    if r.random() < 0.4:
        among = ids[r.random(n) < r.choice([0.02, 0.5, 1.0])]
        left &= np.isin(ids, among)
    far, names = brute(queries, codes[left], ids[left])
    found = index.search(queries, k, among=among)
    count = min(k, int(left.sum()))
    assert np.array_equal(found.distances[:, :count], far[:, :count])
    assert np.array_equal(found.ids[:, :count], names[:, :count])
    assert (found.ids[:, count:] == -1).all()
    assert np.isinf(found.distances[:, count:]).all()
    radius = int(r.integers(0, max(1, 3 * width)))
    near = index.within(queries, radius, among=among)
    for i in range(q):
        inside = int((far[i] <= radius).sum())
        assert np.array_equal(near.ids[i, :inside], names[i, :inside])
        assert (near.ids[i, inside:] == -1).all()
    return path


def main() -> None:
    """Runs the cases and writes docs/results/search_cases.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--index", help="one index; else all that take codes and are asked codes")
    options = parser.parse_args()
    _kernel._WORTH_A_THREAD = 2**10  # small cases are to be shared by threads as well
    names = [options.index] if options.index else plugins.names("index")
    ways: Counter[tuple[str, str]] = Counter()
    started = time.time()
    for name in names:
        index = plugins.get("index", name).Index
        if index.takes != "codes" or getattr(index, "asks", "codes") != "codes" or index.recall < 1:
            continue
        for number in range(options.first, options.first + options.cases):
            try:
                ways[name, check(name, number)] += 1
            except AssertionError as error:
                raise SystemExit(f"{name} is wrong in case {number}: --first {number} --cases 1") from error
        print(f"{name}: {options.cases} cases, every answer that of brute force", flush=True)
    lines = [
        "# Is every answer that of brute force?",
        "",
        f"Made by `benchmarks/search_cases.py` on {machine()}: {options.cases:,} random cases for each index",
        f"that takes packed codes, {time.time() - started:.0f} s. A difference would have stopped the run.",
        "",
        "| index | path | cases | wrong |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {path} | {count:,} | 0 |" for (name, path), count in sorted(ways.items())),
    ]
    if not options.index and options.cases >= 100_000:
        (RESULTS / "search_cases.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
