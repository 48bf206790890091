"""Exact Hamming search by whichever of `scan` and `mih` is quicker for these codes, and why.

What: the answers of both are the same, so only time and memory depend on the choice. Whether tables are worth
it hangs on how far a neighbour lies: near ones stand in a few buckets, far ones in nearly all. So the
distances from a few of the codes to all others are measured, the time of a search for ten neighbours is
forecast for both (see `_cost`), and `reason` says in one sentence what came of it. It is asked again when the
number of codes has doubled or halved.

When: codes of any number and kind, unless you know better.

Cost: measuring compares up to 64 codes with all others, once; memory and time are then those of the index
that was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semblance.errors import ConfigError
from semblance.index import _cost, _kernel, _tabled
from semblance.index._hashed import Hashed
from semblance.index._tabled import Tabled, put
from semblance.index.mih import FEW, MOST_BITS

__all__ = ["Config", "Index"]

_GAIN = 2.0  # tables must be so many times quicker to be worth their memory


@dataclass(frozen=True)
class Config:
    """`threads`: cores that share a search. `memory_mb`: the most that tables may take, in MiB."""

    threads: int = 1
    memory_mb: int = 8192

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}", "give at least 1")
        if self.memory_mb < 0:
            raise ConfigError(f"memory_mb is {self.memory_mb}", "give 0 or more")


class Index(Hashed):
    """Exact search over packed codes that come and go.

    >>> index = Index()
    >>> index.add(np.array([[0], [7]], dtype=np.uint8))
    array([0, 1])
    >>> index.reason
    'scan: 2 codes are compared before tables are asked'
    """

    kind = "auto"
    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or Config())
        self._reason = ""

    @property
    def reason(self) -> str:
        """The name of the index that searches, and why, in one sentence. Measures where that is due."""
        self.build()
        return self._reason if len(self) else "scan: there are no codes"

    @classmethod
    def restored(cls, about: Mapping[str, Any]) -> Index:
        """An empty index as `about` described it."""
        index = cls(Config(**about["config"]))
        index._reason = str(about["reason"])
        return index

    def about(self) -> dict[str, Any]:
        """What is saved beside codes and tables."""
        return {**super().about(), "reason": self._reason}

    def choice(self, words: NDArray[np.uint64], bits: int) -> Tabled | None:
        """Tables of the codes, where the forecast is that they are quicker; sets `reason`."""
        n, path, threads = len(words), _kernel.chosen(), self.config.threads
        if n < FEW:
            self._reason = f"scan: {n:,} codes are compared before tables are asked"
            return None
        if bits > MOST_BITS:
            self._reason = f"scan: codes of {bits:,} bits differ in too many places for tables"
            return None
        counts, price = _cost.histograms(words, bits, path, threads), _cost.prices(path)
        compare, room = _cost.scan_cost(n, words.shape[1], 1, price), self.config.memory_mb * 2**20

        def worth(forecast: _cost.Forecast) -> bool:
            return _GAIN * (forecast.nearest(10) + _tabled.CALL) <= compare

        forecast = _cost.best(counts, bits, price)
        needed = _cost.bytes_of(n, bits, forecast.m)
        fits = _cost.best(counts, bits, price, room) if worth(forecast) and needed > room else forecast
        if worth(forecast) and not (worth(fits) and _cost.bytes_of(n, bits, fits.m) <= room):
            self._reason = f"scan: tables would take {needed / 2**20:,.0f} MiB, more than memory_mb allows"
            return None
        self._reason = _sentence(worth(fits), bits, fits, fits.nearest(10) + _tabled.CALL, compare)
        return put(words, bits, fits, path, threads) if worth(fits) else None


def _sentence(tables: bool, bits: int, forecast: _cost.Forecast, probe: float, compare: float) -> str:
    """What the forecast decided and why; `probe` and `compare`: picoseconds in tables and of a scan."""
    name, look = ("mih", "look") if tables else ("scan", "would look")
    times = f"{probe / 1e9:.2g} ms for a query, a scan {compare / 1e9:.2g} ms"
    return (
        f"{name}: the 10th neighbour lies at about {forecast.neighbour:.0f} of {bits} bits, so "
        f"{forecast.m} tables {look} at {100 * forecast.share:.2g} % of the codes ({times})"
    )
