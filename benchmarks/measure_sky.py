"""A synthetic sky of 12 bands, and what a survey's catalogue says of it.

Stars (black bodies), galaxies (exponential discs of old and young stars, inclined) and quasars (a power law
with broad lines, redshifted), behind one of many point-spread functions, with noise, 16 x 16 pixels, of
signal-to-noise 10 to 500 over all bands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from semblance.contracts import Column

WAVES = np.array([350, 378, 395, 410, 430, 480, 515, 625, 660, 770, 861, 910], float)
SIDE = 16
Array = NDArray[Any]


def sky(n: int, seed: int, batches: int = 0) -> tuple[Array, Array, Array]:
    """`(n, 16, 16, 12)` float32 stamps, class `(n,)`, batch `(n,)`: with `batches`, each of these adds a
    level of its own, up to half a standard deviation of the noise, to every band."""
    chance = np.random.default_rng(seed)
    kind, batch = chance.integers(0, 3, n), chance.integers(0, max(batches, 1), n)
    levels = 0.5 * np.random.default_rng(7).uniform(-1, 1, (max(batches, 1), len(WAVES))) * bool(batches)
    images = np.empty((n, SIDE, SIDE, len(WAVES)), np.float32)
    grid = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    for i in range(n):
        y, x = grid - chance.uniform(-1, 1, 2)[:, None, None]
        sigma = chance.uniform(1.0, 1.8)
        if kind[i] == 1:
            turn, flat, size = chance.uniform(0, np.pi), chance.uniform(0.35, 1.0), chance.uniform(0.6, 2.5)
            along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            shape = np.exp(-np.sqrt(along**2 + (across / flat) ** 2 + sigma**2) / size)
        else:
            shape = np.exp(-(x * x + y * y) / (2 * sigma**2))
        colour = SPECTRA[kind[i]](chance)
        signal = 10 ** chance.uniform(1.0, 2.7)  # of all bands together
        light = (
            (shape / np.sqrt((shape**2).sum()))[..., None] * (colour / np.sqrt((colour**2).sum())) * signal
        )
        images[i] = light + chance.normal(0, 1, light.shape) + levels[batch[i]]
    return images, kind, batch


def _star(chance: np.random.Generator) -> Array:
    heat = chance.uniform(3500, 10000)
    return WAVES**-5.0 / np.expm1(1.4388e7 / (WAVES * heat)) * 1e14


def _galaxy(chance: np.random.Generator) -> Array:
    z, old = chance.uniform(0.0, 0.4), chance.uniform(0.2, 0.9)
    rest = WAVES / (1 + z)
    step = 1 / (1 + np.exp(-(rest - 400) / 8))  # the 4000 A break
    return old * step * (rest / 550) + (1 - old) * (0.4 + 0.6 * step) * (rest / 550) ** -1


def _quasar(chance: np.random.Generator) -> Array:
    z = chance.uniform(0.3, 3.0)
    flux = (WAVES / 550) ** chance.uniform(-1.8, -0.6)
    for line, strength in (
        (121.6, 2.0),
        (154.9, 1.0),
        (190.9, 0.7),
        (279.8, 0.7),
        (486.1, 0.6),
        (656.3, 1.5),
    ):
        flux = flux * (1 + strength * np.exp(-0.5 * ((WAVES - line * (1 + z)) / 18) ** 2))
    return flux


SPECTRA = (_star, _galaxy, _quasar)


def catalogue(images: Array, radius: float = 3.0) -> dict[str, Column]:
    """What a survey's catalogue says of each stamp: the magnitude in every band (aperture of 3 pixels about
    the brightest place, less the sky around; missing where not above 0), their mean, and 11 colours."""
    n, side, _, bands = images.shape
    y, x = np.mgrid[:side, :side]
    smooth = ndimage.gaussian_filter(images.mean(3), (0, 1.5, 1.5))
    inner = slice(side // 2 - 3, side // 2 + 3)
    row, column = np.divmod(smooth[:, inner, inner].reshape(n, -1).argmax(1), 6)
    row, column = (one[:, None, None] + side // 2 - 3 for one in (row, column))
    apart = np.hypot(y - row, x - column)
    near, around = (apart <= radius).astype(np.float32), (apart > 2 * radius).astype(np.float32)
    light, behind = (np.einsum("nhwc,nhw->nc", images, mask) for mask in (near, around))
    light = light - behind * (near.sum((1, 2)) / around.sum((1, 2)))[:, None]
    magnitudes = -2.5 * np.log10(np.where(light > 0, light, np.nan).astype(np.float64))
    mean = np.nansum(magnitudes, 1) / np.maximum(np.isfinite(magnitudes).sum(1), 1)
    found = {f"mag_{k}": Column(magnitudes[:, k]) for k in range(bands)} | {"mag": Column(mean)}
    return found | {f"colour_{k}": Column(magnitudes[:, k] - magnitudes[:, k + 1]) for k in range(bands - 1)}


def gap(columns: dict[str, Column], share: float, seed: int) -> dict[str, Column]:
    """The columns with a share of their values taken away at random."""
    chance = np.random.default_rng(seed)
    return {
        name: Column(
            np.where(chance.random(len(c.values)) < share, np.nan, c.values), c.levels, c.source, c.turns
        )
        for name, c in columns.items()
    }
