"""`semblance embed`: embeddings of other images by a collection's model."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import click

from semblance.cli import options, screen
from semblance.errors import CollectionError, ConfigError

__all__ = ["command"]

SHOWN = 5


@click.command(epilog="\b\nExample:\n  semblance embed photos.smb more/ --out more.npy")
@click.argument("collection", type=click.Path(path_type=Path))
@click.argument("source")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npy file to write.")
@click.option(
    "--table",
    type=click.Choice(["csv", "parquet"]),
    default="csv",
    show_default=True,
    help="Kind of the table of paths that is written beside it.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto.")
@click.option("--overwrite", is_flag=True, help="Replace the files.")
@options.json_option
@options.verbose_option
def command(
    collection: Path,
    source: str,
    out: Path,
    table: str,
    device: str,
    overwrite: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Embed the images of SOURCE with the model of COLLECTION."""
    if out.suffix != ".npy":
        raise ConfigError(f"--out {out} is no .npy file", f"--out {out}.npy")
    paths = out.with_suffix(f".{table}")
    for path in (out, paths):
        if path.exists() and not overwrite:
            raise CollectionError(f"{path} exists", "replace it with --overwrite")
    import numpy as np

    from semblance.collection import disk
    from semblance.collection.model import load

    model = load(collection)
    with screen.Screen() as watched:
        found = model.embed_named(source, device=device, progress=watched.progress)
    with disk.explain_disk_errors(f"writing {out}"):
        disk.write_atomically(paths, lambda file: file.write(_table(table, found.paths)))
        disk.write_atomically(out, lambda file: np.save(file, found.embeddings))
    for name, reason in found.problems[:SHOWN]:
        screen.say(f"left out: {name}: {reason}")
    if len(found.problems) > SHOWN:
        screen.say(f"left out: {len(found.problems) - SHOWN:,} more")
    if as_json:
        left_out = [{"path": name, "reason": reason} for name, reason in found.problems]
        shape = list(found.embeddings.shape)
        screen.print_json({"embeddings": out, "paths": paths, "shape": shape, "unreadable": left_out})
    else:
        click.echo(f"{len(found.paths):,} images  ·  {out}  ·  {paths}")


def _table(kind: str, names: tuple[str, ...]) -> bytes:
    """Row number and path of every embedding, as the bytes of a CSV or Parquet file."""
    rows = range(len(names))
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(
            pa.table({"row": pa.array(rows, pa.int64()), "path": pa.array(names, pa.string())}), sink
        )
        return sink.getvalue()
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("row", "path"), *zip(rows, names, strict=True)])
    return text.getvalue().encode("utf-8", "surrogateescape")
