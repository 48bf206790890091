"""Labels where nobody gave any: the clusters of the embeddings themselves."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semblance.codes._rows import as_rows, check_spread
from semblance.errors import ConfigError

__all__ = ["pseudo_labels"]


def pseudo_labels(x: ArrayLike, clusters: int, *, seed: int = 0) -> NDArray[np.int64]:
    """The k-means cluster `(n,)` of each embedding `(n, d)`: labels for a coder where nobody gave any.

    Rows are brought to length 1 first. Where a cluster head is at hand (CBSwR), its argmax serves as well.
    What such codes keep is the clusters: no more than these say of the images. Raises `ConfigError` unless
    2 <= clusters <= n, `InputError` for embeddings that cannot be used.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = as_rows(x)
    check_spread(rows)
    if not 2 <= clusters <= len(rows):
        raise ConfigError(f"{len(rows)} embeddings cannot make {clusters} clusters", "give 2 or more")
    unit = np.asarray(rows, dtype=np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
        made = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=4096).fit_predict(unit)
    labels: NDArray[np.int64] = made.astype(np.int64)
    return labels
