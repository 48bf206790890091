"""A folder of hostile files, each with what must become of it. Used by tests and by benchmarks."""

from __future__ import annotations

import contextlib
import io
import os
import random
import stat
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

__all__ = ["make_hostile"]

MAGIC = b"\x89PNG\r\n\x1a\n"
EXTENSIONS = {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif"}


def make_hostile(folder: Path, count: int = 200) -> dict[str, str]:
    """Path as the image table has it -> "ok" or the start of the reason why it is unusable.

    Writes at least `count` files. What no listing shows (hidden files, `.smb` folders) is not in the
    answer. What the file system refuses (undecodable names, sockets, long paths) is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, tuple[bytes, str]] = {}
    for part in (_modes(), _shapes(), _turned(), _not_images(), _bombs(), _damaged()):
        files.update(part)
    cuts = random.Random(0)
    while len(files) < count:
        kind = ("JPEG", "PNG", "GIF", "WEBP", "BMP")[len(files) % 5]
        whole = _encode(_photo(), kind)
        at = cuts.randrange(64, len(whole) * 3 // 4)
        files[f"cut/random {len(files)}.{EXTENSIONS.get(kind, kind.lower())}"] = (whole[:at], "truncated")
    expected = {}
    for path, (data, reason) in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        expected[path] = reason
    return expected | _names(folder / "names") | _special(folder / "special")


def _photo(width: int = 60, height: int = 40, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(width * height)
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def _encode(image: Any, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(out, kind, **options)
    return out.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, depth: int, colour: int, raw: bytes, extra: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return MAGIC + header + extra + _chunk(b"IDAT", zlib.compress(raw, 1)) + _chunk(b"IEND", b"")


def _modes() -> dict[str, tuple[bytes, str]]:
    rgb = Image.fromarray(_photo())
    alpha = rgb.copy()
    alpha.putalpha(rgb.getchannel("R"))
    grey, wide = rgb.convert("L"), np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27
    real = np.linspace(-3, 7, 2400, dtype=np.float32).reshape(40, 60)
    holes = real.copy()
    holes[0, :3] = (np.nan, np.inf, -np.inf)
    frames = [rgb, rgb.rotate(180)]
    rows = b"".join(b"\0" + bytes(range(36)) for _ in range(6))
    made = {
        "one bit.png": _encode(rgb.convert("1"), "PNG"),
        "grey.png": _encode(grey, "PNG"),
        "grey.jpg": _encode(grey, "JPEG"),
        "grey key.png": _encode(grey, "PNG", transparency=7),
        "la.png": _encode(alpha.convert("LA"), "PNG"),
        "rgba.png": _encode(alpha, "PNG"),
        "rgba.webp": _encode(alpha, "WEBP"),
        "rgba.tif": _encode(alpha, "TIFF"),
        "rgb key.png": _encode(rgb, "PNG", transparency=(1, 2, 3)),
        "palette.png": _encode(rgb.convert("P"), "PNG"),
        "palette key.png": _encode(rgb.convert("P"), "PNG", transparency=3),
        "palette alpha.png": _encode(rgb.convert("P"), "PNG", transparency=bytes(range(256))),
        "palette.gif": _encode(rgb.convert("P"), "GIF", transparency=0),
        "palette.bmp": _encode(rgb.convert("P"), "BMP"),
        "cmyk.jpg": _encode(rgb.convert("CMYK"), "JPEG"),
        "cmyk.tif": _encode(rgb.convert("CMYK"), "TIFF"),
        "ycbcr.tif": _encode(rgb.convert("YCbCr"), "TIFF"),
        "progressive.jpg": _encode(rgb, "JPEG", progressive=True),
        "16 bit.png": _encode(wide, "PNG"),
        "16 bit.tif": _encode(wide, "TIFF"),
        "16 bit.ppm": b"P5 2 2 65535\n" + bytes(range(8)),
        "16 bit rgb.png": _png(6, 6, 16, 2, rows),
        "32 bit.tif": _encode(wide.astype(np.int32), "TIFF"),
        "float.tif": _encode(real, "TIFF"),
        "float holes.tif": _encode(holes, "TIFF"),
        "all nan.tif": _encode(np.full((4, 4), np.nan, np.float32), "TIFF"),
        "deflate.tif": _encode(rgb, "TIFF", compression="tiff_deflate"),
        "animated.gif": _encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.webp": _encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "animated.png": _encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "pages.tif": _encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "stereo.mpo": _encode(frames[0], "MPO", save_all=True, append_images=frames[1:]),
        "sizes.ico": _encode(rgb, "ICO", sizes=[(16, 16), (32, 32)]),
    }
    good = {f"modes/{name}": (data, "ok") for name, data in made.items()}
    lab = _encode(Image.new("LAB", (9, 9)), "TIFF")
    return good | {"modes/lab.tif": (lab, "colour mode LAB")}


def _shapes() -> dict[str, tuple[bytes, str]]:
    sizes = [(1, 1), (1, 5000), (5000, 1), (2, 3), (300, 200)]
    files = {f"shapes/{w}x{h}.png": _encode(_photo(w, h), "PNG") for w, h in sizes}
    files |= {f"shapes/{w}x{h}.jpg": _encode(_photo(w, h), "JPEG") for w, h in sizes}
    swapped = [
        ("PNG", "jpg"),
        ("JPEG", "png"),
        ("GIF", "jpeg"),
        ("WEBP", "txt"),
        ("BMP", "csv"),
        ("TIFF", "gif"),
    ]
    files |= {f"shapes/{kind} named.{end}": _encode(_photo(), kind) for kind, end in swapped}
    files["shapes/no extension"] = _encode(_photo(), "PNG")
    files["shapes/tail after the end.jpg"] = _encode(_photo(), "JPEG") + bytes(5000)
    return {path: (data, "ok") for path, data in files.items()}


def _turned() -> dict[str, tuple[bytes, str]]:
    files = {}
    for value in (*range(10), 999):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = value
        for kind in ("JPEG", "TIFF", "PNG", "WEBP"):
            if kind == "JPEG" or value in (3, 6):
                files[f"turned/{value}.{EXTENSIONS.get(kind, kind.lower())}"] = (
                    _encode(_photo(), kind, exif=exif),
                    "ok",
                )
    files["turned/broken exif.jpg"] = (
        _encode(_photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 60),
        "ok",
    )
    return files


def _not_images() -> dict[str, tuple[bytes, str]]:
    other = {
        "text.jpg": b"this is not a picture\n" * 20,
        "labels.csv": b"path,class\na.jpg,cat\n",
        "page.png": b"<!DOCTYPE html><html></html>" * 9,
        "vector.svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "paper.jpg": b"%PDF-1.7\n" + bytes(200),
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "archive.jpeg": b"PK\x03\x04" + bytes(100),
        "film.mp4": b"\0\0\0\x18ftypisom" + bytes(200),
        "sound.webp": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
        "pickle.png": b"\x80\x04\x95" + bytes(50),
        "BMW.bmp": b"BMW is a maker of cars, not a bitmap at all",
        "P1.ppm": b"P1 is the first place of the race",
        "game.tga": bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 4, 0, 24, 0]) + bytes(48),
        "one byte.jpg": b"\xff",
        "two bytes.jpg": b"\xff\xd8",
        "nothing but zeros.png": bytes(4096),
        "newline.gif": b"\n",
        "GIF.gif": b"GIF",
        "noise.jpg": random.Random(1).randbytes(3000).replace(b"\xff\xd8", b"  "),
    }
    files = {f"others/{name}": (data, "not an image") for name, data in other.items()}
    empty = {
        f"others/empty.{end}": (b"", "zero bytes") for end in ("jpg", "png", "gif", "tif", "webp", "txt")
    }
    return files | empty


def _bombs() -> dict[str, tuple[bytes, str]]:
    row = bytes(1 + 13400 // 8)
    huge = 99_999
    return {
        "bombs/real.png": (_png(13400, 13400, 1, 0, row * 13400), "too many pixels (179560000)"),
        "bombs/just below.png": (_png(10000, 9000, 1, 0, bytes(1251) * 9000), "ok"),
        "bombs/header.png": (_png(huge, huge, 8, 2, b""), "too many pixels (9999800001)"),
        "bombs/header.gif": (
            b"GIF89a" + b"\xff" * 4 + bytes(3) + b"," + bytes(4) + b"\xff" * 4 + b"\0\2\2\x44\1\0;",
            "too many pixels",
        ),
        "bombs/header.bmp": (
            b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, huge, huge, 1, 24, 0) + bytes(20),
            "too many pixels",
        ),
        "bombs/header.ppm": (b"P6 99999 99999 255\n" + bytes(99), "too many pixels"),
        "bombs/text.png": (
            _png(2, 2, 8, 0, bytes(6), _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 23)))),
            "corrupt",
        ),
    }


def _damaged() -> dict[str, tuple[bytes, str]]:
    files: dict[str, tuple[bytes, str]] = {}
    kinds = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "PPM", "JPEG2000", "AVIF"]
    Image.init()
    for kind in (kind for kind in kinds if kind in Image.SAVE):
        whole = _encode(_photo(), kind)
        for at in (32, 40, 64, *(len(whole) * k // 8 for k in (1, 2, 3, 4, 5, 6, 7))):
            files[f"cut/{at}.{EXTENSIONS.get(kind, kind.lower())}"] = (whole[:at], "truncated")
    png, jpeg = _encode(_photo(), "PNG"), _encode(_photo(), "JPEG")
    spoiled = bytearray(png)
    spoiled[len(png) // 2] ^= 0xFF
    files |= {
        "corrupt/flipped.png": (bytes(spoiled), "corrupt"),
        "corrupt/no width.png": (_png(0, 5, 8, 0, bytes(5)), "corrupt"),
        "corrupt/colour type.png": (_png(5, 5, 8, 5, bytes(30)), "corrupt"),
        "corrupt/not zlib.png": (png.replace(b"IDAT\x78", b"IDAT\x00"), "corrupt"),
        "corrupt/noise.jpg": (jpeg[:20] + random.Random(2).randbytes(500) + b"\xff\xd9", "corrupt"),
        "corrupt/only ends.jpg": (b"\xff\xd8\xff\xd9", "corrupt"),
        "corrupt/empty.gif": (b"GIF89a" + struct.pack("<HH", 5, 5) + bytes(3) + b";", "corrupt"),
        "corrupt/tags.tif": (b"II*\0\x08\0\0\0" + b"\xff" * 90, "corrupt"),
        "corrupt/none.ico": (b"\0\0\1\0\1\0" + bytes(60), "truncated"),
        "corrupt/size.ppm": (b"P6 -4 4 255\n" + bytes(99), "corrupt"),
        "corrupt/inside.webp": (b"RIFF" + struct.pack("<I", 60) + b"WEBPVP8 " + bytes(52), "corrupt"),
    }
    return files


def _names(folder: Path) -> dict[str, str]:
    folder.mkdir()
    names = [
        "two  spaces .png",
        " leading.png",
        "new\nline.png",
        "tab\tand\rreturn.png",
        "Ünïcode 日本語 🐈.png",
        "e\u0301 decomposed.png",
        "\u202eright to left.png",
        "'quotes' \"double\".png",
        "back\\slash.png",
        r"looks\xff.png",
        "-rf.png",
        "$(echo).png",
        "per%20cent&amp;<b>.png",
        "star*[1]?.png",
        "a" * 251 + ".png",
        "é" * 125 + "x.png",
        os.fsdecode(b"latin caf\xe9.png"),
        os.fsdecode(b"both \\ \xff\xfe.png"),
    ]
    known = {r"looks\xff.png": r"looks\\xff.png"}
    known |= {names[-2]: r"latin caf\xe9.png", names[-1]: r"both \\ \xff\xfe.png"}
    answer = {}
    for name in names:
        with contextlib.suppress(OSError, ValueError):  # not every file system takes every name
            (folder / name).write_bytes(_encode(_photo(9, 9), "PNG"))
            answer[f"names/{known.get(name, name)}"] = "ok"
    (folder / ".hidden.png").write_bytes(_encode(_photo(9, 9), "PNG"))
    (folder / "._shadow.jpg").write_bytes(b"\0\x05\x16\x07")
    (folder / "old.smb").mkdir()
    (folder / "old.smb" / "inside.png").write_bytes(_encode(_photo(9, 9), "PNG"))
    return answer


def _special(folder: Path) -> dict[str, str]:
    (folder / "a folder.jpg").mkdir(parents=True)
    (folder / "a folder.jpg" / "inside.png").write_bytes(_encode(_photo(9, 9), "PNG"))
    answer = {"special/a folder.jpg/inside.png": "ok"}
    links = {
        "itself.jpg": ("itself.jpg", "symlink loop"),
        "there.jpg": ("back.jpg", "symlink loop"),
        "back.jpg": ("there.jpg", "symlink loop"),
        "up": ("..", "symlink loop"),
        "here": (".", "symlink loop"),
        "top": ("/", "symlink loop"),
        "again": ("a folder.jpg", "link to a folder that is already included"),
        "nowhere.jpg": ("no such.jpg", "dangling symlink"),
        "good link.png": ("a folder.jpg/inside.png", "ok"),
    }
    for name, (target, reason) in links.items():
        (folder / name).symlink_to(target)
        answer[f"special/{name}"] = reason
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link to a pipe.jpg").symlink_to("pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    answer |= {f"special/{name}.jpg": "not a regular file" for name in ("pipe", "link to a pipe", "device")}
    with contextlib.suppress(OSError):
        os.mknod(folder / "socket.png", stat.S_IFSOCK | 0o600)
        answer["special/socket.png"] = "not a regular file"
    with (folder / "sparse.jpg").open("wb") as handle:
        handle.write(b"\xff\xd8\xff\xe0")
        handle.truncate((1 << 30) + 1)
    answer["special/sparse.jpg"] = "larger than 1 GiB"
    return answer | _unreadable(folder) | _too_deep(folder)


def _unreadable(folder: Path) -> dict[str, str]:
    """A folder and a file without permissions, which the superuser may read all the same."""
    (folder / "locked").mkdir()
    for name in ("locked/inside.png", "locked.png"):
        (folder / name).write_bytes(_encode(_photo(9, 9), "PNG"))
    for name in ("locked", "locked.png"):
        (folder / name).chmod(0)
    if os.access(folder / "locked.png", os.R_OK):
        return {"special/locked/inside.png": "ok", "special/locked.png": "ok"}
    return dict.fromkeys(("special/locked", "special/locked.png"), "cannot be read")


def _too_deep(folder: Path) -> dict[str, str]:
    """A folder whose whole path is longer than the system takes: unreadable for everyone."""
    at, here = "special", os.open(folder, os.O_RDONLY)
    room = os.pathconf(folder, "PC_PATH_MAX") - len(os.fsencode(folder)) - 1
    used = 0
    while used < room:
        name = "d" * 200
        os.mkdir(name, dir_fd=here)
        inside = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, at, used = inside, f"{at}/{name}", used + 201
    os.close(here)
    return {at: "cannot be read"}
