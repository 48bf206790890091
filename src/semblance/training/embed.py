"""Features or embeddings of a whole pixel store, in blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semblance.contracts import Progress
from semblance.images.views import centre
from semblance.training.config import choose_device, choose_precision
from semblance.training.machine import keep_memory

__all__ = ["embed", "pixels_to_tensor", "reading"]

Array = np.ndarray[Any, np.dtype[Any]]


def pixels_to_tensor(pixels: Array, rows: Array | slice, device: torch.device) -> Tensor:
    """Rows of a pixel store `(n, h, w, c)` uint8 on the device."""
    return torch.from_numpy(np.array(pixels[rows])).to(device)


def reading(encoder: Any, head: Any) -> Callable[[Tensor], Tensor]:
    """What of an encoder a head reads: its levels where the head says so, or else its features."""
    part: Callable[[Tensor], Tensor] = encoder.levels if getattr(head, "levels", False) else encoder
    return part


@torch.inference_mode()
def embed(
    encoder: Any,
    head: Callable[[Tensor], Tensor] | None,
    pixels: Array,
    size: int,
    *,
    batch: int = 256,
    device: str = "auto",
    precision: str = "auto",
    crop: float | None = None,
    levels: bool = False,
    progress: Progress | None = None,
    stage: str = "embed",
) -> Array:
    """Embeddings `(n, d)` float32 of `pixels` `(n, h, w, c)` uint8, in evaluation mode.

    `head` None gives the encoder's features or, with `levels`, its levels. `size`: side that the encoder
    sees, `crop`: share of the stored side that the centre crop keeps. The encoder goes back to its mode
    afterwards.
    """
    keep_memory()
    where = choose_device(device)
    read = encoder.levels if levels else reading(encoder, head)
    bf16 = choose_precision(precision, where) == "bf16"
    modules = [module for module in (encoder, head) if isinstance(module, nn.Module)]
    modes = [module.training for module in modules]
    for module in modules:
        module.eval().to(where)
    parts = []
    try:
        for start in range(0, len(pixels), batch):
            x = centre(pixels_to_tensor(pixels, slice(start, start + batch), where), size, crop)
            with torch.autocast(where.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
                y = read(x)
            parts.append((head(y) if head else y).float().cpu().numpy())
            if progress:
                progress(stage, min(start + batch, len(pixels)), len(pixels))
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
    if not parts:
        raise ValueError("there are no pixels to embed")
    return np.concatenate(parts)
