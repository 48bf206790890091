"""What does it cost? The bill of `--dry-run` against what a run really took, for growing collections.

    python benchmarks/cost.py --data .data             # prints and writes docs/results/cost.md

For 1,000, 10,000 and 60,000 images of cifar10: `semblance run --dry-run --json` in one process, then
`semblance run` in another, whose peak resident memory the operating system reports when it ends.
Memory should be linear in the images and within 20 % of the bill, time within a factor of 1.5.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from semblance.native import processor

EPOCHS = {1_000: 10, 10_000: 2, 60_000: 1}
ENCODER = ["--encoder", "resnet", "--encoder.depth", "10", "--encoder.width", "8", "--encoder.stem", "64"]
"""Small, so that the images and not the network decide; `--encoder auto` measures what a run would choose."""


def manifest(data: Path, count: int, folder: Path) -> Path:
    """A manifest of `count` images of cifar10, spread over its classes."""
    with (data / "cifar10" / "labels.csv").open(encoding="utf-8", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    chosen = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))[:count]]
    path = folder / f"cifar10-{count}.csv"
    root = (data / "cifar10").resolve()
    path.write_text("path\n" + "".join(f"{root / name}\n" for name in chosen), encoding="utf-8")
    return path


def call(*words: str) -> tuple[str, float, int]:
    """Output, seconds and peak resident bytes of one `semblance` command."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "semblance", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"semblance {' '.join(words)} ended with {process.returncode}: {output}")
    return output, time.monotonic() - begin, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(data: Path, count: int, network: list[str]) -> dict[str, Any]:
    """Bill and truth for `count` images."""
    with tempfile.TemporaryDirectory() as place:
        source = manifest(data, count, Path(place))
        target = Path(place) / "made.smb"
        options = [str(source), "--out", str(target), "--epochs", str(EPOCHS[count]), *network]
        bill = json.loads(call("run", *options, "--dry-run", "--json")[0])
        bill = bill.get("bill", bill)
        _, seconds, memory = call("run", *options, "--json")
        info = json.loads((target / "collection.json").read_text(encoding="utf-8"))
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return {
        "images": count,
        "epochs": EPOCHS[count],
        "encoder": bill["encoder_options"],
        "memory": memory,
        "memory billed": bill["memory"],
        "seconds": info["actual"]["seconds"]["total"],
        "seconds billed": sum(bill["seconds"].values()),
        "stages": info["actual"]["seconds"],
        "stages billed": bill["seconds"],
        "wall": seconds,
        "disk": size,
        "disk billed": bill["disk"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/cost.md"))
    parser.add_argument("--counts", type=int, nargs="*", default=list(EPOCHS))
    parser.add_argument("--encoder", choices=["small", "auto"], default="small")
    wanted = parser.parse_args()
    rows = []
    for count in wanted.counts:
        rows.append(measure(wanted.data, count, ENCODER if wanted.encoder == "small" else []))
        print(json.dumps(rows[-1]), flush=True)
    lines = ["# What does it cost?", "", f"Made by `benchmarks/cost.py` on {machine()}.", ""]
    heads = ("images", "epochs", "encoder", "peak memory, MB", "billed", "ratio")
    heads += ("seconds", "billed", "ratio", "disk, MB", "billed")
    lines += [f"| {' | '.join(heads)} |"]
    lines += ["| --- " * 11 + "|"]
    for row in rows:
        network = f"ResNet-{row['encoder']['depth']}, width {row['encoder']['width']}"
        cells = [f"{row['images']:,}", str(row["epochs"]), network]
        for name, scale, digits in (("memory", 1e6, 0), ("seconds", 1, 1), ("disk", 1e6, 1)):
            real, billed = row[name], row[f"{name} billed"]
            cells += [f"{real / scale:,.{digits}f}", f"{billed / scale:,.{digits}f}"]
            cells += [f"{real / billed:.2f}"] if name != "disk" else []
        lines.append(f"| {' | '.join(cells)} |")
    if len(rows) > 2:
        x = np.array([row["images"] for row in rows], float)
        y = np.array([row["memory"] for row in rows], float)
        slope, base = np.polyfit(x, y, 1)
        worst = np.abs(y - (base + slope * x)).max() / y.max()
        lines += [
            "",
            f"A line through the peaks: {base / 1e6:,.0f} MB + {slope / 1e3:,.1f} kB an image; "
            f"no peak is further from it than {100 * worst:.0f} %.",
        ]
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def machine() -> str:
    """Processor and cores."""
    return f"{processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
