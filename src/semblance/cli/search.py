"""`semblance search`: the nearest images to one or several."""

from __future__ import annotations

from pathlib import Path

import click

from semblance.cli import options, screen

__all__ = ["command"]


@click.command(epilog="\b\nExample:\n  semblance search photos.smb query.jpg -k 10")
@click.argument("collection", type=click.Path(path_type=Path))
@click.argument("queries", nargs=-1, required=True, metavar="QUERY...")
@click.option("-k", "count", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
@options.json_option
@options.verbose_option
def command(collection: Path, queries: tuple[str, ...], count: int, as_json: bool, verbose: bool) -> None:
    """Find the images of COLLECTION that are nearest to each QUERY file."""
    from semblance.collection.store import Collection

    found = Collection.open(collection).search(list(queries), k=count).records()
    if as_json:
        screen.print_json(found[0] if len(queries) == 1 else found)
        return
    for one in found:
        rows = [[match["rank"], match["distance"], match["path"]] for match in one["matches"]]
        screen.print_table(["rank", "distance", "path"], rows, str(one["query"]) if len(queries) > 1 else "")
