"""Every measurement against slow loops written from its formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from semblance.images.formats import PHOTO, PixelFormat, measure_format
from semblance.images.measure import measure, measure_file, measure_store

Array = np.ndarray[Any, np.dtype[Any]]


def photos(n: int = 4, side: int = 12, c: int = 3, seed: int = 0) -> Array:
    chance = np.random.default_rng(seed)
    smooth = gaussian_filter(chance.random((n, side, side, c)), (0, 1.2, 1.2, 0))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.rint(255 * smooth).astype(np.uint8)


def lower(values: list[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def slow(image: Array, light: Array, values: Array) -> dict[str, float]:
    """One image: `image` stored in [0, 1], `light` scaled values, `values` themselves; all `(h, w, c)`
    float64."""
    h, w, c = image.shape
    found: dict[str, float] = {}
    sums = []
    for k in range(c):
        flat = [float(values[y, x, k]) for y in range(h) for x in range(w)]
        n, whole = len(flat), sum(flat)
        mean = whole / n
        std = math.sqrt(sum((v - mean) ** 2 for v in flat) / n)
        ranked = sorted(flat)
        sums.append(math.copysign(math.log1p(abs(whole)), whole))
        found |= {f"log_sum_{k}": sums[-1], f"mean_{k}": mean, f"std_{k}": std}
        for name, share in (("p01", 0.01), ("p50", 0.5), ("p99", 0.99)):
            found[f"{name}_{k}"] = ranked[round(share * (n - 1))]
        found[f"skew_{k}"] = sum((v - mean) ** 3 for v in flat) / n / std**3
    found |= {f"ratio_{k}": sums[k] - sums[k + 1] for k in range(c - 1)}
    g = [[float(np.mean(image[y, x])) for x in range(w)] for y in range(h)]
    b = [[float(np.mean(light[y, x])) for x in range(w)] for y in range(h)]
    return found | slow_texture(g) | slow_shape(g, b)


def slow_texture(g: list[list[float]]) -> dict[str, float]:
    h, w = len(g), len(g[0])
    laplace, energies, shares = [], [], [0.0] * 8
    for y in range(1, h - 1):
        for x in range(1, w - 1):
            laplace.append(g[y - 1][x] + g[y + 1][x] + g[y][x - 1] + g[y][x + 1] - 4 * g[y][x])
            gy, gx = (g[y + 1][x] - g[y - 1][x]) / 2, (g[y][x + 1] - g[y][x - 1]) / 2
            energies.append(gy * gy + gx * gx)
            theta = math.atan2(gy, gx) % math.pi
            shares[math.floor(theta / (math.pi / 8) + 0.5) % 8] += energies[-1]
    mean = sum(laplace) / len(laplace)
    found = {
        "laplacian": math.log(sum((v - mean) ** 2 for v in laplace) / len(laplace) + 1e-12),
        "gradient": math.log(sum(energies) / len(energies) + 1e-12),
    }
    found |= {f"gradient_{k}": shares[k] / sum(shares) for k in range(8)}
    power = np.abs(np.fft.fft2(np.array(g))) ** 2
    rings = [0.0] * 6
    for i, fy in enumerate(np.fft.fftfreq(h)):
        for j, fx in enumerate(np.fft.fftfreq(w)):
            if (i, j) != (0, 0):
                rings[min(int(math.hypot(fy, fx) / 0.5 * 6), 5)] += power[i, j]
    return found | {f"ring_{k}": rings[k] / sum(rings) for k in range(6)}


def slow_shape(g: list[list[float]], b: list[list[float]]) -> dict[str, float]:
    h, w = len(g), len(g[0])
    level = [[round(v * 255) for v in row] for row in g]
    flat = [v for row in level for v in row]
    found = {"entropy": -sum(p * math.log2(p) for p in (flat.count(v) / len(flat) for v in set(flat)))}
    best = max(range(min(flat), max(flat)), key=lambda t: (otsu(flat, t), -t))
    front = [(y, x) for y in range(h) for x in range(w) if level[y][x] > best]
    behind = lower([b[y][x] for y in range(h) for x in range(w) if level[y][x] <= best])
    weight = {(y, x): max(b[y][x] - behind, 0.0) for y, x in front}
    middle = lower([v for row in b for v in row])
    bare = [[v - middle for v in row] for row in b]
    turned = sum(abs(bare[y][x] - bare[h - 1 - y][w - 1 - x]) for y in range(h) for x in range(w))
    found["asymmetry"] = turned / (2 * sum(abs(v) for row in bare for v in row))
    found["area"] = len(front) / (h * w)
    found["components"] = pieces(set(front))
    ranked, n = sorted(weight.values()), len(front)
    found["gini"] = sum((2 * i - n - 1) * v for i, v in enumerate(ranked, 1)) / (sum(ranked) * (n - 1))
    whole = sum(weight.values())
    cy, cx = (sum(v * place[k] for place, v in weight.items()) / whole for k in (0, 1))
    yy = sum(v * (y - cy) ** 2 for (y, x), v in weight.items()) / whole
    xx = sum(v * (x - cx) ** 2 for (y, x), v in weight.items()) / whole
    xy = sum(v * (y - cy) * (x - cx) for (y, x), v in weight.items()) / whole
    along = math.hypot(xx - yy, 2 * xy)
    found |= {"ellipticity": along / (xx + yy), "angle_cos": (xx - yy) / along, "angle_sin": 2 * xy / along}
    rings: dict[int, float] = {}
    for (y, x), v in weight.items():
        ring = math.floor(2 * math.hypot(y - cy, x - cx))
        rings[ring] = rings.get(ring, 0.0) + v / whole

    def radius(share: float) -> float:
        inside = 0.0
        for ring in range(200):
            if inside + rings.get(ring, 0.0) >= share - 1e-9:
                return (ring + (share - inside) / rings[ring]) / 2
            inside += rings.get(ring, 0.0)
        raise AssertionError

    found["half_light"] = radius(0.5) / max(h, w)
    found["concentration"] = 5 * math.log10(radius(0.8) / radius(0.2))
    return found


def otsu(flat: list[int], t: int) -> float:
    low, high = [v for v in flat if v <= t], [v for v in flat if v > t]
    if not low or not high:
        return -1.0
    p = len(low) / len(flat)
    return round(p * (1 - p) * (sum(low) / len(low) - sum(high) / len(high)) ** 2, 9)


def pieces(front: set[tuple[int, int]]) -> int:
    count = 0
    while front:
        count += 1
        todo = [front.pop()]
        while todo:
            y, x = todo.pop()
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & front
            front -= near
            todo += near
    return count


def check(pixels: Array, kind: PixelFormat) -> None:
    fast = measure(pixels, kind)
    for i, image in enumerate(pixels):
        stored = image.astype(float) / np.iinfo(pixels.dtype).max
        values = stored if kind.bits == 8 else kind.unpack(image).astype(float)
        light = stored if kind.bits == 8 else (values - kind.centre) / kind.scale
        wanted = slow(stored, light, values)
        assert set(fast) - {"colourfulness"} == set(wanted)
        for name, value in wanted.items():
            assert fast[name][i] == pytest.approx(value, rel=2e-4, abs=2e-5), (i, name)


def test_pictures_against_loops() -> None:
    pixels = photos()
    check(pixels, PHOTO)
    found = measure(pixels, PHOTO)["colourfulness"]
    for i, image in enumerate(pixels.astype(float) / 255):
        red, green, blue = image[..., 0], image[..., 1], image[..., 2]
        one, two = red - green, (red + green) / 2 - blue
        wanted = math.sqrt(one.var() + two.var()) + 0.3 * math.sqrt(one.mean() ** 2 + two.mean() ** 2)
        assert found[i] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("c", [1, 5])
def test_values_against_loops(c: int) -> None:
    values = 40 * gaussian_filter(np.random.default_rng(c).normal(0, 1, (3, 13, 13, c)), (0, 1, 1, 0))
    kind = measure_format(values)
    check(kind.pack(values), kind)


def test_an_image_without_anything_has_no_shape() -> None:
    found = measure(np.full((1, 9, 9, 3), 77, np.uint8), PHOTO)
    missing = {name for name, value in found.items() if not np.isfinite(value[0])}
    assert missing == {
        "area", "components", "gini", "half_light", "concentration", "ellipticity", "angle_cos", "angle_sin",
    }  # fmt: skip
    assert found["entropy"][0] == 0
    assert found["gradient_3"][0] == pytest.approx(1 / 8)


def test_turning_and_mirroring_change_what_is_said_to() -> None:
    pixels = photos(3, 16)
    columns = measure_store(pixels, PHOTO)
    for way in (lambda x: np.rot90(x, 1, (1, 2)), lambda x: x[:, :, ::-1], lambda x: x[:, ::-1]):
        after = measure_store(np.ascontiguousarray(way(pixels)), PHOTO)
        for name, column in columns.items():
            same = np.allclose(column.values, after[name].values, rtol=1e-3, atol=1e-4)
            assert same or column.turns, name
    assert {name for name, column in columns.items() if column.turns} == {
        *(f"gradient_{k}" for k in range(8)), "angle_cos", "angle_sin",
    }  # fmt: skip


def test_large_images_are_averaged_first() -> None:
    pixels = photos(2, 64).repeat(2, 1).repeat(2, 2)
    small, large = measure(pixels[:, ::2, ::2], PHOTO), measure(pixels, PHOTO)
    for name, value in small.items():
        np.testing.assert_allclose(large[name], value, rtol=1e-3, atol=1e-4)


def test_files_in_row_order() -> None:
    import pyarrow as pa

    table = pa.table({"row": [1, -1, 0], "width": [20, 0, 10], "height": [10, 0, 10], "bytes": [400, 3, 50]})
    found = measure_file(table)
    np.testing.assert_allclose(found["aspect"], [0, math.log(2)])
    np.testing.assert_allclose(found["bytes"], [math.log(0.5), math.log(2)])
