"""How well a collection's neighbours and clusters agree with labels that training never saw.

Five rows, always: raw pixels, the same whitened, the encoder untrained (random weights), the encoder as the
training started (the same where it started from random weights), and what was learned. The untrained and the
frozen encoder are read as the model reads its own, features without a head or the leading directions of all
levels; like those of the pixels, these directions are of the very images that are scored, which favours them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from semblance import plugins
from semblance.collection.checks import kept_columns
from semblance.collection.labelled import labels_in_order
from semblance.collection.learn import spread_rows
from semblance.collection.model import RANDOM, Model, build_encoder, plain, view_size
from semblance.contracts import Progress
from semblance.evaluation import protocol
from semblance.evaluation.columns import as_rows
from semblance.objectives._levels import principal
from semblance.training.embed import embed
from semblance.training.loop import READ

if TYPE_CHECKING:
    from semblance.collection.store import Collection

__all__ = ["evaluate", "model_rows", "read_labels", "rows_of"]


def evaluate(
    collection: Collection,
    labels: str | Path | Mapping[str, Any] | Sequence[Any] | None = None,
    column: str | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    record: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The table of `protocol.evaluate` for this collection, with "column"; kept for its report. "taught" says
    which labels the training learned from, if any: with these in the table, it is no test.

    `labels`: a CSV or Parquet table and its `column`, a mapping from path to label, one label for each
    readable image in order, or None for the names of the folders. Images without a label are left out.
    `seed` draws the starts of k-means. Raises `InputError` or `ConfigError` for labels that do not
    fit. With `record=False` nothing is written.
    """
    values, name = labels_in_order(collection.paths, labels, column, collection.path.name)
    rows = rows_of(collection, device=device, progress=progress)
    table = protocol.evaluate(rows, values, seed=seed, progress=progress)
    taught = collection.info["config"].get("labels")
    result: dict[str, Any] = plain({**table, "column": name, "taught": taught})
    if record:
        collection.record(evaluation=result)
    return result


def read_labels(
    collection: Collection,
    labels: str | Path | Mapping[str, Any] | Sequence[Any] | None = None,
    column: str | None = None,
) -> dict[str, Any]:
    """Path -> label of the readable images; None where there is none. As `evaluate` takes them."""
    values, _ = labels_in_order(collection.paths, labels, column, collection.path.name)
    return dict(zip(collection.paths, values, strict=True))


def rows_of(
    collection: Collection, *, device: str = "auto", progress: Progress | None = None
) -> dict[str, NDArray[np.float32]]:
    """Name -> embeddings `(n, d)`: those of `model_rows`, of this collection's images.

    Where a training used columns, those kept are scored too, "columns alone" and beside the embedding.
    """
    learned = np.asarray(collection.embeddings)
    rows = model_rows(collection.model, collection.pixels, learned, device=device, progress=progress)
    kept = kept_columns(collection.info.get("columns"), collection.columns)
    if kept:
        rows["columns alone"] = as_rows(kept)
        rows["learned + columns"] = np.concatenate([learned, rows["columns alone"]], axis=1) / np.float32(
            2**0.5
        )
    return rows


def model_rows(
    model: Model,
    pixels: NDArray[Any],
    learned: NDArray[np.float32] | None = None,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Name -> embeddings `(n, d)` of `pixels`: "raw pixels", "whitened pixels", "untrained encoder", "frozen
    start", "learned".

    The untrained encoder has the random weights that the training's seed gives or, where the training began
    from such, those that it began with; then the frozen start is the same array. Both are read as the model
    reads its encoder: features, or the leading directions of all levels. `learned`: the embeddings,
    where they are known.
    """
    described = model.facts["encoder"]
    config = plugins.configure("encoders", described["name"], described["config"])
    encoder: Any = build_encoder(described["name"], config, model.facts["training"]["config"]["seed"])
    side, crop = view_size(model.size, model.facts["crop"]), model.facts["crop"]
    how: dict[str, Any] = {"device": device, "precision": model.precision}

    def features(stage: str) -> NDArray[np.float32]:
        head = None
        if model.facts["head"].get("levels"):
            some = pixels[spread_rows(len(pixels), READ)]
            levels = embed(encoder, None, some, side, crop=crop, levels=True, **how)
            head = principal(torch.from_numpy(levels), encoder.level_dims, model.dim)
        rows: NDArray[np.float32] = embed(
            encoder, head, pixels, side, crop=crop, progress=progress, stage=stage, **how
        )
        return rows

    fresh = model.facts["training"]["start"] == RANDOM
    if fresh:
        encoder.load_state_dict(model.start_weights())
    untrained = frozen = features("untrained encoder")
    if not fresh:
        encoder.load_state_dict(model.start_weights())
        frozen = features("frozen start")
    return {
        "raw pixels": protocol.raw_pixels(pixels),
        "whitened pixels": protocol.whitened_pixels(pixels),
        "untrained encoder": untrained,
        "frozen start": frozen,
        "learned": model.embed_pixels(pixels, device=device, progress=progress)
        if learned is None
        else learned,
    }
