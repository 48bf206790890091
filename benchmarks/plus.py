"""What `cbswr`, variant `plus`, is made of, and whether it gets ahead of SME.

    python benchmarks/plus.py run --part 0/2     # adds to docs/results/plus.jsonl, resumes; 1/2 beside it
    python benchmarks/plus.py table              # writes docs/results/plus.md

`score`: SME and `plus` on the four sets and in the two settings of `benchmarks/learn.py`, three seeds, on
images that no choice was made on. `validation`: one knob of `plus` changed at a time, on validation
classes of the two sets whose classes are unseen, with the images of those classes out of the training.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learn import machine, one_run, pretrained, scored, write
from learn_sets import SETS, open_set
from lines import records
from semblance.evaluation.statistics import paired_class_bootstrap, t_interval
from semblance.training.embed import embed

PLUS = {
    "variant": "plus",
    "dim": 128,
    "whiten": False,
    "levels": False,
    "plain": 0.0,
    "beneath": 0.0,
    "doubt": 0.0,
}
SCORE: dict[str, tuple[str, dict[str, Any]]] = {
    "SME": ("sme", {}),
    "plus": ("cbswr", PLUS),
    "the default": ("cbswr", {"variant": "plus"}),
}
TITLES = {
    "plus": "`plus` without what it got later: the loss alone",
    "the default": "`plus` as it is: plain views, measurements and all stages of the encoder besides",
}
OLD = {**PLUS, "spare": "never"}
KNOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "SME": ("sme", {}),
    "fixed": ("cbswr", {"variant": "fixed"}),
    "plus": ("cbswr", PLUS),
    "without decorrelation": ("cbswr", {**PLUS, "decorrelate": 0.0}),
    "decorrelate 0.03": ("cbswr", {**PLUS, "decorrelate": 0.03}),
    "decorrelate 0.3": ("cbswr", {**PLUS, "decorrelate": 0.3}),
    "clusters trusted from the start": ("cbswr", OLD),
    "the same, own cluster spared": ("cbswr", {**PLUS, "spare": "all"}),
    "the same, centroids kept over batches": ("cbswr", {**OLD, "memory": 0.9}),
    "the same, soft assignment": ("cbswr", {**OLD, "assign": "soft"}),
    "the same, assigned by a teacher": ("cbswr", {**OLD, "teacher": 0.99}),
    "no clusters at all": ("cbswr", {**OLD, "central": 0.0, "rim": 0.0}),
    "images drawn from clusters": ("cbswr", {**PLUS, "rebuild": "pixels"}),
    "features drawn from clusters": ("cbswr", {**PLUS, "rebuild": "features"}),
    "tau 0.2": ("cbswr", {**PLUS, "tau": 0.2}),
    "tau 0.07": ("cbswr", {**PLUS, "tau": 0.07}),
}
TUNED = ("omniglot", "cub100")
NAMES = {"a": "from scratch", "b": "pretrained"}
Key = tuple[int, str, str, str, str]


def jobs(seeds: int) -> list[Key]:
    """(seed, role, set, setting, row), seed by seed, the scores first."""
    found = [(s, "score", n, x, row) for s in range(seeds) for n in SETS for x in "ab" for row in SCORE]
    return found + [
        (s, "validation", n, x, row) for s in range(seeds) for row in KNOBS for n in TUNED for x in "ab"
    ]


def run(root: Path, out: Path, seeds: int, part: str, roles: list[str]) -> None:
    """Take every job that is neither done nor another part's."""
    torch.set_num_threads(1)
    mine, parts = map(int, part.split("/"))
    wanted = [job for job in jobs(seeds) if job[1] in roles]
    for index, (seed, role, name, setting, row) in enumerate(wanted):
        if index % parts != mine or (seed, role, name, setting, row) in done(out):
            continue
        data = open_set(root, name)
        objective, options = (SCORE if role == "score" else KNOBS)[row]
        start = pretrained(root, name) if setting == "b" else None
        pixels = data.train if role == "score" else data.tuning
        learner, history, seconds = one_run(data, objective, options, start, seed, pixels)
        asked = (data.score, data.labels) if role == "score" else (data.validation, data.validation_labels)
        rows = embed(learner.encoder, learner.head, asked[0], data.size)
        found = scored(rows, asked[1])
        base = {"seed": seed, "role": role, "set": name, "setting": setting, "row": row}
        base |= {"split": data.split, "machine": machine(), "epochs": data.epochs, "options": options}
        health = {**history[-1]["health"], "trust": history[-1]["stats"].get("trust")}
        write(out, {**base, **found, "seconds": round(seconds, 1), "health": health})


def done(path: Path) -> set[Key]:
    """What is in the result file."""
    return {(r["seed"], r["role"], r["set"], r["setting"], r["row"]) for r in records(path)}


def page(found: list[dict[str, Any]]) -> Iterable[str]:
    """docs/results/plus.md, line by line."""
    yield "# CBSwR `plus` against SME, and what it is made of\n"
    yield f"Made by `benchmarks/plus.py` on {'; '.join(sorted({r['machine'] for r in found}))}."
    yield "Encoder, views, epochs, batch and optimiser as in `benchmarks/learn.py`; last epoch; no label"
    yield "in training; bfloat16 where the processor has it. R@1 and MAP@R are means over classes; ±: 95 %,"
    yield "Student's t over seeds. Differences: paired bootstrap over classes of scores averaged over seeds."
    yield "\n## On images that no choice was made on"
    for row, title in TITLES.items():
        if any(r["row"] == row for r in found):
            yield from _against_sme(found, row, title)
    yield from _knobs(found)


def _against_sme(found: list[dict[str, Any]], row: str, title: str) -> Iterable[str]:
    yield f"\n### {title}\n"
    yield "| set | start | seeds | SME R@1 | plus R@1 | difference | SME MAP@R | plus MAP@R | difference |"
    yield "| --- " * 9 + "|"
    ahead: dict[str, list[str]] = defaultdict(list)
    for name in SETS:
        for setting in "ab":
            sme, plus = (pick(found, "score", name, setting, one) for one in ("SME", row))
            if not sme or not plus:
                continue
            cells = []
            for metric in ("recall@1", "map@r"):
                a, b = (np.mean([r["by_class"][metric] for r in runs], 0) for runs in (plus, sme))
                gap = paired_class_bootstrap(a, b, np.arange(len(a)))
                cells += [mean(sme, metric), mean(plus, metric), gap.text]
                if gap.significant and gap.mean > 0 and metric == "recall@1":
                    ahead[setting].append(name)
            seeds = min(len(sme), len(plus))
            yield f"| {name} | {NAMES[setting]} | {seeds} | {' | '.join(cells)} |"
    for setting, names in sorted(ahead.items()):
        count = f"{len(names)} of {len(SETS)} ({', '.join(names)})"
        yield f"\nSignificantly ahead in R@1, {NAMES[setting]}: {count}."


def _knobs(found: list[dict[str, Any]]) -> Iterable[str]:
    yield "\n## One knob at a time, on validation classes\n"
    yield "R@1, and the mean gain over SME in points. Trust: how far the clusters were trusted in the last"
    yield "epoch, 0 to 1.\n"
    columns = [(name, setting) for name in TUNED for setting in "ab"]
    titles = [f"{name}, {NAMES[setting]}" for name, setting in columns]
    yield f"| row | {' | '.join(titles)} | gain | trust | runs |"
    yield "| --- " * (len(columns) + 4) + "|"
    base = [pick(found, "validation", *column, "SME") for column in columns]
    for row in KNOBS:
        runs_of = [pick(found, "validation", *column, row) for column in columns]
        if not all(runs_of):
            continue
        gains = [
            100 * (value(runs) - value(same(sme, runs))) for runs, sme in zip(runs_of, base, strict=True)
        ]
        trusts = [r["health"]["trust"] for runs in runs_of for r in runs]
        trust = "-" if trusts[0] is None else f"{np.mean(trusts):.2f}"
        cells = [mean(runs, "recall@1") for runs in runs_of]
        yield f"| {row} | {' | '.join(cells)} | {np.mean(gains):+.1f} | {trust} | {sum(map(len, runs_of))} |"
    yield "\nHow to read it: `plus` contrasts instances with a decoupled attraction and decorrelates an"
    yield "embedding's numbers; what clusters say reaches it as far as they are trusted. In trainings this"
    yield "short they earn little: the gain is not theirs (`no clusters at all`), but trusting them from the"
    yield "start costs some of it. One seed differs from another by about two points."
    yield "\nSeconds are not compared: other work ran beside some of these trainings."


def pick(found: list[dict[str, Any]], role: str, name: str, setting: str, row: str) -> list[dict[str, Any]]:
    """The runs of one cell."""
    wanted = (role, name, setting, row)
    return [r for r in found if (r["role"], r["set"], r["setting"], r["row"]) == wanted]


def same(runs: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of `runs` those with the seeds of `others`."""
    seeds = {other["seed"] for other in others}
    return [run for run in runs if run["seed"] in seeds]


def value(runs: list[dict[str, Any]], metric: str = "recall@1") -> float:
    """Mean over seeds of the mean over classes."""
    return float(
        np.mean([r["scores"].get(f"{metric}_balanced", r["scores"][metric]) for r in runs] or [np.nan])
    )


def mean(runs: list[dict[str, Any]], metric: str) -> str:
    """The same in points, with its interval."""
    interval = t_interval([float(r["scores"].get(f"{metric}_balanced", r["scores"][metric])) for r in runs])
    half = "" if interval.high is None else f" ± {100 * (interval.high - interval.mean):.1f}"
    return f"{100 * interval.mean:.1f}{half}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["run", "table"])
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/plus.jsonl"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--roles", nargs="*", default=["score", "validation"])
    wanted = parser.parse_args()
    if wanted.verb == "run":
        run(wanted.data, wanted.out, wanted.seeds, wanted.part, wanted.roles)
        return
    text = "\n".join(page(records(wanted.out))) + "\n"
    wanted.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
