"""Bringing a collection up to date: what is new or changed is decoded and embedded, the model stays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semblance.collection import disk
from semblance.collection.codes import carry
from semblance.collection.columns import write_given
from semblance.collection.log import now
from semblance.collection.settings import Options
from semblance.collection.store import Collection
from semblance.contracts import Progress
from semblance.images.sources import Source
from semblance.images.store import build_store, open_store

__all__ = ["Changes", "changes", "count", "describe", "update"]


@dataclass(frozen=True)
class Changes:
    """Paths that came, went or have another size or time than when they were read."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    nothing: bool


def changes(old: Collection, source: Source) -> Changes:
    """What is different between a collection and what its source holds now; nothing is decoded."""
    table = old.images
    names = ("path", "bytes", "mtime_ns", "status")
    rows = zip(*(table.column(name).to_pylist() for name in names), strict=True)
    before = {path: (size, time, status) for path, size, time, status in rows}
    current = {item.path: (item.bytes, item.mtime_ns) for item in source.items}
    problems = {problem.path: problem.reason for problem in source.problems if problem.path not in current}
    added = [path for path in (*current, *problems) if path not in before]
    removed = [path for path in before if path not in current and path not in problems]
    changed = [path for path, stamp in current.items() if path in before and before[path][:2] != stamp]
    changed += [p for p, why in problems.items() if p in before and before[p][2] != f"unreadable: {why}"]
    # An array has neither names nor times: only building the store again tells.
    nothing = source.kind != "array" and not (added or changed or removed)
    return Changes(tuple(added), tuple(changed), tuple(removed), nothing)


def describe(difference: Changes) -> str:
    """One line for a person."""
    parts = {"new": difference.added, "changed": difference.changed, "removed": difference.removed}
    told = ", ".join(f"{len(paths):,} {what}" for what, paths in parts.items() if paths) or "images changed"
    return f"updated: {told}; the model was kept (--overwrite learns again)"


def update(
    old: Collection, source: Source, folder: Path, options: Options, progress: Progress | None
) -> dict[str, Any] | None:
    """The new `collection.json`, after writing the parts into `folder`; None where nothing changed after all.

    Embeddings of images whose content hash is known are taken over, the rest is embedded with `old`'s model.
    """
    model = old.model
    size, fit = model.size, model.facts["fit"]
    table = build_store(source, folder, size, fit, options.threads, progress, old.path, model.pixels)
    before = dict(zip(*(old.images.column(name).to_pylist() for name in ("hash", "row")), strict=True))
    if _same(table, old.images):
        return None
    pixels = open_store(folder / "pixels.npy")
    write_given(folder, source.table, table)
    rows = table.column("row").to_pylist()
    hashes = [h for row, h in sorted(zip(rows, table.column("hash").to_pylist(), strict=True)) if row >= 0]
    known = np.array([before.get(one, -1) for one in hashes])
    embeddings = np.empty((len(pixels), model.dim), np.float32)
    embeddings[known >= 0] = old.embeddings[known[known >= 0]]
    missing = np.flatnonzero(known < 0)
    for start in range(0, len(missing), 4096):
        some = missing[start : start + 4096]
        embeddings[some] = model.embed_pixels(pixels[some], device=options.device, progress=progress)
    disk.write_atomically(folder / "embeddings.npy", lambda file: np.save(file, embeddings))
    del pixels
    codes = carry(old, folder, embeddings)
    disk.share(old.path / "model", folder / "model")
    if (old.path / "metrics.jsonl").is_file():
        disk.share(old.path / "metrics.jsonl", folder / "metrics.jsonl")
    anew: dict[str, Any] = {"evaluation": None, "price": None, "codes": codes}
    return {**old.info, "counts": count(table), **anew, "updated": now()}


def count(table: Any) -> dict[str, int]:
    """What `collection.json` says of an image table."""
    rows = table.column("row").to_numpy()
    return {
        "images": len(table),
        "readable": int((rows >= 0).sum()),
        "unreadable": int((rows < 0).sum()),
        "duplicates": len(table) - table.column("duplicate_of").null_count,
    }


def _same(new: Any, old: Any) -> bool:
    names = ("id", "row", "path", "hash", "status")
    return all(new.column(name).to_pylist() == old.column(name).to_pylist() for name in names)
