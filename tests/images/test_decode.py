from __future__ import annotations

import io
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from semblance.errors import ConfigError, InputError
from semblance.images.decode import decode
from semblance.images.signature import identify, read_image_bytes

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (8, 8, 3), np.uint8)


def encode(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(data: bytes, size: int = 8, fit: Any = "squash") -> np.ndarray[Any, Any]:
    return decode(data, size, fit).pixels.astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "QOI"])
def test_lossless_formats_give_their_pixels(kind: str) -> None:
    done = decode(encode(RGB, kind), 8)
    assert np.array_equal(done.pixels, RGB)
    assert done.pixels.dtype == np.uint8
    assert (done.width, done.height) == (8, 8)


def test_grey_fills_all_channels() -> None:
    grey = RGB[..., 0]
    assert np.array_equal(pixels(encode(grey)), np.repeat(grey[..., None], 3, axis=2))
    bits = grey > 128
    assert np.array_equal(pixels(encode(Image.fromarray(bits)))[..., 1], bits * 255)


def test_transparency_goes_over_white() -> None:
    alpha = RNG.integers(0, 256, (8, 8, 1), np.uint8)
    over = np.rint((RGB * (alpha / 255)) + 255 * (1 - alpha / 255))
    assert abs(pixels(encode(np.concatenate([RGB, alpha], 2))) - over).max() <= 1
    two = np.concatenate([RGB[..., :1], alpha], 2)
    assert abs(pixels(encode(Image.fromarray(two)))[..., 2] - over[..., 0]).max() <= 1


def test_colour_key_and_palette_transparency_go_over_white() -> None:
    keyed = RGB.copy()
    keyed[0, 0] = (1, 2, 3)
    expected = keyed.astype(int)
    expected[(keyed == (1, 2, 3)).all(2)] = 255
    assert np.array_equal(pixels(encode(keyed, transparency=(1, 2, 3))), expected)
    palette = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("P")
    flat = np.array(palette.convert("RGB")).astype(int)
    index = np.array(palette)
    flat[index == 5] = 255
    assert np.array_equal(pixels(encode(palette, transparency=5)), flat)


def test_cmyk_is_multiplied_out() -> None:
    cmyk = RNG.integers(0, 256, (8, 8, 4), np.uint8)
    expected = (255 - cmyk[..., :3].astype(float)) * (255 - cmyk[..., 3:].astype(float)) / 255
    assert abs(pixels(encode(Image.frombytes("CMYK", (8, 8), cmyk.tobytes()), "TIFF")) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_scale_linearly(kind: str) -> None:
    wide = RNG.integers(0, 65536, (8, 8)).astype(np.uint16)
    wide[0, :4] = (0, 65535, 128, 129)
    got = pixels(encode(wide, kind))[..., 0]
    assert np.array_equal(got, np.rint(wide / 257))
    assert got[0, :4].tolist() == [0, 255, 0, 1]


def test_32_bits_are_clipped_to_16() -> None:
    wide = np.full((8, 8), 70000, np.int32)
    wide[0, 0], wide[0, 1] = -5, 32768
    assert pixels(encode(wide, "TIFF"))[0, :3, 0].tolist() == [0, 128, 255]


def test_floats_scale_from_least_to_greatest() -> None:
    values = np.full((8, 8), 1.0, np.float32)
    values[0, :5] = (-1, 3, np.nan, np.inf, -np.inf)
    assert pixels(encode(values, "TIFF"))[0, :6, 0].tolist() == [0, 255, 0, 255, 0, 128]
    assert pixels(encode(np.full((8, 8), 7, np.float32), "TIFF")).max() == 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (pixels(data) == (255, 0, 0)).all()


UPRIGHT = {  # EXIF 2.3, tag 274: what the stored rows and columns mean, written with plain numpy
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("value", UPRIGHT)
def test_exif_turns_upright(value: int, kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    stored = np.kron(RGB[:4], np.ones((2, 2, 1), np.uint8))  # 8 rows, 16 columns, smooth enough for JPEG
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    done = decode(encode(stored, kind, exif=exif, **options), 8)
    expected = UPRIGHT[value](decode(encode(stored), 8).pixels.astype(int))
    assert abs(done.pixels - expected).max() <= (8 if kind == "JPEG" else 1)
    assert (done.width, done.height) == ((8, 16) if value >= 5 else (16, 8))


def test_a_broken_exif_block_is_taken_as_upright() -> None:
    data = encode(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 60)
    assert np.array_equal(decode(data, 8).pixels, decode(encode(RGB, "JPEG"), 8).pixels)


def bicubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def slow_resize(line: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Antialiased bicubic along the first axis, one output value at a time."""
    scale = len(line) / size
    out = []
    for i in range(size):
        weights = np.array([bicubic((j + 0.5 - (i + 0.5) * scale) / max(scale, 1)) for j in range(len(line))])
        out.append(np.tensordot(weights / weights.sum(), line, 1))
    return np.clip(np.rint(out), 0, 255)


@pytest.mark.parametrize(("width", "height", "size"), [(20, 13, 8), (5, 9, 16), (8, 31, 8)])
def test_scaling_equals_a_slow_bicubic(width: int, height: int, size: int) -> None:
    image = RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)
    across = slow_resize(image.transpose(1, 0, 2).astype(float), size).transpose(1, 0, 2)
    assert abs(pixels(encode(image), size) - slow_resize(across, size)).max() <= 1


def test_crop_keeps_the_centre() -> None:
    wide = RNG.integers(0, 256, (8, 14, 3)).astype(np.uint8)
    assert np.array_equal(pixels(encode(wide), 8, "crop"), wide[:, 3:11])
    assert np.array_equal(pixels(encode(wide.transpose(1, 0, 2)), 8, "crop"), wide.transpose(1, 0, 2)[3:11])


def test_a_large_jpeg_is_shrunk_while_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.add.outer(np.linspace(0, 150, 768), np.linspace(0, 100, 1024)).astype(np.uint8)
    data = encode(np.stack([ramp, ramp, 255 - ramp], 2), "JPEG", quality=95)
    sizes = []
    original = Image.Image.resize

    def spy(self: Image.Image, *args: Any, **options: Any) -> Image.Image:
        sizes.append(self.size)
        return original(self, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)
    done = decode(data, 32)
    assert sizes[0] == (128, 96)  # an eighth, and still at least twice 32
    assert (done.width, done.height) == (1024, 768)
    blocks = np.stack([ramp, ramp, 255 - ramp], 2).reshape(32, 24, 32, 32, 3).mean((1, 3))
    assert abs(done.pixels[2:-2, 2:-2] - blocks[2:-2, 2:-2]).max() < 4


def test_pillows_pixel_limit_holds_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(encode(np.zeros((10, 20), np.uint8)), 4).width == 20  # Pillow alone would warn
    with pytest.raises(InputError, match=r"^too many pixels \(210\)$"):
        decode(encode(np.zeros((10, 21), np.uint8)), 4)


def test_threads_leave_the_warning_filters_alone() -> None:
    odd = encode(np.zeros((4, 4), np.uint8), "TIFF")[:-20] + bytes(20)
    good = encode(RGB)
    before = list(warnings.filters)

    def once(i: int) -> str:
        try:
            return str(decode((good, odd)[i % 2], 4).width)
        except InputError as error:
            return error.message

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(once, range(400)))
    assert set(answers[::2]) == {"8"}
    assert len(set(answers[1::2])) == 1
    assert warnings.filters == before


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="size 0"):
        decode(encode(RGB), 0)
    with pytest.raises(ConfigError, match="stretch"):
        decode(encode(RGB), 8, "stretch")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\0\0\0\x1cftypheic", "HEIF"),
        (b"qoif", "QOI"),
        (b"", None),
        (b"BM", None),
    ],
)
def test_identify(prefix: bytes, kind: str | None) -> None:
    assert identify(prefix) == kind


def test_heif_without_a_plugin_says_so() -> None:
    with pytest.raises(InputError, match="HEIF is not supported here"):
        decode(b"\0\0\0\x1cftypheic" + bytes(200), 8)


def test_reading_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_bytes(b"words")
    for path, reason in [
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
        ("empty", "zero bytes"),
        ("text", "not an image"),
        ("missing", "cannot be read: No such file or directory"),
        ("nul\0", "cannot be read"),
    ]:
        with pytest.raises(InputError) as caught:
            read_image_bytes(tmp_path / path)
        assert caught.value.message.startswith(reason)
    (tmp_path / "good").write_bytes(encode(RGB) + bytes(100_000))
    assert read_image_bytes(tmp_path / "good") == encode(RGB) + bytes(100_000)


SEEDS = [
    encode(Image.fromarray(RGB).resize((24, 20)), kind, **options)
    for kind, options in [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("WEBP", {}),
        ("ICO", {"sizes": [(16, 16)]}),
        ("PPM", {}),
        ("QOI", {}),
        ("JPEG2000", {}),
        ("MPO", {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]}),
    ]
] + [encode(Image.fromarray(RGB).convert("P"), kind, transparency=3) for kind in ("PNG", "GIF")]


REASON = re.compile(
    r"ok|zero bytes|not an image|truncated|corrupt|too many pixels( \(\d+\))?|needs too much memory"
    r"|colour mode \w+ is not supported|HEIF is not supported here"
)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    cut=st.floats(0.1, 1),
    early=st.booleans(),
)
def test_damaged_bytes_give_pixels_or_a_reason(
    seed: bytes, changes: list[tuple[float, int]], cut: float, early: bool
) -> None:
    data = bytearray(seed)
    for place, value in changes:  # headers, where most decisions are made, come first in a file
        data[int(place**4 * (len(data) - 1)) if early else int(place * (len(data) - 1))] = value
    data = data[: max(1, int(cut * len(data)))]
    try:
        done = decode(bytes(data), 8)
    except InputError as error:
        reason = error.message
    else:
        reason = "ok"
        assert done.pixels.shape == (8, 8, 3)
        assert done.width > 0
        assert done.height > 0
    assert REASON.fullmatch(reason)
