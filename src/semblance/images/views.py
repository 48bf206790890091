"""Views of images, made in batch on any device: one affine grid and one colour matrix per image.

`draw` decides, `apply` computes. Drawing is tiny, on the CPU, and a pure function of (views, n,
generator): ranks draw for the global batch and keep their rows with a slice.

Space. Each factor is a 3x3 matrix that takes output coordinates a step towards input coordinates, both in
[-1, 1] with pixel centres inside (`align_corners=False`); their product is one `theta` per image, and every
pixel is interpolated once, bilinearly. A new augmentation is one more factor. Images are square, as stored.

- A crop has area uniform in `scale` and log-ratio uniform in `ratio`, ten tries, the first that fits; then
  the largest crop of an allowed ratio (RandomResizedCrop). Sides and places are real numbers, not rounded
  to pixels.
- The crop turns about its own centre and is placed uniformly where it stays inside; along an axis where it
  cannot, it is centred. What a turned crop still shows beyond the image is the image's reflection: no
  constant colour and no streaks, and local statistics stay the image's own.
- Where a crop shows stored pixels one to one (`crop`), its place is rounded to whole pixels: nothing blurs.
- Where two or more stored pixels fall into one, the image is first averaged over whole blocks.

Colour. Each factor is linear in the pixel, or, contrast, also in the view's mean colour; the product is one
matrix and one offset per image. Brightness multiplies; contrast blends with the grey of the view's mean
luma; saturation blends with luma (0.299, 0.587, 0.114); hue turns about the grey axis of YIQ, which keeps
luma, where ColorJitter turns HSV; grey keeps luma alone. All of them commute, so there is no order to draw.
One clamp to [0, 1] comes last; ColorJitter clamps (and rounds to 8 bits) after each, so it differs where an
intermediate leaves [0, 1]. With other than three channels there is no luma: saturation, hue and grey do
nothing and contrast blends each channel with its own mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from semblance.errors import InputError
from semblance.images._warp import available, warp
from semblance.images.views_presets import PRESETS, Views, choose_preset

__all__ = ["PRESETS", "Draw", "Views", "apply", "centre", "choose_preset", "draw"]

TRIES = 10
LUMA = (0.299, 0.587, 0.114)
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
TOP = {torch.uint8: 255, torch.uint16: 65535}
BLOCK = 1 << 20  # numbers per pass on a CPU, of four bytes: about what its cache holds


@dataclass(frozen=True, eq=False)
class Draw:
    """What was drawn for `n` images; `draw[a:b]` are the rows of some of them.

    `theta` `(n, 2, 3)` float32 takes output to input coordinates as `grid_sample` reads them. `brightness`,
    `contrast`, `saturation` `(n,)` are factors, 1 = unchanged; `hue` `(n,)` is in turns, 0 = unchanged;
    `grey` `(n,)` is bool. All on the CPU.
    """

    theta: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    grey: Tensor

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, rows: slice) -> Draw:
        return Draw(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def still(self, rows: Tensor, crop: float | None = None) -> Draw:
        """The same, but for the images at `rows` `(n,)` bool, which become what `centre` makes of them."""
        return Draw(
            theta=torch.where(rows[:, None, None], _middle(crop), self.theta),
            brightness=self.brightness.masked_fill(rows, 1.0),
            contrast=self.contrast.masked_fill(rows, 1.0),
            saturation=self.saturation.masked_fill(rows, 1.0),
            hue=self.hue.masked_fill(rows, 0.0),
            grey=self.grey & ~rows,
        )


def draw(views: Views, n: int, generator: torch.Generator) -> Draw:
    """What to do to `n` images. Takes the same count of numbers from `generator` whatever the views."""
    crop, place, mirror, turn, strength, chance = (
        torch.rand(n, k, generator=generator) for k in (2 * TRIES, 2, 2, 1, 4, 2)
    )
    angle = (2 * turn[:, 0] - 1) * math.radians(views.rotate)
    mirrored = mirror < torch.tensor([views.flip, views.flip_vertical])
    shape = _turn(angle) @ _scale(_crop_sides(views, crop)) @ _scale(1 - 2 * mirrored.float())
    # The corners of the output square reach this far from its centre along the input's axes.
    room = (1 - shape[:, :2, :2].abs().sum(2)).clamp(min=0)
    theta = _shift((2 * place - 1) * room) @ shape

    changes = chance[:, 0] < views.jitter
    spread = torch.tensor([views.brightness, views.contrast, views.saturation])
    low, high = (1 - spread).clamp(min=0), 1 + spread
    factors = torch.where(changes[:, None], low + (high - low) * strength[:, :3], 1.0)
    hue = torch.where(changes, (2 * strength[:, 3] - 1) * views.hue, 0.0)
    grey = chance[:, 1] < views.grey
    return Draw(theta[:, :2].contiguous(), factors[:, 0], factors[:, 1], factors[:, 2], hue, grey)


def apply(pixels: Tensor, drawn: Draw, size: int) -> Tensor:
    """The views: `(n, h, w, c)` uint8 or uint16, any device -> `(n, c, size, size)` float32 in [0, 1] there.

    The result lies in memory channels-last. Raises `InputError` if `pixels` has another shape or type or if
    `drawn` is for another number of images. Beyond the result it takes a few MB on a CPU, and about three
    times the result's memory elsewhere.
    """
    if len(drawn) != len(pixels):
        raise InputError(f"{len(pixels)} images cannot take what was drawn for {len(drawn)}")
    return _render(pixels, drawn.theta, size, _colour(drawn, pixels.shape[-1]))


def centre(pixels: Tensor, size: int, crop: float | None = None) -> Tensor:
    """The images themselves, `(n, h, w, c)` uint8 or uint16 -> `(n, c, size, size)` float32 in [0, 1].

    The test transform: resized to `size`, or of each the middle `crop` (share of the side) where one is
    given. Nothing is random; it equals `apply` with a draw that changes nothing. Raises `InputError` as
    `apply` does.
    """
    return _render(pixels, _middle(crop).expand(len(pixels), 2, 3), size, None)


def _crop_sides(views: Views, numbers: Tensor) -> Tensor:
    """`(n, 2)` width and height as shares of the image's, from `(n, 2 * TRIES)` uniform numbers."""
    n = len(numbers)
    if views.crop is not None:
        return torch.full((n, 2), views.crop)
    (small, large), (narrow, broad) = views.scale, views.ratio
    area = small + (large - small) * numbers[:, :TRIES]
    ratio = torch.exp(math.log(narrow) + math.log(broad / narrow) * numbers[:, TRIES:])
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 2)
    fits = (sides <= 1).all(2)
    first = fits.int().argmax(1)
    largest = torch.tensor([min(1.0, broad), min(1.0, 1 / narrow)])
    return torch.where(fits.any(1)[:, None], sides[torch.arange(n), first], largest)


def _middle(crop: float | None) -> Tensor:
    side = 1.0 if crop is None else crop
    return torch.tensor([[side, 0.0, 0.0], [0.0, side, 0.0]])


def _scale(by: Tensor) -> Tensor:
    return torch.diag_embed(F.pad(by, (0, 1), value=1.0))


def _shift(by: Tensor) -> Tensor:
    matrix = torch.eye(3).repeat(len(by), 1, 1)
    matrix[:, :2, 2] = by
    return matrix


def _turn(angle: Tensor) -> Tensor:
    """`(n, 3, 3)` turns by `angle` radians, from the first axis towards the second; the third stays."""
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.eye(3).repeat(len(angle), 1, 1)
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = cos, -sin, sin, cos
    return matrix


def _colour(drawn: Draw, channels: int) -> tuple[Tensor, Tensor | None] | None:
    """`(own, mean)`, each `(n, c, c)`: a pixel x of a view with mean m becomes `own @ x + mean @ m`.

    None in place of what does nothing in any image. Factors are multiplied on from the left; contrast reads
    the mean as it is by then, `(own + mean) @ m`.
    """
    coloured = channels == 3
    grey = drawn.grey if coloured else torch.zeros_like(drawn.grey)
    saturation = torch.where(grey, 0.0, drawn.saturation) if coloured else torch.ones_like(drawn.saturation)
    hue = drawn.hue if coloured else torch.zeros_like(drawn.hue)
    still = bool((drawn.contrast == 1).all())
    if still and bool(((drawn.brightness == 1) & (saturation == 1) & (hue == 0)).all()):
        return None
    one = torch.eye(channels)
    luma = torch.tensor(LUMA).expand(3, 3) if coloured else one
    own = drawn.brightness[:, None, None] * one
    if coloured:
        own = _blend(saturation, one, luma) @ _turn_hue(hue) @ own
    if still:
        return own, None
    keep = drawn.contrast[:, None, None]
    return keep * own, (1 - keep) * (luma @ own)


def _blend(share: Tensor, first: Tensor, second: Tensor) -> Tensor:
    share = share[:, None, None]
    return share * first + (1 - share) * second


def _turn_hue(turns: Tensor) -> Tensor:
    """`(n, 3, 3)` in RGB: I and Q turn, Y stays."""
    to_yiq = torch.tensor(YIQ, dtype=torch.float64)
    # The rows of I and Q must sum to exactly nothing, or a grey pixel would take a tint.
    to_yiq[1:] -= to_yiq[1:].mean(1, keepdim=True)
    turned = _turn(2 * math.pi * turns)[:, [[2], [0], [1]], [2, 0, 1]].double()
    product: Tensor = torch.linalg.inv(to_yiq) @ turned @ to_yiq
    return product.float()


def _render(pixels: Tensor, theta: Tensor, size: int, colour: tuple[Tensor, Tensor | None] | None) -> Tensor:
    if pixels.dim() != 4 or pixels.dtype not in TOP:
        raise InputError(
            f"pixels are {pixels.dtype} {tuple(pixels.shape)}", "expected (n, h, w, c) uint8 or uint16"
        )
    n, h, w, c = pixels.shape
    theta = _snap(theta, h, w, size)
    moves = (h, w) != (size, size) or not torch.equal(theta, torch.eye(3)[:2].expand(n, 2, 3))
    own, mean = (part if part is None else part.to(pixels.device) for part in colour or (None, None))
    if pixels.device.type == "cpu" and available() and bool((_levels(theta, h, w, size) == 1).all()):
        return warp(pixels, theta, size, own, mean, 1 / TOP[pixels.dtype])
    on_device = theta.to(pixels.device)
    out = torch.empty((n, c, size, size), device=pixels.device, memory_format=torch.channels_last)
    for rows, level in _blocks(pixels, theta, size):
        x = pixels[rows].permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        if moves:
            if level > 1:
                x = F.interpolate(x, size=(max(1, round(h / level)), max(1, round(w / level))), mode="area")
            x = F.grid_sample(x, _grid(on_device[rows], size), padding_mode="reflection", align_corners=False)
        if own is not None:
            x = _mix(x, own[rows], None if mean is None else mean[rows])
        out[rows] = x.mul_(1 / TOP[pixels.dtype]).clamp_(0, 1)
    return out


def _mix(x: Tensor, own: Tensor, mean: Tensor | None) -> Tensor:
    flat = x.flatten(2)
    if mean is None:
        return torch.bmm(own, flat).view_as(x)
    return torch.baddbmm(mean @ flat.mean(2, keepdim=True), own, flat).view_as(x)


def _snap(theta: Tensor, h: int, w: int, size: int) -> Tensor:
    """`theta` with the place of one-to-one crops rounded to whole stored pixels."""
    sides = torch.tensor([w, h])
    steps = theta[:, :, :2] * sides[:, None] / size
    exact = ((steps.abs() - torch.eye(2)).abs() < 1e-4).all(2).all(1)
    if not exact.any():
        return theta
    corner = (theta[:, :, 2] + 1) * sides / 2 - size / 2
    theta = theta.clone()
    theta[exact, :, 2] = ((2 * corner.round() + size) / sides - 1)[exact]
    return theta


def _grid(theta: Tensor, size: int) -> Tensor:
    """`(n, size, size, 2)` input coordinates: `F.affine_grid` as one broadcast sum, which is faster."""
    places = (2 * torch.arange(size, device=theta.device, dtype=torch.float32) + 1) / size - 1
    across = places[:, None] * theta[:, None, :, 0] + theta[:, None, :, 2]
    down = places[:, None] * theta[:, None, :, 1]
    return down[:, :, None] + across[:, None]


def _levels(theta: Tensor, h: int, w: int, size: int) -> Tensor:
    """`(n,)` int: how many stored pixels wide the blocks are that are averaged before a view is read."""
    strides = (theta[:, :, :2] * torch.tensor([[w], [h]]) / size).norm(dim=1).amin(1)
    levels: Tensor = (strides + 1e-4).floor().clamp(min=1).int()
    return levels


def _blocks(pixels: Tensor, theta: Tensor, size: int) -> Iterator[tuple[slice | Tensor, int]]:
    """Rows that are computed together, and how many stored pixels wide their blocks are averaged first.

    The level is the lesser of a view's two strides in stored pixels, rounded down, so that no axis is blurred
    below what the view can show. On a CPU few rows at once: intermediates then stay in the cache.
    """
    n, h, w, c = pixels.shape
    levels = _levels(theta, h, w, size)
    step = max(1, BLOCK // (c * max(h * w, size * size)) if pixels.device.type == "cpu" else n)
    for level in sorted(set(levels.tolist())):
        if level == 1 and bool((levels == 1).all()):
            yield from ((slice(start, min(start + step, n)), 1) for start in range(0, n, step))
            continue
        for rows in (levels == level).nonzero()[:, 0].split(step):
            yield rows.to(pixels.device), level
