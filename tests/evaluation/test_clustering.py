"""k-means as good as scikit-learn's; NMI and AMI against counts, and their known floors."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from semblance.errors import ConfigError
from semblance.evaluation import clustering
from semblance.evaluation.clustering import ami, kmeans, nmi


def slow_nmi(a: list, b: list) -> float:
    n = len(a)
    pa, pb, pab = Counter(a), Counter(b), Counter(zip(a, b, strict=True))
    mutual = sum(c / n * math.log(c * n / (pa[x] * pb[y])) for (x, y), c in pab.items())
    entropies = [-sum(c / n * math.log(c / n) for c in p.values()) for p in (pa, pb)]
    return mutual / (sum(entropies) / 2)


def inertia(x: np.ndarray, clusters: np.ndarray) -> float:
    return sum(
        float(((x[clusters == j] - x[clusters == j].mean(0)) ** 2).sum()) for j in set(clusters.tolist())
    )


def blobs(n: int, k: int, seed: int = 0, noise: float = 1.0, d: int = 8) -> np.ndarray:
    r = np.random.default_rng(seed)
    return (r.standard_normal((k, d))[np.arange(n) % k] + noise * r.standard_normal((n, d))).astype(
        np.float32
    )


def test_nmi_and_ami_equal_their_definitions() -> None:
    r = np.random.default_rng(0)
    a, b = r.integers(0, 5, 200), r.integers(0, 7, 200)
    b[:120] = a[:120]
    assert nmi(a, b) == pytest.approx(slow_nmi(a.tolist(), b.tolist()))
    assert nmi(a, b) == normalized_mutual_info_score(a, b)
    assert ami(a, b) == adjusted_mutual_info_score(a, b)
    assert nmi(a, 10 - a) == pytest.approx(1)
    assert ami(a, 10 - a) == pytest.approx(1)


def test_the_floor_of_nmi_on_a_set_like_cub() -> None:
    """5,924 images of 100 classes, clustered at random: NMI 0.19, AMI 0."""
    r = np.random.default_rng(0)
    labels = np.arange(5924) % 100
    scores = [(nmi(labels, c), ami(labels, c)) for c in r.integers(0, 100, (3, 5924))]
    assert [score[0] for score in scores] == pytest.approx([0.191] * 3, abs=0.004)
    assert [score[1] for score in scores] == pytest.approx([0] * 3, abs=0.006)


@pytest.mark.parametrize(("n", "k", "noise"), [(300, 5, 1.0), (600, 60, 0.7), (400, 200, 0.5)])
def test_as_tight_as_scikit_learn(n: int, k: int, noise: float) -> None:
    x = blobs(n, k, noise=noise)
    expected = KMeans(k, n_init=10, random_state=0).fit(x).inertia_
    assert inertia(x, kmeans(x, k)) <= 1.02 * expected


def test_each_point_is_with_its_nearest_centre() -> None:
    x = blobs(200, 6)
    clusters = kmeans(x, 6, seed=3)
    centres = np.stack([x[clusters == j].mean(0) for j in range(6)])
    assert (((x[:, None] - centres) ** 2).sum(2).argmin(1) == clusters).all()


def test_clear_clusters_are_found_and_a_seed_repeats() -> None:
    x = blobs(300, 30, noise=0.01)
    assert ami(np.arange(300) % 30, kmeans(x, 30)) == pytest.approx(1)
    assert kmeans(x, 7, seed=1).tolist() == kmeans(x, 7, seed=1).tolist()


def test_order_of_the_rows_does_not_matter() -> None:
    x = blobs(250, 20)
    order = np.random.default_rng(1).permutation(250)
    assert nmi(kmeans(x, 20, restarts=2)[order], kmeans(x[order], 20, restarts=2)) == pytest.approx(1)


def test_fewer_distinct_points_than_clusters() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    clusters = kmeans(x, 5)
    assert all(len(set(clusters[4 * i : 4 * i + 4].tolist())) == 1 for i in range(3))
    assert len(set(clusters.tolist())) == 3
    assert kmeans(np.ones((4, 2)), 1).tolist() == [0, 0, 0, 0]


def test_many_clusters_go_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    x = blobs(2000, 20, noise=0.3)
    full = inertia(x, kmeans(x, 20))
    monkeypatch.setattr(clustering, "MINIBATCH_CELLS", 1)
    assert inertia(x, kmeans(x, 20)) <= 1.1 * full


def test_wide_rows_are_narrowed() -> None:
    x = blobs(400, 4, d=600, noise=0.5)
    assert ami(np.arange(400) % 4, kmeans(x, 4)) == pytest.approx(1)


def test_impossible_numbers_of_clusters() -> None:
    for k in (0, 5):
        with pytest.raises(ConfigError, match="cannot make"):
            kmeans(np.eye(4), k)
