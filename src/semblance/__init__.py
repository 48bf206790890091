"""Semblance: from a folder of unlabelled images to a searchable collection.

    collection = semblance.run("photos/")           # -> photos.smb/
    collection.search("query.jpg", k=10)
    semblance.load("photos.smb").embed(["a.jpg"])   # (1, d) float32

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from semblance.collection.build import learn
    from semblance.collection.estimator import Embedder
    from semblance.collection.export import export_onnx
    from semblance.collection.model import Model, load
    from semblance.collection.plan import Plan, plan
    from semblance.collection.store import Collection
    from semblance.contracts import Matches, Progress
    from semblance.errors import (
        CollectionError,
        ConfigError,
        InputError,
        MissingExtra,
        ModelMismatch,
        SemblanceError,
        TrainingCollapsed,
    )

__version__ = "0.1.0"
__all__ = [
    "Collection",
    "CollectionError",
    "ConfigError",
    "Embedder",
    "InputError",
    "Matches",
    "MissingExtra",
    "Model",
    "ModelMismatch",
    "Plan",
    "SemblanceError",
    "TrainingCollapsed",
    "__version__",
    "export_onnx",
    "learn",
    "load",
    "open",
    "plan",
    "run",
]

_HOME = {
    "Collection": "collection.store",
    "Embedder": "collection.estimator",
    "Matches": "contracts",
    "Model": "collection.model",
    "Plan": "collection.plan",
    "export_onnx": "collection.export",
    "learn": "collection.build",
    "load": "collection.model",
    "plan": "collection.plan",
}


def run(
    source: Any,
    out: str | Path | None = None,
    *,
    report: bool = True,
    progress: Progress | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    **options: Any,
) -> Collection:
    """The collection made from `source` (a folder, glob, manifest, list of files or uint8 array), at `out`.

    Plans, decodes, learns, embeds and writes the report; the default place is `<name of the source>.smb`
    here. `on_plan` is given the bill before anything is made. `options` are those of
    `semblance.collection.settings.Options`: objective, encoder, views, epochs, budget (seconds), size, fit,
    device, seed, overwrite, ... Run again, it does only what is missing or changed. Raises `SemblanceError`.
    """
    from semblance.collection.build import run as build
    from semblance.report import write_report

    return build(
        source, out, report=write_report if report else None, progress=progress, on_plan=on_plan, **options
    )


def open(path: str | Path) -> Collection:
    """The collection in the folder `path`. Raises `CollectionError` where there is none or it is damaged."""
    from semblance.collection.store import Collection

    return Collection.open(path)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"semblance.{_HOME[name]}"), name)
    if name in __all__:
        return getattr(importlib.import_module("semblance.errors"), name)
    raise AttributeError(f"module 'semblance' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
