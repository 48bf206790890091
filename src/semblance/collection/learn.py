"""From a pixel store to a model, and from a model to the embeddings of the store."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from semblance.collection import disk, labelled, together
from semblance.collection.begin import fill_encoder, fill_head, said
from semblance.collection.columns import all_columns, data_hash, positives, read
from semblance.collection.model import (
    RANDOM,
    Model,
    build_encoder,
    build_objective,
    identity,
    plain,
    versions,
    view_size,
)
from semblance.collection.model import load as load_model
from semblance.collection.settings import Settings
from semblance.contracts import Column, Progress
from semblance.encoders._frozen import Frozen
from semblance.errors import CollectionError, ConfigError
from semblance.images.store import open_store, read_images
from semblance.images.views_presets import Views, choose_preset
from semblance.training.loop import TrainResult, train

__all__ = [
    "embed_rows",
    "follow",
    "learn_model",
    "paths_of",
    "prepare",
    "spread_rows",
    "views_preset",
]

SAMPLE = 512
"""Images that pixel statistics and the choice of views look at."""
VALUES = 2**25
"""At most so many values of pixels, of 32 images or more: what is told of them takes 50 bytes for each."""
APART = 7_919
"""Added to the seed of what is drawn for heads of columns."""


@dataclass(frozen=True)
class Start:
    """What a training starts from: a copy of the encoder's first weights, and what the card says of them."""

    weights: dict[str, Any]
    said: str


def learn_model(
    settings: Settings, pixels: NDArray[Any], table: Any, folder: Path, progress: Progress | None
) -> Model:
    """The model learned on `pixels`, saved in `folder/model`.

    A model or checkpoint that is there and belongs to the same images is used. Raises what `train` raises.
    """
    data: dict[str, Any] = {"hash": data_hash(table), "images": len(pixels)}
    done = _finished(folder, data)
    if done is not None:
        return done
    _forget_other_data(folder, data["hash"])
    together.tell({"settings": settings, "folder": folder})
    preset, views, trained, start, result = _train(settings, pixels, folder, progress)
    model = Model(
        trained.encoder,
        trained.head,
        _facts(settings, trained, preset, views, data, start, result),
        start.weights,
    )
    model.save(folder / "model")
    return model


def follow() -> dict[str, Any]:
    """Train along with the first process where it trains; its last message, when the collection is done."""
    message = together.hear()
    if "folder" in message:
        _train(message["settings"], open_store(message["folder"] / "pixels.npy"), message["folder"], None)
        message = together.hear()
    together.finish()
    return message


def prepare(
    settings: Settings,
    pixels: NDArray[Any],
    views: Views,
    columns: Callable[[], Mapping[str, Column]],
    labels: Callable[[], labelled.Targets],
) -> tuple[nn.Module, Start]:
    """The objective around its encoder, ready to train, and what it starts from. `columns` and `labels` are
    called where the objective takes some."""
    seed = settings.training.seed
    encoder: Any = build_encoder(settings.encoder, settings.encoder_config, seed)
    channels = pixels.shape[-1]
    if encoder.channels != channels:
        raise ConfigError(
            f"the encoder {settings.encoder} takes {encoder.channels} channels, the images have {channels}",
            "--encoder resnet takes any number; --pixels photo makes RGB of 16-bit grey",
        )
    if settings.begin is not None:
        fill_encoder(encoder, settings.begin)
    elif hasattr(encoder, "look_at"):
        some = spread_rows(len(pixels), min(SAMPLE, max(32, VALUES // pixels[0].size)))
        sample = pixels[some].astype(np.float32) / np.iinfo(pixels.dtype).max
        encoder.look_at(torch.from_numpy(sample).permute(0, 3, 1, 2))
    start = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
    encoder = Frozen(encoder) if settings.freeze else encoder
    objective: Any = build_objective(settings.objective, settings.objective_config, encoder, seed)
    fits = settings.begin is not None and fill_head(objective.head, settings.begin)
    with torch.random.fork_rng(devices=[]):  # what is drawn for the heads of columns, and for each class
        if hasattr(objective, "take_columns"):
            torch.manual_seed(seed + APART)  # of one seed they would be copies of the other heads
            objective.take_columns(columns())
        if settings.lesson is not None:
            torch.manual_seed(seed)
            objective.take_labels(labels())
    return objective, Start(start, said(settings.begin, fits, RANDOM))


def embed_rows(
    model: Model, pixels: NDArray[Any], folder: Path, device: str, progress: Progress | None
) -> NDArray[np.float32]:
    """The embeddings `(n, d)` of the store, saved in `folder/embeddings.npy`."""
    rows = model.embed_pixels(pixels, device=device, progress=progress)
    disk.write_atomically(folder / "embeddings.npy", lambda file: np.save(file, rows))
    return rows


def views_preset(settings: Settings, pixels: NDArray[Any]) -> tuple[str, Views]:
    """The name of the views' preset and the views; "auto" looks at a sample of the images."""
    return settings.views_for(choose_preset(pixels[spread_rows(len(pixels), 256)]))


def spread_rows(n: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `n` row numbers, evenly spaced."""
    rows: NDArray[np.int64] = np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
    return rows


def paths_of(table: Any) -> list[str]:
    """The path of every row of the store."""
    rows, paths = table.column("row").to_pylist(), table.column("path").to_pylist()
    return [path for row, path in sorted(zip(rows, paths, strict=True)) if row >= 0]


def _train(
    settings: Settings, pixels: NDArray[Any], folder: Path, progress: Progress | None
) -> tuple[str, Views, Any, Start, TrainResult]:
    preset, views = views_preset(settings, pixels)
    found = functools.partial(all_columns, folder, pixels, settings.pixels, progress)
    objective, start = prepare(settings, pixels, views, found, functools.partial(labelled.read, folder))
    side = view_size(settings.size, views.crop)
    partners = None
    if settings.positives != "view":  # which needs no table of numbers to be read
        partners = positives(settings.positives, read(folder), paths_of(read_images(folder)))
    result = train(pixels, objective, settings.train_config(views), folder, side, progress, partners)
    if settings.freeze:
        objective.encoder = objective.encoder.trunk  # type: ignore[union-attr]
    return preset, views, objective, start, result


def _facts(
    settings: Settings,
    trained: Any,
    preset: str,
    views: Views,
    data: dict[str, Any],
    start: Start,
    result: TrainResult,
) -> dict[str, Any]:
    record = settings.record()
    encoder = trained.encoder
    parameters = sum(weight.numel() for weight in encoder.parameters())
    last = (
        {key: value for key, value in result.history[-1].items() if key != "seconds"}
        if result.history
        else None
    )
    levels = getattr(trained.head, "levels", False)
    size = {"inside": encoder.dim, "outside": settings.objective_config.dim}
    if levels:
        size = {"inside": trained.head.inside, "outside": trained.head.outside, "levels": True}
    described: dict[str, Any] = plain(
        {
            "encoder": {"name": settings.encoder, "config": encoder.config, "parameters": parameters},
            "objective": record["objective"],
            "head": size,
            "size": settings.size,
            "fit": settings.fit,
            "pixels": settings.pixels,
            "crop": views.crop,
            "data": data,
            "start": identity(start.weights, {}),
            "training": {
                "epochs": result.epochs,
                "views": preset,
                "start": start.said,
                "freeze": settings.freeze,
                "labels": record["labels"],
                "config": {**record["training"], "views": views},
                "last": last,
            },
            "versions": versions(),
        }
    )
    return described


def _finished(folder: Path, data: dict[str, Any]) -> Model | None:
    """The model that an earlier run of this build saved, where it is whole and of the same images."""
    if not (folder / "model" / "model.json").is_file():
        return None
    try:
        model = load_model(folder)
    except CollectionError:
        model = None
    if model is None or model.facts["data"] != data:
        shutil.rmtree(folder / "model")
        return None
    return model


def _forget_other_data(folder: Path, data: str) -> None:
    """Images may have changed since a build was cut off: a checkpoint of the former ones is of no use."""
    marker = folder / "checkpoint.of"
    if marker.is_file() and marker.read_text(encoding="utf-8") == data:
        return
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    disk.write_atomically(marker, lambda file: file.write(data.encode()))
