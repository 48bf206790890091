"""Images per second of the views: Semblance in batch, kornia in batch, and PIL one image at a time.

    python benchmarks/views.py [--repeats 7] [--threads 1 2]

All draw the same factors (crop, mirror, colour jitter, grey) with the `photo` ranges from uint8 pixels and
give float32 `(n, c, size, size)`. Arms take turns within a repeat, so that a busy machine slows all alike.
Differences that stay: kornia and PIL turn hue in HSV, PIL antialiases its resize and rounds to 8 bits after
every factor. PIL is a port of what a DataLoader worker does; it uses one core whatever `--threads` says.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from semblance.images.views import PRESETS, apply, draw

SETTINGS = ((256, 32, 32), (128, 64, 64), (64, 256, 224))
VIEWS = PRESETS["photo"]


def semblance_arm(pixels: torch.Tensor, size: int) -> Callable[[], object]:
    """Draw and apply, as a training step does."""
    generator = torch.Generator().manual_seed(0)
    return lambda: apply(pixels, draw(VIEWS, len(pixels), generator), size)


def kornia_arm(pixels: torch.Tensor, size: int) -> Callable[[], object] | None:
    """The same recipe in kornia's own modules, or None without kornia."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import kornia.augmentation as ka
    except ImportError:
        return None
    chain = ka.AugmentationSequential(
        ka.RandomResizedCrop((size, size), scale=VIEWS.scale, ratio=VIEWS.ratio),
        ka.RandomHorizontalFlip(p=VIEWS.flip),
        ka.ColorJitter(VIEWS.brightness, VIEWS.contrast, VIEWS.saturation, VIEWS.hue, p=VIEWS.jitter),
        ka.RandomGrayscale(p=VIEWS.grey),
    )
    return lambda: chain(pixels.permute(0, 3, 1, 2).float().div(255))


def pil_crop(image: Image.Image, size: int, source: random.Random) -> Image.Image:
    """RandomResizedCrop as it is usually written."""
    side = image.width
    for _ in range(10):
        area = side * side * source.uniform(*VIEWS.scale)
        ratio = math.exp(source.uniform(math.log(VIEWS.ratio[0]), math.log(VIEWS.ratio[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= side and 0 < h <= side:
            left, top = source.randint(0, side - w), source.randint(0, side - h)
            return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + w, top + h))
    return image.resize((size, size), Image.Resampling.BILINEAR)


def pil_hue(image: Image.Image, turns: float) -> Image.Image:
    """Hue shifted in HSV, 8 bits wide."""
    hue, saturation, value = image.convert("HSV").split()
    shifted = (np.asarray(hue).astype(np.int16) + round(turns * 255)).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")


def pil_view(array: np.ndarray, size: int, source: random.Random) -> np.ndarray:
    """One view of one image."""
    image = pil_crop(Image.fromarray(array), size, source)
    if source.random() < VIEWS.flip:
        image = ImageOps.mirror(image)
    if source.random() < VIEWS.jitter:
        enhancers = [
            (ImageEnhance.Brightness, VIEWS.brightness),
            (ImageEnhance.Contrast, VIEWS.contrast),
            (ImageEnhance.Color, VIEWS.saturation),
        ]
        source.shuffle(enhancers)
        for enhancer, spread in enhancers:
            image = enhancer(image).enhance(source.uniform(1 - spread, 1 + spread))
        image = pil_hue(image, source.uniform(-VIEWS.hue, VIEWS.hue))
    if source.random() < VIEWS.grey:
        image = image.convert("L").convert("RGB")
    return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255


def pil_arm(pixels: torch.Tensor, size: int) -> Callable[[], object]:
    """A loop over images, stacked into one tensor."""
    source, arrays = random.Random(0), pixels.numpy()
    return lambda: torch.from_numpy(np.stack([pil_view(array, size, source) for array in arrays]))


def measure(arms: dict[str, Callable[[], object]], n: int, repeats: int) -> dict[str, list[float]]:
    """Images per second of every arm in every repeat, after one unmeasured call each."""
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        arm()
    for _ in range(repeats):
        for name, arm in arms.items():
            start = time.perf_counter()
            arm()
            rates[name].append(n / (time.perf_counter() - start))
    return rates


def main() -> None:
    """Print the machine, then a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    options = parser.parse_args()
    print(
        f"machine: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}; python {platform.python_version()}, torch {torch.__version__}; "
        f"{options.repeats} repeats; images per second, min / median / max; ratio = median of paired ratios"
    )
    for threads in options.threads:
        torch.set_num_threads(threads)
        for n, side, size in SETTINGS:
            noise = torch.Generator().manual_seed(0)
            pixels = torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=noise)
            made = {"semblance": semblance_arm, "kornia": kornia_arm, "pil": pil_arm}
            arms = {name: arm for name, make in made.items() if (arm := make(pixels, size)) is not None}
            rates = measure(arms, n, options.repeats)
            print(f"threads {threads}, {n} images, {side} -> {size} px")
            for name, values in rates.items():
                ours = np.median(np.array(rates["semblance"]) / np.array(values))
                low, middle, high = min(values), float(np.median(values)), max(values)
                print(f"  {name:10s} {low:9.0f} / {middle:9.0f} / {high:9.0f}   semblance / this {ours:6.2f}")


if __name__ == "__main__":
    main()
