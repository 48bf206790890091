"""What a file claims to be, told from its first bytes, and the bytes of one that claims to be an image."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from pathlib import Path

from semblance.errors import InputError
from semblance.images._damage import spoken

__all__ = ["ALONE", "identify", "read_image_bytes"]

MAX_BYTES = 1 << 30
BIG = 64 << 20
ALONE = threading.Lock()
"""Held by who reads or decodes a big image: one at a time, so that memory stays bounded."""

SIGNATURES = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)"
    rb"|(?P<PNG>\x89PNG\r\n\x1a\n)"
    rb"|(?P<GIF>GIF8[79]a)"
    rb"|(?P<WEBP>RIFF....WEBP)"
    rb"|(?P<TIFF>II[*+]\x00|MM\x00[*+])"
    rb"|(?P<BMP>BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00)"
    rb"|(?P<ICO>\x00\x00\x01\x00[^\x00]\x00)"
    rb"|(?P<JPEG2000>\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  \r\n\x87\n)"
    rb"|(?P<AVIF>....ftypavi[fs])"
    rb"|(?P<HEIF>....ftyp(?:mif1|msf1|hei[cxms]|hev[cx]))"
    rb"|(?P<PPM>P[1-6f]\s+[\d#-])"
    rb"|(?P<QOI>qoif)"
    rb"|(?P<NPY>\x93NUMPY[\x01-\x03])",
    re.DOTALL,
)
PREFIX = 32


def identify(prefix: bytes) -> str | None:
    """The format that a file starting with `prefix` (32 bytes are enough) claims to be, or None.

    >>> identify(b"GIF89a..."), identify(b"path,class")
    ('GIF', None)
    """
    match = SIGNATURES.match(prefix[:PREFIX])
    return match.lastgroup if match else None


def read_image_bytes(path: Path) -> bytes:
    """The bytes of an image file, at most 1 GiB.

    Never waits: a pipe, socket or device is refused, even one that took the place of a file. What does not
    start like an image is refused after 32 bytes. Raises `InputError` with a reason of the table in `decode`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        if isinstance(error, OSError) and _is_special(path):
            raise InputError("not a regular file") from error
        raise InputError(f"cannot be read: {spoken(error)}") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise InputError("larger than 1 GiB")
        with open(handle, "rb", closefd=False) as file:
            prefix = file.read(PREFIX)
            if not prefix:
                raise InputError("zero bytes")
            if identify(prefix) is None:
                raise InputError("not an image")
            with ALONE if status.st_size > BIG else contextlib.nullcontext():
                return prefix + file.read(MAX_BYTES)
    except OSError as error:
        raise InputError(f"cannot be read: {spoken(error)}") from error
    except MemoryError as error:
        raise InputError("needs too much memory") from error
    finally:
        os.close(handle)


def _is_special(path: Path) -> bool:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # unreachable or unnameable: nothing is known about it
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
