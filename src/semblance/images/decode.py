"""One image file -> `size` x `size` pixels, one defined result for every kind of file.

In a collection of pictures (`PHOTO`) all become RGB of 8 bits:

| the file is | the pixels are |
| --- | --- |
| grey, black and white (`1`, `L`) | the grey value in all three channels |
| RGB; YCbCr, HSV, palette | RGB; embedded colour profiles are ignored |
| with transparency (RGBA, LA, palette or colour key) | composited over white |
| CMYK | RGB by Pillow's plain conversion |
| 16-bit grey (`I;16`, `I`) | 0..65535 scaled linearly to 0..255, values beyond are clipped |
| 16-bit RGB (PNG) | the high byte of every value |
| float (`F`: TIFF, PFM) | finite minimum..maximum scaled to 0..255; constant, NaN, -inf -> 0; inf -> 255 |
| animated, several pages (GIF, WebP, APNG, TIFF, MPO) | the first frame |
| EXIF-rotated | turned upright; `width` and `height` are those of the upright image |
| JPEG much larger than `size` | decoded at 1/2, 1/4 or 1/8, never below twice `size` |
| `.npy` of uint8, `(h, w)`, `(h, w, 1)` or `(h, w, 3)` | the grey value in all three channels, or RGB |

In a collection of values (`PixelFormat`: most of its files are `.npy`, TIFF with pages as channels, or deeper
than 8 bits) the numbers are kept: see `raw`. A file with another number of channels, or with 8 bits among
wider ones, is listed as unreadable with that reason; so is a `.npy` of other channels or types among
pictures.

Formats: AVIF, BMP, GIF, ICO, JPEG, JPEG 2000, MPO, NPY, PNG, PPM/PGM/PBM/PFM, QOI, TIFF, WebP, and HEIF
where the process has registered a plugin for it with Pillow. The content decides, never the name. EPS, PDF
and WMF, which start other programs, and formats without a signature (TGA) are not images here.

What cannot be used raises `InputError`, whose `message` is one of these reasons:

| reason | when |
| --- | --- |
| `zero bytes` | the file is empty |
| `not an image` | no known signature at its start |
| `truncated` | an image whose end is missing |
| `corrupt` | an image that cannot be decoded |
| `too many pixels (N)` | more than twice Pillow's `MAX_IMAGE_PIXELS` (178,956,970 pixels) |
| `larger than 1 GiB` | the file itself |
| `colour mode LAB is not supported`, `HEIF is not supported here` | |
| `needs too much memory` | decoding ran out of memory |
| `5 channels, this collection has 3`, `float32 values, this collection has 8-bit ones` | see above |
| `no finite value` | NaN and infinities alone |
| `not a regular file`, `cannot be read: ...` | a pipe, socket, device or folder; what the system says |
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from PIL import ExifTags, Image

from semblance.errors import ConfigError, InputError
from semblance.images._damage import DAMAGED, is_cut, quiet
from semblance.images.formats import PHOTO, PixelFormat
from semblance.images.raw import SINGLE, as_values, fit_values, page_count, read_npy
from semblance.images.signature import ALONE, identify

__all__ = [
    "DECODE_VERSION",
    "Decoded",
    "Fit",
    "Pixels",
    "Seen",
    "decode",
    "fit_pixels",
    "inspect",
    "values_of",
]

Pixels = np.ndarray[Any, np.dtype[Any]]
Fit = Literal["squash", "crop"]
T = TypeVar("T")

DECODE_VERSION = 2
"""Raised when the same file would give other pixels, so that stored pixels are not mixed."""

BIG_PIXELS = 24_000_000

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """`pixels`: `(size, size, c)` as they are stored; `width`, `height`: of the upright original."""

    pixels: Pixels
    width: int
    height: int


@dataclass(frozen=True)
class Seen:
    """What a file's head says: its sides in pixels, and whether it holds a picture or `channels` values,
    `wide` where they need more than 8 bits."""

    width: int
    height: int
    photo: bool = True
    channels: int = 3
    wide: bool = False


def decode(data: bytes, size: int, fit: Fit = "squash", wanted: PixelFormat = PHOTO) -> Decoded:
    """The image in `data` at `size` x `size` pixels, by the table in this module's docstring.

    `fit="squash"` scales the whole image to the square, `"crop"` scales its short side and keeps the
    centre. Both filter with an antialiased bicubic. Safe to call from many threads.
    Raises `InputError` with the reason as its message, and nothing else, whatever `data` holds;
    `ConfigError` for a `size` below 1 or an unknown `fit`.
    """
    if size < 1 or fit not in get_args(Fit):
        raise ConfigError(f"cannot decode to size {size}, fit {fit!r}", "size >= 1; fit: squash or crop")
    return _guarded(data, lambda kind: _decode(data, kind, size, fit, wanted))


def inspect(data: bytes) -> Seen:
    """What the file in `data` holds, from its head alone. Raises as `decode` does."""
    return _guarded(data, lambda kind: _inspect(data, kind))


def values_of(data: bytes) -> np.ndarray[Any, Any]:
    """`(h, w, c)` numbers of the file in `data`, as they are (see `raw`). Raises as `decode` does."""
    return _guarded(data, lambda kind: _values(data, kind))


def fit_pixels(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    """`image` (mode `L` or `RGB`) scaled to `size` x `size`; the same pixels where it has that size."""
    width, height = image.size
    box = None
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)


def _guarded(data: bytes, work: Callable[[str], T]) -> T:
    """`work(format)`, whatever it raises told as an `InputError` with one of the reasons."""
    if not data:
        raise InputError("zero bytes")
    kind = identify(data)
    if kind is None:
        raise InputError("not an image", "its first bytes are those of no known format")
    try:
        with quiet():
            return work(kind)
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))  # Pillow tells the number only in its message
        raise InputError(f"too many pixels ({found.group()})" if found else "too many pixels") from error
    except MemoryError as error:
        raise InputError("needs too much memory") from error
    except DAMAGED as error:
        if kind == "HEIF" and "HEIF" not in Image.OPEN:
            raise InputError("HEIF is not supported here", "convert it to JPEG") from error
        raise InputError("truncated" if is_cut(kind, data, error) else "corrupt") from error


def _decode(data: bytes, kind: str, size: int, fit: Fit, wanted: PixelFormat) -> Decoded:
    if wanted.photo and kind != "NPY":
        return _decode_picture(data, kind, size, fit)
    values = _values(data, kind)
    height, width = values.shape[:2]
    if not wanted.photo:
        return Decoded(fit_values(values, size, fit, wanted), width, height)
    if values.dtype != np.uint8:
        raise InputError(f"{values.dtype} values, this collection has 8-bit pictures")
    if values.shape[2] not in (1, 3):
        raise InputError(f"{values.shape[2]} channels, this collection has 3")
    image = Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values))
    return Decoded(np.array(fit_pixels(image, size, fit).convert("RGB")), width, height)


def _decode_picture(data: bytes, kind: str, size: int, fit: Fit) -> Decoded:
    with Image.open(io.BytesIO(data), formats=_formats(kind)) as image:
        shape = image.size
        with _checked(shape):
            drafted = image.draft(None, (2 * size, 2 * size))  # shrink-on-load; None where not a JPEG
            image.load()
            if drafted is None:
                shape = image.size  # an icon holds several sizes, a TIFF turns itself while loading
            orientation = _orientation(image)
            small = fit_pixels(_plain(image), size, fit)
    if orientation in _UPRIGHT:
        small = small.transpose(_UPRIGHT[orientation])
    if orientation in (5, 6, 7, 8):
        shape = (shape[1], shape[0])
    return Decoded(np.array(small.convert("RGB"), dtype=np.uint8), *shape)


def _checked(shape: tuple[int, int]) -> contextlib.AbstractContextManager[Any]:
    """What a picture of this size is decoded in. Raises `InputError` where it is too large."""
    pixels = shape[0] * shape[1]
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > 2 * limit:
        raise InputError(f"too many pixels ({pixels})")
    return ALONE if pixels > BIG_PIXELS else contextlib.nullcontext()


def _values(data: bytes, kind: str) -> np.ndarray[Any, Any]:
    if kind == "NPY":
        return read_npy(data)
    with Image.open(io.BytesIO(data), formats=_formats(kind)) as image, _checked(image.size):
        if image.mode in SINGLE and not image.has_transparency_data:
            return as_values(image)
        image.load()
        orientation = _orientation(image)
        plain = _plain(image).convert("RGB")
        upright = plain.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else plain
        return np.array(upright)


def _inspect(data: bytes, kind: str) -> Seen:
    if kind == "NPY":
        values = read_npy(data)
        height, width, channels = values.shape
        wide = values.dtype != np.uint8
        return Seen(width, height, not wide and channels in (1, 3), channels, wide)
    with Image.open(io.BytesIO(data), formats=_formats(kind)) as image:
        pages = page_count(image)
        wide = image.mode in SINGLE and image.mode not in ("1", "L")
        width, height = image.size
        if pages == 1 and not wide:
            return Seen(width, height)
        return Seen(width, height, False, pages, wide)


def _plain(image: Image.Image) -> Image.Image:
    """`image` in mode `L` or `RGB`."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).clip(0, 65535).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(_from_float(np.asarray(image)))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGB", over.size, (255, 255, 255))
        white.paste(over, mask=over.getchannel("A"))
        return white
    if image.mode == "LAB":
        raise InputError("colour mode LAB is not supported", "convert it to RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _from_float(values: np.ndarray[Any, np.dtype[np.float32]]) -> Pixels:
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() == finite.max():
        return np.zeros(values.shape, np.uint8)
    low, high = float(finite.min()), float(finite.max())
    wide = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    scaled: Pixels = np.rint((wide - low) / (high - low) * 255).astype(np.uint8)
    return scaled


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGED:  # a broken EXIF block does not spoil the picture: it is taken as upright
        return 1
    return value if isinstance(value, int) else 1


def _formats(kind: str) -> list[str]:
    Image.init()
    wanted = ("AVIF", "HEIF") if kind == "HEIF" else (kind,)  # the brand mif1 may be either
    return [name for name in wanted if name in Image.OPEN]
