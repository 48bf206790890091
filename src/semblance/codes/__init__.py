"""Room: codes. From embeddings to binary codes; one file per method.

A method's file defines `Config` and `Coder(config)`. `Config` is a frozen dataclass with `bits: int = 64` (a
multiple of 8, at most 4,096) and `seed: int = 0`. `Coder` offers:

`fit(x, y=None) -> itself`: learns from embeddings `(n, d)` float32; a memory map is read in blocks, so a
streamed fit is the full fit. `y` is used only by a coder whose class attribute `labels` is True: `(n,)` whole
numbers, or `(n, classes)` bool where a row may have several; -1 or a row without True is unlabelled and left
out. Where nobody gave labels, clusters serve: `pseudo_labels(x, clusters)`.
`project(x) -> (n, bits) float32`: the real values before the sign, for asymmetric search.
`encode(x) -> (n, bits / 8) uint8`: bit i is set where `project` is at least 0; bit i is bit `i % 8` of byte
`i // 8`, which is `numpy.packbits(..., bitorder="little")`.
`rethreshold(x) -> itself`: sets only the thresholds anew, for a domain other than that of `fit`.
`state() -> dict[str, array]` and `Coder.restore(config, state)`: everything that was learned, and back.
`dim_in`: d, None before `fit`.

Same embeddings, configuration and seed: same codes. A row's code depends on no other row that is encoded with
it. NaN, another dimension, embeddings that are all alike, fewer labels than rows: `InputError`; bits that the
method cannot give: `ConfigError`; either in one line.

A method subclasses `ThresholdCoder` and writes `learn`, and `values` where they are not `x @ weights`. The
rest comes with it, and `tests/codes/test_contract.py` finds the file by itself.
"""

from __future__ import annotations

from semblance.codes._bits import check_bits, diagnose, pack, unpack
from semblance.codes._clusters import pseudo_labels
from semblance.codes._coder import ThresholdCoder
from semblance.codes._files import identity, load, save

__all__ = [
    "ThresholdCoder",
    "check_bits",
    "diagnose",
    "identity",
    "load",
    "pack",
    "pseudo_labels",
    "save",
    "unpack",
]
