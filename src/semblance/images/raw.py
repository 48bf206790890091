"""Files that hold values rather than a picture -> an array `(h, w, c)` with the numbers as they are.

| the file is | the values are |
| --- | --- |
| `.npy` of `(h, w)` or `(h, w, c)` | as written: any whole or real number type |
| TIFF of several pages, each of one channel and of one size | page k is channel k |
| 16-bit or 32-bit grey (PNG, TIFF, PGM), float TIFF or PFM | one channel, as written |
| 8-bit grey or black and white | one channel, 0 to 255 |
| any other picture | RGB, 0 to 255, as `decode` has it |

Pillow opens 16-bit RGB (PNG, TIFF) with 8 bits: for all 16 write a `.npy`, or a TIFF with one page a channel.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from semblance.errors import InputError
from semblance.images.formats import PixelFormat

__all__ = ["as_values", "fit_values", "page_count", "read_npy"]

SINGLE = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
MOST_CHANNELS = 4096


def read_npy(data: bytes) -> NDArray[Any]:
    """`(h, w, c)` of a `.npy` file's bytes, its numbers as they are; nothing is unpickled.

    Raises `InputError`: truncated, another shape, no numbers; `ValueError` for a damaged header.
    """
    handle = io.BytesIO(data)
    version = npy.read_magic(handle)
    if version not in ((1, 0), (2, 0)):
        raise InputError("not an array of numbers")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = read(handle)
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise InputError(f"an array of {dtype}, not of numbers")
    if any(side < 0 for side in shape) or 0 in shape:
        raise InputError(f"an array of shape {shape} is empty")
    if len(shape) not in (2, 3):
        raise InputError(f"an array of shape {shape}, not (h, w) or (h, w, c)")
    if len(shape) == 3 and shape[0] < shape[1] and 16 < shape[2] > shape[0]:
        raise InputError(f"an array of shape {shape} looks like (c, h, w), not (h, w, c)")
    if (len(shape) == 3 and shape[2] > MOST_CHANNELS) or shape[0] * shape[1] > _most_pixels():
        raise InputError(f"an array of shape {shape} is too large")
    count = 1
    for side in shape:
        count *= side
    if len(data) - handle.tell() < count * dtype.itemsize:
        raise InputError("truncated")
    flat: NDArray[Any] = np.frombuffer(data, dtype, count, handle.tell())
    array = flat.reshape(shape, order="F" if by_columns else "C")
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return array if array.ndim == 3 else array[..., None]


def page_count(image: Image.Image) -> int:
    """How many pages of an open TIFF are channels of one image; 1 where they are not."""
    pages = getattr(image, "n_frames", 1)
    if image.format != "TIFF" or pages < 2 or pages > MOST_CHANNELS:
        return 1
    shapes = set()
    for page in range(pages):
        image.seek(page)
        shapes.add((image.size, image.mode))
        if len(shapes) > 1 or image.mode not in SINGLE or image.mode == "1":
            pages = 1
            break
    image.seek(0)
    return pages


def as_values(image: Image.Image) -> NDArray[Any]:
    """`(h, w, c)` of an open image that holds one channel, or channels as pages."""
    pages = page_count(image)
    width, height = image.size
    if width * height > _most_pixels():
        raise InputError(f"too many pixels ({width * height})")
    parts = []
    for page in range(pages):
        if pages > 1:
            image.seek(page)
        one = image.convert("L") if image.mode == "1" else image
        parts.append(np.array(one))
    return np.stack(parts, axis=2)


def fit_values(values: NDArray[Any], size: int, fit: str, wanted: PixelFormat) -> NDArray[Any]:
    """`(h, w, c)` values -> `(size, size, c)` as `wanted` stores them, each channel resized by itself.

    Resizing is an antialiased bicubic on the values; an image that has the size already passes untouched.
    Raises `InputError` where channels or width of the numbers are not the collection's, or none is finite.
    """
    channels = values.shape[-1]
    if channels != wanted.channels:
        have = f"{channels} channel{'s' if channels > 1 else ''}"
        raise InputError(f"{have}, this collection has {wanted.channels}")
    if (values.dtype == np.uint8) != (wanted.bits == 8):
        kind = "8-bit" if wanted.bits == 8 else "16-bit or wider"
        raise InputError(f"{values.dtype} values, this collection has {kind} ones")
    if wanted.bits == 16:
        values = _finite(values.astype(np.float32), wanted)
    if values.shape[:2] != (size, size):
        values = np.stack([_resize(values[..., c], size, fit) for c in range(channels)], axis=2)
    return wanted.pack(values)


def _finite(values: NDArray[np.float32], wanted: PixelFormat) -> NDArray[np.float32]:
    """NaN as the centre, infinities as the ends of the curve: before anything is averaged."""
    good = np.isfinite(values)
    if good.all():
        return values
    if not good.any():
        raise InputError("no finite value")
    low, high = wanted.bounds()
    filled = np.where(np.isnan(values), np.asarray(wanted.centre, np.float32), values)
    return filled.clip(low.astype(np.float32), high.astype(np.float32))


def _resize(channel: NDArray[Any], size: int, fit: str) -> NDArray[Any]:
    image = Image.fromarray(np.ascontiguousarray(channel))
    box = None
    if fit == "crop":
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
    return np.array(image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0))


def _most_pixels() -> int:
    limit = Image.MAX_IMAGE_PIXELS
    return 2 * limit if limit is not None else 1 << 40
