"""The rows that need no network, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from semblance.errors import InputError
from semblance.evaluation.baselines import (
    pca_pixels,
    random_projection,
    raw_pixels,
    whitened_pixels,
)


def images(n: int, h: int, w: int, c: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, h, w, c), dtype=np.uint8)


def centred(pixels: np.ndarray) -> np.ndarray:
    flat = pixels.reshape(len(pixels), -1) / 255.0
    return flat - flat.mean(axis=0)


def lengths_to_one(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_raw_pixels_are_centred_and_of_length_one() -> None:
    pixels = images(1030, 6, 5)
    got = raw_pixels(pixels)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, lengths_to_one(centred(pixels)), atol=1e-5)


def test_large_images_are_shrunk_by_averaging() -> None:
    pixels = images(4, 64, 32, 1)
    small = pixels.reshape(4, 32, 2, 16, 2, 1).mean(axis=(2, 4)) / 255.0
    flat = small.reshape(4, -1) - small.reshape(4, -1).mean(axis=0)
    np.testing.assert_allclose(raw_pixels(pixels, max_side=32), lengths_to_one(flat), atol=1e-5)
    assert raw_pixels(images(1, 40, 20)).shape == (1, 16 * 8 * 3)
    assert raw_pixels(images(2, 100, 3), max_side=10).shape == (2, 30)


def test_equal_images_have_no_direction() -> None:
    assert not raw_pixels(np.full((3, 4, 4, 3), 77, dtype=np.uint8)).any()


def test_pca_keeps_the_directions_of_largest_spread() -> None:
    pixels = images(300, 5, 5, 1)
    pixels[:, 0, 0, 0] = np.where(np.arange(300) % 2, 255, 0)
    values, vectors = np.linalg.eigh(np.cov(centred(pixels).T))
    expected = lengths_to_one(centred(pixels) @ vectors[:, ::-1][:, :2])
    got = pca_pixels(pixels, d=2)
    signs = np.sign((got * expected).sum(axis=0))
    assert values[-1] > 2 * values[-2]
    np.testing.assert_allclose(got[:, 0] ** 2 + got[:, 1] ** 2, 1, rtol=1e-5)
    assert np.abs(got * signs - expected).mean() < 0.05
    assert np.array_equal(got, pca_pixels(pixels, d=2))


def test_pca_of_few_images_has_fewer_dimensions() -> None:
    assert pca_pixels(images(7, 8, 8)).shape == (7, 7)
    assert pca_pixels(images(40, 2, 2, 1)).shape == (40, 4)


def test_random_projection_is_one_gaussian_matrix() -> None:
    pixels = images(20, 4, 4)
    matrix = np.random.default_rng(5).standard_normal((48, 9), dtype=np.float32)
    expected = lengths_to_one(centred(pixels) @ matrix)
    np.testing.assert_allclose(random_projection(pixels, d=9, seed=5), expected, atol=1e-4)


def test_only_pixels_are_taken() -> None:
    for bad in (np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4, 3)), np.zeros((0, 4, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="expected"):
            raw_pixels(bad)


def test_whitened_pixels_are_directions_of_nearly_equal_spread() -> None:
    pixels = images(300, 16, 16)
    rows = whitened_pixels(pixels, 20)
    assert rows.shape == (300, 20)
    x = centred(pixels.reshape(300, 8, 2, 8, 2, 3).mean((2, 4)))
    _, lengths, axes = np.linalg.svd(x, full_matrices=False)
    variances = lengths**2 / 300
    level = 2.0 * variances.sum() / min(x.shape[1], 299)  # 600 / 300
    wanted = lengths_to_one(x @ axes[:20].T / np.sqrt(variances[:20] + level))
    np.testing.assert_allclose(rows @ rows.T, wanted @ wanted.T, atol=2e-3)
    np.testing.assert_array_equal(whitened_pixels(np.full((3, 8, 8, 3), 7, np.uint8)), 0)
