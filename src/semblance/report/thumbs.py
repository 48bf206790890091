"""Thumbnails: many small pictures in one JPEG, so that a page carries one image instead of thousands.

What is not grey or RGB is shown so: of two channels the first is red, the second green and blue; of four or
more the last is red, the middle one green, the first blue (bands are mostly listed from short waves to
long). Of 16 stored bits the upper 8 are shown; the curve they were stored by has lifted what is faint.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Sheet", "fit_sheet", "sheet_columns", "thumbnails"]

MCU = 16
"""JPEG with halved chroma codes blocks of 16 pixels; a multiple keeps neighbours from bleeding."""


@dataclass(frozen=True)
class Sheet:
    """A sprite sheet: picture i lies at column `i % columns`, row `i // columns`."""

    jpeg: bytes
    side: int
    count: int

    @property
    def columns(self) -> int:
        """Pictures per line."""
        return sheet_columns(self.count)

    @property
    def lines(self) -> int:
        """Lines of pictures."""
        return math.ceil(self.count / self.columns)


def sheet_columns(count: int) -> int:
    """How many pictures stand in one line of a sheet of `count`: the sheet is about square."""
    return max(1, math.ceil(math.sqrt(count)))


def thumbnails(
    pixels: NDArray[Any], rows: Sequence[int] | NDArray[np.int64], side: int = 64, quality: int = 75
) -> bytes:
    """A JPEG sheet of `pixels[rows]`, each `side` by `side`, filled line by line.

    `pixels`: `(n, h, w, c)` uint8 or uint16, any number of channels, may be memory-mapped: one
    picture is read at a time. The same input gives the same bytes.
    """
    columns = sheet_columns(len(rows))
    lines = max(1, math.ceil(len(rows) / columns))
    sheet = Image.new("RGB", (columns * side, lines * side), (128, 128, 128))
    for i, row in enumerate(rows):
        sheet.paste(_picture(pixels[int(row)], side), (i % columns * side, i // columns * side))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=quality, optimize=True, progressive=False)
    return out.getvalue()


def fit_sheet(pixels: NDArray[Any], rows: Sequence[int] | NDArray[np.int64], side: int, budget: int) -> Sheet:
    """The best sheet of at most `budget` bytes, tried from fine to coarse; the coarsest if none fits.

    Pictures are never made larger than the store holds them (rounded up to a JPEG block).
    """
    native = math.ceil(max(pixels.shape[1:3]) / MCU) * MCU
    side = min(side, native)
    small = max(MCU, side // 3 * 2 // MCU * MCU)
    jpeg = b""
    for tile, quality in ((side, 78), (side, 62), (side, 45), (small, 62), (small, 40), (MCU, 50)):
        jpeg = thumbnails(pixels, rows, tile, quality)
        if len(jpeg) <= budget:
            return Sheet(jpeg, tile, len(rows))
    return Sheet(jpeg, MCU, len(rows))


def _picture(image: NDArray[Any], side: int) -> Image.Image:
    array = np.asarray(image)
    array = array if array.dtype == np.uint8 else (array >> 8).astype(np.uint8)
    channels = array.shape[-1] if array.ndim == 3 else 1
    if array.ndim == 3 and channels == 1:
        array = array[..., 0]
    elif channels == 2:
        array = array[..., [0, 1, 1]]
    elif channels > 3:
        array = array[..., [channels - 1, channels // 2, 0]]
    picture = Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
    if picture.size == (side, side):
        return picture
    return picture.resize((side, side), Image.Resampling.LANCZOS)
