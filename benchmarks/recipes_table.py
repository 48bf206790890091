"""What the small recipes score: docs/results/recipes.jsonl -> docs/results/recipes.md.

for name in cub100 omniglot clothing-small cifar10-10k galaxyzoo1-small; do
    semblance bench recipes/$name.toml --seeds 3 --out docs/results/recipes.jsonl
done
python benchmarks/recipes_table.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semblance.collection.bench import summary
from semblance.collection.results import read_results

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "recipes.jsonl"
METRICS = ("recall@1", "map@r", "nmi", "ami", "knn@20", "knn@200")
HEADS = {
    "recall@1": "R@1",
    "map@r": "MAP@R",
    "nmi": "NMI",
    "ami": "AMI",
    "knn@20": "kNN@20",
    "knn@200": "kNN@200",
}


def by_recipe(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Recipe -> its rows under the hash that was added last."""
    last = {row["recipe"]: row["hash"] for row in rows}
    return {name: [row for row in rows if row["hash"] == one] for name, one in sorted(last.items())}


def shown(score: dict[str, Any]) -> str:
    """A mean in per cent, with half its interval where there is one."""
    mean = f"{100 * score['mean']:.1f}"
    return mean if score["high"] is None else f"{mean} ± {100 * (score['high'] - score['mean']):.1f}"


def lines_of(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """The table's lines of one recipe, a metric each; means over classes where the recipe asks for them."""
    table = summary(rows)["rows"]
    kinds = [metric for metric in METRICS if metric in table["learned"]]
    if (
        rows[0]["settings"].get("bank") is None
    ):  # retrieval: each image's vote of all others is beside the point
        kinds = [metric for metric in kinds if not metric.startswith("knn")]
    spent = sum(row["seconds"]["processor"] for row in rows) / len(rows)
    made = []
    for metric in kinds:
        balanced = f"{metric}_balanced" in table["learned"]
        key = f"{metric}_balanced" if balanced else metric
        cells = [
            shown(table[row][key])
            for row in ("raw pixels", "whitened pixels", "untrained encoder", "learned")
        ]
        title = HEADS[metric] + (", mean over classes" if balanced else "")
        made.append(f"| {name} | {title} | {len(rows)} | {' | '.join(cells)} | {spent:.0f} |")
    return made


def main() -> None:
    """Write the page."""
    groups = by_recipe(read_results(RESULTS))
    machine = next(iter(groups.values()))[-1]["machine"]
    versions = next(iter(groups.values()))[-1]["versions"]
    lines = [line for name, rows in groups.items() for line in lines_of(name, rows)]
    page = f"""# What the small recipes score

Made by `semblance bench recipes/NAME.toml --seeds 3 --out docs/results/recipes.jsonl` and
`benchmarks/recipes_table.py`, on {machine["processor"]}, {machine["threads"]} thread, {machine["precision"]},
torch {versions["torch"]}. Per cent; ±: half of a 95 % interval, Student's t over the seeds, where there are
several. No label in training, last epoch, nothing tuned on what is scored. omniglot and cub100 are scored on
classes that training never saw, the others on other images of the same classes. The last column is
processor time of learning and scoring together: other work ran beside, so the clock says nothing.

| recipe | score | seeds | raw pixels | whitened pixels | untrained encoder | learned | seconds a seed |
| --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}

One to two minutes of learning with a 16-wide ResNet-10 at 32 px: what a checkout is tried with, not what the
method can do. Where `learned` is not ahead of a row that nobody has to learn, it is not.
"""
    RESULTS.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
