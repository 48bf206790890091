"""What do bits keep? Every coder without labels, 16 to 512 bits, on learned embeddings of real images.

    python benchmarks/codes.py --part recall --data .data    # adds to docs/results/codes.jsonl, resumes
    python benchmarks/codes.py --part shift --data .data     # the same for a coder from another domain
    python benchmarks/codes.py --part time                   # fits of 60,000 x 128, one thread
    python benchmarks/codes.py --part table                  # writes docs/results/codes.md

Retrieval by class, with supervised coders beside these, is `hash_tables.py`.

One embedding per set for all (`codes_sets.py`), learned without labels on images that are not among the
queries. `recall` asks: of a query's 10 nearest by the floats, how many are among the 10 nearest by Hamming
distance (equal distances in random order: the expected number), among the 100 nearest (what a re-ranking by
the floats then returns), and among the 10 nearest by the query's real values against the codes' signs.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from codes_sets import SETS, Embedded, open_embedded
from codes_table import page, records
from learn import machine
from learn_sets import rows_of
from semblance import codes, plugins
from semblance.errors import ConfigError
from semblance.index.exact import nearest

BITS = (16, 32, 64, 128, 256, 512)
SEEDS = 3
QUERIES = 1000
K, SHORTLIST = 10, 100
VEHICLES = ("airplane", "automobile", "ship", "truck")
Array = np.ndarray[Any, np.dtype[Any]]


def without_labels() -> list[str]:
    """The coders that need none."""
    return [name for name in plugins.names("codes") if not plugins.get("codes", name).Coder.labels]


def fitted(name: str, bits: int, seed: int, x: Array, y: Array | None = None, **options: Any) -> Any:
    """The coder, fitted."""
    config = plugins.configure("codes", name, {"bits": bits, "seed": seed, **options})
    return plugins.get("codes", name).Coder(config).fit(x, y)


def split(data: Embedded) -> tuple[Array, Array]:
    """Queries and gallery: cifar10's test images ask among its training images; omniglot's unseen characters
    ask among themselves."""
    unseen = np.random.default_rng(20260101).permutation(np.flatnonzero(~data.trained))
    queries = unseen[:QUERIES]
    rest = np.flatnonzero(data.trained) if data.name == "cifar10" else unseen[QUERIES:]
    return data.x[queries], data.x[np.sort(rest)]


def share_found(distances: Array, truth: Array, k: int) -> float:
    """Expected share of `truth` `(q, t)` among the `k` nearest by `distances` `(q, n)`, ties at random."""
    edge = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    below, at = (distances < edge).sum(1), (distances == edge).sum(1)
    mine = np.take_along_axis(distances, truth, axis=1)
    expected = (mine < edge).sum(1) + (mine == edge).sum(1) * (k - below) / at
    return float((expected / truth.shape[1]).mean())


def recalls(coder: Any, queries: Array, gallery: Array, truth: Array) -> dict[str, float]:
    """The three shares for one fitted coder."""
    signs = 2 * codes.unpack(coder.encode(gallery)).astype(np.float32) - 1
    asked = 2 * codes.unpack(coder.encode(queries)).astype(np.float32) - 1
    values = coder.project(queries)
    total = dict.fromkeys(("hamming", "reranked", "asymmetric"), 0.0)
    step = 100
    for first in range(0, len(queries), step):
        part = slice(first, first + step)
        hamming = -(asked[part] @ signs.T)
        total["hamming"] += share_found(hamming, truth[part], K)
        total["reranked"] += share_found(hamming, truth[part], SHORTLIST)
        total["asymmetric"] += share_found(-(values[part] @ signs.T), truth[part], K)
    return {name: round(value * step / len(queries), 5) for name, value in total.items()}


def run_recall(root: Path, out: Path) -> None:
    """One record per set, coder, bits and seed; those that are in the file already are skipped."""
    there = {(r["set"], r["coder"], r["bits"], r["seed"]) for r in records(out) if r["part"] == "recall"}
    for name in SETS:
        data = open_embedded(root, name)
        queries, gallery = split(data)
        truth = nearest(queries, gallery, K).ids
        for seed in range(SEEDS):
            for coder_name in without_labels():
                for bits in BITS:
                    if (name, coder_name, bits, seed) in there:
                        continue
                    base = {"part": "recall", "set": name, "coder": coder_name, "bits": bits, "seed": seed}
                    base |= {"queries": len(queries), "gallery": len(gallery), "embedding": data.about}
                    try:
                        coder = fitted(coder_name, bits, seed, gallery)
                    except ConfigError as error:
                        write(out, base | {"refused": error.message})
                        continue
                    found = codes.diagnose(coder.encode(gallery))
                    looks = {
                        "balance": round(found.balance, 4),
                        "correlation": round(found.mean_correlation, 4),
                        "distinct": found.distinct,
                    }
                    write(
                        out, base | recalls(coder, queries, gallery, truth) | looks | {"machine": machine()}
                    )


def run_shift(root: Path, out: Path) -> None:
    """Coders of 64 bits from cifar10's vehicles, used on its animals: as fitted, with thresholds set anew on
    the animals, and fitted on the animals. Queries are test images, everything else train images."""
    there = {(r["coder"], r["seed"]) for r in records(out) if r["part"] == "shift"}
    data = open_embedded(root, "cifar10")
    names = np.unique([row["class"] for row in rows_of(root, "cifar10")])
    vehicle = np.isin(data.labels, np.flatnonzero(np.isin(names, VEHICLES)))
    asked = np.random.default_rng(20260101).permutation(np.flatnonzero(~vehicle & ~data.trained))[:QUERIES]
    queries, gallery = data.x[asked], data.x[~vehicle & data.trained]
    truth = nearest(queries, gallery, K).ids
    for seed in range(SEEDS):
        for name in without_labels():
            if (name, seed) in there:
                continue
            coder = fitted(name, 64, seed, data.x[vehicle & data.trained])
            record = {"part": "shift", "coder": name, "seed": seed, "bits": 64, "embedding": data.about}
            for state in ("as fitted", "rethresholded", "refitted"):
                if state == "rethresholded":
                    coder.rethreshold(gallery)
                if state == "refitted":
                    coder = fitted(name, 64, seed, gallery)
                record[state] = recalls(coder, queries, gallery, truth)["hamming"]
                record[f"balance {state}"] = round(codes.diagnose(coder.encode(gallery)).balance, 4)
            write(out, record | {"machine": machine()})


def run_time(out: Path) -> None:
    """Seconds to fit (once) and to encode (best of 3) 60,000 x 128 unit rows, for every coder here."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60_000, 128)) @ np.diag(np.linspace(2, 0.2, 128)) + 1
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    for name in without_labels():
        for bits in (64, 128):
            began = time.perf_counter()
            coder = fitted(name, bits, 0, x)
            fit = round(time.perf_counter() - began, 3)
            encode = best(lambda: coder.encode(x), 3)  # noqa: B023
            write(
                out,
                {"part": "time", "coder": name, "bits": bits, "fit_s": fit, "encode_s": encode}
                | {"machine": machine()},
            )


def best(call: Callable[[], Any], times: int) -> float:
    """The least of `times` wall times, in seconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return round(min(found), 3)


def write(path: Path, record: dict[str, Any]) -> None:
    """Append one line and show it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print({k: v for k, v in record.items() if k not in ("machine", "embedding")}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=["recall", "shift", "time", "table"], required=True)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/codes.jsonl"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    if wanted.part == "recall":
        run_recall(wanted.data, wanted.out)
    elif wanted.part == "shift":
        run_shift(wanted.data, wanted.out)
    elif wanted.part == "time":
        run_time(wanted.out)
    else:
        text = "\n".join(page(records(wanted.out))) + "\n"
        wanted.out.with_suffix(".md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
