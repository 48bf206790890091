"""`semblance learn`: a collection without bill and report, for experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semblance.cli import options, watch

__all__ = ["command"]

EXAMPLES = """\b
Examples:
  semblance learn photos/ --objective cbswr --objective.variant fixed --epochs 20 --out photos.smb
  semblance learn photos/ --objective sme+cbswr --objective.cbswr.clusters 16 --objective.shares 0.7,0.3
  semblance learn photos/ --encoder resnet --encoder.width 16 --training.lr 0.0003
"""


@click.command(cls=options.Verb, epilog=EXAMPLES)
@click.argument("source")
@options.training_options
@options.json_option
@options.verbose_option
def command(
    source: str, out: Path | None, dry_run: bool, as_json: bool, verbose: bool, **choices: Any
) -> None:
    """Learn an embedding on SOURCE, as `run` does, without the bill before and the report after."""
    asked = {**choices, **options.dotted()}
    if dry_run:
        watch.print_plan(source, out, asked, as_json)
        return
    from semblance.collection.build import learn, target_of
    from semblance.collection.disk import building_folder

    with watch.Watch(building_folder(target_of(source, out)) / "metrics.jsonl") as watched:
        done = learn(source, out, progress=watched, **asked)
    watch.finish(done, watched.say, as_json)
