"""Partners from groups and from time, against loops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semblance.contracts import Batch, Loss, View
from semblance.errors import ConfigError
from semblance.images.views import PRESETS
from semblance.training.loop import train
from semblance.training.positives import Positives, by_group, by_time


def drawn(positives: Positives, n: int, times: int = 300) -> list[set[int]]:
    stream = torch.Generator().manual_seed(0)
    found: list[set[int]] = [set() for _ in range(n)]
    for _ in range(times):
        for row, partner in enumerate(positives.draw(torch.arange(n), stream).tolist()):
            found[row].add(partner)
    return found


def test_any_other_of_the_group() -> None:
    groups = np.random.default_rng(0).integers(0, 5, 16).astype(float)
    groups[[3, 9]] = np.nan
    groups[0] = 77
    found = drawn(by_group("column:g", groups), 16)
    for row in range(16):
        others = {i for i in range(16) if i != row and groups[i] == groups[row]}
        assert found[row] == (others or {row})
    assert by_group("column:g", groups).alone == sum(one == {i} for i, one in enumerate(found))


def test_all_others_are_as_likely() -> None:
    positives = by_group("folder", np.array(["a"] * 4))
    stream = torch.Generator().manual_seed(0)
    counts = torch.bincount(positives.draw(torch.zeros(6000, dtype=torch.int64), stream), minlength=4)
    assert counts[0] == 0
    assert (counts[1:] - 2000).abs().max() < 200


def test_before_or_after_in_the_same_folder() -> None:
    times = np.array([3.0, 1.0, 2.0, np.nan, 1.5, 9.0, 2.0])
    folders = np.array(["a", "a", "a", "a", "b", "b", "c"])
    found = drawn(by_time("time:t", times, folders), 7)
    assert found == [{2}, {2}, {0, 1}, {3}, {5}, {4}, {6}]


def test_second_views_show_the_partners(
    store: Callable[..., Any], objective: Callable[..., Any], config: Callable[..., Any], tmp_path: Path
) -> None:
    learner, seen = objective(partner=0.5), []
    own = learner.forward

    def forward(batch: Batch) -> Loss:
        seen.append(batch)
        return own(batch)

    learner.forward = forward
    pixels = store(8)
    partners = by_group("pairs", np.arange(8) // 2)
    train(pixels, learner, config(epochs=1, views=PRESETS["none"]), tmp_path, 8, positives=partners)
    whole = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    for batch in seen:
        assert torch.allclose(batch.views[0], whole[batch.ids])
        assert torch.allclose(batch.views[1], whole[batch.ids ^ 1])


def test_where_one_view_is_all_there_are_no_positives(
    store: Callable[..., Any], objective: Callable[..., Any], config: Callable[..., Any], tmp_path: Path
) -> None:
    partners = by_group("pairs", np.arange(8) // 2)
    for views in ((View(),), (View(plain=1.0),), (View(), View(plain=1.0))):
        learner = objective()
        learner.views = views
        with pytest.raises(ConfigError, match="one view of an image"):
            train(store(8), learner, config(epochs=1), tmp_path, 8, positives=partners)
