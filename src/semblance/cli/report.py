"""`semblance report`: write the report of a collection again."""

from __future__ import annotations

from pathlib import Path

import click

from semblance.cli import options, screen, watch
from semblance.errors import CollectionError

__all__ = ["command"]


@click.command(epilog="\b\nExample:\n  semblance report photos.smb")
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The file.  [COLLECTION/report.html]")
@click.option("--labels", type=click.Path(path_type=Path), help="A table of labels that colours the map.")
@click.option("--column", help="Its column of labels.  [the only one]")
@click.option("--overwrite", is_flag=True, help="Replace the file given with --out.")
@options.json_option
@options.verbose_option
def command(
    collection: Path,
    out: Path | None,
    labels: Path | None,
    column: str | None,
    overwrite: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Write the report of COLLECTION: one HTML file that needs nothing else."""
    if out is not None and out.exists() and not overwrite:
        raise CollectionError(f"{out} exists", "replace it with --overwrite")
    from semblance.collection.evaluate import read_labels
    from semblance.collection.store import Collection
    from semblance.report import write_report

    opened = Collection.open(collection)
    table = None if labels is None else read_labels(opened, labels, column)
    path = write_report(opened, out, table)
    if as_json:
        screen.print_json({"report": path})
    else:
        click.echo(watch.shown(path))
