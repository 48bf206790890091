"""`semblance encode`: binary codes of a collection's images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semblance.cli import options, screen

__all__ = ["command"]


@click.command(
    cls=options.Verb,
    epilog="\b\nExamples:\n  semblance encode photos.smb --coder itq --bits 64\n"
    "  semblance encode photos.smb --coder qsmi --labels labels.csv --column class\n\n"
    "\b\nA coder's own options: --coder.key value, such as --coder.rounds 3.",
)
@click.argument("collection", type=click.Path(path_type=Path))
@click.option(
    "--coder", default="auto", show_default=True, help="See `semblance coders`; auto: by its price."
)
@click.option("--bits", type=int, help="Length of a code, a multiple of 8.  [the coder's]")
@click.option("--labels", type=click.Path(path_type=Path), help="CSV or Parquet.  [names of the folders]")
@click.option("--column", help="The table's column of labels.  [the only one]")
@click.option("--clusters", type=int, help="Learn from this many clusters in place of labels.")
@click.option("--rethreshold", is_flag=True, help="Keep the coder, set its thresholds anew for these images.")
@options.json_option
@options.verbose_option
def command(
    collection: Path,
    coder: str,
    bits: int | None,
    labels: Path | None,
    column: str | None,
    clusters: int | None,
    rethreshold: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Turn the embeddings of COLLECTION into binary codes, kept in it for search."""
    from semblance.collection.store import Collection

    opened = Collection.open(collection)
    with screen.Screen() as watched:
        packed = opened.encode(
            coder,
            bits,
            labels,
            column,
            clusters=clusters,
            rethreshold=rethreshold,
            progress=watched.progress,
            **options.dotted().get("coder_options", {}),
        )
    about: dict[str, Any] = opened.info["codes"]
    if as_json:
        screen.print_json({**about, "images": len(packed), "bytes": packed.nbytes})
        return
    share = opened.embeddings.nbytes / max(1, packed.nbytes)
    if about.get("chosen"):
        click.echo(about["chosen"])
    told = {None: "", "folder": ", learned from the names of the folders"}
    how = told.get(about.get("labels"), f", learned from {about.get('labels')}")
    how += ", thresholds set anew" if about.get("rethresholded") else ""
    click.echo(
        f"{len(packed):,} codes of {about['bits']} bits by {about['coder']}{how}: "
        f"{packed.nbytes:,} bytes, 1/{share:.0f} of the floats"
    )
