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
from semblance.images.formats import PixelFormat
from semblance.training.embed import reading

if TYPE_CHECKING:
    from semblance.collection.store import Collection

__all__ = ["OPSET", "TOLERANCE", "export_onnx"]

OPSET = 18
TOLERANCE = 1e-4


def export_onnx(what: Collection | Model, path: str | Path, *, overwrite: bool = False) -> Path:
    """`path`, an ONNX file from `images` `(n, size, size, 3)` uint8 to `embeddings` `(n, d)` float32.

    A model of values takes `(n, size, size, c)`: uint8, or, where it stores 16 bits, the finite values
    themselves as float32; their curve is inside. Inside are also the crop (where the model has one), scaling
    to [0, 1], normalisation, encoder, head and L2 normalisation; resizing to `size` is the caller's. `n` is
    free. The file is kept only if ONNX Runtime gives what torch gives, to within 1e-4. Raises `MissingExtra`
    without onnx or onnxruntime, `CollectionError` where `path` exists and `overwrite` is not given or where
    the results differ.
    """
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtra("onnx", "export to ONNX")
    target = Path(path)
    if target.exists() and not overwrite:
        raise CollectionError(f"{target} exists", "replace it with --overwrite")
    model = what if isinstance(what, Model) else what.model
    size, crop = model.size, model.facts["crop"]
    whole = _Whole(model.encoder, model.head, size, view_size(size, crop), model.pixels).eval().cpu()
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

    curve: Tensor

    def __init__(
        self, encoder: nn.Module, head: nn.Module, size: int, side: int, pixels: PixelFormat
    ) -> None:
        super().__init__()
        curve = (pixels.centre, pixels.scale, pixels.low, pixels.high) if pixels.bits == 16 else ()
        self.wide = pixels.bits == 16
        self.register_buffer("curve", torch.tensor(curve, dtype=torch.float32))
        self.encoder, self.head = encoder, head
        self.first, self.side = round((size - side) / 2), side

    def forward(self, images: Tensor) -> Tensor:
        """`(n, size, size, c)` uint8, or float32 values where 16 bits are stored -> `(n, d)` float32."""
        end = self.first + self.side
        x = images[:, self.first : end, self.first : end]
        if self.wide:
            centre, scale, low, high = self.curve.unbind()
            t = (x - centre) / scale
            t = t.sign() * (t.abs() + (t * t + 1).sqrt()).log()  # asinh, which the exporter does not know
            x = ((t - low) / (high - low)).clamp(0, 1).permute(0, 3, 1, 2)
        else:
            x = x.permute(0, 3, 1, 2).float() / 255
        y: Tensor = self.head(reading(self.encoder, self.head)(x))
        return y


def _trace(whole: nn.Module, sample: NDArray[Any]) -> bytes:
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
        "semblance.input": f"{_input(model.pixels)}, {model.size} x {model.size}, {model.facts['fit']}",
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


def _input(pixels: PixelFormat) -> str:
    if pixels.photo:
        return "RGB uint8"
    return f"{pixels.channels} channels, {'uint8' if pixels.bits == 8 else 'values as float32'}"


def _run(data: bytes, images: NDArray[Any]) -> NDArray[np.float32]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = min(4, os.cpu_count() or 1)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    rows: NDArray[np.float32] = session.run(["embeddings"], {"images": images})[0]
    return rows


def _batches(sample: NDArray[Any], wanted: Any) -> list[tuple[NDArray[Any], Any]]:
    """One image alone, and all together: the number of images must be free."""
    return [(sample[:1], wanted[:1]), (sample, wanted)]


def _sample(what: Collection | Model, size: int) -> NDArray[Any]:
    """Noise, black, white and, of a collection, real images, as the file takes them."""
    pixels = what.pixels if isinstance(what, Model) else what.format
    shape, top = (size, size, pixels.channels), np.iinfo(pixels.dtype).max
    random = np.random.default_rng(0).integers(0, top + 1, (4, *shape), dtype=pixels.dtype)
    flat = np.stack([np.zeros(shape, pixels.dtype), np.full(shape, top, pixels.dtype)])
    real = random[:0] if isinstance(what, Model) else np.asarray(what.pixels[:8])
    stored = np.concatenate([random, flat, real])
    return stored if pixels.bits == 8 else pixels.unpack(stored)
