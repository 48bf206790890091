"""Handwritten digits, or a folder of yours -> embedding -> collection -> scores and a report.

    make demo
    make demo DATA=some/folder

Needs no network and no data: the digits come with scikit-learn. Their labels are used only at the very
end, to score what was learned without them.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import semblance
from semblance.amounts import seconds_text
from semblance.cli.evaluate import print_scores
from semblance.cli.screen import Screen
from semblance.errors import SemblanceError
from semblance.images.sources import folder_labels
from semblance.report import write_report

HERE = Path("demo")
EDGE = 32
SMALL = {"depth": 10, "width": 16, "stem": "64"}
QUICK: dict[str, Any] = {"encoder": "resnet", "encoder_options": SMALL, "epochs": 20}
"""For the digits: minutes on two slow cores. A folder of yours gets what `semblance run` would choose."""
METRICS = ("recall@1", "map@r", "ami", "nmi")


def write_digits(folder: Path) -> Path:
    """The label table of the digits, written as 32 x 32 grey PNG files whose names do not tell the digit."""
    labels = folder.with_suffix(".csv")
    if labels.exists():
        return labels
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    rows = []
    for index, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        pixels = np.round(image * (255 / 16)).astype(np.uint8)
        name = f"{index:04}.png"
        Image.fromarray(pixels).resize((EDGE, EDGE), Image.Resampling.BICUBIC).save(folder / name)
        rows.append((name, int(digit)))
    with labels.open("w", newline="", encoding="utf-8") as file:  # last: it marks the folder as whole
        csv.writer(file).writerows([("path", "class"), *rows])
    return labels


def main(source: Path | None) -> None:
    """Make the collection, score it where labels are known, write the report, say where."""
    started = time.monotonic()
    HERE.mkdir(exist_ok=True)
    labels: Any = None
    options: dict[str, Any] = {}
    if source is None:
        source = HERE / "digits"
        labels, options = write_digits(source), QUICK
    out = HERE / f"{source.resolve().name}.smb"
    with Screen() as screen:
        collection = semblance.run(source, out, progress=screen.progress, **options)
        if labels is None:
            paths = [row["path"] for row in collection.images.to_pylist() if row["row"] >= 0]
            labels = folder_labels(paths)
        scores = collection.evaluate(labels, progress=screen.progress) if labels is not None else None
    report = write_report(collection)
    if scores is not None:
        print()
        rows = {name: {key: row[key] for key in METRICS} for name, row in scores["rows"].items()}
        print_scores({name: row for name, row in rows.items() if name != "frozen start"})
    print(f"\n{len(collection.embeddings):,} images in {seconds_text(time.monotonic() - started)}")
    print(f"{out}  ·  open {report}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    except SemblanceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command to go on")
