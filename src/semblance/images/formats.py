"""What the pixels of a collection are: pictures (RGB, 8 bits), or values of any number of channels.

Values of 8 bits are stored as they are. Wider ones (uint16, signed, 32 bits, float) are stored as uint16 by
one curve per channel, measured once on a sample when a collection is made and kept with the model:

    t = asinh((x - centre) / scale),    stored = 65535 (t - low) / (high - low), clipped and rounded

with the sample's median as centre and its quartiles' distance as scale. Where values have no long tail that
is close to a line; where a few are thousands of times brighter than the rest (stars, hot spots) it is close
to a logarithm, so that neither the faint nor the bright are lost. `low` and `high` are those of the sample's
least and greatest value, and a tenth of their distance beyond. NaN becomes the centre, infinities the ends.
The curve is that of Lupton, Gunn and Szalay (AJ 1999, arXiv astro-ph/9903081) with other constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.errors import InputError

__all__ = ["PHOTO", "PixelFormat", "measure_format"]

Values = NDArray[Any]
TOP = 65535
SPARE = 0.1
LOOK = 1024


@dataclass(frozen=True)
class PixelFormat:
    """`photo`: RGB pictures of 8 bits, by the table of `decode`; else values of `channels` channels in `bits`
    (8 or 16) bits. `centre`, `scale`, `low`, `high` are the curve of 16 bits, one number per channel each."""

    photo: bool = True
    channels: int = 3
    bits: int = 8
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def read(cls, record: Mapping[str, Any] | None) -> PixelFormat:
        """The format of a record as JSON holds it; pictures where there is none."""
        if record is None:
            return PHOTO
        known: dict[str, Any] = {k: tuple(one) if isinstance(one, list) else one for k, one in record.items()}
        return cls(**known)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored pixels: uint8 or uint16, little-endian."""
        return np.dtype("<u2" if self.bits == 16 else "u1")

    @property
    def bytes_per_pixel(self) -> int:
        """Of the store, all channels together."""
        return self.channels * self.bits // 8

    @property
    def described(self) -> str:
        """In words, for a person.

        >>> PHOTO.described, PixelFormat(False, 12, 16).described
        ('RGB', '12 channels of 16 bits')
        """
        several = f"{self.channels} channel{'s' if self.channels != 1 else ''} of {self.bits} bits"
        return "RGB" if self.photo else several

    def pack(self, values: Values) -> NDArray[Any]:
        """`(..., c)` numbers -> what is stored, `(..., c)` in `dtype`. Values of 8 bits pass as they are."""
        if self.bits == 8:
            return np.asarray(values, np.uint8)
        centre, scale, low, high = self._curve()
        with np.errstate(over="ignore"):
            t = np.arcsinh((np.asarray(values, np.float64) - centre) / scale)
        t = np.where(np.isnan(t), np.arcsinh(0.0), t)
        return np.rint((t.clip(low, high) - low) / (high - low) * TOP).astype(self.dtype)

    def unpack(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Stored pixels `(..., c)` -> the values they stand for, `(..., c)` float32."""
        if self.bits == 8:
            return np.asarray(pixels, np.float32)
        centre, scale, low, high = self._curve()
        t = np.asarray(pixels, np.float64) * ((high - low) / TOP) + low
        return (centre + scale * np.sinh(t)).astype(np.float32)

    def scaled(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """`(x - centre) / scale` of values of 16 bits `(..., c)`, so that no channel outweighs the others."""
        centre, scale, _, _ = self._curve()
        return ((values - centre) / scale).astype(np.float32)

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and greatest value that can be stored, each `(c,)`."""
        centre, scale, low, high = self._curve()
        return centre + scale * np.sinh(low), centre + scale * np.sinh(high)

    def _curve(self) -> tuple[NDArray[np.float64], ...]:
        return tuple(np.array(one, np.float64) for one in (self.centre, self.scale, self.low, self.high))


PHOTO = PixelFormat()


def measure_format(images: Iterable[Values]) -> PixelFormat:
    """The format of 16 bits whose curves suit `images`, each `(h, w, c)` with the same c.

    Raises `InputError` where there is no finite value at all.
    """
    some: list[Values] = []
    ends: list[Values] = []
    for image in images:
        flat = np.asarray(image, np.float64).reshape(-1, image.shape[-1])
        some.append(flat[:: max(1, len(flat) // LOOK)])
        finite = np.isfinite(flat)
        ends.append(np.where(finite, flat, np.inf).min(0))
        ends.append(np.where(finite, flat, -np.inf).max(0))
    sample, edges = np.concatenate(some), np.array(ends)
    curves = [_curve_of(sample[:, c], edges[:, c]) for c in range(sample.shape[1])]
    centre, scale, low, high = (tuple(float(x) for x in part) for part in zip(*curves, strict=True))
    return PixelFormat(False, sample.shape[1], 16, centre, scale, low, high)


def _curve_of(sample: Values, edges: Values) -> tuple[float, float, float, float]:
    """Centre, scale, low, high of one channel."""
    sample, edges = sample[np.isfinite(sample)], edges[np.isfinite(edges)]
    if not len(edges):
        raise InputError("a channel of the images holds no finite value", "leave that channel out")
    sample = np.concatenate([sample, edges]) if len(sample) < 8 else sample
    first, below, centre, above, last = np.percentile(sample, (1, 25, 50, 75, 99))
    least, most = edges.min(), edges.max()
    # Where most pixels are one value (masked borders), the quartiles say nothing.
    scale = next((one for one in (above - below, last - first, most - least) if one > 0), 1.0)
    low, high = np.arcsinh((least - centre) / scale), np.arcsinh((most - centre) / scale)
    spare = SPARE * (high - low) or 1.0
    return centre, scale, low - spare, high + spare
