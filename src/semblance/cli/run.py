"""`semblance run`: from a folder of images to a collection, everything included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semblance.cli import options, watch

__all__ = ["command"]

EXAMPLES = """\b
Examples:
  semblance run photos/
  semblance run photos/ --dry-run
  semblance run photos/ --budget 10m --objective.variant fixed --views.scale 0.3,1
"""


@click.command(cls=options.Verb, epilog=EXAMPLES)
@click.argument("source")
@options.training_options
@options.json_option
@options.verbose_option
def command(
    source: str, out: Path | None, dry_run: bool, as_json: bool, verbose: bool, **choices: Any
) -> None:
    """Make a collection from SOURCE: scan, decode, learn, embed, report.

    SOURCE is a folder, a glob, or a CSV or Parquet manifest with a column "path". The same command again
    goes on where it was stopped, or brings the collection up to date. A knob of the objective, the
    encoder, the views or the training is set with --objective.KEY, --encoder.KEY, --views.KEY and
    --training.KEY.
    """
    asked = {**choices, **options.dotted()}
    if dry_run:
        watch.print_plan(source, out, asked, as_json)
        return
    from semblance.collection.build import run, target_of
    from semblance.collection.disk import building_folder
    from semblance.report import write_report

    with watch.Watch(building_folder(target_of(source, out)) / "metrics.jsonl") as watched:
        done = run(
            source,
            out,
            progress=watched,
            on_plan=lambda plan: watched.say("\n".join(watch.bill_lines(plan))),
            report=write_report,
            **asked,
        )
    watch.finish(done, watched.say, as_json)
