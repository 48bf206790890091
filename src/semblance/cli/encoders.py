"""`semblance encoders`: the networks there are."""

from __future__ import annotations

import click

from semblance.cli import options
from semblance.cli.objectives import print_methods

__all__ = ["command"]


@click.command(epilog="\b\nExample:\n  semblance encoders")
@options.json_option
@options.verbose_option
def command(as_json: bool, verbose: bool) -> None:
    """List the encoders, one line each."""
    print_methods("encoders", as_json)
