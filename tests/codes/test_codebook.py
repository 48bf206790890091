"""Codes of classes: orthogonal, or as far apart as asked; of several classes at once."""

from __future__ import annotations

import numpy as np
import pytest

from semblance.codes._codebook import codebook, hadamard, set_codes, spread_rows
from semblance.errors import ConfigError


def distances(rows: np.ndarray) -> np.ndarray:
    """Of all pairs."""
    far = [(a != b).sum() for i, a in enumerate(rows) for b in rows[:i]]
    return np.array(far)


@pytest.mark.parametrize("k", [1, 2, 8, 64])
def test_hadamard(k: int) -> None:
    rows = hadamard(k)
    assert set(np.unique(rows)) <= {-1.0, 1.0}
    assert np.array_equal(rows @ rows.T, k * np.eye(k))


@pytest.mark.parametrize(("classes", "bits"), [(2, 16), (10, 16), (16, 16), (32, 16), (100, 64)])
def test_hadamard_codes_are_half_the_bits_apart_or_opposite(classes: int, bits: int) -> None:
    rows = codebook(classes, bits, "auto", 0)
    assert rows.shape == (classes, bits)
    assert rows.dtype == np.float32
    assert set(distances(rows)) <= {bits // 2, bits}
    assert np.array_equal(rows, codebook(classes, bits, "hadamard", 0))
    assert not np.array_equal(rows, codebook(classes, bits, "auto", 1))


def test_no_bit_is_the_same_for_all_classes() -> None:
    """The first column of a Hadamard matrix is; rows are turned over by chance."""
    dead = [(np.abs(codebook(16, 16, "hadamard", seed).sum(0)) == 16).any() for seed in range(20)]
    assert not any(dead)


@pytest.mark.parametrize(("classes", "bits"), [(10, 24), (50, 48), (33, 16), (100, 16), (200, 8), (256, 8)])
def test_random_rows_keep_apart(classes: int, bits: int) -> None:
    rows = spread_rows(classes, bits, np.random.default_rng(0))
    assert set(np.unique(rows)) <= {-1.0, 1.0}
    assert len(np.unique(rows, axis=0)) == classes
    if classes <= 2 * bits:
        assert distances(rows).min() >= bits // 4
    assert np.array_equal(codebook(classes, bits, "bernoulli", 3), codebook(classes, bits, "bernoulli", 3))


def test_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="8 bits are too few for 257"):
        codebook(257, 8, "auto", 0)
    for classes, bits in ((10, 24), (33, 16)):
        with pytest.raises(ConfigError, match="no Hadamard code"):
            codebook(classes, bits, "hadamard", 0)
    with pytest.raises(ConfigError, match="power of two"):
        hadamard(12)


def test_several_classes_have_the_sign_of_the_sum() -> None:
    rows = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=np.float32)
    several = np.array([[1, 0, 0], [1, 1, 1], [1, 1, 0], [1, 1, 0]], dtype=bool)
    codes = set_codes(rows, several, 0)
    assert np.array_equal(codes[0], rows[0])
    assert codes[1].tolist() == [1, -1, -1, -1]
    assert codes[2, 0] == 1
    assert codes[2, 3] == -1
    assert np.array_equal(codes[2], codes[3])
    assert set(codes[2, 1:3]) <= {-1.0, 1.0}
    tied = np.stack([set_codes(rows, several, seed)[2, 1] for seed in range(20)])
    assert {-1.0, 1.0} == set(tied.tolist())
