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
@click.option(
    "--exact/--codes", default=None, help="Floats, or codes and then floats.  [codes from 100,000 images on]"
)
@options.json_option
@options.verbose_option
def command(
    collection: Path, queries: tuple[str, ...], count: int, exact: bool | None, as_json: bool, verbose: bool
) -> None:
    """Find the images of COLLECTION that are nearest to each QUERY file."""
    from semblance.collection.search import by_codes
    from semblance.collection.store import Collection

    opened = Collection.open(collection)
    if by_codes(opened, exact):
        about = opened.info.get("codes") or {}
        screen.say(
            f"searched by codes ({about.get('coder')}, {about.get('bits')} bits), then in floats; "
            "--exact compares every image"
        )
    found = opened.search(list(queries), k=count, exact=exact).records()
    if as_json:
        screen.print_json(found[0] if len(queries) == 1 else found)
        return
    for one in found:
        rows = [[match["rank"], match["distance"], match["path"]] for match in one["matches"]]
        screen.print_table(["rank", "distance", "path"], rows, str(one["query"]) if len(queries) > 1 else "")
