"""Damaged image files: what reading them raises, whether their end is missing, and silence meanwhile."""

from __future__ import annotations

import contextlib
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator

__all__ = ["DAMAGED", "is_cut", "quiet", "spoken"]

# What Pillow and its plugins raise on damaged files, found by reading them and by fuzzing: each parser
# trusts its input somewhere, so a wrong offset or count surfaces as any of these.
DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def is_cut(kind: str, data: bytes, error: BaseException) -> bool:
    """Whether the end of a damaged file is missing, told from the file where its format allows."""
    if kind == "NPY":
        return False
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-512:]
    if kind == "PNG":
        return b"IEND" not in data[-64:]
    if kind == "GIF":
        return not data.rstrip(b"\x00").endswith(b";")
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    if kind in ("AVIF", "HEIF", "JPEG2000") and data[:1] == b"\x00":
        return _boxes_are_cut(data)
    return any(word in str(error).lower() for word in ("truncat", "end of", "eof", "not enough"))


def _boxes_are_cut(data: bytes) -> bool:
    """Whether an ISO media file ends before the last box it starts, or has none with pixels."""
    at, pixels = 0, False
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        pixels = pixels or data[at + 4 : at + 8] in (b"mdat", b"jp2c")
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length < 8:  # 0: up to the end of the file; else nonsense
            return not pixels
        at += length
    return at != len(data) or not pixels


def spoken(error: BaseException) -> str:
    """What the system said, without its number and path; for other errors, what they say."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class _Quiet:
    """Silences Pillow's warnings while anyone decodes.

    The filters of `warnings` belong to the whole process: they are set by the first thread that enters
    and restored by the last that leaves, so threads that decode together do not undo one another.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.filters = warnings.catch_warnings()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        if getattr(sys.flags, "context_aware_warnings", 0):  # then filters belong to one thread each
            with warnings.catch_warnings():
                _ignore()
                yield
            return
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                _ignore()
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if self.inside == 0:
                    self.filters.__exit__(None, None, None)


def _ignore() -> None:
    warnings.filterwarnings("ignore", module=r"(PIL|semblance\.images\.decode)\b")


quiet = _Quiet()
