"""Which coder keeps what matters? Every coder on cifar10 and on omniglot's unseen characters.

    python benchmarks/hash_tables.py --part run --data .data # adds to docs/results/hash_tables.jsonl, resumes
    python benchmarks/hash_tables.py --part table            # writes docs/results/hash_tables.md

One embedding per set for all coders (`codes_sets.py`), learned without labels. cifar10 under the protocols c0
and c2, queries from its test images and training images from its train images. omniglot: coders are fitted on
characters of the background alphabets and scored on them (4 images a character ask, the 16 of the fit are
the database) and on the characters of the evaluation alphabets (4 ask the other 16), which neither the
embedding nor the coder has seen. Beside them what needs no coder: the float embedding, ranked by cosine, and
random codes. Coders with labels are given the class of every image they are fitted on; nothing is tuned.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from codes_sets import Embedded, open_embedded
from learn import machine
from learn_sets import rows_of
from lines import records
from semblance import plugins
from semblance.errors import SemblanceError
from semblance.evaluation.hashing import TIES, HashScores, Measures, score_splits
from semblance.evaluation.hashing_protocols import draw_protocol, seen_and_unseen
from semblance.evaluation.protocol import split_hash
from semblance.evaluation.statistics import difference, t_interval

BITS = (16, 32, 64, 128)
SEEDS = (0, 1, 2)
TASKS = {"cifar10-c0": "cifar10", "cifar10-c2": "cifar10", "omniglot": "omniglot"}
AT = {"cifar10-c2": (1_000,)}
FLOATS, RANDOM = "float embedding", "random codes"
Array = np.ndarray[Any, np.dtype[Any]]
Splits = dict[str, dict[str, Array]]
Record = dict[str, Any]


def splits_of(task: str, data: Embedded, parts: list[str], seed: int) -> Splits:
    """The rows that ask, teach and are asked for; for omniglot those of seen and of unseen classes."""
    if task == "omniglot":
        return dict(seen_and_unseen(data.labels, data.trained, 4, seed))
    return {"all": draw_protocol(task, data.labels, parts, seed)}


def float_ap(x: Array, labels: Array, split: dict[str, Array]) -> float:
    """Mean average precision of the embeddings ranked by cosine; equal ones, if any, by row."""
    database, queries = x[split["database"]], x[split["query"]]
    theirs, asked = labels[split["database"]], labels[split["query"]]
    ranks = np.arange(1, len(database) + 1)
    total = 0.0
    for first in range(0, len(queries), 256):
        similarity = queries[first : first + 256] @ database.T
        for row, label in zip(similarity, asked[first : first + 256], strict=True):
            hits = theirs[np.argsort(-row, kind="stable")] == label
            total += float((np.cumsum(hits)[hits] / ranks[hits]).mean())
    return total / len(queries)


def coded(name: str, bits: int, seed: int, data: Embedded, train: Array) -> tuple[Array, float]:
    """Codes of all images by the coder fitted on the rows `train`, and the seconds of the fit."""
    if name == RANDOM:
        rng = np.random.default_rng(seed)
        return rng.integers(0, 256, (len(data.x), bits // 8), dtype=np.uint8), 0.0
    module = plugins.get("codes", name)
    coder = module.Coder(plugins.configure("codes", name, {"bits": bits, "seed": seed}))
    began = time.perf_counter()
    coder.fit(data.x[train], data.labels[train] if coder.labels else None)
    seconds = time.perf_counter() - began
    return coder.encode(data.x), round(seconds, 2)


def run(root: Path, out: Path, tasks: list[str], coders: list[str]) -> None:
    """One record per task, coder, bits, seed and split; what is in the file is skipped."""
    there = {(r["task"], r["coder"], r["bits"], r["seed"]) for r in records(out)}
    for task in tasks:
        data = open_embedded(root, TASKS[task])
        parts = [row["split"] for row in rows_of(root, TASKS[task])]
        for seed in SEEDS:
            splits = splits_of(task, data, parts, seed)
            for name in (FLOATS, RANDOM, *coders):
                for bits in BITS if name != FLOATS else (0,):
                    if (task, name, bits, seed) in there:
                        continue
                    base = {"task": task, "coder": name, "bits": bits, "seed": seed}
                    for record in scored(task, name, bits, seed, data, splits):
                        write(out, base | record | {"embedding": data.about, "machine": machine()})


def scored(task: str, name: str, bits: int, seed: int, data: Embedded, splits: Splits) -> Iterator[Record]:
    """The record of each split."""
    sizes = {
        split: {part: len(rows) for part, rows in made.items()}
        | {"hash": split_hash(made, np.arange(len(data.x)))}
        for split, made in splits.items()
    }
    if name == FLOATS:
        for split, made in splits.items():
            yield {"split": split, **sizes[split], "map": round(float_ap(data.x, data.labels, made), 5)}
        return
    train = next(iter(splits.values()))["train"]
    try:
        codes, seconds = coded(name, bits, seed, data, train)
    except SemblanceError as error:
        yield {"split": "all", "refused": error.message}
        return
    measures = Measures(at=AT.get(task, ()))
    for split, scores in score_splits(codes, data.labels, splits, measures=measures, protocol=task).items():
        yield {"split": split, **sizes[split], "fit_s": seconds, **digest(scores)}


def digest(scores: HashScores) -> Record:
    """What is kept of the scores."""
    kept = {name: None if np.isnan(value) else round(value, 5) for name, value in scores.summary.items()}
    looks = {"balance": scores.codes.balance, "correlation": scores.codes.mean_correlation}
    return {**kept, "distinct": scores.codes.distinct, **{k: round(v, 4) for k, v in looks.items()}}


def write(path: Path, record: Record) -> None:
    """Append one line and show it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    shown = ("task", "coder", "bits", "seed", "split", "map", "fit_s", "refused")
    print({key: record[key] for key in shown if key in record}, flush=True)


def page(found: list[Record]) -> Iterator[str]:
    """docs/results/hash_tables.md, line by line."""
    yield "# Which coder keeps what matters?\n"
    yield f"Made by `benchmarks/hash_tables.py` on {'; '.join(sorted({r['machine'] for r in found}))}."
    yield f"mAP over the whole database, mean over {len(SEEDS)} seeds (of split and coder; c2's split is the"
    yield f"data set's own, its seeds are the coder's alone) ± half of the 95 % t-interval. {TIES}."
    yield "Coders marked * were given the labels of the images they were fitted on. Nothing was tuned; every"
    yield "coder has its defaults. The embedding, learned without labels, is small and briefly trained: its"
    yield "own mAP is the first row of each table.\n"
    yield "At 64 bits:\n"
    for task in TASKS:
        yield from verdicts(
            task, [r for r in found if r["task"] == task and r["bits"] in (0, 64) and "map" in r]
        )
    for task in TASKS:
        mine = [record for record in found if record["task"] == task and "refused" not in record]
        if mine:
            yield from section(task, mine)
            refused = {r["coder"]: r["refused"] for r in found if r["task"] == task and "refused" in r}
            for name, why in sorted(refused.items()):
                yield f"\nRefused: {name}: {why}."


def verdicts(task: str, mine: list[Record]) -> Iterator[str]:
    """The best coders of each split, and how many of those with labels beat itq, which has none."""
    for split in dict.fromkeys(record["split"] for record in mine):
        rows = [record for record in mine if record["split"] == split]
        means = {name: np.mean([r["map"] for r in rows if r["coder"] == name]) for name in order(rows)}
        told = [name for name in means if marked(name).endswith("*")]
        free = [name for name in means if name not in (*told, FLOATS, RANDOM)]
        best, taught = max(free, key=means.__getitem__), max(told, key=means.__getitem__)
        above = sum(means[name] > means["itq"] for name in told)
        yield (
            f"- {task}, {split} classes: without labels {best} {means[best]:.3f} (floats "
            f"{means[FLOATS]:.3f}); with labels {taught} {means[taught]:.3f}; {above} of {len(told)} coders "
            f"with labels lie above itq ({means['itq']:.3f})."
        )


def section(task: str, mine: list[Record]) -> Iterator[str]:
    """The tables of one task."""
    sizes = {record["split"]: record for record in mine}
    yield f"\n## {task}\n"
    for split, one in sizes.items():
        yield (
            f"{split}: {one['query']:,} queries, database of {one['database']:,}, coders fitted on "
            f"{one['train']:,}; embedding: {one['embedding']}."
        )
    for split in sizes:
        rows = [record for record in mine if record["split"] == split]
        yield f"\n### {task}, {split} classes: mAP\n"
        yield f"| coder | {' | '.join(f'{bits} bits' for bits in BITS)} |"
        yield "| --- " * (len(BITS) + 1) + "|"
        for name in order(rows):
            cells = [
                cell([r for r in rows if r["coder"] == name and r["bits"] in (bits, 0)]) for bits in BITS
            ]
            yield f"| {marked(name)} | {' | '.join(cells)} |"
        yield from against_floor(mine, split)
    if len(sizes) > 1:
        yield from side_by_side(task, mine)
    yield from details(task, mine)


def side_by_side(task: str, mine: list[Record]) -> Iterator[str]:
    """Seen and unseen classes of 64 bits, and what is lost between them."""
    yield f"\n### {task}, 64 bits: seen beside unseen\n"
    yield "| coder | seen | unseen | unseen, of the float embedding's |"
    yield "| --- | --- | --- | --- |"
    floats = np.mean([r["map"] for r in mine if r["coder"] == FLOATS and r["split"] == "unseen"])
    for name in order(mine):
        rows = [r for r in mine if r["coder"] == name and r["bits"] in (64, 0)]
        both = [[r for r in rows if r["split"] == split] for split in ("seen", "unseen")]
        share = np.mean([r["map"] for r in both[1]]) / floats if both[1] else float("nan")
        yield f"| {marked(name)} | {cell(both[0])} | {cell(both[1])} | {100 * share:.0f} % |"


def against_floor(mine: list[Record], split: str) -> Iterator[str]:
    """Each coder less ITQ at 64 bits, paired by seed: the floor that a learned coder must beat."""
    rows = {(r["coder"], r["seed"]): r["map"] for r in mine if r["bits"] == 64 and r["split"] == split}
    yield f"\n64 bits, {split}, coder less itq:\n"
    for name in order(mine):
        gaps = [rows[name, s] - rows["itq", s] for s in SEEDS if (name, s) in rows and ("itq", s) in rows]
        if gaps and name not in ("itq", RANDOM):
            yield f"- {marked(name)}: {difference(*t_interval(gaps), 'fewer than 2 seeds').text}"


def details(task: str, mine: list[Record]) -> Iterator[str]:
    """Everything beside mAP, at 64 bits, of the last split."""
    split = [record["split"] for record in mine][-1]
    extra = [f"map@{at}_{divisor}" for at in AT.get(task, ()) for divisor in ("found", "possible")]
    heads = [
        *extra,
        "precision@radius2",
        "precision@radius2_nonempty",
        "empty@radius2",
        "distinct",
        "balance",
    ]
    heads += ["correlation"]
    yield f"\n### {task}, {split} classes, 64 bits: the rest (means over seeds)\n"
    if extra:
        yield "`map@1000`: of the first 1,000, over the relevant ones found or over as many as there can be."
    yield "`radius2`: precision among the items within distance 2, a query that has none counting as 0 or"
    yield "left out; `empty`: their share. `distinct` codes of the database; `balance`: mean distance of a"
    yield "bit's share of ones from a half; `correlation`: mean over pairs of bits, without sign.\n"
    yield f"| coder | {' | '.join(heads)} |"
    yield "| --- " * (len(heads) + 1) + "|"
    for name in order(mine):
        rows = [r for r in mine if (r["coder"], r["bits"], r["split"]) == (name, 64, split)]
        if rows:
            cells = []
            for key in heads:
                values = [row[key] for row in rows if row[key] is not None]
                digits = 0 if key == "distinct" else 3
                cells.append(f"{np.mean(values):.{digits}f}" if values else "-")
            yield f"| {marked(name)} | {' | '.join(cells)} |"


def order(rows: list[Record]) -> list[str]:
    """Names of the coders: floats, without labels, with labels, random codes."""
    names = {row["coder"] for row in rows} - {FLOATS, RANDOM}
    known = sorted(names, key=lambda name: (plugins.get("codes", name).Coder.labels, name))
    return [FLOATS, *known, RANDOM]


def marked(name: str) -> str:
    """The coder's name, with * where it learns from labels."""
    if name in (FLOATS, RANDOM):
        return name
    return f"{name} *" if plugins.get("codes", name).Coder.labels else name


def cell(rows: list[Record]) -> str:
    """`0.512 ± 0.003 [0.498, 0.530]`; floats have no ties."""
    if not rows:
        return "-"
    interval = t_interval([row["map"] for row in rows])
    half = "" if interval.high is None else f" ± {interval.high - interval.mean:.3f}"
    text = f"{interval.mean:.3f}{half}"
    if "map_pessimistic" not in rows[0]:
        return text
    ends = (np.mean([row[f"map_{end}"] for row in rows]) for end in ("pessimistic", "optimistic"))
    return f"{text} [{', '.join(f'{end:.3f}' for end in ends)}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=["run", "table"], required=True)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/hash_tables.jsonl"))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--coders", nargs="+", default=plugins.names("codes"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    if wanted.part == "run":
        run(wanted.data, wanted.out, wanted.tasks, wanted.coders)
        return
    text = "\n".join(page(records(wanted.out))) + "\n"
    wanted.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
