"""`semblance coders`: what turns embeddings into codes."""

from __future__ import annotations

import click

from semblance.cli import options
from semblance.cli.objectives import print_methods

__all__ = ["command"]


@click.command(epilog="\b\nExample:\n  semblance coders")
@options.json_option
@options.verbose_option
def command(as_json: bool, verbose: bool) -> None:
    """List the coders, one line each."""
    print_methods("codes", as_json)
