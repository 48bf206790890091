"""`semblance objectives`: what training can minimise."""

from __future__ import annotations

import click

from semblance import plugins
from semblance.cli import options, screen

__all__ = ["command", "print_methods"]


def print_methods(group: str, as_json: bool) -> None:
    """Print name and first docstring line of every method in `group`, importing none."""
    rows = plugins.describe(group)
    if as_json:
        screen.print_json([{"name": name, "summary": line} for name, line in rows])
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, line in rows:
        click.echo(f"{name:<{width}}  {line}")


@click.command(epilog="\b\nExample:\n  semblance objectives")
@options.json_option
@options.verbose_option
def command(as_json: bool, verbose: bool) -> None:
    """List the objectives, one line each."""
    print_methods("objectives", as_json)
