"""The collection: a folder `photos.smb/` with everything made from one set of images.

    collection.json   format, name, model identity, counts, configuration, bill and what really happened
    images.parquet    one row per image: id, row, path, size, hash, duplicate_of, status
    pixels.npy        (n, size, size, c) uint8 or uint16, the readable images
    columns.parquet   the manifest's other columns, measured.parquet what was measured: see `columns.py`
    model/            see `model.py`
    embeddings.npy    (n, d) float32, one row per row of pixels.npy
    metrics.jsonl     one line per epoch          log.jsonl   one line per event
    codes.npy         (n, bits / 8) uint8         coder.safetensors  what made them
    report.html       the report                  labels.sqlite  what a person said

`collection.json` names the model's identity and the content hash of each part. A part that was exchanged or
cut short is refused. Paths are relative to the source, and the source to the collection where that is
possible: both can be moved together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from semblance.collection import disk
from semblance.collection.columns import read as read_columns
from semblance.collection.model import Model, Named
from semblance.collection.model import load as load_model
from semblance.contracts import Column, Matches, Progress
from semblance.errors import CollectionError, InputError, ModelMismatch
from semblance.images.formats import PixelFormat
from semblance.images.sources import locate

__all__ = ["FORMAT", "PARTS", "Collection", "is_collection", "source_record"]

FORMAT = 1
PARTS = ("images.parquet", "pixels.npy", "embeddings.npy")
"""Parts whose content hash is in `collection.json`."""
REBUILD = "build it again with --overwrite"


class Collection:
    """An open collection; parts are read when they are first asked for."""

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path = path
        self.info = info
        self.outcome = ""
        """What the build that returned this did: "built", "resumed", "updated: ...", "up to date"."""

    @classmethod
    def open(cls, path: str | Path) -> Collection:
        """The collection in the folder `path`.

        Raises `CollectionError` where it is none, is damaged or of another format, `ModelMismatch` where its
        model is not the one that it was made with.
        """
        folder = Path(path)
        if not folder.exists():
            raise CollectionError(f"{folder} does not exist", "semblance run FOLDER makes a collection")
        if not is_collection(folder):
            raise CollectionError(f"{folder} is not a collection", "semblance run FOLDER makes one")
        info = disk.read_json(folder / "collection.json")
        if info.get("format") != FORMAT:
            newer = "a newer version of Semblance may read it"
            raise CollectionError(f"{folder}: collection format {info.get('format')!r} is not known", newer)
        missing = [name for name in (*PARTS, "model/model.json") if not (folder / name).is_file()]
        if missing:
            raise CollectionError(f"{folder} lacks {', '.join(missing)}", REBUILD)
        facts = disk.read_json(folder / "model" / "model.json")
        if facts.get("identity") != info.get("model"):
            made, found = info.get("model"), facts.get("identity")
            raise ModelMismatch(f"{folder} was made with the model {made}, the one in it is {found}", REBUILD)
        return cls(folder, info)

    def __repr__(self) -> str:
        counts = self.info["counts"]
        return f"Collection({str(self.path)!r}, {counts['images']} images, model {self.info['model']})"

    def __len__(self) -> int:
        return int(self.embeddings.shape[0])

    @cached_property
    def images(self) -> pa.Table:
        """One row per image, readable or not: id, row (-1 if unreadable), path, width, height, bytes,
        mtime_ns, hash, duplicate_of, status."""
        self._check("images.parquet")
        try:
            return pq.read_table(self.path / "images.parquet")
        except (OSError, pa.ArrowException) as error:
            raise CollectionError(f"{self.path / 'images.parquet'} is damaged: {error}", REBUILD) from error

    @cached_property
    def pixels(self) -> NDArray[Any]:
        """`(n, size, size, c)`, mapped from disk: uint8 RGB, or values as `format` packs them."""
        return self._array("pixels.npy", self.format.dtype, 4)

    @property
    def format(self) -> PixelFormat:
        """What the pixels are; `format.unpack(pixels)` are the values."""
        return PixelFormat.read(self.info["config"].get("pixels"))

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Name -> what the manifest says of every row of `pixels`, and what was measured on it where an
        objective asked."""
        found = read_columns(self.path)
        if any(len(column.values) != len(self) for column in found.values()):
            raise ModelMismatch(f"{self.path}: its columns are of other images", REBUILD)
        return found

    @cached_property
    def embeddings(self) -> NDArray[np.float32]:
        """`(n, d)` float32, rows as in `pixels`, mapped from disk."""
        self._check("embeddings.npy")
        rows: NDArray[np.float32] = self._array("embeddings.npy", np.dtype(np.float32), 2)
        return rows

    @cached_property
    def model(self) -> Model:
        """The model that made the embeddings. Raises as `semblance.load` does."""
        return load_model(self.path)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """`(n,)` the image id of every row of `pixels` and `embeddings`."""
        rows = self.images.column("row").to_numpy()
        ids = self.images.column("id").to_numpy()
        ordered = np.empty((rows >= 0).sum(), np.int64)
        ordered[rows[rows >= 0]] = ids[rows >= 0]
        return ordered

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The path of every row of `pixels` and `embeddings`, relative to the source."""
        table = self.images
        rows, paths = table.column("row").to_pylist(), table.column("path").to_pylist()
        return tuple(
            path for _, path in sorted((row, path) for row, path in zip(rows, paths, strict=True) if row >= 0)
        )

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """The content hash of every row of `pixels` and `embeddings`."""
        table = self.images
        rows, hashes = table.column("row").to_pylist(), table.column("hash").to_pylist()
        return tuple(one for _, one in sorted((r, h) for r, h in zip(rows, hashes, strict=True) if r >= 0))

    @cached_property
    def rows_by_hash(self) -> dict[str, list[int]]:
        """Content hash -> the rows of the images that have it."""
        rows: dict[str, list[int]] = {}
        for row, one in enumerate(self.hashes):
            rows.setdefault(one, []).append(row)
        return rows

    @property
    def source(self) -> Path | None:
        """The folder that paths are relative to, where it is now; None for an array or if it is gone."""
        record = self.info["source"]
        places = [
            record.get("relative") and self.path.resolve().parent / record["relative"],
            record.get("root"),
        ]
        found = [Path(os.path.normpath(place)) for place in places if place]
        return next((place for place in found if place.exists()), None)

    def file(self, path: str) -> Path:
        """The file of an image's `path`. Raises `InputError` where the source is not there any more."""
        if self.source is None:
            raise InputError(f"{path}: the images of {self.path.name} are not where they were")
        return locate(self.source, path)

    def metrics(self) -> list[dict[str, Any]]:
        """One dict per epoch of training, as in `metrics.jsonl`."""
        return self._lines("metrics.jsonl")

    def log(self) -> list[dict[str, Any]]:
        """One dict per event of the build, as in `log.jsonl`."""
        return self._lines("log.jsonl")

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        exclude_self: bool = False,
        exact: bool | None = None,
        device: str = "auto",
    ) -> Matches:
        """The `k` nearest images of each query, ordered by (distance, id).

        `query`: a path, a folder, an id of this collection, an array, a PIL image or a list. An image that is
        itself in the collection is found at distance 0 unless `exclude_self`. `exact` False: by codes, then
        the nearest of them measured in floats; None: so from 100,000 images on, where there are codes.
        """
        from semblance.collection.search import search

        return search(self, query, k, exclude_self=exclude_self, exact=exact, device=device)

    def encode(
        self, coder: str = "auto", bits: int | None = None, *args: Any, **options: Any
    ) -> NDArray[np.uint8]:
        """Binary codes `(n, bits / 8)` of the images, kept in the collection; see `codes.encode`."""
        from semblance.collection.codes import encode

        return encode(self, coder, bits, *args, **options)

    @property
    def codes(self) -> NDArray[np.uint8]:
        """`(n, bits / 8)` uint8, rows as in `pixels`, mapped from disk. Raises `CollectionError` without."""
        from semblance.collection.codes import codes_of

        return codes_of(self)

    @property
    def coder(self) -> Any:
        """The coder that made the codes. Raises as `codes` does."""
        from semblance.collection.codes import coder_of

        return coder_of(self)

    def describe_codes(self) -> dict[str, Any]:
        """Balance, correlation, distances and cost of the codes; see `codes.describe`."""
        from semblance.collection.codes import describe

        return describe(self)

    def price(
        self,
        bits: Sequence[int] | None = None,
        coders: Sequence[str] | None = None,
        *,
        record: bool = True,
        **options: Any,
    ) -> dict[str, Any]:
        """What codes of each length keep and cost, kept for the report unless `record` is False; see
        `price.price`."""
        from semblance.collection.price import BITS, price

        table = price(self.embeddings, bits or BITS, coders, **options)
        if record:
            self.record(price=table)
        return table

    def embed(
        self, images: Any, *, device: str = "auto", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Embeddings `(n, d)` float32 of other images, by this collection's model (see `Model.embed`)."""
        return self.model.embed(images, device=device, progress=progress)

    def embed_named(self, images: Any, *, device: str = "auto", progress: Progress | None = None) -> Named:
        """The same with the name of each image and the files that could not be read."""
        return self.model.embed_named(images, device=device, progress=progress)

    def evaluate(
        self,
        labels: str | Path | Mapping[str, Any] | Sequence[Any] | None = None,
        column: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """How well neighbours and clusters agree with labels; see `evaluate.evaluate`."""
        from semblance.collection.evaluate import evaluate

        table: dict[str, Any] = evaluate(self, labels, column, **options)
        return table

    def export_onnx(self, path: str | Path, **options: Any) -> Path:
        """The model as an ONNX file; see `export.export_onnx`."""
        from semblance.collection.export import export_onnx

        return export_onnx(self, path, **options)

    def record(self, **changes: Any) -> None:
        """Set values of `collection.json`, in memory and, atomically, on disk."""
        self.info = {**self.info, **changes}
        with disk.explain_disk_errors(str(self.path)):
            disk.write_json(self.path / "collection.json", self.info)

    def verify(self) -> None:
        """Read every part and compare it with its hash, the pixels too. Raises what `open` raises."""
        for name in PARTS:
            self._check(name)
        if self.model.identity != self.info["model"]:
            raise ModelMismatch(f"{self.path}: the model in it is another one", REBUILD)

    def _check(self, name: str) -> None:
        wanted = self.info.get("parts", {}).get(name)
        if disk.file_hash(self.path / name) != wanted:
            raise ModelMismatch(f"{self.path / name} is not the one this collection was made with", REBUILD)

    def _array(self, name: str, dtype: np.dtype[Any], axes: int) -> NDArray[Any]:
        try:
            array = np.load(self.path / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CollectionError(f"{self.path / name} is damaged: {error}", REBUILD) from error
        if array.dtype != dtype or array.ndim != axes or len(array) != self.info["counts"]["readable"]:
            raise ModelMismatch(f"{self.path / name} is not the one this collection was made with", REBUILD)
        return np.asarray(array) if not len(array) else array

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        if not path.is_file():
            return []
        try:
            return [
                json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
            ]
        except ValueError as error:
            raise CollectionError(f"{path} is damaged: not JSON lines", REBUILD) from error


def is_collection(folder: Path) -> bool:
    """Whether `folder` has a `collection.json`, which is written last."""
    return (folder / "collection.json").is_file()


def source_record(root: Path | None, kind: str, target: Path) -> dict[str, Any]:
    """Where the images are: relative to the collection's parent where one drive holds both, and absolute."""
    if root is None:
        return {"kind": kind, "root": None, "relative": None}
    whole = root.resolve()
    try:
        relative = Path(os.path.relpath(whole, target.resolve().parent)).as_posix()
    except ValueError:  # another drive on Windows
        relative = None
    return {"kind": kind, "root": str(whole), "relative": relative}
