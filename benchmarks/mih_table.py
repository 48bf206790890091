"""The page docs/results/mih.md from what `benchmarks/mih.py` measured: `python benchmarks/mih.py --part table`."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]

HEAD = """# How fast is exact search in tables?

Made by `benchmarks/mih.py` on {machine}, one part at a time with nothing else running, one thread unless
said, kernel {path}. `mih` beside our own `scan` ([search.md](search.md)) over the same codes in one process.
"loose": 10,000 random centres, each bit flipped with probability 1/8; "tight": 1/16; "uniform": no structure
at all; queries from the same law. A figure is the median of {rounds} rounds (3 for the ways to run and for
filters), least to largest in brackets; tables and scan take turns, and a ratio is taken round by round. Every
answer was compared with the scan's, id for id.

**Not all of one state of the code.** Everything but the rows of 1 M codes and the table of changes was
measured before two later commits, and not again: the time that a call takes before it begins now counts when
tables and scan are weighed, and fewer than 65,536 codes are always scanned. Both are about small collections;
the search itself is the same. The rows of 1 M were measured with that time taken as 30 microseconds, now it
is 20; the table of changes precedes a quicker look-up of filters.
"""

WHY = """
## Why it is fast

- Few, wide buckets. The textbook choice of log2 n bits to a substring makes buckets of a few codes, and a
  search of little but cache misses. The cost formula charges a bucket and a code what they cost here and
  arrives at 16 bits for 10 M codes: buckets of 150 codes that stand together in memory, compared eight at an
  instruction.
- The codes of the next eight buckets are asked for while one is read; the row of a code that is near enough
  is asked for and looked at a little later, when it has come.
- A code is accepted in the first table that meets it, which its own bits tell: no list of what was seen.
- What a search will cost is forecast from the distances between a few codes and all others, so hopeless
  queries go to the scan at once; others carry a budget of half a scan. In a batch the budget is common:
  what easy queries leave, hard ones may use.

Tried and left: rows looked up through a list even where a code stands once (a miss or two more for each code
that counts); letting more than 16 codes wait for their rows (hardly a gain).
"""


def figure(values: list[float], digits: int = 2) -> str:
    """Median and spread."""
    middle, least, largest = (f"{value:,.{digits}f}" for value in values)
    return f"{middle} ({least} to {largest})"


def millions(n: int) -> str:
    """10 M."""
    return f"{n // 10**6:,} M" if n >= 10**6 else f"{n:,}"


def of(records: list[Record], part: str) -> list[Record]:
    """The records of one part."""
    return [one for one in records if one["part"] == part]


def speed(records: list[Record]) -> list[str]:
    """Nearest neighbours, single and in batches; build; the choice of auto."""
    order = {"tight": 0, "loose": 1, "uniform": 2}
    rows = sorted(of(records, "speed"), key=lambda r: (r["codes"], r["bits"], order[r["kind"]], r["k"]))
    out = [
        "\n## One query at a time\n",
        "Milliseconds a query, calls from Python included. Asked for: at k = 10 on clustered 64-bit codes, 10 M, at",
        "least 5 times the scan; on uniform codes never worse than 1.5 times (a ratio of 0.67). In tables: queries",
        "whose answer came from the tables.\n",
        "| codes | bits | kind | k | k-th distance | mih, ms | scan, ms | scan / mih | in tables, % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        name = f"| {millions(r['codes'])} | {r['bits']} | {r['kind']} | {r['k']} | {r['distance']:.0f} |"
        times = f" {figure(r['ms']['single'], 3)} | {figure(r['ms']['scan single'])} |"
        out.append(f"{name}{times} {figure(r['single_ratio'], 1)} | {100 * r['by_tables']['single']:.0f} |")
    out += [
        "\n## Batches of 256\n",
        "Milliseconds a query. The scan answers many queries from each tile of codes, so tables gain less.\n",
        "| codes | bits | kind | k | mih, ms | scan, ms | scan / mih | in tables, % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        name = f"| {millions(r['codes'])} | {r['bits']} | {r['kind']} | {r['k']} |"
        times = f" {figure(r['ms']['batch'], 3)} | {figure(r['ms']['scan batch'], 3)} |"
        out.append(f"{name}{times} {figure(r['batch_ratio'], 1)} | {100 * r['by_tables']['batch']:.0f} |")
    out += [
        "\n## Building, memory, forecast\n",
        "Memory: of the tables, bytes a code, beside 8 for each 64 bits of the codes themselves. Forecast: of a",
        "search for 10, without the call.\n",
        "| codes | bits | kind | tables | build, s | bytes a code | forecast, ms | mih, ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    tens = [r for r in rows if r["k"] == 10]
    for r in tens:
        name = f"| {millions(r['codes'])} | {r['bits']} | {r['kind']} | {r['m']} | {r['build_s']:.1f} |"
        out.append(
            f"{name} {r['bytes']:.0f} | {r['forecast_ms']['10']:.3f} | {r['ms']['batch'][0]:.3f} in a batch |"
        )
    out += [
        "\n## What auto chooses\n",
        "Best: the quicker of the two here, for one query and k = 10.\n",
        "| codes | bits | kind | best | auto's reason |",
        "| --- | --- | --- | --- | --- |",
    ]
    for r in tens:
        best = "mih" if r["single_ratio"][0] > 1 else "scan"
        out.append(f"| {millions(r['codes'])} | {r['bits']} | {r['kind']} | {best} | {r['reason']} |")
    return out


def radius(records: list[Record]) -> list[str]:
    """All within a radius."""
    out = [
        "\n## All within a radius\n",
        "10 M loose codes of 64 bits; batches of 256.\n",
        "| radius | found | mih, ms | scan / mih | in a batch, ms | scan / mih |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in of(records, "radius"):
        single, batch = figure(r["single_ms"], 3), figure(r["batch_ms"], 4)
        ratios = figure(r["single_ratio"], 1), figure(r["batch_ratio"], 1)
        out.append(f"| {r['radius']} | {r['found']:.2f} | {single} | {ratios[0]} | {batch} | {ratios[1]} |")
    return out


def real(records: list[Record]) -> list[str]:
    """Codes of real images."""
    rows = of(records, "real")
    if not rows:
        return []
    out = [
        "\n## Codes of real images\n",
        f"The 60,000 images of cifar10 (the embedding of [codes.md](codes.md)): {rows[0]['codes']:,} searched",
        "by the other 1,000, k = 10, one by one (200 of them) and in one batch. Measured while so few codes still",
        "got tables: a scan was quicker for every coder and length, which is why they are now always scanned;",
        "`auto` scanned them already.\n",
        "| coder | bits | distinct | 10th distance | mih, ms | scan, ms | scan / mih | batch: scan / mih | auto |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        name = f"| {r['coder']} | {r['bits']} | {r['distinct']:,} | {r['distance']:.0f} |"
        times = f" {figure(r['ms']['single'], 3)} | {figure(r['ms']['scan single'], 3)} |"
        ratios = f" {figure(r['single_ratio'])} | {figure(r['batch_ratio'])} |"
        out.append(f"{name}{times}{ratios} {r['reason'].partition(':')[0]} |")
    return out


def paths(records: list[Record]) -> list[str]:
    """The same on every path, and on two threads."""
    out = [
        "\n## Every way to run\n",
        "10 M loose codes of 64 bits, k = 10, single queries. NumPy searches tables that compiled code built.\n",
        "| path | tables | mih, ms | scan, ms | scan / mih |",
        "| --- | --- | --- | --- | --- |",
    ]
    for r in of(records, "paths"):
        ms = r["ms"]
        times = (
            f"{figure(ms['single'], 3)} | {figure(ms['scan single'], 1)} | {figure(r['single_ratio'], 1)} |"
        )
        out.append(f"| {r['path']} | {r['m']} | {times}")
    for r in of(records, "threads"):
        one, two = r["ms"]["1"], r["ms"]["2"]
        out += [
            f"\nTwo threads on a batch of 2,048: {figure(two, 3)} ms a query, one {figure(one, 3)}: "
            f"{figure(r['ratio'], 2)} times.",
            f"Build: {r['build_s'][0]:.1f} s, with two threads {r['build_s'][1]:.1f} s.",
        ]
    return out


def change(records: list[Record]) -> list[str]:
    """Opening and changing."""
    out = []
    for r in of(records, "open"):
        out += [
            "\n## Opening and changing\n",
            f"10 M codes and their tables ({r['bytes'] / 1e6:,.0f} MB) open in {figure(r['open_ms'], 1)} ms, mapped from",
            f"disk; the first search has its answer {figure(r['first_ms'], 1)} ms after opening began (page cache warm),",
            f"the next takes {figure(r['second_ms'])} ms. Saving: {r['save_s']:.1f} s.",
        ]
    out += [
        "\n10 M loose codes of 64 bits, single queries, k = 10; tables stay as built while 1 % of the codes come and go:\n",
        "| what | took, s | mih, ms | scan, ms | scan / mih |",
        "| --- | --- | --- | --- | --- |",
    ]
    for r in of(records, "change"):
        took = f"{r['s']:.2f}" if r["s"] else ""
        times = (
            f"{figure(r['ms']['single'], 3)} | {figure(r['ms']['scan single'])} | {figure(r['ratio'], 1)} |"
        )
        out.append(f"| {r['what']} | {took} | {times}")
    return out


def page(records: list[Record]) -> str:
    """The whole page."""
    first = records[0]
    head = HEAD.format(machine=first["machine"], path=first["path"], rounds=first["rounds"])
    lines = [*speed(records), *radius(records), *real(records), *paths(records), *change(records)]
    return head + "\n".join(lines) + "\n" + WHY
