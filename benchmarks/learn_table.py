"""The tables of `benchmarks/learn.py`, from docs/results/learn.jsonl to docs/results/learn.md.

    python benchmarks/learn_table.py

Means over seeds with 95 % t-intervals; differences by a paired bootstrap over test classes, of scores
averaged over seeds; "not significant" where the interval covers 0.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from semblance.evaluation.statistics import paired_class_bootstrap, t_interval

METRICS = ("recall@1", "map@r", "r-precision", "ami", "nmi", "knn@20", "knn@200")
ORDER = (
    "raw pixels",
    "PCA of pixels",
    "encoder before training",
    "only L_rim",
    "SME",
    "CBS released",
    "CBSwR released",
    "CBSwR paper",
    "CBSwR fixed",
)
SETTINGS = {"a": "from scratch", "b": "from an encoder trained with labels on other sets"}
AGAINST = {"SME": "CBSwR fixed", "CBS released": "CBSwR fixed", "encoder before training": "CBSwR fixed"}
Records = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("docs/results/learn.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/learn.md"))
    parser.add_argument("--ablation", type=Path, default=Path("docs/results/ablation.jsonl"))
    wanted = parser.parse_args()
    records = [record for record in read(wanted.results) if record["row"] in ORDER]
    text = "\n".join([*page(records), *ablation(read(wanted.ablation))]) + "\n"
    wanted.out.write_text(text, encoding="utf-8")
    print(text)


def read(path: Path) -> Records:
    """The runs of a result file, the last of each seed, set, setting and row."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [record for record in map(json.loads, lines) if record["scores"]]
    return list({(r["seed"], r["set"], r["setting"], r["row"]): r for r in found}.values())


def ablation(records: Records) -> Iterable[str]:
    """What stands between `fixed` and SME: every arm against both, in one run on one machine."""
    if not records:
        return
    machines = sorted({record["machine"] for record in records})
    yield "\n# What stands between `fixed` and SME\n"
    yield 'Made by `benchmarks/learn.py run --out docs/results/ablation.jsonl --arms SME "CBSwR fixed"` and'
    yield f"`--arms ablation`, on {'; '.join(machines)}. Each arm changes one thing of `fixed`;"
    yield "differences in points, with 95 % intervals of a paired bootstrap over classes, of scores"
    yield "averaged over seeds."
    groups: dict[tuple[str, str], dict[str, Records]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        groups[record["set"], record["setting"]][record["row"]].append(record)
    for (name, setting), rows in sorted(groups.items()):
        arms = [row for row in rows if row == "SME" or "fixed" in row]
        if "SME" not in arms or "CBSwR fixed" not in arms:
            continue
        yield f"\n## {name}, {SETTINGS[setting]}\n"
        yield "| arm | seeds | R@1 | MAP@R | R@1 less SME's | MAP@R less SME's | MAP@R less `fixed`'s |"
        yield "| --- " * 7 + "|"
        for arm in sorted(arms, key=lambda arm: (arm != "SME", arm != "CBSwR fixed", arm)):
            seeds = {run["seed"] for run in rows[arm]}
            means = [100 * np.mean(per_class(rows[arm], metric)) for metric in ("recall@1", "map@r")]
            cells = [f"{mean:.1f}" for mean in means]
            pairs = (("SME", "recall@1"), ("SME", "map@r"), ("CBSwR fixed", "map@r"))
            cells += [difference(rows, arm, *pair) for pair in pairs]
            yield f"| {arm} | {len(seeds)} | {' | '.join(cells)} |"


def difference(rows: dict[str, Records], arm: str, against: str, metric: str) -> str:
    """`arm` less `against` over the seeds that both have."""
    if arm == against:
        return "-"
    shared = {run["seed"] for run in rows[arm]} & {run["seed"] for run in rows[against]}
    if not shared:
        return "-"
    a, b = (per_class([r for r in rows[row] if r["seed"] in shared], metric) for row in (arm, against))
    return paired_class_bootstrap(100 * a, 100 * b, np.arange(len(a))).text


def page(records: Records) -> Iterable[str]:
    """The whole page, line by line."""
    machines = sorted({record["machine"] for record in records})
    yield "# Does it learn?"
    yield ""
    yield f"Made by `benchmarks/learn.py` and `benchmarks/learn_table.py` on {'; '.join(machines)}."
    yield "One encoder (ResNet-10, 16 wide, 32 px), AdamW 2e-3, warm-up and cosine, batch 64, the last epoch."
    yield "The `_balanced` mean over classes is shown (cub100, omniglot and cifar10 are balanced anyway)."
    yield "Intervals: 95 %, Student's t over seeds. The rows without training have no seed."
    groups: dict[tuple[str, str], dict[str, Records]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        groups[record["set"], record["setting"]][record["row"]].append(record)
    yield from summary(groups)
    for (name, setting), rows in sorted(groups.items()):
        some = next(iter(rows.values()))[0]
        yield f"\n## {name}, {SETTINGS[setting]}\n"
        yield f"{some['images']:,} images, {some['epochs']} epochs, split {some['split']}.\n"
        yield f"| row | seeds | {' | '.join(METRICS)} | clusters used |"
        yield "| --- " * (len(METRICS) + 3) + "|"
        for row in [row for row in ORDER if row in rows] + sorted(set(rows) - set(ORDER)):
            yield line(row, rows[row])
        yield ""
        yield from differences(rows)


def line(row: str, runs: Records) -> str:
    """One row of a set's table."""
    cells = []
    for metric in METRICS:
        values = [run["scores"].get(f"{metric}_balanced", run["scores"].get(metric)) for run in runs]
        interval = t_interval([float(value) for value in values if value is not None])
        half = "" if interval.high is None else f" ± {100 * (interval.high - interval.mean):.1f}"
        cells.append(f"{100 * interval.mean:.1f}{half}")
    used = [run["health"]["used_clusters"] for run in runs if "used_clusters" in run.get("health", {})]
    shown = f"{np.mean(used):.2f} K" if used else "-"
    return f"| {row} | {len(runs)} | {' | '.join(cells)} | {shown} |"


def per_class(runs: Records, metric: str) -> Any:
    """Scores per class, averaged over seeds."""
    return np.mean([run["by_class"][metric] for run in runs], axis=0)


def differences(rows: dict[str, Records]) -> Iterable[str]:
    """`CBSwR fixed` against SME, CBS and the start, and every row against SME, in words."""
    for metric in ("recall@1", "map@r"):
        for against, row in AGAINST.items():
            if against in rows and row in rows:
                a, b = per_class(rows[row], metric), per_class(rows[against], metric)
                text = paired_class_bootstrap(a, b, np.arange(len(a))).text
                yield f"- {metric}, {row} - {against}: {text}"


def summary(groups: dict[tuple[str, str], dict[str, Records]]) -> Iterable[str]:
    """R@1 of every row on every set, and whether the paper's order holds."""
    columns = sorted(groups)
    yield "\n## R@1 at a glance\n"
    yield f"| row | {' | '.join(f'{name} ({setting})' for name, setting in columns)} |"
    yield "| --- " * (len(columns) + 1) + "|"
    rows = [row for row in ORDER if any(row in groups[column] for column in columns)]
    extra = sorted({row for column in columns for row in groups[column]} - set(ORDER))
    for row in rows + extra:
        cells = []
        for column in columns:
            runs = groups[column].get(row, [])
            values = [run["scores"].get("recall@1_balanced", run["scores"]["recall@1"]) for run in runs]
            cells.append(f"{100 * np.mean(values):.1f}" if values else "-")
        yield f"| {row} | {' | '.join(cells)} |"
    yield "\n(a) from scratch, (b) from the pretrained encoder.\n"
    yield "The paper's order is only L_rim << SME < CBS < CBSwR. Here (R@1, `released`):\n"
    for name, setting in columns:
        rows_here = groups[name, setting]
        if all(row in rows_here for row in ("only L_rim", "SME", "CBS released", "CBSwR released")):
            steps = [("only L_rim", "SME"), ("SME", "CBS released"), ("CBS released", "CBSwR released")]
            said = []
            for low, high in steps:
                a, b = per_class(rows_here[high], "recall@1"), per_class(rows_here[low], "recall@1")
                d = paired_class_bootstrap(a, b, np.arange(len(a)))
                verdict = ("yes" if d.mean > 0 else "no, reversed") if d.significant else "not significant"
                said.append(f"{low} < {high}: {verdict} ({100 * d.mean:+.1f})")
            yield f"- {name} ({setting}): {'; '.join(said)}"


if __name__ == "__main__":
    main()
