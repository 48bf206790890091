"""`semblance bench`: one experiment from a file, scored, as a line of a results file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semblance.amounts import seconds_text
from semblance.cli import options, screen, watch
from semblance.cli.evaluate import print_scores
from semblance.errors import ConfigError

if TYPE_CHECKING:
    from semblance.collection.bench import Task

__all__ = ["command", "print_summary"]

SHOWN = ("recall@1", "map@r", "nmi", "ami", "knn@20")
"""What the table shows of the protocol `retrieval`; the results file has the rest."""


@click.command(
    cls=options.Verb,
    epilog="\b\nExamples:\n  semblance bench recipes/cub100.toml --seeds 3"
    "\n  semblance bench recipes/cbswr-cub200.toml --data birds/ --dry-run",
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="The folder of images.  [the recipe's]")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Seeds 0 to N - 1.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("bench/results.jsonl"),
    show_default=True,
    help="The results; a line is added for each seed.",
)
@click.option("--images", type=click.IntRange(2), help="At most N images to learn from and N to score.")
@click.option("--weights", type=click.Path(path_type=Path), help="A safetensors file.  [the recipe's]")
@click.option("--size", type=int, help="Side in pixels.  [the recipe's]")
@click.option("--epochs", type=int, help="How often to see every image.  [the recipe's]")
@click.option("--batch", type=int, help="Images in a step.  [the recipe's]")
@click.option("--device", help="cpu, cuda, cuda:1, mps or auto.  [auto]")
@click.option("--precision", type=click.Choice(["auto", "32", "bf16"]), help="As for learn.  [auto]")
@click.option("--threads", type=int, help="Threads that decode.  [one for each core]")
@click.option("--dry-run", is_flag=True, help="Say what it would do and what is missing, and do nothing.")
@options.json_option
@options.verbose_option
def command(
    recipe: Path,
    data: Path | None,
    seeds: int,
    out: Path,
    images: int | None,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    **changes: Any,
) -> None:
    """Run the experiment that RECIPE describes: learn, score what it holds back, add the scores to a file."""
    from semblance.collection import bench
    from semblance.collection.recipe import read_recipe

    task = bench.prepare(read_recipe(recipe, {**changes, **_dotted()}), data, images)
    done = bench.results_of(task, out, seeds)
    left = [seed for seed in range(seeds) if seed not in done]
    if dry_run:
        _foretell(task, out, left, seeds, as_json)
        return
    for seed in left:
        screen.say(f"{task.recipe.name}, seed {seed}: {_images(task)}")
        with watch.Watch(_metrics(task, out)) as watched:
            done[seed] = bench.run_seed(task, out, seed, watched)
    rows = [done[seed] for seed in range(seeds)]
    result = bench.summary(rows)
    if as_json:
        screen.print_json({"recipe": task.recipe.name, "hash": task.hash, "results": out, **result})
        return
    click.echo(f"{task.recipe.name} ({task.hash}), {_images(task)}")
    print_summary(result)
    click.echo(f"{watch.shown(out)}  ·  {watch.shown(task.collection(out))}")


def print_summary(result: dict[str, Any]) -> None:
    """Print the means and, of several seeds, half the width of their intervals."""
    rows = result["rows"]
    every = [name for name in next(iter(rows.values())) if not name.endswith("_balanced")]
    metrics = [name for name in SHOWN if name in every] or every
    print_scores({name: {metric: _cell(row, metric) for metric in metrics} for name, row in rows.items()})
    if any(f"{metric}_balanced" in next(iter(rows.values())) for metric in metrics):
        click.echo("means over classes")
    if len(result["seeds"]) > 1:
        click.echo(
            f"± half a {result['level'] * 100:g} % interval (Student's t) over {len(result['seeds'])} seeds"
        )


def _cell(row: dict[str, Any], metric: str) -> Any:
    score = row.get(f"{metric}_balanced") or row[metric]
    if score["high"] is None:
        return score["mean"]
    return f"{score['mean']:.4f} ± {score['high'] - score['mean']:.4f}"


def _dotted() -> dict[str, dict[str, Any]]:
    found = options.dotted()
    if "coder_options" in found:
        raise ConfigError("a recipe has no coder", "known: objective, encoder, views, training")
    return found


def _metrics(task: Task, out: Path) -> Path:
    from semblance.collection.disk import building_folder

    return building_folder(task.collection(out)) / "metrics.jsonl"


def _images(task: Task) -> str:
    """What learns and what is scored, in one line."""
    picked = task.picked
    classes, seen = len(set(picked.labels(picked.score))), picked.seen()
    both = len(set(picked.train) & set(picked.score))
    parts = [
        f"{len(picked.train):,} images learn, {len(picked.score):,} of {classes:,} classes are scored",
        ""
        if seen == classes
        else f"{seen:,} of the classes seen in training"
        if seen
        else "none of them seen",
        f"{both:,} of these images learn too" if both else "",
    ]
    return ", ".join(part for part in parts if part)


def _foretell(task: Task, out: Path, left: list[int], seeds: int, as_json: bool) -> None:
    """Print what a run would do, with the bill of one seed."""
    from semblance.collection.bench import bill_of

    with screen.Screen() as watched:
        bill = bill_of(task, out, watched.progress)
    if as_json:
        facts = {"recipe": task.recipe.name, "hash": task.hash, "seeds": left, "images": _counts(task)}
        settings = task.settings.record()
        screen.print_json({**facts, "settings": settings, "bill": bill.record(), "results": out})
        return
    click.echo(f"{task.recipe.name} ({task.hash}), {_images(task)}")
    for line in watch.bill_lines(bill):
        click.echo(line)
    numbers = ", ".join(map(str, left))
    there = f"{seeds - len(left)} of {seeds} are in {watch.shown(out)}"
    seconds = seconds_text(bill.total_seconds * len(left))
    click.echo(f"seeds to run: {numbers}, {there}, {seconds}" if left else f"nothing to run: {there}")


def _counts(task: Task) -> dict[str, int]:
    picked = task.picked
    return {"train": len(picked.train), "bank": len(picked.bank), "score": len(picked.score)}
