"""Pixels of 16 bits and other channels train like any others; a plain view is the image as it is embedded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semblance import plugins
from semblance.contracts import Batch, Loss, View
from semblance.errors import ConfigError
from semblance.images.formats import measure_format
from semblance.images.measure import measure_store
from semblance.training import batches
from semblance.training.batches import spread_evenly
from semblance.training.loop import train


@pytest.mark.parametrize("c", [1, 5])
def test_sixteen_bits_at_rest_on_the_device(
    c: int, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).normal(0, 9, (16, 8, 8, c)) ** 3
    kind = measure_format(values)
    pixels = kind.pack(values)
    losses = []
    for name in ("mapped", "resident"):
        torch.manual_seed(0)
        encoder = plugins.configure("encoders", "resnet", {"depth": 10, "width": 2, "size": 8, "channels": c})
        built = plugins.get("encoders", "resnet").build(encoder)
        objective = plugins.get("objectives", "sme+measure").Objective(
            plugins.configure("objectives", "sme+measure", {"sme.dim": 4, "measure.dim": 4}), built
        )
        objective.take_columns(measure_store(pixels, kind))
        if name == "resident":
            monkeypatch.setattr(batches, "resident", lambda rows, _: torch.from_numpy(np.array(rows)))
        losses.append(train(pixels, objective, config(), tmp_path / name, 8).history[-1]["loss"])
    assert losses[0] == losses[1]
    assert np.isfinite(losses[0])


def test_a_plain_view_is_never_drawn_nor_a_partners(
    store: Callable[..., Any], objective: Callable[..., Any], config: Callable[..., Any], tmp_path: Path
) -> None:
    learner, seen = objective(), []
    learner.views = (View(), View(), View(plain=1.0))
    learner.partners = lambda ids, _: (ids + 1) % 8
    own = learner.forward

    def forward(batch: Batch) -> Loss:
        seen.append(batch)
        return own(Batch(batch.views[:2], batch.ids))

    learner.forward = forward
    pixels = store(8)
    train(pixels, learner, config(epochs=1), tmp_path, 8)
    whole = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    for batch in seen:
        assert torch.allclose(batch.views[2], whole[batch.ids])
        assert not torch.allclose(batch.views[0], whole[batch.ids])


@pytest.mark.parametrize(("share", "rows"), [(0.5, [1, 3, 5, 7]), (0.25, [3, 7]), (0.01, []), (0.29, [3, 6])])
def test_a_first_view_may_be_plain_now_and_then(
    share: float,
    rows: list[int],
    store: Callable[..., Any],
    objective: Callable[..., Any],
    config: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Those images are as they are embedded, the batch says which; all else is as it was."""
    pixels, seen = store(8), {}
    whole = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    for plain in (0.0, share):
        learner, batches = objective(), seen.setdefault(plain, [])
        learner.views = (View(plain=plain), View())
        own = learner.forward
        learner.forward = lambda batch, own=own, kept=batches: (kept.append(batch), own(batch))[1]
        train(pixels, learner, config(epochs=2), tmp_path / str(plain), 8)
    for before, batch in zip(seen[0.0], seen[share], strict=True):
        mask = torch.zeros(8, dtype=torch.bool)
        mask[rows] = True
        assert before.plain is None
        assert torch.equal(batch.plain, mask)
        assert torch.allclose(batch.views[0][mask], whole[batch.ids[mask]], atol=1e-6)
        assert torch.equal(batch.views[0][~mask], before.views[0][~mask])
        assert torch.equal(batch.views[1], before.views[1])
    assert spread_evenly(1_000, share).sum() == round(1_000 * share)


def test_only_a_first_view_may_be_plain_for_a_share(
    store: Callable[..., Any], objective: Callable[..., Any], config: Callable[..., Any], tmp_path: Path
) -> None:
    learner = objective()
    learner.views = (View(), View(plain=0.5))
    with pytest.raises(ConfigError, match="only a first view"):
        train(store(8), learner, config(), tmp_path, 8)
