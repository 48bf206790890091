"""Writes docs/results/sweep.md from what `benchmarks/sweep.py` measured.

python benchmarks/sweep_table.py
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lines import records
from semblance.evaluation.statistics import t_interval
from sweep import BASELINES, ENCODER, VIEWS
from sweep_arms import ARMS, CHOSEN, DEFAULT

Record = dict[str, Any]
MARGINS = {
    "simclr": 0.02,
    "simclr, all levels": 0.02,
    "simclr as usual": 0.02,
    "sme": 0.0,
    "cbswr plus, last stage alone": 0.0,
    "cbswr plus, last stage and own head": 0.0,
    "PCA of pixels": 0.10,
    "whitened pixels": 0.10,
    "untrained encoder": 0.10,
    "untrained encoder, all levels": 0.10,
}
"""By how much the default was expected to be ahead."""
OTHERS = ("map@r_balanced", "ami")
HEAD = """One encoder (ResNet-{depth}, width {width}), {size} px, the views of each kind of image, the
optimiser that suits each objective better; its first layer starts from principal components of patches. Last
epoch; no label in training. Minutes are those of one core: how many epochs they are follows from the pace
of each objective, measured alone on the machine.

Scores: where the classes that score are unseen (omniglot, cub100) R@1, where they are seen the vote of the
20 nearest training images, both as means over classes, in percent; ±: 95 %, Student's t over seeds.
"""
NOTE = """
`simclr`: decoupled, with our optimiser, its best; as usual: NT-Xent with AdamW. The default's embedding is
read off all levels of the encoder and whitened; rivals are read as they are published, by their last layer
alone. What part of the gain is whose: `simclr, all levels` is read as the default is; `last stage alone` is
the default as it was, with nothing asked of the earlier stages and clusters trusted from the first agreement
on (`beneath` 0, `doubt` 0), `own head` that by the head that it was trained with; `whitened pixels` are
averaged to 8 x 8 and treated alike."""


def page(found: Sequence[Record]) -> Iterator[str]:
    """docs/results/sweep.md, line by line."""
    every = [r for r in found if r["kind"] == "run"]
    usual = min((r["minutes"] for r in every), default=0.0)
    runs = [r for r in every if r["minutes"] == usual]
    longer = [r for r in every if r["minutes"] > usual]
    found = [r for r in found if r["kind"] != "run" or r["minutes"] == usual]
    tuned = [r for r in found if r["kind"] == "tune"]
    machines = "; ".join(sorted({r["machine"] for r in runs or tuned}))
    yield "# Which objective learns most in the same minutes?\n"
    yield f"Made by `benchmarks/sweep.py` and `benchmarks/sweep_table.py` on {machines}."
    yield HEAD.format(**ENCODER)
    if runs:
        yield from _sweep(found, runs)
    else:
        yield "The sweep itself has not been run yet; what follows is how its knobs are chosen."
    for minutes in sorted({r["minutes"] for r in longer}):
        yield from _longer(found, [r for r in longer if r["minutes"] == minutes], runs)
    yield "\n## How the knobs were chosen\n"
    yield f"Validation classes (omniglot, cub100) or images only, {_minutes(tuned)} a training, one seed:"
    yield "R@1, or, where classes are seen, the vote of the 20 nearest, of each image among the others, mean"
    yield "over classes. An objective's best mean goes into the sweep, that of the most minutes if several."
    for minutes in sorted({r["minutes"] for r in tuned}):
        yield f"\n### {minutes:g} minute{'s' * (minutes > 1)}\n"
        yield from _tuning([r for r in tuned if r["minutes"] == minutes])
    yield "\n**Bold**: in the sweep. The rows with AdamW are from a random first layer."
    yield "\nImages a second on one thread, two views each, alone on the machine:\n"
    paces = {r["arm"]: r["images/s"] for r in found if r["kind"] == "pace"}
    yield "; ".join(f"{name} {paces[name]:,.0f}" for name in ARMS if name in paces) + "."
    notes = {r["arm"]: r["note"] for r in found if r["kind"] == "pace" and "note" in r}
    yield from (f"\n`{name}`: {note}." for name, note in notes.items())


def _minutes(runs: Sequence[Record]) -> str:
    times = sorted({r["minutes"] for r in runs})
    return " and ".join(f"{time:g}" for time in times) + (" minute" if times == [1.0] else " minutes")


def _sweep(found: Sequence[Record], runs: Sequence[Record]) -> Iterator[str]:
    yield f"## The same {_minutes(runs)} a training\n"
    yield "| | " + " | ".join(VIEWS) + " | mean |"
    yield "| --- " * (len(VIEWS) + 2) + "|"
    for name in BASELINES:
        cells = [_one(found, name, s) for s in VIEWS]
        yield (
            f"| {name} | " + " | ".join(f"{100 * x:.1f}" for x in cells) + f" | {100 * np.mean(cells):.1f} |"
        )
    for objective, arm in CHOSEN.items():
        values = {s: _seeds(runs, arm, s) for s in VIEWS}
        if not any(values.values()):
            continue
        cells = [_interval(list(values[s].values())) for s in VIEWS]
        whole = all(values.values())
        mean = f"{100 * np.mean([np.mean(list(v.values())) for v in values.values()]):.1f}" if whole else "-"
        shown = f"**{objective}**" if objective == DEFAULT else objective
        yield f"| {shown} | " + " | ".join(cells) + f" | {mean} |"
    seeds = {len(_seeds(runs, arm, s)) for arm in CHOSEN.values() for s in VIEWS} - {0}
    yield NOTE
    yield f"Seeds: {', '.join(map(str, sorted(seeds)))} a cell. **Bold**: the default. -: not run yet.\n"
    yield from _ahead(found, runs)
    yield "\nMAP@R and AMI (k-means with as many clusters as classes) of the same embeddings:\n"
    yield "| | " + " | ".join(VIEWS) + " |"
    yield "| --- " * (len(VIEWS) + 1) + "|"
    for objective, arm in [*((name, name) for name in BASELINES), *CHOSEN.items()]:
        cells = []
        for s in VIEWS:
            mine = [r for r in found if r["kind"] in ("run", "baseline") and (r["arm"], r["set"]) == (arm, s)]
            means = [f"{100 * np.mean([r['scores'][key] for r in mine]):.1f}" for key in OTHERS if mine]
            cells.append(" / ".join(means) or "-")
        if set(cells) != {"-"}:
            yield f"| {objective} | " + " | ".join(cells) + " |"


def _longer(found: Sequence[Record], runs: Sequence[Record], usual: Sequence[Record]) -> Iterator[str]:
    """The sets whose answer was in doubt, with more minutes."""
    sets = [s for s in VIEWS if any(r["set"] == s for r in runs)]
    yield f"\n## {_minutes(runs)} a training\n"
    yield f"Where the answer of {_minutes(usual)} was in doubt. Leads in points with their 95 % interval.\n"
    yield "| | " + " | ".join(sets) + " |"
    yield "| --- " * (len(sets) + 1) + "|"
    arms = {objective: arm for objective, arm in CHOSEN.items() if any(r["arm"] == arm for r in runs)}
    for objective, arm in arms.items():
        cells = [_interval(list(_seeds(runs, arm, s).values())) for s in sets]
        yield f"| {f'**{objective}**' if objective == DEFAULT else objective} | " + " | ".join(cells) + " |"
    for rival in MARGINS:
        if rival in arms or rival in BASELINES:
            yield f"| ahead of {rival} | " + " | ".join(_gap(found, runs, rival, s)[0] for s in sets) + " |"


def _gap(found: Sequence[Record], runs: Sequence[Record], rival: str, where: str) -> tuple[str, float]:
    """How far the default is ahead of a rival on a set: to show, and in points (NaN where not run)."""
    ours = _seeds(runs, CHOSEN[DEFAULT], where)
    if rival in CHOSEN:
        theirs = _seeds(runs, CHOSEN[rival], where)
    else:
        theirs = dict.fromkeys(ours, _one(found, rival, where))
    gaps = [100 * (x - theirs[seed]) for seed, x in ours.items() if seed in theirs]
    if not gaps:
        return "-", float("nan")
    one = t_interval(gaps)
    unsure = one.low is not None and one.high is not None and one.low <= 0 <= one.high
    return f"{one.mean:+.1f}" + _span(one.low, one.high) + (" n.s." if unsure else ""), one.mean


def _ahead(found: Sequence[Record], runs: Sequence[Record]) -> Iterator[str]:
    """How far the default is ahead of what it was expected to beat."""
    yield "How far the default is ahead, in points, with the 95 % interval over seeds:\n"
    yield "| ahead of | " + " | ".join(VIEWS) + " | asked for | reached on |"
    yield "| --- " * (len(VIEWS) + 3) + "|"
    for rival, margin in MARGINS.items():
        gaps = [_gap(found, runs, rival, s) for s in VIEWS]
        cells = [shown for shown, _ in gaps]
        reached = sum(mean >= 100 * margin for _, mean in gaps)
        yield (
            f"| {rival} | "
            + " | ".join(cells)
            + f" | {100 * margin:.0f} points | {reached} of {len(VIEWS)} |"
        )
    yield "\nn.s.: not significant."


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None else f" [{low:+.1f}, {high:+.1f}]"


def _one(found: Sequence[Record], name: str, where: str) -> float:
    (record,) = (r for r in found if r["kind"] == "baseline" and (r["arm"], r["set"]) == (name, where))
    return float(record["main"])


def _seeds(runs: Sequence[Record], arm: str, where: str) -> dict[int, float]:
    return {r["seed"]: r["main"] for r in runs if (r["arm"], r["set"]) == (arm, where)}


def _interval(values: Sequence[float]) -> str:
    if not values:
        return "-"
    one = t_interval([100 * value for value in values])
    return f"{one.mean:.1f}" + ("" if one.low is None else f" ± {one.mean - one.low:.1f}")


def _tuning(tuned: Sequence[Record]) -> Iterator[str]:
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for r in tuned:
        table[r["arm"]][r["set"]] = 100 * r["main"]
    sets = [s for s in VIEWS if any(s in row for row in table.values())]
    yield "| arm | options | batch | optimiser | " + " | ".join(sets) + " | mean |"
    yield "| --- " * (len(sets) + 5) + "|"
    whole = {name: row for name, row in table.items() if len(row) == len(sets)}
    for name in sorted(whole, key=lambda name: -float(np.mean(list(whole[name].values())))):
        row, arm = whole[name], ARMS[name]
        options = ", ".join(f"{k} {v}" for k, v in arm.options.items()) or "-"
        shown = f"**{name}**" if name in CHOSEN.values() else name
        cells = " | ".join(f"{row[s]:.1f}" for s in sets)
        yield (
            f"| {shown} | {arm.objective}: {options} | {arm.batch} | {arm.optimiser} | {cells} "
            f"| {np.mean(list(row.values())):.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/sweep.md"))
    wanted = parser.parse_args()
    lines = list(page(records(wanted.out.with_suffix(".jsonl"))))
    wanted.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
