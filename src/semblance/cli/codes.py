"""`semblance codes`: what a collection's codes look like, and what searching them will cost."""

from __future__ import annotations

from pathlib import Path

import click

from semblance.cli import options, screen

__all__ = ["command"]

WIDE = 40


@click.command(epilog="\b\nExample:\n  semblance codes photos.smb")
@click.argument("collection", type=click.Path(path_type=Path))
@options.json_option
@options.verbose_option
def command(collection: Path, as_json: bool, verbose: bool) -> None:
    """Describe the codes of COLLECTION: balance, correlation, distances, predicted cost of a query."""
    from semblance.collection.store import Collection

    found = Collection.open(collection).describe_codes()
    if as_json:
        screen.print_json(found)
        return
    click.echo(
        f"{found['n']:,} codes of {found['bits']} bits by {found['coder']}, {found['distinct']:,} of them "
        f"distinct, {found['bytes']:,} bytes"
    )
    rows = [
        [
            "balance",
            f"{found['balance']:.3f}",
            "mean distance of a bit's share of ones from a half; 0 is best",
        ],
        ["entropy", f"{found['entropy']:.3f}", "bits of information in a bit; 1 is best"],
        ["correlation", f"{found['mean_correlation']:.3f}", "mean over pairs of bits; 0 is best"],
        ["  at most", f"{found['max_correlation']:.3f}", "of the two most alike bits"],
        ["dead bits", f"{found['dead']}", "bits that are the same in every code"],
    ]
    screen.print_table(["", "", ""], rows)
    click.echo("\ndistance to all others, mean share over sampled queries:")
    top = max(found["histogram"]) or 1.0
    for distance, share in enumerate(found["histogram"]):
        if share >= 0.0005:
            click.echo(f"{distance:5d}  {100 * share:5.1f} %  {'#' * max(1, round(WIDE * share / top))}")
    click.echo(f"\n{found['reason']}")
