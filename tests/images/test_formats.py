"""Values of any channels and depth: how they are read, what becomes of them in the store."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semblance.errors import InputError
from semblance.images.decode import decode, inspect, values_of
from semblance.images.formats import PHOTO, PixelFormat, measure_format
from semblance.images.look import look
from semblance.images.raw import fit_values, read_npy
from semblance.images.sources import scan
from semblance.images.store import build_store, open_store, store_facts

Array = np.ndarray[Any, np.dtype[Any]]


def npy(array: Array) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def tiff(pages: list[Array]) -> bytes:
    out = io.BytesIO()
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(out, "TIFF", save_all=True, append_images=rest)
    return out.getvalue()


def stars(c: int, seed: int = 0, side: int = 16) -> Array:
    chance = np.random.default_rng(seed)
    image = chance.normal(5, 1, (side, side, c))
    image[chance.integers(0, side, 3), chance.integers(0, side, 3)] += 10 ** chance.uniform(2, 5, (3, 1))
    return image.astype(np.float32)


@pytest.mark.parametrize("c", [1, 3, 5, 12])
def test_the_curve_is_the_formula_and_comes_back(c: int) -> None:
    images = [stars(c, seed) for seed in range(6)]
    kind = measure_format(images)
    flat = np.concatenate([image.reshape(-1, c) for image in images]).astype(float)
    for k in range(c):
        first, middle, last = np.quantile(flat[:, k], (0.25, 0.5, 0.75))
        assert kind.centre[k] == pytest.approx(middle)
        assert kind.scale[k] == pytest.approx(last - first)
        t = [float(np.arcsinh((x - middle) / (last - first))) for x in (flat[:, k].min(), flat[:, k].max())]
        assert kind.low[k] == pytest.approx(t[0] - 0.1 * (t[1] - t[0]))
        assert kind.high[k] == pytest.approx(t[1] + 0.1 * (t[1] - t[0]))
        x = float(images[0][3, 4, k])
        share = (np.arcsinh((x - middle) / (last - first)) - kind.low[k]) / (kind.high[k] - kind.low[k])
        assert abs(int(kind.pack(images[0])[3, 4, k]) - 65535 * share) <= 0.51
    again = kind.unpack(kind.pack(images[0]))
    # The faint to a thousandth of the noise, the bright to a thousandth of themselves.
    assert np.abs(again - images[0]).max(initial=0, where=images[0] < 10) < 2e-3
    np.testing.assert_allclose(again, images[0], rtol=1e-3, atol=2e-3)
    assert PixelFormat.read(PixelFormat.read(kind.__dict__ | {"low": list(kind.low)}).__dict__) == kind


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=4, max_size=64))
def test_any_values_are_stored(values: list[float]) -> None:
    image = np.array(values, np.float32)[None, :, None]
    if not np.isfinite(image).any():
        with pytest.raises(InputError, match="no finite value"):
            measure_format([image])
        return
    kind = measure_format([image])
    stored = kind.pack(image)
    assert stored.dtype == np.uint16
    order = np.argsort(image[0, :, 0][np.isfinite(image[0, :, 0])])
    assert (np.diff(stored[0, :, 0][np.isfinite(image[0, :, 0])][order].astype(int)) >= 0).all()


def test_nan_becomes_the_centre_and_infinity_the_end() -> None:
    kind = measure_format([stars(2)])
    image = stars(2)
    image[0, 0], image[0, 1], image[0, 2] = np.nan, np.inf, -np.inf
    stored = fit_values(image, 16, "squash", kind)
    assert np.abs(kind.unpack(stored[0, 0]) - kind.centre).max() < 1e-2
    assert stored[0, 1].tolist() == [65535, 65535]
    assert stored[0, 2].tolist() == [0, 0]
    with pytest.raises(InputError, match="no finite value"):
        fit_values(np.full((4, 4, 2), np.nan, np.float32), 16, "squash", kind)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.float16, np.float32, ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_read_as_written(dtype: Any, order: Any) -> None:
    array = np.asarray(np.arange(60).reshape(4, 5, 3), dtype, order=order)
    found = read_npy(npy(array))
    assert found.tolist() == array.tolist()
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    assert read_npy(npy(array[..., 0])).shape == (4, 5, 1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy(np.zeros((4, 4), complex)), "of complex128, not of numbers"),
        (npy(np.zeros((2, 4, 4, 3))), r"\(2, 4, 4, 3\), not \(h, w\)"),
        (npy(np.zeros((0, 4))), "empty"),
        (npy(np.zeros((5, 32, 32))), r"looks like \(c, h, w\)"),
        (npy(np.zeros((40, 40)))[:-9], "truncated"),
        (npy(np.zeros((4, 4)))[:40], "corrupt"),
        (npy(np.zeros((4, 4))).replace(b"(4, 4)", b"(4,-4)"), "empty"),
        (npy(np.zeros((4, 4))).replace(b"(4, 4), }", b"(9999999,9999999)}"), "too large|corrupt"),
    ],
)
def test_bad_arrays_say_why(data: bytes, words: str) -> None:
    for call in (lambda: decode(data, 8), lambda: inspect(data), lambda: values_of(data)):
        with pytest.raises(InputError, match=words):
            call()


def test_what_a_file_holds() -> None:
    wide = np.arange(64, dtype=np.uint16).reshape(8, 8)
    png = io.BytesIO()
    Image.fromarray(wide).save(png, "PNG")
    for data, photo, channels, deep in (
        (png.getvalue(), False, 1, True),
        (tiff([wide] * 5), False, 5, True),
        (tiff([wide.astype(np.float32)] * 2), False, 2, True),
        (tiff([wide.astype(np.uint8)] * 4), False, 4, False),
        (tiff([wide.astype(np.uint8)]), True, 3, False),
        (npy(np.zeros((8, 8, 3), np.uint8)), True, 3, False),
        (npy(np.zeros((8, 8, 4), np.uint8)), False, 4, False),
        (npy(np.zeros((8, 8, 3), np.uint16)), False, 3, True),
    ):
        seen = inspect(data)
        assert (seen.photo, seen.channels, seen.wide) == (photo, channels, deep)
        assert (seen.width, seen.height) == (8, 8)
    assert (values_of(png.getvalue())[..., 0] == wide).all()
    pages = values_of(tiff([wide, wide + 7, wide * 3]))
    assert (pages == np.stack([wide, wide + 7, wide * 3], 2)).all()


def test_a_picture_among_pictures_is_what_it_was() -> None:
    """A 16-bit PNG in a photo folder: 0..65535 to 0..255; a NumPy picture: itself."""
    wide = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    png = io.BytesIO()
    Image.fromarray(wide).save(png, "PNG")
    assert (decode(png.getvalue(), 8).pixels[..., 1] == (wide.astype(int) * 255 + 32767) // 65535).all()
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (decode(npy(colours), 8).pixels == colours).all()
    for array, words in (
        (colours.astype(np.float32), "float32 values"),
        (np.dstack([colours] * 2), "6 channels"),
    ):
        with pytest.raises(InputError, match=words):
            decode(npy(array), 8)


@pytest.mark.parametrize("c", [1, 3, 5, 12])
@pytest.mark.parametrize("form", ["npy", "tiff", "array"])
def test_stores_of_values(c: int, form: str, tmp_path: Path) -> None:
    """What the store holds stands for the values; odd ones are listed with their reason; ranges stay."""
    images = np.stack([stars(c, seed) for seed in range(8)])
    if form != "array":
        for i, image in enumerate(images):
            pages = [np.ascontiguousarray(image[..., k]) for k in range(c)]
            (tmp_path / f"{i}.x").write_bytes(npy(image) if form == "npy" else tiff(pages))
        (tmp_path / "odd.npy").write_bytes(npy(np.zeros((8, 8, c + 1), np.float32)))
        Image.new("L", (8, 8)).save(tmp_path / "eight.png")
    found = scan(images if form == "array" else tmp_path)
    kind = look(found).pixels
    assert (kind.channels, kind.bits, kind.photo) == (c, 16, False)
    table = build_store(found, tmp_path / "store", 16, wanted=kind)
    pixels = open_store(tmp_path / "store")
    assert (pixels.shape, pixels.dtype) == ((8, 16, 16, c), np.uint16)
    np.testing.assert_allclose(kind.unpack(pixels), images, rtol=2e-3, atol=1e-2)
    if form != "array":
        why = {
            p: s
            for p, s in zip(table["path"].to_pylist(), table["status"].to_pylist(), strict=True)
            if s != "ok"
        }
        few = "uint8 values" if c == 1 else "1 channel,"
        assert f"{c + 1} channels, this collection has {c}" in why["odd.npy"]
        assert few in why["eight.png"]
    assert store_facts(table)["pixels"]["channels"] == c
    again = build_store(found, tmp_path / "store", 16, wanted=kind)
    assert again["hash"].to_pylist() == table["hash"].to_pylist()
    if form != "array":
        assert store_facts(again)["decoded"] == 0
        wider = measure_format([2 * image for image in images])
        assert store_facts(build_store(found, tmp_path / "store", 16, wanted=wider))["reused"] == 0


def test_the_majority_decides(tmp_path: Path) -> None:
    for i in range(4):
        Image.new("RGB", (9, 7), (i, 0, 0)).save(tmp_path / f"{i}.png")
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", stars(5, i))
    seen = look(scan(tmp_path))
    assert seen.pixels == PHOTO
    for i in range(3, 6):
        np.save(tmp_path / f"{i}.npy", stars(5, i))
    assert look(scan(tmp_path)).pixels.channels == 5
    assert look(scan(tmp_path), photo=True).pixels == PHOTO
    np.save(tmp_path / "6.npy", stars(4))
    np.save(tmp_path / "7.npy", stars(3))
    assert look(scan(tmp_path)).pixels == PHOTO  # six of twelve are no majority


def test_arrays_and_their_kinds() -> None:
    assert look(scan(np.zeros((3, 9, 7), np.uint8))).pixels == PHOTO
    assert look(scan(np.zeros((3, 9, 7, 4), np.uint8))).pixels == PixelFormat(False, 4)
    assert look(scan(np.ones((3, 9, 7), np.int16))).pixels.channels == 1
    with pytest.raises(InputError, match="holds no pictures"):
        look(scan(np.ones((3, 9, 7), np.int16)), photo=True)


def test_resizing_is_of_each_channel_by_itself() -> None:
    image = np.random.default_rng(0).random((20, 12, 4)).astype(np.float32)
    kind = measure_format([image])
    stored = fit_values(image, 8, "crop", kind)
    for k in range(4):
        alone = Image.fromarray(image[..., k]).resize((8, 8), Image.Resampling.BICUBIC, (0, 4, 12, 16), 2.0)
        np.testing.assert_allclose(kind.unpack(stored)[..., k], np.array(alone), atol=1e-3)
