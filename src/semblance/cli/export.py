"""`semblance export`: the model for other runtimes."""

from __future__ import annotations

from pathlib import Path

import click

from semblance.cli import options, screen, watch
from semblance.errors import ConfigError

__all__ = ["command"]


@click.command(epilog="\b\nExample:\n  semblance export photos.smb --onnx")
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--onnx", is_flag=True, help="As ONNX, preprocessing included. Needs the extra onnx.")
@click.option("--out", type=click.Path(path_type=Path), help="The file.  [COLLECTION's name with .onnx]")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@options.json_option
@options.verbose_option
def command(
    collection: Path, onnx: bool, out: Path | None, overwrite: bool, as_json: bool, verbose: bool
) -> None:
    """Export the model of COLLECTION."""
    if not onnx:
        raise ConfigError("no format was named", "semblance export COLLECTION --onnx")
    target = out or Path(f"{collection.resolve().stem}.onnx")
    from semblance.collection.store import Collection

    path = Collection.open(collection).export_onnx(target, overwrite=overwrite)
    if as_json:
        screen.print_json({"onnx": path})
    else:
        click.echo(watch.shown(path))
