"""The small types that rooms exchange.

Arrays: `n` rows, `c` channels, `h` by `w` pixels, `d` embedding dimensions, `q` queries, `k` neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

__all__ = ["PAIR", "Batch", "Column", "Encoder", "Loss", "Matches", "Objective", "Progress", "View"]

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`: called often, must return quickly. `total` may grow. One that has a method
`note(stage, text)` is told in a few words, once a second, how a training goes."""


@dataclass(frozen=True)
class View:
    """How one view of a batch differs from a whole one.

    `size`: its side, as a share of the side that the run trains at. `area`: what its crop keeps of the
    image, as a share of what the run's `views` would keep. A local view is `View(size=0.5, area=0.25)`.
    `plain`: of what share of a batch's images, evenly spread, it shows the image itself, never a partner's,
    as it is embedded later: nothing is drawn. Between 0 and 1 it may be in a first view only.
    """

    size: float = 1.0
    area: float = 1.0
    plain: float = 0.0


PAIR = (View(), View())
"""The views that an objective gets which does not say: two whole ones."""


@dataclass  # not frozen: Fabric's mixed precision rebuilds what it is handed
class Batch:
    """One training step's images.

    `views`: as the objective's `views` declares them, each `(m, c, h, w)` float32 in [0, 1]; row i of
    every view comes from the same source image or, where the objective names partners, of every second
    view from its partner. `ids`: `(m,)` int64, rows of the pixel store. `plain`: `(m,)` bool, of which
    images the first view is the image itself; None: of none. With several ranks each rank holds its
    contiguous slice of the global batch.
    """

    views: tuple[Tensor, ...]
    ids: Tensor
    plain: Tensor | None = None


@dataclass(frozen=True)
class Column:
    """One value for each row of the pixel store: a measurement, or a column of the user's table.

    `values`: `(n,)` float64, NaN where it is missing; with `levels` the values are positions in them
    (a category). `source`: "measured" on the pixels, of the "file", or "given" by the user. `turns`: the
    value changes when the image is mirrored or turned by 90 degrees.
    """

    values: np.ndarray[Any, np.dtype[np.float64]]
    levels: tuple[str, ...] = ()
    source: str = "given"
    turns: bool = False


@dataclass
class Loss:
    """What an objective returns: `total` is minimised, `terms` are its weighted summands (they add
    up to `total`), `stats` are detached scalars worth watching (used clusters, degenerate steps)."""

    total: Tensor
    terms: dict[str, Tensor]
    stats: dict[str, Tensor] = field(default_factory=dict)


class Encoder(Protocol):
    """A network from images to features. Input is float in [0, 1]; it normalises by itself.

    Optional: `look_at(images)`, before anything is learned; `stages(x)`, the maps of several layers, the last
    of them those of `maps`; with it `levels(x)`, statistics of these, `(n, sum(level_dims))` float32, in
    groups of `level_dims` numbers, means and deviations by turns.
    """

    dim: int
    channels: int

    def normalise(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` in [0, 1] -> the same shape as the first layer wants it."""
        ...

    def maps(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` in [0, 1] -> feature maps `(n, dim, h', w')`."""
        ...

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` in [0, 1] -> pooled features `(n, dim)`."""
        ...

    def __call__(self, x: Tensor) -> Tensor: ...


class Objective(Protocol):
    """What training minimises: an `nn.Module` that owns its heads and holds its encoder.

    `encoder` and `head` (features `(n, dim)` -> unit embeddings `(n, d)`) make the model that is
    kept, unless `read` makes another head. Optional, used where they exist:

    `views`: a tuple of `View`, what a batch holds in this order; absent = `PAIR`.
    `joined()`: at once, where this becomes a summand: the encoder gives maps alone from now on.
    `take_columns(columns)`: once, before anything else; name -> `Column` of the store's rows, measured
    and given ones.
    `take_labels(labels)`: once, before anything else, where the class attribute `labels` is True: labels of
    the store's rows, `(n,)` int64 with -1 for none or `(n, classes)` bool. Without any `check_batch` raises.
    `before_epoch(embed)`: once an epoch; `embed()` gives the `(n, dim)` features of the whole store.
    `order(shuffled, batch)`: `(n,)` shuffled ids -> an epoch's ids, batch after batch; asked at every step.
    `partners(ids, generator)`: `(m,)` ids -> `(m,)` ids whose images make every second view.
    `after_step()`: after every optimiser step (momentum teachers, queues).
    `finish(embed, head)`: once, when training ends; `embed()` as above, `embed(most)` of no more than `most`
    images, evenly spread; `head` is the one that is kept.
    `read(levels)`: once, when training ends, in place of `finish`; only where the encoder has `levels`: these
    of some images, evenly spread -> the head to keep. One with a true `levels` reads `encoder.levels`.
    `parameter_groups()`: `[{"params": [...], "weight_decay": ...}]`; absent = one group.
    """

    encoder: torch.nn.Module
    head: torch.nn.Module
    config: Any

    def forward(self, batch: Batch) -> Loss:
        """The loss of one batch."""
        ...


@dataclass(frozen=True)
class Matches:
    """Nearest neighbours of `q` queries, ordered by (distance, id).

    `ids`: `(q, k)` int64, -1 where fewer than k exist. `distances`: `(q, k)` float32, inf there.
    `paths` and `queries` are filled by a collection.
    """

    ids: np.ndarray[Any, np.dtype[np.int64]]
    distances: np.ndarray[Any, np.dtype[np.float32]]
    paths: tuple[tuple[str, ...], ...] | None = None
    queries: tuple[str, ...] | None = None

    def records(self) -> list[dict[str, Any]]:
        """One dict per query: `{"query", "matches": [{"rank", "id", "path", "distance"}, ...]}`."""
        rows = []
        for i, (ids, distances) in enumerate(zip(self.ids, self.distances, strict=True)):
            found = [
                {
                    "rank": rank + 1,
                    "id": int(j),
                    "path": self.paths[i][rank] if self.paths else None,
                    "distance": float(distance),
                }
                for rank, (j, distance) in enumerate(zip(ids, distances, strict=True))
                if j >= 0
            ]
            rows.append({"query": self.queries[i] if self.queries else i, "matches": found})
        return rows

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with columns query, rank, id, path, distance.

        Raises `MissingExtra` without pandas.
        """
        try:
            import pandas as pd
        except ImportError as error:
            from semblance.errors import MissingExtra

            raise MissingExtra("pandas", "Matches.to_pandas()") from error
        flat = [{"query": row["query"], **match} for row in self.records() for match in row["matches"]]
        return pd.DataFrame(flat, columns=["query", "rank", "id", "path", "distance"])
