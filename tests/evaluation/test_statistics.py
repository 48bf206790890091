"""Intervals against published quantiles, loops and known coverage."""

from __future__ import annotations

import numpy as np
import pytest

from semblance.errors import ConfigError, InputError
from semblance.evaluation.statistics import (
    Interval,
    class_bootstrap,
    paired_class_bootstrap,
    resampled_means,
    t_interval,
)


def test_t_interval_by_hand() -> None:
    # n = 3, sd = 1, t(0.975, 2) = 4.302653 (any table of Student's t).
    mean, low, high = t_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)
    # t(0.95, 4) = 2.131847
    assert t_interval([0, 0, 0, 0, 5], 0.9).high == pytest.approx(1 + 2.131847, abs=1e-5)


def test_one_value_has_no_interval() -> None:
    assert t_interval([0.25]) == Interval(0.25, None, None)
    assert t_interval([0.25]).text == "0.250 (no interval: fewer than 2 values)"
    for values in ([], [[1.0]], [1.0, np.nan]):
        with pytest.raises(InputError):
            t_interval(values)
    with pytest.raises(ConfigError, match="level"):
        t_interval([1, 2], 95)


@pytest.mark.parametrize("balanced", [False, True])
def test_draws_equal_a_loop_over_the_same_draws(balanced: bool) -> None:
    r = np.random.default_rng(0)
    classes = r.integers(0, 6, 50)
    values = r.random((50, 2))
    drawn = np.random.default_rng(7).integers(6, size=(200, 6))
    expected = []
    for draw in drawn:
        rows = [np.flatnonzero(classes == label) for label in draw]
        if balanced:
            expected.append(np.mean([values[row].mean(0) for row in rows], axis=0))
        else:
            expected.append(values[np.concatenate(rows)].mean(0))
    got = resampled_means(values, classes, samples=200, seed=7, balanced=balanced)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_classes_not_images_are_drawn() -> None:
    # Two classes without spread inside: every draw is 0, 1/2 or 1, so the interval is as wide as can be.
    values, classes = np.repeat([0.0, 1.0], 1000), np.repeat(["a", "b"], 1000)
    assert class_bootstrap(values, classes) == Interval(0.5, 0.0, 1.0)
    # Resampling images would give a width of 0.04.
    draws = resampled_means(values[:, None], classes, 4000)
    assert set(np.unique(draws)) == {0.0, 0.5, 1.0}
    assert (draws == 0.5).mean() == pytest.approx(0.5, abs=0.03)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    r = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        means = r.normal(0.5, 0.1, 40)
        classes = np.repeat(np.arange(40), 5)
        values = means[classes] + r.normal(0, 0.05, 200)
        _, low, high = class_bootstrap(values, classes, samples=500, seed=trial)
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 200 <= 0.985


def test_a_pair_is_compared_image_by_image() -> None:
    r = np.random.default_rng(2)
    classes = np.repeat(np.arange(30), 10)
    hard = r.normal(0.5, 0.3, 30)[classes]
    better = paired_class_bootstrap(hard + 0.02 + r.normal(0, 0.02, 300), hard, classes)
    assert better.significant
    assert 0.015 < better.low < better.mean < better.high < 0.025
    assert better.text == f"{better.mean:+.3f} [{better.low:+.3f}, {better.high:+.3f}]"
    same = paired_class_bootstrap(hard + r.normal(0, 0.02, 300), hard, classes)
    assert not same.significant
    assert same.text.endswith(", not significant")
    assert same.low < 0 < same.high
    swapped = paired_class_bootstrap(hard, hard + 0.5, classes)
    assert swapped.significant
    assert swapped.mean == pytest.approx(-0.5)


def test_no_difference_at_all_is_not_significant() -> None:
    result = paired_class_bootstrap([1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 1, 1])
    assert (result.mean, result.low, result.high, result.significant) == (0, 0, 0, False)


def test_one_class_has_no_interval() -> None:
    result = paired_class_bootstrap([1, 1], [0, 0], ["a", "a"])
    assert (result.low, result.high, result.significant) == (None, None, False)
    assert result.text == "+1.000 (no interval: fewer than 2 classes)"


def test_seeds_repeat_and_differ() -> None:
    values, classes = np.random.default_rng(3).random((90, 1)), np.arange(90) % 9
    first, again, other = (resampled_means(values, classes, 50, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="same images"):
        paired_class_bootstrap([1, 2], [1], [0, 0])
    with pytest.raises(InputError, match="classes of shape"):
        class_bootstrap([1, 2], [0])
    with pytest.raises(InputError, match="finite"):
        class_bootstrap([1, np.nan], [0, 1])
    with pytest.raises(ConfigError, match="samples"):
        resampled_means([[1.0]], [0], samples=0)
