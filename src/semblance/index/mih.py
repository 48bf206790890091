"""Exact Hamming search by multi-index hashing: tables find near codes without looking at the others.

What: the `k` nearest packed codes, or all within a radius, ordered by (distance, id): the scan's own answers.
The bits are shared out to m substrings, and each of m tables holds the codes in the order of one. Two codes
at a distance of at most `m * s + j` lie within s flips of each other in one of the substrings 0 to j, or
within s - 1 in another; so it is enough to look into the few buckets at 0 flips from the query's own, then at
1, until the k-th best lies within what was seen (Norouzi, Punjani and Fleet, CVPR 2012). Equal codes stand in
the tables once. A query whose neighbours lie so far that tables would cost more than half a scan is scanned.

When: 100,000 codes and more whose neighbours lie near (`auto` measures that), searched many times.

Cost: time grows steeply with the distance of the k-th neighbour, and ends at about 1.5 scans. Building takes
0.1 microseconds for each code and table, and their memory is `8 * ceil(bits / 64) + 4` bytes for each (beside
the codes: 48 bytes for 64 bits in 4 tables). It happens at the first search, and again after many codes have
come or gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.errors import ConfigError
from semblance.index import _kernel
from semblance.index._hashed import Hashed
from semblance.index._tabled import Tabled, built

__all__ = ["FEW", "MOST_BITS", "Config", "Index"]

FEW = 2**16
"""Fewer codes are scanned, unless m is given."""

MOST_BITS = 1024
"""Longer codes are scanned, unless m is given."""

_GATHER = 2_000  # picoseconds to fetch a code that stands anywhere


@dataclass(frozen=True)
class Config:
    """`m`: how many tables; 0: as many as make a search for ten neighbours cheapest, by a forecast from the
    distances between some of the codes. `threads`: cores that share a search."""

    m: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.m < 0:
            raise ConfigError(f"m is {self.m}", "give a number of tables, or 0 to choose")
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}", "give at least 1")


class Index(Hashed):
    """Exact search in tables over packed codes that come and go.

    >>> index = Index(Config(m=2))
    >>> index.add(np.array([[0, 0], [1, 0], [255, 255]], dtype=np.uint8))
    array([0, 1, 2])
    >>> index.search(np.array([3, 0], dtype=np.uint8), k=2).ids
    array([[1, 0]])
    """

    kind = "mih"
    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or Config())

    @classmethod
    def restored(cls, about: Mapping[str, Any]) -> Index:
        """An empty index as `about` described it."""
        return cls(Config(**about["config"]))

    def choice(self, words: NDArray[np.uint64], bits: int) -> Tabled | None:
        """All codes in tables, unless they are few or very long and m is not given."""
        if not self.config.m and (len(words) < FEW or bits > MOST_BITS):
            return None
        return built(words, bits, self.config.m, _kernel.chosen(), self.config.threads)
