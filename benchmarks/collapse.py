"""Does the default ever collapse? Ten seeds, three sizes of collection, three kinds of images.

    python benchmarks/collapse.py --data .data       # adds to docs/results/collapse.jsonl, resumes
    python benchmarks/collapse.py --table            # writes docs/results/collapse.md

100, 1,000 and 10,000 images of cifar10, with 1 channel (grey), 3, or 12 (the colours, and what is left of
them when they are blurred three times ever more), through `learn` with the default objective and a small
encoder; no other option but the epochs. A run that collapses ends with an error, which is written down.
Beside it stand effective rank and mean cosine of the embeddings, and R@1 of the classes, no label having been
seen.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from learn import machine
from learn_sets import bank_labels, open_set
from lines import records
from semblance.collection.build import learn
from semblance.errors import SemblanceError
from semblance.evaluation.metrics import score, unit
from semblance.training.health import measure

EPOCHS = {100: 30, 1_000: 10, 10_000: 2}
CHANNELS = (1, 3, 12)
ENCODER = {"depth": 10, "width": 16, "stem": "64"}
Array = np.ndarray[Any, np.dtype[Any]]


def images(pixels: Array, channels: int) -> Array:
    """`(n, 32, 32, channels)` uint8 of RGB pixels."""
    if channels == 1:
        return np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
    if channels == 3:
        return np.ascontiguousarray(pixels)
    wide = pixels.astype(np.float32)
    scales = [gaussian_filter(wide, (0, s, s, 0)) for s in (0.7, 1.5, 3.0)]
    bands = [wide - scales[0] + 128, scales[0] - scales[1] + 128, scales[1] - scales[2] + 128, scales[2]]
    return np.rint(np.concatenate(bands, axis=3)).clip(0, 255).astype(np.uint8)


def one(pixels: Array, labels: Array, count: int, channels: int, seed: int) -> dict[str, Any]:
    """One training of `count` images drawn by the seed."""
    rows = np.random.default_rng(seed).choice(len(pixels), count, replace=False)
    given = images(pixels[rows], channels)
    options: dict[str, Any] = {"epochs": EPOCHS[count], "seed": seed, "encoder_options": ENCODER}
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = learn(given, Path(folder) / "c.smb", encoder="resnet", **options)
        except SemblanceError as error:
            return {"error": f"{error.kind}: {error.message}"}
        x = unit(np.array(made.embeddings))
        about = made.info["config"]["objective"]
    found = score(x, labels[rows], clusters=False, balanced=True)
    return {
        "objective": about,
        "health": measure(x[:2000]),
        "recall@1": round(found.summary["recall@1_balanced"], 4),
    }


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """docs/results/collapse.md, line by line."""
    yield "# Does the default ever collapse?\n"
    yield f"Made by `benchmarks/collapse.py` on {'; '.join(sorted({r['machine'] for r in found}))}."
    sound = [r for r in found if "error" not in r]
    names = sorted({json.dumps(r["objective"]["name"]) for r in sound})
    yield f"Objective: {', '.join(names)} as it comes. Images of cifar10; a collapsed run ends with an error."
    yield "Effective rank (of 256) and mean cosine of the embeddings: the worst of all seeds. R@1 in percent,"
    yield "mean and least; chance is 10.\n"
    yield "| images | channels | seeds | collapsed | other errors | least rank | most cosine | R@1 | least |"
    yield "| --- " * 9 + "|"
    for count in EPOCHS:
        for channels in CHANNELS:
            runs = [r for r in found if (r["images"], r["channels"]) == (count, channels)]
            if not runs:
                continue
            fine = [r for r in runs if "error" not in r]
            bad = sum("collapse" in r.get("error", "").lower() for r in runs)
            cells = [len(runs), bad, len(runs) - len(fine) - bad]
            if fine:
                recall = [100 * r["recall@1"] for r in fine]
                rank = min(r["health"]["effective_rank"] for r in fine)
                cosine = max(r["health"]["mean_cosine"] for r in fine)
                numbers = f"{rank:.1f} | {cosine:.3f} | {np.mean(recall):.1f} | {min(recall):.1f}"
            else:
                numbers = "- | - | - | -"
            yield f"| {count:,} | {channels} | " + " | ".join(map(str, cells)) + f" | {numbers} |"
    bad = sum("error" in r for r in found)
    yield f"\n{len(found)} trainings, {bad} of them ended with an error."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/collapse.jsonl"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--table", action="store_true", help="write the page, train nothing")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    if not wanted.table:
        data = open_set(wanted.data, "cifar10")
        labels = bank_labels(wanted.data, "cifar10")[0]
        for seed in range(wanted.seeds):
            for count in EPOCHS:
                for channels in CHANNELS:
                    key = {"images": count, "channels": channels, "seed": seed}
                    if any(key.items() <= r.items() for r in records(wanted.out)):
                        continue
                    made = {**key, **one(data.train, labels, count, channels, seed), "machine": machine()}
                    with wanted.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(made) + "\n")
                    print(count, channels, seed, made.get("health"), made.get("error", ""), flush=True)
    lines = list(table(records(wanted.out)))
    wanted.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
