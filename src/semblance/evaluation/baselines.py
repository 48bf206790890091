"""What the pixels alone are worth: the rows that every table of results carries.

All start from the same vector: the image, shrunk by area to at most 16 pixels a side (8 where it is
whitened), in [0, 1], less the mean image of the set. Without subtracting the mean all images point much the
same way, and the row would be weaker than it deserves. At 16 pixels a side it found as much as at 32 on
handwriting, photographs and galaxies, for a quarter of the cost. Rows have length 1; an image that equals the
mean image stays zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch.nn.functional import interpolate

from semblance.errors import InputError
from semblance.evaluation.metrics import unit
from semblance.objectives._levels import principal

__all__ = ["pca_pixels", "random_projection", "raw_pixels", "whitened_pixels"]

_BLOCK = 1024

Floats = NDArray[np.float32]


def raw_pixels(pixels: NDArray[Any], max_side: int = 16) -> Floats:
    """The pixels themselves as embedding: `(n, h, w, c)` uint8 or uint16 -> `(n, d)`, centred, length 1.

    Images larger than `max_side` are shrunk by averaging over areas, keeping their proportions. Cost:
    `4 n d` bytes, d = 768 for 16 x 16 RGB. Raises `InputError` for another shape or type.
    """
    return unit(_centred(pixels, max_side))


def pca_pixels(pixels: NDArray[Any], d: int = 128, seed: int = 0, max_side: int = 16) -> Floats:
    """The first d principal components of the pixels: `(n, h, w, c)` -> `(n, d)`, length 1.

    Fewer than d where the images are fewer or smaller. Randomised SVD (Halko et al. 2011).
    """
    flat = _centred(pixels, max_side)
    kept = min(d, *flat.shape)
    return unit(PCA(kept, svd_solver="randomized", random_state=seed).fit_transform(flat))


def whitened_pixels(pixels: NDArray[Any], d: int = 256, max_side: int = 8) -> Floats:
    """The pixels' d leading directions with spreads nearly alike: `(n, h, w, c)` -> `(n, d)`, length 1.

    What an embedding that is whitened has to be ahead of: on photographs it finds far more than raw pixels.
    Fewer than d where the images are smaller. 8 pixels a side found most, of 4, 8, 16 and 32.
    """
    flat = _centred(pixels, max_side)
    head = principal(torch.from_numpy(flat), (flat.shape[1],), d)
    if head is None:
        return unit(flat)
    with torch.inference_mode():
        rows: Floats = head(torch.from_numpy(flat)).numpy()
    return rows


def random_projection(pixels: NDArray[Any], d: int = 128, seed: int = 0, max_side: int = 16) -> Floats:
    """The pixels through a Gaussian matrix: `(n, h, w, c)` -> `(n, d)`, length 1."""
    flat = _centred(pixels, max_side)
    matrix = np.random.default_rng(seed).standard_normal((flat.shape[1], d), dtype=np.float32)
    return unit(flat @ matrix)


def _centred(pixels: NDArray[Any], max_side: int) -> Floats:
    if pixels.ndim != 4 or pixels.dtype not in (np.uint8, np.uint16) or 0 in pixels.shape:
        raise InputError(
            f"pixels have shape {pixels.shape} and type {pixels.dtype}",
            "expected (n, h, w, c) uint8 or uint16",
        )
    top = np.iinfo(pixels.dtype).max
    n, height, width, channels = pixels.shape
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    flat = np.empty((n, size[0] * size[1] * channels), dtype=np.float32)
    for start in range(0, n, _BLOCK):
        part = torch.from_numpy(pixels[start : start + _BLOCK].astype(np.float32) / top).permute(0, 3, 1, 2)
        if size != (height, width):
            part = interpolate(part, size=size, mode="area")
        flat[start : start + _BLOCK] = part.permute(0, 2, 3, 1).reshape(len(part), -1).numpy()
    flat -= flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    return flat
