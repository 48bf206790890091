"""Images in whatever form a person holds them -> pixels at the model's size."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semblance.collection.disk import explain_disk_errors
from semblance.contracts import Progress
from semblance.errors import InputError
from semblance.images.decode import decode
from semblance.images.formats import PHOTO, PixelFormat
from semblance.images.raw import fit_values
from semblance.images.signature import read_image_bytes
from semblance.images.sources import scan
from semblance.images.store import build_store, open_store

__all__ = ["Found", "as_array", "is_one_image", "read_images", "read_one"]

TABLES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Found:
    """`names` and `pixels` `(n, size, size, c)` of the readable images, (path, reason) of the rest."""

    names: tuple[str, ...]
    pixels: NDArray[Any]
    problems: tuple[tuple[str, str], ...] = ()


@contextmanager
def read_images(
    images: Any, size: int, fit: Any, progress: Progress | None = None, wanted: PixelFormat = PHOTO
) -> Iterator[Found]:
    """The pixels of `images` (see `Model.embed`), for the length of the context; `wanted` by the model.

    A folder, glob, manifest or list of paths goes through a pixel store in a temporary folder, so that it
    may be larger than memory. Raises `InputError` for an image that was named and cannot be read; what a
    folder or glob found and cannot be read is in `problems`.
    """
    if is_one_image(images, wanted):
        yield Found((name_of(images, 0),), read_one(images, size, fit, wanted)[None])
        return
    if isinstance(images, np.ndarray):
        images = as_array(images, wanted)
        if wanted.bits == 8 and images.shape[1:] == (size, size, wanted.channels):
            yield Found(tuple(f"{i:06d}" for i in range(len(images))), images)
            return
        if wanted.photo and images.shape[-1] == 4:  # a store takes no transparency
            images = list(images)
    if isinstance(images, (list, tuple)):
        if not images:
            raise InputError("there are no images", "give at least one")
        if not all(isinstance(image, (str, os.PathLike)) for image in images):
            pixels = [read_one(image, size, fit, wanted) for image in images]
            names = tuple(name_of(image, i) for i, image in enumerate(images))
            yield Found(names, np.stack(pixels))
            return
        images = [str(os.fspath(image)) for image in images]
    elif not isinstance(images, (str, os.PathLike, np.ndarray)):
        raise InputError(
            f"{type(images).__name__} is not something to read images from",
            "give a path, folder, bytes, PIL image, uint8 array, or a list of these",
        )
    with _stored(images, size, fit, progress, wanted) as found:
        if found.problems and isinstance(images, list):
            path, reason = found.problems[0]
            raise InputError(f"{path} cannot be used: {reason}")
        yield found


def is_one_image(images: Any, wanted: PixelFormat = PHOTO) -> bool:
    """Whether `images` is a single image: bytes, a PIL image, `(h, w)`, `(h, w, c)`, the path of one."""
    if isinstance(images, (bytes, bytearray, memoryview, Image.Image)):
        return True
    if isinstance(images, np.ndarray):
        known = (1, 3, 4) if wanted.photo else (wanted.channels,)
        return images.ndim == 2 or (images.ndim == 3 and images.shape[-1] in known)
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if path.suffix.lower() == ".npy" and path.is_file():
            return _npy_is_one(path, wanted)
        return path.is_file() and path.suffix.lower() not in TABLES
    return False


def _npy_is_one(path: Path, wanted: PixelFormat) -> bool:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # told when it is read
        return True
    return is_one_image(np.asarray(array), wanted)


def read_one(image: Any, size: int, fit: Any, wanted: PixelFormat = PHOTO) -> NDArray[Any]:
    """One image as `(size, size, c)`, stored as `wanted`. Raises `InputError` saying which and why."""
    if isinstance(image, np.ndarray):
        array = as_array(image, wanted)
        if len(array) != 1:
            raise InputError(f"an array of shape {image.shape} is not one image", "give (h, w, c) uint8")
        if not wanted.photo:
            return fit_values(array[0], size, fit, wanted)
        if array.shape[1:] == (size, size, 3):
            return np.ascontiguousarray(array[0])
        image = Image.fromarray(array[0][..., 0] if array.shape[-1] == 1 else array[0])
    try:
        if isinstance(image, Image.Image):
            data = _encoded(image)
        elif isinstance(image, (bytes, bytearray, memoryview)):
            data = bytes(image)
        elif isinstance(image, (str, os.PathLike)):
            data = read_image_bytes(Path(image))
        else:
            raise InputError(
                f"{type(image).__name__} is not an image", "give a path, bytes, PIL image or uint8 array"
            )
        pixels: NDArray[Any] = decode(data, size, fit, wanted).pixels
    except InputError as error:
        name = image if isinstance(image, (str, os.PathLike)) else "the image"
        raise InputError(f"{name} cannot be used: {error.message}", error.hint) from error
    return pixels


def as_array(images: NDArray[Any], wanted: PixelFormat = PHOTO) -> NDArray[Any]:
    """`(h, w)`, `(h, w, c)`, `(n, h, w)` or `(n, h, w, c)` as `(n, h, w, c)`; pictures are uint8.

    Raises `InputError` for another type or shape.
    """
    if not wanted.photo:
        return _as_values(images, wanted)
    if images.dtype != np.uint8:
        raise InputError(f"the array is {images.dtype}", "images are uint8, 0 to 255")
    if images.ndim == 2:
        images = images[None, :, :, None]
    elif images.ndim == 3:
        images = images[None] if images.shape[-1] in (1, 3, 4) else images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or not images.size:
        raise InputError(
            f"an array of shape {images.shape} holds no images", "expected (n, h, w, c), c = 1, 3 or 4"
        )
    return images


def _as_values(images: NDArray[Any], wanted: PixelFormat) -> NDArray[Any]:
    if images.dtype.kind not in "uif":
        raise InputError(f"the array is {images.dtype}", "images are whole or real numbers")
    if images.ndim == 2:
        images = images[None, :, :, None]
    elif images.ndim == 3:
        images = images[None] if images.shape[-1] == wanted.channels else images[..., None]
    if images.ndim != 4 or images.shape[-1] != wanted.channels or not images.size:
        raise InputError(
            f"an array of shape {images.shape} holds no images of this collection",
            f"expected (n, h, w, {wanted.channels})",
        )
    return images


def name_of(image: Any, position: int) -> str:
    """What to call an image: its path, or its place in the list."""
    return str(os.fspath(image)) if isinstance(image, (str, os.PathLike)) else f"{position:06d}"


@contextmanager
def _stored(
    images: Any, size: int, fit: Any, progress: Progress | None, wanted: PixelFormat
) -> Iterator[Found]:
    source = scan(images)
    with (
        explain_disk_errors("reading the images"),
        tempfile.TemporaryDirectory(prefix="semblance-") as folder,
    ):
        table = build_store(source, Path(folder), size, fit, progress=progress, wanted=wanted)
        rows, paths, status = (table.column(name).to_pylist() for name in ("row", "path", "status"))
        good = sorted((row, path) for row, path in zip(rows, paths, strict=True) if row >= 0)
        problems = _problems(source.problems, paths, status)
        if not good:
            raise InputError(
                "none of the images can be read", "; ".join(f"{p}: {r}" for p, r in problems[:3])
            )
        pixels = open_store(Path(folder) / "pixels.npy")
        yield Found(tuple(path for _, path in good), pixels, problems)
        del pixels  # Windows cannot remove a file that is mapped


def _problems(found: Sequence[Any], paths: list[str], status: list[str]) -> tuple[tuple[str, str], ...]:
    listed = [(p, s.removeprefix("unreadable: ")) for p, s in zip(paths, status, strict=True) if s != "ok"]
    known = {path for path, _ in listed}
    return tuple([(p.path, p.reason) for p in found if p.path not in known] + listed)


def _encoded(image: Image.Image) -> bytes:
    """A PIL image as a lossless file, so that every colour mode takes the one way that files take."""
    out = io.BytesIO()
    if image.mode in ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"):
        image.save(out, "PNG", compress_level=0)
    elif image.mode in ("CMYK", "YCbCr", "F", "LAB"):
        image.save(out, "TIFF")
    else:
        image.convert("RGBA" if image.has_transparency_data else "RGB").save(out, "PNG", compress_level=0)
    return out.getvalue()
