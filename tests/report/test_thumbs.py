"""Sprite sheets: every picture is where its index says, and the sheet is as small as asked."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from semblance.report.thumbs import Sheet, fit_sheet, sheet_columns, thumbnails


def flat(n: int, side: int = 24, channels: int = 3) -> np.ndarray:
    """`n` pictures, each of one grey value of its own."""
    values = (np.arange(n) * 7 % 256).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (n, side, side, channels)).copy()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9, 10, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_picture_i_lies_where_its_index_says(n: int, channels: int) -> None:
    pixels = flat(n, channels=channels)
    rows = np.random.default_rng(n).permutation(n)
    sheet = Image.open(io.BytesIO(thumbnails(pixels, rows, side=16, quality=90)))
    columns = sheet_columns(n)
    assert sheet.size[0] == columns * 16
    for i, row in enumerate(rows):
        x, y = i % columns * 16 + 8, i // columns * 16 + 8
        assert abs(sheet.getpixel((x, y))[0] - int(pixels[row, 0, 0, 0])) <= 3


def test_the_sheet_object_agrees_with_the_jpeg() -> None:
    for n in (1, 2, 7, 12, 13):
        sheet = fit_sheet(flat(n), range(n), side=32, budget=10**6)
        assert Image.open(io.BytesIO(sheet.jpeg)).size == (
            sheet.columns * sheet.side,
            sheet.lines * sheet.side,
        )
        assert (sheet.columns * sheet.lines) >= n > sheet.columns * (sheet.lines - 1)


def test_same_input_same_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    assert thumbnails(pixels, [3, 1], 32) == thumbnails(pixels, [3, 1], 32)
    assert thumbnails(pixels, [3, 1], 32) != thumbnails(pixels, [1, 3], 32)


def test_pictures_are_never_made_larger_than_stored() -> None:
    assert fit_sheet(flat(4, side=20), range(4), side=112, budget=10**6).side == 32
    assert fit_sheet(flat(4, side=200), range(4), side=112, budget=10**6).side == 112


def test_noise_is_coded_coarser_until_it_fits() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 48, 48, 3), dtype=np.uint8)
    fine, coarse = (fit_sheet(noise, range(100), 48, budget) for budget in (10**7, 60_000))
    assert len(coarse.jpeg) <= 60_000 < len(fine.jpeg)
    assert coarse.side < fine.side == 48


def test_the_coarsest_is_kept_where_nothing_fits() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 48, 48, 3), dtype=np.uint8)
    assert isinstance(fit_sheet(noise, range(9), 48, budget=1), Sheet)
    assert fit_sheet(noise, range(9), 48, budget=1).side == 16
