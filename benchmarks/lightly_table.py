"""Writes docs/results/lightly.md from docs/results/lightly.jsonl: the page of `lightly_*.py`.

python benchmarks/lightly_table.py
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semblance.evaluation.statistics import t_interval

__all__ = ["page"]

Record = dict[str, Any]
GOAL, VIEWS_GOAL = 3.0, 10.0
PLAIN = "as documented"
INTRO = """# How fast beside lightly?

Made by `benchmarks/lightly_speed.py`, `lightly_knn.py`, `lightly_tried.py` and `lightly_table.py` on
{machines}; lightly {versions} beside the same torch. Median (least to most) of rounds; ratios are taken
within a round. ResNet-18 with the stem for small images, 32 px, batch 256, 10,000 images of cifar10 in
memory.

The peer is the same method by lightly's losses, heads and transforms around the same encoder, with a
DataLoader of 2 workers: as its examples are written (float32), and with what a user may add to that by hand.
{disturbed} of {rounds} rounds, beside which other programs ran, is left out.
"""
MISSED = """
**Missed: {rows}.** The last column under "The physical limit" says why: the encoder's own pass alone is
hardly more than that many times as fast as lightly's whole step, and our step takes little longer than that
pass. Views, losses, loop and optimiser have nothing left to give; what was tried on the pass itself stands
at the end.
"""
ADDED = """## What a user of lightly can add by hand

Its examples in plain PyTorch do none of this. "Our memory and threads" are environment variables for what our
training sets by itself: freed memory is kept, threads wait awake for a moment.
"""
LIMIT = """## The physical limit

The encoder's own forward and backward over a step's views, in bf16, and nothing else: what no implementation
of the rest could pass.
"""
EQUAL = """## Equal neighbours after equal epochs

SimCLR, ResNet-18 of width {width}, {epochs} epochs of 10,000 images of cifar10, 5,000 test images, last
epoch. Same loss, temperature (0.1), head, SGD (0.12, momentum 0.9), schedule and ranges of views; ours in
bf16, lightly in float32 as documented. The vote of k neighbours, percent, seed by seed.
"""
READ = """
Kept, as they were before: bf16, channels-last, memory that is kept, threads that wait awake for a moment,
the fused optimiser. Not kept: a compiled graph and a larger batch bring a few percent (the first at half a
minute of compiling and a compiler on the user's machine, the second by another training), pinned threads
and one pass for each view nothing.
"""
TRIED = """## What was tried

`benchmarks/lightly_tried.py`: the encoder's forward, backward and optimiser, width {width}, {rounds} rounds,
every variant in a process of its own, one change at a time.
"""


def page(records: list[Record]) -> Iterator[str]:
    """The lines of the page."""
    every = [r for r in records if r["kind"] == "speed"]
    speed = [r for r in every if not r.get("disturbed")]
    peaks = [r for r in records if r["kind"] == "peak"]
    machines = sorted({r["machine"] for r in speed})
    versions = ", ".join(sorted({r["lightly"] for r in speed if r["lightly"]}))
    counts = {"rounds": len(every), "disturbed": len(every) - len(speed)}
    yield INTRO.format(machines="; ".join(machines), versions=versions, **counts)
    for record in (r for r in records if r["kind"] == "agree"):
        apart = max(v for k, v in record.items() if k != "kind")
        yield f"The three losses and ours agree to {apart:.0e} (relative, equal rows, float64).\n"
    yield from _steps(speed)
    yield from _others(speed)
    yield from _limits(speed, peaks)
    yield from _neighbours([r for r in records if r["kind"] == "knn"])
    yield from _tried([r for r in records if r["kind"] == "tried"])
    yield from _shares([r for r in records if r["kind"] == "profile"])


def groups(speed: list[Record]) -> dict[tuple[str, int], list[Record]]:
    """Rounds by method and width."""
    found: dict[tuple[str, int], list[Record]] = {}
    for record in speed:
        found.setdefault((record["method"], record["width"]), []).append(record)
    return dict(sorted(found.items()))


def ratio(rounds: list[Record]) -> float:
    """How many times the peer's rate, as documented, ours is."""
    return statistics.median(r["ours"] / r["peers"][PLAIN] for r in rounds)


def spread(values: list[float], digits: int = 1) -> str:
    """median (least to most)"""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _steps(speed: list[Record]) -> Iterator[str]:
    yield "## The training step\n"
    yield "| method | width | rounds | ours, images/s | lightly as documented | ours / lightly | goal: 3 |"
    yield "| --- " * 7 + "|"
    for (method, width), rounds in groups(speed).items():
        ratios = [r["ours"] / r["peers"][PLAIN] for r in rounds]
        met = "yes" if ratio(rounds) >= GOAL else "**no**"
        cells = [spread([r["ours"] for r in rounds]), spread([r["peers"][PLAIN] for r in rounds])]
        yield f"| {method} | {width} | {len(rounds)} | {' | '.join(cells)} | {spread(ratios, 2)} | {met} |"
    shares = [r["views %"] for r in speed]
    yield f"\nViews take {spread(shares)} % of our step (goal: at most {VIEWS_GOAL:.0f} %)."
    missed = [key for key, rounds in groups(speed).items() if ratio(rounds) < GOAL]
    yield (
        MISSED.format(rows=", ".join(f"{method} at width {width}" for method, width in missed))
        if missed
        else ""
    )


def _others(speed: list[Record]) -> Iterator[str]:
    yield ADDED
    yield "| method | width | lightly | images/s | ours / this | waits for views, % of its time |"
    yield "| --- " * 6 + "|"
    for (method, width), rounds in groups(speed).items():
        for name in rounds[0]["peers"]:
            there = [r for r in rounds if name in r["peers"]]
            cells = [spread([r["peers"][name] for r in there])]
            cells += [spread([r["ours"] / r["peers"][name] for r in there], 2)]
            cells += [spread([r["waiting %"][name] for r in there])]
            yield f"| {method} | {width} | {name} | {' | '.join(cells)} |"
    yield ""


def _limits(speed: list[Record], peaks: list[Record]) -> Iterator[str]:
    yield LIMIT
    kinds = ("float32", "bfloat16")
    best = {kind: max((p[kind] for p in peaks), default=float("nan")) for kind in kinds}
    if peaks:
        yield f"Square matrix products reach {best['bfloat16']:.0f} GFLOP/s in bf16, {best['float32']:.0f} in"
        yield f"float32 (best of 3 sizes in {len(peaks)} runs, both cores).\n"
    heads = ["method", "width", "encoder alone, images/s", "our step, % of that", "encoder, GFLOP/s"]
    heads += ["% of the bf16 peak", "encoder alone / lightly as documented"]
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for (method, width), rounds in groups(speed).items():
        rates = [r["limit GFLOP/s"] for r in rounds]
        cells = [spread([r["limit"] for r in rounds])]
        cells += [spread([100 * r["ours"] / r["limit"] for r in rounds])]
        cells += [spread(rates, 0), spread([100 * rate / best["bfloat16"] for rate in rates], 0)]
        cells += [spread([r["limit"] / r["peers"][PLAIN] for r in rounds], 2)]
        yield f"| {method} | {width} | {' | '.join(cells)} |"
    yield ""


def _neighbours(knn: list[Record]) -> Iterator[str]:
    if not knn:
        return
    first = knn[0]
    yield EQUAL.format(**first)
    yield "| side | k = 20 | mean | k = 200 | mean |"
    yield "| --- " * 5 + "|"
    scores: dict[str, dict[int, Record]] = {}
    for side in ("ours", "lightly", "untrained"):
        mine = scores[side] = {r["seed"]: r for r in knn if r["side"] == side}
        cells = []
        for name in ("knn@20", "knn@200"):
            values = [100 * mine[seed][name] for seed in sorted(mine)]
            cells += [" ".join(f"{v:.1f}" for v in values), f"{np.mean(values):.1f}" if values else ""]
        yield f"| {side} (seeds {', '.join(map(str, sorted(mine)))}) | {' | '.join(cells)} |"
    for name in ("knn@20", "knn@200"):
        ours, lightly = ({seed: 100 * r[name] for seed, r in scores[s].items()} for s in ("ours", "lightly"))
        middle, least, most = np.mean(list(lightly.values())), min(ours.values()), max(ours.values())
        place = "within" if least <= middle <= most else "**outside**"
        span = f"{least:.1f} to {most:.1f}"
        yield f"\n{name}: lightly's mean ({middle:.1f}) lies {place} our seeds' spread ({span})."
        gaps = [ours[seed] - lightly[seed] for seed in sorted(ours.keys() & lightly.keys())]
        if len(gaps) > 1:
            told = t_interval(gaps)
            span = f"{told.mean:+.1f} ({told.low:+.1f} to {told.high:+.1f})"
            yield f"Ours - lightly: {span}; 95 %, Student's t over {len(gaps)} seeds."
    yield ""


def _tried(tried: list[Record]) -> Iterator[str]:
    if not tried:
        return
    yield TRIED.format(rounds=len(tried), width=tried[0]["width"])
    yield "| change | images/s | of the step as it is |"
    yield "| --- | --- | --- |"
    base = "as it is"
    for name in tried[0]["rates"]:
        rates = [r["rates"][name]["images/s"] for r in tried if name in r["rates"]]
        shares = [
            r["rates"][name]["images/s"] / r["rates"][base]["images/s"] for r in tried if name in r["rates"]
        ]
        first = statistics.median(r["rates"][name]["first"] for r in tried if name in r["rates"])
        note = f" (the first step takes {first:.0f} s)" if first > 10 else ""
        yield f"| {name}{note} | {spread(rates)} | {spread(shares, 2)} |"
    yield READ


def _shares(profiles: list[Record]) -> Iterator[str]:
    if not profiles:
        return
    last = profiles[-1]
    yield f"Where the time of such a step goes (`lightly_tried.py --profile`, width {last['width']}):"
    yield "; ".join(f"{name} {share:.0f} %" for name, share in last["shares"].items()) + "."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=Path, default=Path("docs/results/lightly.jsonl"))
    wanted = parser.parse_args()
    lines = wanted.records.read_text(encoding="utf-8").splitlines()
    text = "\n".join(page([json.loads(line) for line in lines])) + "\n"
    wanted.records.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
