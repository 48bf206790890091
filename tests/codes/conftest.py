"""Embeddings to make codes of: clusters on the sphere, as a trained model gives them."""

from __future__ import annotations

import numpy as np
import pytest


def clusters(n: int = 600, d: int = 24, classes: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`(n, d)` float32 unit rows about `classes` centres off the origin, and their `(n,)` classes."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, d))
    y = rng.integers(classes, size=n)
    x = centres[y] + 0.5 * rng.standard_normal((n, d)) + 0.7
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


@pytest.fixture(scope="session")
def embeddings() -> np.ndarray:
    """Six hundred of them."""
    return clusters()[0]


@pytest.fixture(scope="session")
def classes() -> np.ndarray:
    """The class of each."""
    return clusters()[1]
