"""Search: queries of any kind -> the nearest images of a collection, exact, in float32.

A query that is in the collection (by its id, or as a file by its content) is answered with its stored
embedding: nothing is decoded, and it finds itself at distance 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semblance import plugins
from semblance.collection.read import as_array, is_one_image, name_of, read_one
from semblance.contracts import Matches
from semblance.errors import ConfigError, InputError
from semblance.images.formats import PixelFormat
from semblance.images.signature import read_image_bytes
from semblance.images.sources import locate, scan
from semblance.index.exact import nearest

if TYPE_CHECKING:
    from semblance.collection.store import Collection

__all__ = ["MANY", "by_codes", "search"]

MANY = 100_000
"""Images from which on codes answer by default."""


def search(
    collection: Collection,
    query: Any,
    k: int = 10,
    *,
    exclude_self: bool = False,
    exact: bool | None = None,
    device: str = "auto",
) -> Matches:
    """The `k` nearest images of every query, ordered by (distance, id), with `paths` and `queries` filled.

    `query`: a path, folder, glob, bytes, PIL image, array, an id of the collection, or a list of these.
    `exclude_self` leaves out a query's own image and its exact copies. `exact` False searches codes and
    measures the nearest in floats; None does so where `by_codes` says. `ids` are -1 and `distances` inf where
    fewer than `k` images are left. Raises `InputError` for an unknown id or a query that cannot be read; in a
    folder or glob such a file is passed over.
    """
    if k < 1:
        raise ConfigError(f"k is {k}", "at least 1")
    names, rows, known = _embedded(collection, _expanded(query, collection.format), device)
    own = [_copies(collection, row) if exclude_self else [] for row in known]
    wide = k + max(len(one) for one in own)
    if by_codes(collection, exact):
        found = _by_codes(collection, rows, wide)
    else:
        found = nearest(rows, np.ascontiguousarray(collection.embeddings), wide, ids=collection.ids)
    if exclude_self:
        found = _leave_out(found, own, k)
    path_of = dict(zip(collection.ids.tolist(), collection.paths, strict=True))
    paths = tuple(tuple(path_of.get(int(i), "") for i in ids) for ids in found.ids)
    return Matches(found.ids, found.distances, paths, names)


def by_codes(collection: Collection, exact: bool | None = None) -> bool:
    """Whether a search goes through codes: where it was asked to, or from 100,000 images on, with codes."""
    if exact is None:
        return len(collection) >= MANY and bool(collection.info.get("codes"))
    return not exact


def _by_codes(collection: Collection, rows: NDArray[np.float32], k: int) -> Matches:
    """The nearest codes of each row, measured again in floats."""
    index = plugins.get("index", "rerank").Index(encode=collection.coder.encode)
    index.add(collection.embeddings, collection.ids, codes=collection.codes)
    found: Matches = index.search(rows, k)
    return found


@dataclass(frozen=True)
class _Query:
    """One query. `must`: it was named, so it must be readable."""

    name: str
    image: Any
    must: bool = True


def _expanded(query: Any, wanted: PixelFormat) -> list[_Query]:
    """One entry per image."""
    if isinstance(query, (int, np.integer)):
        return [_Query(str(int(query)), int(query))]
    if is_one_image(query, wanted):
        return [_Query(name_of(query, 0), query)]
    if isinstance(query, np.ndarray):
        numbers = np.issubdtype(query.dtype, np.integer) and query.ndim == 1
        each = query.tolist() if numbers else as_array(query, wanted)
        return [_Query(f"{i:06d}", one) for i, one in enumerate(each)]
    if isinstance(query, (str, os.PathLike)):
        found = scan(query)
        return [_Query(item.path, locate(found.root, item.path), must=False) for item in found.items]
    if not isinstance(query, (list, tuple)):
        raise InputError(
            f"a {type(query).__name__} is no query", "give an image file, a folder, an array or an id"
        )
    if not query:
        raise InputError("there is no query", "give at least one image")
    parts = [_expanded(one, wanted) for one in query]
    several = len(parts) > 1
    return [
        dataclasses.replace(one, name=f"{i:06d}") if several and one.name == f"{0:06d}" else one
        for i, part in enumerate(parts)
        for one in part
    ]


def _embedded(
    collection: Collection, queries: list[_Query], device: str
) -> tuple[tuple[str, ...], NDArray[np.float32], list[int | None]]:
    """Names, embeddings `(q, d)`, and the row of each query that the collection already holds."""
    size, fit = int(collection.info["config"]["size"]), collection.info["config"]["fit"]
    names: list[str] = []
    known: list[int | None] = []
    fresh: list[NDArray[Any]] = []
    for query in queries:
        try:
            row = _row_of(collection, query.image)
            pixels = read_one(query.image, size, fit, collection.format) if row is None else None
        except InputError:
            if query.must:
                raise
            continue
        names.append(query.name)
        known.append(row)
        if pixels is not None:
            fresh.append(pixels)
    if not names:
        raise InputError("none of the queries is an image that can be used")
    made = iter(collection.model.embed_pixels(np.stack(fresh), device=device) if fresh else ())
    rows = np.stack([next(made) if row is None else collection.embeddings[row] for row in known])
    return tuple(names), rows, known


def _row_of(collection: Collection, image: Any) -> int | None:
    """The row of a query that the collection holds: by id, or by the content of the file."""
    if isinstance(image, int):
        found = np.flatnonzero(collection.ids == image)
        if not len(found):
            raise InputError(f"no readable image has the id {image}", "ids are in images.parquet")
        return int(found[0])
    if isinstance(image, (str, os.PathLike)):
        try:
            data = read_image_bytes(Path(image))
        except InputError as error:
            raise InputError(f"{image} cannot be used: {error.message}", error.hint) from error
        same = collection.rows_by_hash.get(hashlib.blake2b(data, digest_size=16).hexdigest())
        return same[0] if same else None
    return None


def _copies(collection: Collection, row: int | None) -> list[int]:
    """The ids of the image in `row` and of its exact copies."""
    if row is None:
        return []
    return [int(collection.ids[one]) for one in collection.rows_by_hash[collection.hashes[row]]]


def _leave_out(found: Matches, own: list[list[int]], k: int) -> Matches:
    ids = np.full((len(found.ids), k), -1, np.int64)
    distances = np.full((len(found.ids), k), np.inf, np.float32)
    for i, without in enumerate(own):
        keep = np.flatnonzero(~np.isin(found.ids[i], without))[:k]
        ids[i, : len(keep)], distances[i, : len(keep)] = found.ids[i, keep], found.distances[i, keep]
    return Matches(ids, distances)
