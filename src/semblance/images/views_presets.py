"""Which views to draw: the range of every factor, a preset per domain, and a cautious choice of one."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from semblance.errors import ConfigError, InputError

__all__ = ["PRESETS", "Views", "choose_preset"]


@dataclass(frozen=True)
class Views:
    """The range of every factor of a view. Raises `ConfigError` for a range that cannot be drawn from.

    Fields are numbers or tuples of numbers, so that each can be set from the command line.
    """

    scale: tuple[float, ...] = (0.2, 1.0)
    """Least and greatest share of the image's area that a crop keeps, uniform."""
    ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    """Least and greatest width / height of a crop, log-uniform."""
    flip: float = 0.5
    """Probability of a horizontal mirror."""
    flip_vertical: float = 0.0
    """Probability of a vertical mirror."""
    rotate: float = 0.0
    """Degrees; the angle is uniform in +- this."""
    crop: float | None = None
    """Side of a plain random crop as a share of the stored side; replaces `scale` and `ratio`."""
    brightness: float = 0.4
    """The factor is uniform in [max(0, 1 - brightness), 1 + brightness]; likewise the next two."""
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    """Turns of the colour circle, uniform in +- this; at most 0.5."""
    jitter: float = 0.8
    """Probability that brightness, contrast, saturation and hue change at all."""
    grey: float = 0.2
    """Probability that colour is taken away."""

    def __post_init__(self) -> None:
        for name in ("scale", "ratio"):
            low_high = getattr(self, name)
            most = 1.0 if name == "scale" else math.inf
            if len(low_high) != 2 or not 0 < low_high[0] <= low_high[1] <= most:
                raise ConfigError(
                    f"views.{name} is {low_high}",
                    "expected two positive numbers, least first" + (", at most 1" if name == "scale" else ""),
                )
        limits = dict.fromkeys(("flip", "flip_vertical", "jitter", "grey"), 1.0)
        limits |= dict.fromkeys(("brightness", "contrast", "saturation"), math.inf)
        for name, most in {**limits, "hue": 0.5, "rotate": 180.0}.items():
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"views.{name} is {getattr(self, name)}", f"expected 0 to {most:g}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise ConfigError(f"views.crop is {self.crop}", "expected above 0 and at most 1")

    def narrowed(self, area: float) -> Views:
        """These views with every crop's area times `area`: what a local view shows.

        >>> Views(scale=(0.2, 1.0)).narrowed(0.25).scale
        (0.05, 0.25)
        """
        if area == 1:
            return self
        crop = None if self.crop is None else self.crop * math.sqrt(area)
        return dataclasses.replace(self, scale=tuple(area * share for share in self.scale), crop=crop)


_STILL = Views(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0,
    jitter=0.0, grey=0.0,
)  # fmt: skip

PRESETS: dict[str, Views] = {
    # Everyday pictures: what is upright stays upright, colour and framing carry little of what a thing is.
    "photo": Views(),
    # One channel replicated: colour factors would do nothing or invent a tint.
    "grey": Views(saturation=0.0, hue=0.0, grey=0.0),
    # No up or down; the object sits in the middle, its axis ratio and its colour say what it is.
    "sky": Views(
        scale=(0.4, 1.0), ratio=(1.0, 1.0), flip_vertical=0.5, rotate=180.0, brightness=0.2, contrast=0.2,
        saturation=0.2, hue=0.0, grey=0.0,
    ),
    # No up or down either; stain and exposure vary a little between slides, size is meaningful.
    "microscopy": Views(
        scale=(0.4, 1.0), flip_vertical=0.5, rotate=180.0, brightness=0.2, contrast=0.2, saturation=0.2,
        hue=0.05, grey=0.0,
    ),
    # A mirrored letter is another letter and a small crop shows none; scans are a little askew.
    "document": Views(
        scale=(0.4, 1.0), ratio=(0.8, 1.25), flip=0.0, rotate=5.0, saturation=0.0, hue=0.0, grey=0.0
    ),
    # What the code released with CBSwR draws: a 224 crop of the 256 square, mirrored three times in four.
    "released": dataclasses.replace(_STILL, crop=224 / 256, flip=0.75),
    # Two views of an image are that image: for ablations and for objectives that need no views.
    "none": _STILL,
}  # fmt: skip


def choose_preset(sample: np.ndarray[Any, np.dtype[Any]]) -> str:
    """The name of the preset that pixel statistics of `sample`, `(n, h, w, c)` uint8 or uint16, speak for.

    "document" where all images are grey and most pixels are clearly ink or clearly paper, dark on light or
    light on dark; "grey" where all images are grey, or hold values and no colours (uint16, or other than
    three channels); else "photo". "sky" and "microscopy" are never guessed: pixels do not say whether up and
    down mean something, and a preset that turns images which have an upright harms more than a plain one
    does on images which have none. Raises `InputError` for an empty sample or another shape or type.

    >>> choose_preset(np.zeros((2, 8, 8, 3), np.uint8))
    'grey'
    """
    if sample.ndim != 4 or sample.dtype not in (np.uint8, np.uint16) or not sample.size:
        raise InputError(f"the sample is {sample.dtype} {sample.shape}", "expected (n, h, w, c) uint8")
    if sample.dtype == np.uint16 or sample.shape[3] not in (1, 3):
        return "grey"  # values, not colours
    wide = sample.astype(np.int16)
    # 2 of 255: what lossy files that were grey before compression come back with.
    if np.abs(wide - wide.mean(axis=3, keepdims=True)).max() > 2:
        return "photo"
    level = sample[..., 0]
    dark, light = float((level < 64).mean()), float((level >= 192).mean())
    ink, paper = min(dark, light), max(dark, light)
    # Handwriting has 0.7 to 0.98 together and ink 0.06 to 0.2, grey photographs 0.3 to 0.4, galaxies no ink.
    return "document" if ink + paper >= 0.65 and paper >= 0.5 and ink >= 0.02 else "grey"
