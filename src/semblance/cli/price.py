"""`semblance price`: what each bit of a code keeps, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semblance.cli import options, screen

__all__ = ["command"]


@click.command(epilog="\b\nExample:\n  semblance price photos.smb --coders itq,pca --bits 32,64,128")
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--coders", help="Names, with commas between.  [all that need no labels]")
@click.option("--bits", help="Lengths, with commas between.  [16,32,64,128,256,512]")
@click.option("-k", "count", type=click.IntRange(min=1), default=10, show_default=True, help="Neighbours.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample and the coders.")
@options.json_option
@options.verbose_option
def command(
    collection: Path,
    coders: str | None,
    bits: str | None,
    count: int,
    seed: int,
    as_json: bool,
    verbose: bool,
) -> None:
    """Print, for every coder and length, how many of the float neighbours of COLLECTION its codes keep."""
    from semblance.collection.price import choose, sentence
    from semblance.collection.store import Collection

    opened = Collection.open(collection)
    with screen.Screen() as watched:
        table = opened.price(
            options.read_numbers(bits) if bits else None,
            [name.strip() for name in coders.split(",")] if coders else None,
            k=count,
            seed=seed,
            record=False,
            progress=watched.progress,
        )
    best = choose(table)
    told = sentence(table, best) if best else "none of these coders can code these images"
    if not as_json:
        _show(table, told)
    opened.record(price=table)  # last: where it cannot be kept, it was at least seen
    if as_json:
        screen.print_json({**table, "best": best, "sentence": told})


def _show(table: dict[str, Any], told: str) -> None:
    click.echo(
        f"{table['queries']:,} queries of {table['gallery']:,} images; recall of the {table['k']} nearest in "
        f"floats ({table['float_bytes']} bytes an image), in %; "
        f"measured again: the {table['shortlist']} nearest codes"
    )
    screen.print_table(
        ["coder", "bits", "codes alone", "measured again", "bytes", "ms a query"],
        [_line(row) for row in table["rows"]],
    )
    for reason in dict.fromkeys(row["why not"] for row in table["rows"] if "why not" in row):
        click.echo(f"-: {reason}")
    click.echo(told)


def _line(row: dict[str, Any]) -> list[Any]:
    if "why not" in row:
        return [row["coder"], row["bits"], None, None, None, None]
    return [
        row["coder"],
        row["bits"],
        f"{100 * row['recall']:.1f}",
        f"{100 * row['reranked']:.1f}",
        row["bytes"],
        f"{row['ms']:.3f}",
    ]
