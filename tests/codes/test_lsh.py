"""LSH against the angle: two vectors differ in a bit with probability angle / pi."""

from __future__ import annotations

import numpy as np

from semblance import codes
from semblance.codes import lsh


def test_bits_differ_as_often_as_the_angle_says() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 8)).astype(np.float32)
    x = np.concatenate([x, -x])  # the mean is 0, so angles are seen from there
    bits = codes.unpack(lsh.Coder(lsh.Config(bits=4096)).fit(x).encode(x)).astype(float)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(0, 80, 7):
        for j in range(3, 80, 11):
            angle = np.arccos(np.clip(float(unit[i] @ unit[j]), -1, 1))
            assert abs((bits[i] != bits[j]).mean() - angle / np.pi) < 4.5 * 0.5 / 4096**0.5


def test_angles_are_seen_from_the_mean(embeddings: np.ndarray) -> None:
    coder = lsh.Coder(lsh.Config(bits=16)).fit(embeddings)
    moved = lsh.Coder(lsh.Config(bits=16)).fit(embeddings + 3)
    assert (
        codes.unpack(moved.encode(embeddings + 3)) != codes.unpack(coder.encode(embeddings))
    ).mean() < 1e-3
    values = (embeddings.astype(np.float64) - embeddings.mean(0, dtype=np.float64)) @ coder.state()["weights"]
    np.testing.assert_allclose(coder.project(embeddings), values, atol=1e-6)
    other = lsh.Coder(lsh.Config(bits=16, seed=1)).fit(embeddings)
    assert not np.array_equal(coder.encode(embeddings), other.encode(embeddings))
