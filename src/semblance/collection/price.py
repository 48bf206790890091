"""The price of a bit: what codes of each length keep of the float neighbours, and what they cost.

For every coder and length: the share of each query's k nearest images in floats that are among its k nearest
by code (ties by id, as a search answers), the same after the nearest codes are measured again in floats,
bytes an image, and milliseconds a query.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance import plugins
from semblance.codes import check_bits
from semblance.contracts import Progress
from semblance.errors import ConfigError, InputError, SemblanceError
from semblance.index import exact

__all__ = ["BITS", "ENOUGH", "OVERSAMPLE", "choose", "label_free", "price", "sentence"]

BITS = (16, 32, 64, 128, 256, 512)
OVERSAMPLE = 10
"""How many times k codes are measured again in floats."""
ENOUGH = 0.95
"""Recall after measuring again that the default must reach."""
QUERIES = 1_000
LEAST = 64
GALLERY = 100_000
FITTED = 50_000
TIMED = 20
BLOCK = 64
MEMORY = 16 << 20
"""Bytes for intermediate results of the search in floats."""

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]


def label_free() -> list[str]:
    """Names of the coders that need no labels."""
    return [name for name in plugins.names("codes") if not plugins.get("codes", name).Coder.labels]


@dataclass(frozen=True)
class _Asked:
    """Queries, what they are asked of, and the float answers."""

    gallery: Floats
    queries: NDArray[np.int64]
    truth: NDArray[np.int64]
    k: int


def price(
    embeddings: Floats,
    bits: Sequence[int] = BITS,
    coders: Sequence[str] | None = None,
    *,
    k: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The table for embeddings `(n, d)`, as JSON: "rows", one for each coder and length, and how it was made.

    A row: "coder", "bits", "recall" and "reranked" (0 to 1, with "low" and "high", 95 % over queries),
    "bytes" of a code, "ms" a query of a whole scan on one thread, "fit" seconds; or "coder", "bits" and "why
    not". Up to 1,000 queries and 100,000 images are drawn by `seed`; coders learn on up to 50,000. Raises
    `InputError` below 3 images, `ConfigError` for a coder that needs labels or lengths that no code has.
    """
    names = list(coders) if coders is not None else label_free()
    for name in names:
        if plugins.get("codes", name).Coder.labels:
            raise ConfigError(f"{name} learns from labels", f"without labels: {', '.join(label_free())}")
    for length in bits:
        check_bits(length)
    if k < 1:
        raise ConfigError(f"k is {k}", "ask for at least one neighbour")
    if len(embeddings) < 3:
        raise InputError(f"{len(embeddings)} images have no neighbours to keep", "at least 3 are needed")
    asked = _ask(embeddings, min(k, len(embeddings) - 2), seed)
    rows: list[dict[str, Any]] = []
    for name in names:
        for length in bits:
            rows.append(_row(asked, name, length, seed))
            if progress:
                progress("price", len(rows), len(names) * len(bits))
    return {
        "images": len(embeddings),
        "gallery": len(asked.gallery),
        "queries": len(asked.queries),
        "dimensions": embeddings.shape[1],
        "k": asked.k,
        "shortlist": min(OVERSAMPLE * asked.k, len(asked.gallery) - 1),
        "float_bytes": 4 * embeddings.shape[1],
        "seed": seed,
        "rows": rows,
    }


def choose(table: dict[str, Any]) -> dict[str, Any] | None:
    """The row to take by default: the fewest bits that keep enough after measuring again, then the most kept.

    Where none keeps enough, the row that keeps most. Shorter codes than 64 bits are taken only where no other
    was priced: in a small collection they look good because measuring again looks at most of it. None where
    nothing could be priced.
    """
    priced = [row for row in table["rows"] if "recall" in row]
    sound = [row for row in priced if row["bits"] >= LEAST] or priced
    enough = [row for row in sound if row["reranked"] >= ENOUGH]
    if enough:
        least: dict[str, Any] = min(enough, key=lambda row: (row["bits"], -row["reranked"], -row["recall"]))
        return least
    best: dict[str, Any] | None = max(sound, key=lambda row: (row["reranked"], -row["bits"]), default=None)
    return best


def sentence(table: dict[str, Any], row: dict[str, Any]) -> str:
    """What a row says, for a person.

    >>> table = {"k": 10, "float_bytes": 512, "shortlist": 100}
    >>> sentence(table, {"coder": "itq", "bits": 64, "recall": 0.51, "reranked": 0.97, "bytes": 8})
    '64 bits (itq) keep 51 % of 10 neighbours at 1/64 of the memory, 97 % once 100 are measured in floats'
    """
    share = table["float_bytes"] / row["bytes"]
    return (
        f"{row['bits']} bits ({row['coder']}) keep {row['recall']:.0%}".replace("%", " %")
        + f" of {table['k']} neighbours at 1/{share:.0f} of the memory, "
        + f"{row['reranked']:.0%}".replace("%", " %")
        + f" once {table['shortlist']} are measured in floats"
    )


def _ask(embeddings: Floats, k: int, seed: int) -> _Asked:
    generator = np.random.default_rng(seed)
    n = len(embeddings)
    kept = np.sort(generator.choice(n, GALLERY, replace=False)) if n > GALLERY else np.arange(n)
    gallery = np.ascontiguousarray(embeddings[kept], dtype=np.float32)
    queries = np.sort(generator.choice(len(gallery), min(QUERIES, len(gallery)), replace=False))
    without = queries.astype(np.int64)
    truth = exact.nearest(gallery[queries], gallery, k, exclude=without, block_bytes=MEMORY)
    return _Asked(gallery, queries, truth.ids, k)


def _row(asked: _Asked, name: str, bits: int, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"coder": name, "bits": int(bits)}
    started = time.perf_counter()
    try:
        coder = plugins.get("codes", name).Coder(
            plugins.configure("codes", name, {"bits": int(bits), "seed": seed})
        )
        coder.fit(asked.gallery[:: -(-len(asked.gallery) // FITTED)])
    except SemblanceError as error:
        return row | {"why not": error.message}
    seconds = time.perf_counter() - started
    codes = coder.encode(asked.gallery)
    index = plugins.get("index", "scan").Index(plugins.configure("index", "scan", {"threads": 1}))
    index.add(codes)
    wide = min(OVERSAMPLE * asked.k, len(codes) - 1) + 1
    found = _others(index.search(codes[asked.queries], wide).ids, asked.queries)
    recall = _kept(found[:, : asked.k], asked.truth)
    reranked = _kept(_again(asked, found), asked.truth)
    return row | {
        **_interval("recall", recall),
        **_interval("reranked", reranked),
        "bytes": codes.shape[1],
        "ms": _milliseconds(index, codes[asked.queries], asked.k),
        "fit": round(seconds, 3),
    }


def _others(found: NDArray[np.int64], queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """`found` `(q, k + 1)` without each query itself; where it was crowded out by equals, the last goes."""
    keep = found != queries[:, None]
    keep[keep.all(axis=1), -1] = False
    others: NDArray[np.int64] = found[keep].reshape(len(found), -1)
    return others


def _again(asked: _Asked, found: NDArray[np.int64]) -> NDArray[np.int64]:
    """The k of each row of `found` that lie nearest in floats, ties by id."""
    best = np.empty((len(found), asked.k), np.int64)
    for start in range(0, len(found), BLOCK):
        ids = np.sort(found[start : start + BLOCK], axis=1)
        queries = asked.gallery[asked.queries[start : start + BLOCK]]
        apart = np.square(asked.gallery[ids] - queries[:, None], dtype=np.float64).sum(axis=2)
        nearest = np.argsort(apart, axis=1, kind="stable")[:, : asked.k]
        best[start : start + BLOCK] = np.take_along_axis(ids, nearest, axis=1)
    return best


def _kept(found: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each query's share of `truth` `(q, k)` that `found` `(q, k)` has."""
    shares: NDArray[np.float64] = (truth[:, :, None] == found[:, None]).any(axis=2).mean(axis=1)
    return shares


def _interval(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    mean, half = values.mean(), 1.96 * values.std() / np.sqrt(len(values))
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    return {name: round(mean, 4), f"{name}_low": round(low, 4), f"{name}_high": round(high, 4)}


def _milliseconds(index: Any, queries: Codes, k: int) -> float:
    """Median time of one query on its own."""
    times = []
    for query in queries[:TIMED]:
        started = time.perf_counter()
        index.search(query[None], k)
        times.append(time.perf_counter() - started)
    return round(1e3 * float(np.median(times)), 4)
