"""Embedding a store in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semblance.images.views import centre
from semblance.training.embed import embed, pixels_to_tensor

Make = Callable[..., Any]


@torch.no_grad()
def one_by_one(learner: Any, pixels: Any, size: int) -> Any:
    rows = [learner.head(learner.encoder(centre(torch.from_numpy(one[None]), size))) for one in pixels]
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("batch", [1, 7, 10, 256])
def test_blocks_make_no_difference(batch: int, store: Make, objective: Make) -> None:
    learner, pixels = objective().eval(), store(10)
    found = embed(learner.encoder, learner.head, pixels, 8, batch=batch, device="cpu", precision="32")
    assert found.dtype == np.float32
    assert np.allclose(found, one_by_one(learner, pixels, 8), atol=1e-6)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_features_without_a_head(store: Make, objective: Make) -> None:
    learner = objective()
    found = embed(learner.encoder, None, store(5), 8, device="cpu")
    assert found.shape == (5, learner.encoder.dim)


@pytest.mark.parametrize("training", [True, False])
def test_modes_come_back_and_statistics_stay(training: bool, store: Make, objective: Make) -> None:
    learner = objective().train(training)
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    embed(learner.encoder, learner.head, store(9), 8, device="cpu")
    assert learner.encoder.training is training
    assert learner.head.training is training
    assert all(torch.equal(value, before[key]) for key, value in learner.state_dict().items())


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ArithmeticError("broken")


def test_modes_come_back_after_an_error(store: Make) -> None:
    broken = Broken().train()
    broken.register_parameter("weight", nn.Parameter(torch.zeros(1)))
    with pytest.raises(ArithmeticError):
        embed(broken, None, store(3), 8, device="cpu")
    assert broken.training


def test_the_head_need_not_be_a_module(store: Make, objective: Make) -> None:
    learner = objective()
    plain = embed(learner.encoder, None, store(4), 8, device="cpu")
    doubled = embed(learner.encoder, lambda rows: 2 * rows, store(4), 8, device="cpu")
    assert np.allclose(doubled, 2 * plain)


def test_crop_takes_the_middle(store: Make, objective: Make) -> None:
    learner, pixels = objective(), store(4)
    whole = np.zeros((4, 16, 16, 3), np.uint8)
    whole[:, 4:12, 4:12] = pixels
    cropped = embed(learner.encoder, learner.head, whole, 8, device="cpu", precision="32", crop=0.5)
    assert np.allclose(
        cropped, embed(learner.encoder, learner.head, pixels, 8, device="cpu", precision="32"), atol=1e-5
    )


def test_progress_and_bf16(store: Make, objective: Make) -> None:
    learner, seen = objective(), []
    found = embed(
        learner.encoder, learner.head, store(10), 8, batch=4, device="cpu", precision="bf16",
        progress=lambda *step: seen.append(step), stage="look",
    )  # fmt: skip
    assert seen == [("look", 4, 10), ("look", 8, 10), ("look", 10, 10)]
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_nothing_to_embed(store: Make, objective: Make) -> None:
    learner = objective()
    with pytest.raises(ValueError, match="no pixels"):
        embed(learner.encoder, learner.head, store(0), 8, device="cpu")


def test_pixels_to_tensor_copies(store: Make) -> None:
    pixels = store(4)
    tensor = pixels_to_tensor(pixels, slice(0, 2), torch.device("cpu"))
    tensor.zero_()
    assert pixels.any()
    rows = pixels_to_tensor(pixels, np.array([3, 0]), torch.device("cpu"))
    assert np.array_equal(rows.numpy(), pixels[[3, 0]])
