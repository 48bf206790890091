"""The model as an ONNX file, preprocessing included, checked against torch before it is kept."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semblance.collection.disk import explain_disk_errors, write_atomically
from semblance.collection.model import Model, view_size
from semblance.errors import CollectionError, MissingExtra

if TYPE_CHECKING:
    from semblance.collection.store import Collection

__all__ = ["OPSET", "TOLERANCE", "export_onnx"]

OPSET = 18
TOLERANCE = 1e-4


def export_onnx(what: Collection | Model, path: str | Path, *, overwrite: bool = False) -> Path:
    """`path`, an ONNX file from `images` `(n, size, size, 3)` uint8 to `embeddings` `(n, d)` float32.

    Inside are the crop (where the model has one), scaling to [0, 1], normalisation, encoder, head and L2
    normalisation; resizing to `size` is the caller's. `n` is free. The file is kept only if ONNX Runtime
    gives what torch gives, to within 1e-4. Raises `MissingExtra` without onnx or onnxruntime,
    `CollectionError` where `path` exists and `overwrite` is not given or where the results differ.
    """
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtra("onnx", "export to ONNX")
    target = Path(path)
    if target.exists() and not overwrite:
        raise CollectionError(f"{target} exists", "replace it with --overwrite")
    model = what if isinstance(what, Model) else what.model
    size, crop = model.size, model.facts["crop"]
    whole = _Whole(model.encoder, model.head, size, view_size(size, crop)).eval().cpu()
    sample = _sample(what, size)
    data = _described(_trace(whole, sample[:2]), model)
    with torch.inference_mode():
        wanted = whole(torch.from_numpy(sample)).numpy()
    worst = max(float(np.abs(_run(data, part) - row).max()) for part, row in _batches(sample, wanted))
    if not worst <= TOLERANCE:
        raise CollectionError(
            f"the exported model differs from torch by {worst:.1e}, over {TOLERANCE:.0e}; it was not kept",
            "report which encoder this was",
        )
    with explain_disk_errors(f"writing {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        return write_atomically(target, lambda file: file.write(data))


class _Whole(nn.Module):
    """Everything between stored pixels and embedding."""

    def __init__(self, encoder: nn.Module, head: nn.Module, size: int, side: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.first, self.side = round((size - side) / 2), side

    def forward(self, images: Tensor) -> Tensor:
        """`(n, size, size, 3)` uint8 -> `(n, d)` float32."""
        end = self.first + self.side
        x = images[:, self.first : end, self.first : end].permute(0, 3, 1, 2).float() / 255
        y: Tensor = self.head(self.encoder(x))
        return y


def _trace(whole: nn.Module, sample: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    axes = {"images": {0: "n"}, "embeddings": {0: "n"}}
    with _quiet():
        torch.onnx.export(
            whole,
            (torch.from_numpy(sample),),
            out,  # type: ignore[arg-type]  # the exporter that writes to a buffer is typed as the other
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return out.getvalue()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own age and of constants that are meant to be constants."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _described(data: bytes, model: Model) -> bytes:
    """The file with the model's identity and what it expects in its metadata."""
    import onnx

    graph = onnx.load_from_string(data)
    facts = {
        "semblance.identity": model.identity,
        "semblance.input": f"RGB uint8, {model.size} x {model.size}, {model.facts['fit']}",
        "semblance.model": json.dumps(
            {key: model.facts[key] for key in ("encoder", "objective", "size", "fit", "crop")}
        ),
    }
    for key, value in facts.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(graph)
    whole: bytes = graph.SerializeToString()
    return whole


def _run(data: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = min(4, os.cpu_count() or 1)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    rows: NDArray[np.float32] = session.run(["embeddings"], {"images": images})[0]
    return rows


def _batches(sample: NDArray[np.uint8], wanted: Any) -> list[tuple[NDArray[np.uint8], Any]]:
    """One image alone, and all together: the number of images must be free."""
    return [(sample[:1], wanted[:1]), (sample, wanted)]


def _sample(what: Collection | Model, size: int) -> NDArray[np.uint8]:
    """Noise, black, white and, of a collection, real images."""
    random = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    flat = np.stack([np.zeros((size, size, 3), np.uint8), np.full((size, size, 3), 255, np.uint8)])
    real = random[:0] if isinstance(what, Model) else np.asarray(what.pixels[:8])
    return np.concatenate([random, flat, real])
