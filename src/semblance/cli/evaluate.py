"""`semblance evaluate`: scores against labels that training never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semblance.cli import options, screen

__all__ = ["command", "print_scores"]

HEADS = {"recall": "R", "map@r": "MAP@R", "r-precision": "R-prec", "nmi": "NMI", "ami": "AMI", "knn": "kNN"}
"""How a table's columns are called on the screen."""


@click.command(
    epilog="\b\nExample:\n  semblance evaluate photos.smb --labels labels.csv --column class --json"
)
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), help="CSV or Parquet.  [names of the folders]")
@click.option("--column", help="The table's column of labels.  [the only one]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the starts of k-means.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto.")
@options.json_option
@options.verbose_option
def command(
    collection: Path,
    labels: Path | None,
    column: str | None,
    seed: int,
    device: str,
    as_json: bool,
    verbose: bool,
) -> None:
    """Score COLLECTION against labels, beside raw and whitened pixels and the untrained encoder."""
    from semblance.collection.store import Collection

    with screen.Screen() as watched:
        scores = Collection.open(collection).evaluate(
            labels, column, seed=seed, device=device, progress=watched.progress
        )
    if as_json:
        screen.print_json(scores)
        return
    left_out = sum(scores["left_out"].values())
    click.echo(f"{scores['images']:,} images of {scores['classes']:,} classes, {left_out:,} left out")
    if scores["taught"]:
        click.echo(f"the model learned from labels: {scores['taught']}; of these the scores are no test")
    print_scores(scores["rows"])


def print_scores(rows: dict[str, dict[str, Any]]) -> None:
    """Print name -> metric -> number as a table."""
    metrics = [name for name in next(iter(rows.values())) if not name.endswith("_balanced")]
    screen.print_table(
        ["", *map(_head, metrics)], [[name, *map(row.get, metrics)] for name, row in rows.items()]
    )


def _head(metric: str) -> str:
    name, at, k = metric.partition("@")
    return HEADS.get(metric) or HEADS.get(name, name) + at + k
