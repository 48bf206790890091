"""Writes docs/results/search.md from what `benchmarks/search.py` measured.

python benchmarks/search_table.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from search import RESULTS

Record = dict[str, Any]

HEAD = """# How fast is exact Hamming search?

Made by `benchmarks/search.py` and `benchmarks/search_table.py` on {machine}, one part at a time with nothing
else running; faiss-cpu {faiss}, usearch {usearch}, their AVX-512 kernels. One thread unless said. Codes are
uniformly random, which is the hardest case for pruning. A figure is the median of the rounds (least to
largest); sides take turns, and a ratio is taken round by round. Ours gave the distances of the other side in
every comparison. `benchmarks/search_cases.py` compares answers id for id: [search_cases.md](search_cases.md).
"""

WHY = """
## Why it is fast

A query in a batch does not measure distances one by one. A tile of 512 codes is transposed once, so that
bit b of all of them is one vector; the sums and carries of three bits at a time, for each pattern that a
query can have there, stand ready; a query adds 22 such pairs per 64 bits in 42 carry-save adders, for
512 codes at once, starting from minus its current k-th distance, and one test says whether any of the
512 is nearer. A sample of one code in 61 gives a first limit that is almost final. It needs logical
instructions only, so narrower vectors lose speed in proportion to their width and no more. Tried and
left, because slower: population counts of eight codes at an instruction, looking the offsets of planes
up instead of working them out; as fast: two tiles at a time, an adder tree instead of a chain.

A single query reads each code once; memory asked for a page and a half ahead of its use comes faster
than the processor's own foresight brings it.
"""


def figure(values: list[float], digits: int) -> str:
    """Median and spread."""
    middle, least, largest = (f"{value:,.{digits}f}" for value in values)
    return f"{middle} ({least} to {largest})"


def rate(ms: list[float], digits: int = 0) -> str:
    """Queries a second from milliseconds a query."""
    return figure([1e3 / ms[0], 1e3 / ms[2], 1e3 / ms[1]], digits)


def millions(n: int) -> str:
    """10 M."""
    return f"{n // 10**6:,} M"


def exact(records: list[Record]) -> list[str]:
    """Batches and single queries beside faiss and usearch."""
    rows = sorted((r for r in records if r["part"] == "exact"), key=lambda r: (r["codes"], r["bits"], r["k"]))
    out = [
        "\n## Batches\n",
        "Queries a second; 1,024 queries at 1 M and 256 at 10 M (faiss: 512 and 64). Asked for: 10",
        "times faiss at 64 bits, 8 at 128, 6 at 256.\n",
        "| codes | bits | k | ours | faiss `IndexBinaryFlat` | ours / faiss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        ms = r["ms"]
        cells = rate(ms["batch"]), rate(ms["faiss batch"]), figure(r["batch_over_faiss"], 1)
        out.append(f"| {millions(r['codes'])} | {r['bits']} | {r['k']} | {' | '.join(cells)} |")
    ways = [r for r in records if r["part"] == "bandwidth"]
    best = max(r["gb_per_s"][0] for r in ways)
    spread = ", ".join(f"{r['way']} {figure(r['gb_per_s'], 1)}" for r in ways)
    out += [
        "\n## One query at a time\n",
        f"Reading 2 GB once on one thread, GB/s: {spread}. The best of them, {best:.1f}, is the limit",
        "that the last column refers to: the time over that of reading the codes once at this speed.",
        "Asked for beyond the cache (10 M): at most 1.3.\n",
        "| codes | bits | k | ours, ms | faiss, ms | usearch, ms | faiss / ours | GB/s | time / limit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        ms, read = r["ms"], r["codes"] * r["bits"] / 8e6
        cells = [figure(ms[name], 3) for name in ("single", "faiss single")]
        cells += [figure(ms["usearch single"], 0), figure(r["single_over_faiss"], 2)]
        cells += [f"{read / ms['single'][0]:.1f}", f"{ms['single'][0] * best / read:.2f}"]
        out.append(f"| {millions(r['codes'])} | {r['bits']} | {r['k']} | {' | '.join(cells)} |")
    return out


def portable(records: list[Record]) -> list[str]:
    """Every path on the same machine."""
    out = [
        "\n## Without AVX-512\n",
        "The same machine, its instructions left unused; all answers are equal. k = 10.\n",
        "| path | bits | batches at 1 M, queries/s | one query at 10 M, ms | GB/s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for r in (r for r in records if r["part"] == "paths"):
        read = r["bits"] / 8 * 10
        single = figure(r["single_ms"], 2)
        cells = (
            rate(r["batch_ms"], 0 if r["path"] != "numpy" else 1),
            single,
            f"{read / r['single_ms'][0]:.1f}",
        )
        out.append(f"| {r['path']} | {r['bits']} | {' | '.join(cells)} |")
    out += [
        "\n`native-popcnt` and `native` use vectors of 128 bits for batches (SSE2 here; NEON on ARM),",
        "and words for single queries, the latter without a population count.",
    ]
    return out


def threads(records: list[Record]) -> list[str]:
    """Two threads beside one."""
    out = [
        "\n## Two threads\n",
        "k = 10. Asked for: 1.7 in batches. A single query is bound by the memory that both cores",
        "share.\n",
        "| codes | bits | queries | one, ms a query | two | one / two |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in (r for r in records if r["part"] == "threads"):
        digits = 3 if r["one_ms"][0] < 1 else 2
        cells = figure(r["one_ms"], digits), figure(r["two_ms"], digits), figure(r["ratio"], 2)
        out.append(f"| {millions(r['codes'])} | {r['bits']} | {r['queries']:,} | {' | '.join(cells)} |")
    return out


def large(records: list[Record]) -> list[str]:
    """A hundred and a thousand million codes, and opening ten."""
    out = [
        "\n## 100 M and 1,000 M codes of 64 bits\n",
        "Made in place on disk (8 GB), opened by mapping, in the page cache. k = 10, batches of 256.\n",
        "| codes | threads | one query, ms | GB/s | batch, queries/s | opened in, ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in sorted((r for r in records if r["part"] == "large"), key=lambda r: (r["codes"], r["threads"])):
        cells = (
            figure(r["single_ms"], 1),
            f"{r['codes'] * 8e-6 / r['single_ms'][0]:.1f}",
            rate(r["batch_ms"], 1),
        )
        row = f"| {millions(r['codes'])} | {r['threads']} | {' | '.join(cells)} | {r['open_ms']:.1f} |"
        out.append(row)
    out += [
        "\nOpening 10 M codes of 64 bits (asked for: below 50 ms), and opening with the first search:\n",
        "| ids | opened in, ms | with the first search, ms |",
        "| --- | --- | --- |",
    ]
    for r in (r for r in records if r["part"] == "open"):
        out.append(f"| {r['ids']} | {figure(r['open_ms'], 2)} | {figure(r['first_search_ms'], 1)} |")
    return out


def approximate(records: list[Record]) -> list[str]:
    """Recall and speed of approximate indexes beside exact batches."""
    rows = [r for r in records if r["part"] == "approximate"]
    out = [
        "\n## Exact batches against approximate indexes\n",
        "1 M codes, k = 10, batches of 1,024, one thread. faiss IVF with 1,024 lists; HNSW with 16",
        "links a node, built with the libraries' defaults. Uniform codes have no structure to use;",
        "loose ones are 10,000 random centres with every bit flipped with probability 1/8. A",
        "neighbour counts as found if it is no further than the true tenth.\n",
        *lead(rows),
        "\nEvery setting that was tried; **bold** where an approximate index is faster. All of this is of",
        f"batches. Asked one by one, the scan answers {single(records)}",
        "queries a second (above): fewer than some approximate rows of good recall.\n",
        "| codes | bits | index | recall | queries/s | of exact |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, bits, some in groups(rows):
        for r in some:
            share = r["queries_per_s"][0] / some[0]["queries_per_s"][0]
            speed = figure(r["queries_per_s"], 0)
            speed = f"**{speed}**" if share > 1 else speed
            out.append(f"| {kind} | {bits} | {r['index']} | {r['recall']:.3f} | {speed} | {share:.2f} |")
    return out


def single(records: list[Record]) -> str:
    """Queries a second at 1 M codes, one at a time, k = 10: `7,246 (64 bits), ...`."""
    rows = [r for r in records if r["part"] == "exact" and r["codes"] == 10**6 and r["k"] == 10]
    return ", ".join(f"{1e3 / r['ms']['single'][0]:,.0f} ({r['bits']} bits)" for r in rows)


def groups(rows: list[Record]) -> Iterator[tuple[str, int, list[Record]]]:
    """The approximate indexes over the same codes, exact search first."""
    for kind in ("uniform", "loose"):
        for bits in (64, 128, 256):
            some = [r for r in rows if r["kind"] == kind and r["bits"] == bits]
            if some:
                yield kind, bits, some


def lead(rows: list[Record]) -> list[str]:
    """By how much exact search beats the fastest approximate setting of at least some recall."""
    floors = (0.99, 0.95, 0.9, 0.8)
    out = [
        "How many times as many queries a second exact search answers as the fastest approximate setting",
        "of at least that recall (below 1: the approximate index is faster):\n",
        f"| codes | bits | {' | '.join(f'recall {floor}' for floor in floors)} |",
        "| --- " * (2 + len(floors)) + "|",
    ]
    for kind, bits, (exactly, *others) in groups(rows):
        cells = []
        for floor in floors:
            good = [r for r in others if r["recall"] >= floor]
            best = max(good, key=lambda r: r["queries_per_s"][0]) if good else None
            if best is None:
                cells.append("none reached it")
            else:
                times = exactly["queries_per_s"][0] / best["queries_per_s"][0]
                cells.append(f"{times:.1f} ({best['index']}, {best['recall']:.3f})")
        out.append(f"| {kind} | {bits} | {' | '.join(cells)} |")
    return out


def languages(records: list[Record]) -> list[str]:
    """C beside Numba."""
    out = [
        "\n## C or Numba\n",
        "The kernels are C, built by `pip` where there is a compiler, NumPy where not. The other",
        "choice was Numba. `benchmarks/search_numba.py` is the scan in Numba: blocks of codes in",
        "cache for all queries, loops that LLVM makes vectors of, the same pruning. How many times as",
        "long as C it takes:\n",
        "| bits | one query at 10 M | batches at 1 M |",
        "| --- | --- | --- |",
    ]
    for r in (r for r in records if r["part"] == "numba"):
        out.append(f"| {r['bits']} | {figure(r['single_ratio'], 1)} | {figure(r['batch_ratio'], 1)} |")
    return out


def main() -> None:
    """Writes the page."""
    lines = (RESULTS / "search.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    versions = next(r for r in records if r["part"] == "bandwidth")
    page = [
        HEAD.format(
            machine=versions["machine"], faiss=versions["faiss"], usearch=versions["usearch"]
        ).rstrip()
    ]
    for section in (exact, portable, threads, large, approximate, languages):
        page += section(records)
    text = "\n".join(page) + "\n" + WHY
    (RESULTS / "search.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
