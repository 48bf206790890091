"""A first look at a few images: how large they are, and whether they are pictures or values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.errors import InputError
from semblance.images.decode import Seen, inspect, values_of
from semblance.images.formats import PHOTO, PixelFormat, measure_format
from semblance.images.signature import read_image_bytes
from semblance.images.sources import Source, locate

__all__ = ["Look", "look"]

LOOK = 48
WIDE = 256
DEFAULT_SIDE = 32


@dataclass(frozen=True)
class Look:
    """`side`: the median of the short sides, in pixels. `pixels`: how the collection stores them."""

    side: int
    pixels: PixelFormat = PHOTO


def look(source: Source, threads: int | None = None, photo: bool = False) -> Look:
    """A look at up to 48 images, evenly spaced; at more of them only where none of those can be read.

    The collection is what more than half of them are: pictures, or values of so many channels, 8-bit or
    wider; without such a majority it is of pictures. Of wider ones up to 256 are read, for the curve they are
    stored by. `photo` makes pictures of whatever can be.
    An array of uint8 with one or three channels holds pictures, any other array holds values.
    """
    if source.array is not None:
        return _look_at_array(source.array, photo)
    first = _spread(len(source.items), LOOK)
    rest = np.setdiff1d(_spread(len(source.items), 20 * LOOK), first)
    with ThreadPoolExecutor(threads) as pool:
        for rows in (first, rest):
            seen = [one for one in pool.map(lambda i: _inspect(source, int(i)), rows) if one]
            if seen:
                side = int(np.median([min(one.width, one.height) for one in seen]))
                return Look(side, PHOTO if photo else _format_of(seen, source, pool))
    return Look(DEFAULT_SIDE)


def _look_at_array(array: NDArray[Any], photo: bool) -> Look:
    side = int(min(array.shape[1:3]))
    channels = array.shape[3] if array.ndim == 4 else 1
    picture = array.dtype == np.uint8 and channels in (1, 3)
    if picture:
        return Look(side)
    if photo:
        raise InputError(
            f"an array of {array.dtype} with {channels} channels holds no pictures",
            "leave --pixels photo out, or give uint8 with 1 or 3 channels",
        )
    if array.dtype == np.uint8:
        return Look(side, PixelFormat(False, channels))
    shape = (*array.shape[1:3], channels)
    sample = (np.asarray(array[i]).reshape(shape) for i in _spread(len(array), WIDE))
    return Look(side, measure_format(sample))


def _format_of(seen: list[Seen], source: Source, pool: ThreadPoolExecutor) -> PixelFormat:
    kinds = Counter((one.photo, one.photo or one.channels, one.wide) for one in seen)
    (photo, channels, wide), count = kinds.most_common(1)[0]
    if photo or 2 * count <= len(seen):
        return PHOTO
    if not wide:
        return PixelFormat(False, channels)

    def values() -> Iterator[NDArray[Any]]:
        rows = _spread(len(source.items), WIDE)
        for found in pool.map(lambda i: _values(source, int(i), channels), rows):
            if found is not None:
                yield found

    return measure_format(values())


def _inspect(source: Source, i: int) -> Seen | None:
    try:
        return inspect(read_image_bytes(locate(source.root, source.items[i].path)))
    except InputError:  # counted when everything is decoded
        return None


def _values(source: Source, i: int, channels: int) -> NDArray[Any] | None:
    try:
        values = values_of(read_image_bytes(locate(source.root, source.items[i].path)))
    except InputError:
        return None
    return values if values.shape[-1] == channels and values.dtype != np.uint8 else None


def _spread(n: int, most: int) -> NDArray[np.int64]:
    rows: NDArray[np.int64] = np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
    return rows
