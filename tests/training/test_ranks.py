"""Two processes on halves of each batch against one process on the whole batch."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from semblance import ranks

PROGRAM = Path(__file__).with_name("ranked.py")
SPEC = importlib.util.spec_from_file_location("ranked", PROGRAM)
assert SPEC is not None
assert SPEC.loader is not None
ranked = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ranked)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """What each of two processes found, and the folder that the first one wrote to."""
    folder = tmp_path_factory.mktemp("two")
    meet = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder)],
            env={**os.environ, **meet, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said[0][-3000:] + said[1][-3000:]
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    return found[0], found[1], folder


@pytest.mark.parametrize("name", ranked.TRAININGS)
def test_two_processes_learn_what_one_learns(name: str, two: Any, tmp_path: Path) -> None:
    """Losses, terms and health of every epoch, BatchNorm over the global batch included."""
    alone = ranked.learn(name, tmp_path)
    together = two[0][name]
    assert len(together["history"]) == len(alone["history"]) == 2
    for ours, theirs in zip(together["history"], alone["history"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["terms"] == pytest.approx(theirs["terms"], rel=1e-3, abs=1e-5)
        assert ours["lr"] == theirs["lr"]
        shares = [one["health"].pop("gradient_shares", {}) for one in (ours, theirs)]
        assert shares[0] == pytest.approx(shares[1], rel=1e-2, abs=1e-4)
        assert ours["health"] == pytest.approx(theirs["health"], rel=1e-2, abs=1e-3)


def test_both_hold_the_same_weights(two: Any) -> None:
    first, second, _ = two
    assert (first["count"], first["index"], second["index"]) == (2, 0, 1)
    for name in ranked.TRAININGS:
        assert first[name]["digest"] == second[name]["digest"], name


def test_only_the_first_writes(two: Any) -> None:
    folder = two[2] / "sme"
    assert sorted(path.name for path in folder.rglob("*")) == [
        "checkpoint",
        "last.safetensors",
        "metrics.jsonl",
    ]
    assert two[0]["again"]["digest"] == two[0]["sme"]["digest"]


def test_what_does_not_divide(two: Any) -> None:
    """A batch of 7 becomes 6, three for each; a budget below an epoch is an error on both."""
    assert two[0]["odd batch"]["digest"] == two[1]["odd batch"]["digest"]
    for one in two[:2]:
        assert one["budget"].startswith("one epoch takes about")


def test_ctrl_c_in_one_stops_both_at_the_same_step(two: Any) -> None:
    """And the next run arrives where one without a stop would have."""
    for one in two[:2]:
        assert one["rung"] == one["sme"]


def test_gather_and_total(two: Any) -> None:
    """Rows in rank order; gradients are summed over ranks, as the wrapper's mean undoes."""
    for index, one in enumerate(two[:2]):
        assert one["gathered"] == [0, 1, 2, 10, 11, 12]
        assert one["total"] == [10, 12, 14]
        assert one["untouched"] == [10 * index, 10 * index + 1, 10 * index + 2]
        assert one["slope"] == [2 * 2 + 2 * 3] * 2


def test_alone_they_are_the_identity() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert (ranks.count(), ranks.index()) == (1, 0)
    assert ranks.gather(x) is x
    assert ranks.total(x) is x
    for ours, theirs, axes in (
        (ranks.BatchNorm2d, torch.nn.BatchNorm2d, (3, 3)),
        (ranks.BatchNorm1d, torch.nn.BatchNorm1d, ()),
    ):
        layer, plain = ours(4), theirs(4)
        images = torch.randn(5, 4, *axes)
        assert torch.equal(layer(images), plain(images))
        assert torch.equal(layer.running_var, plain.running_var)


@pytest.mark.parametrize("axes", [(), (3, 5)], ids=["rows", "maps"])
def test_statistics_over_ranks_are_batch_normalisation(axes: tuple[int, ...]) -> None:
    """The layers' own arithmetic, as several ranks use it, against torch's, twice over and with gradients."""
    torch.manual_seed(0)
    ours = (ranks.BatchNorm2d if axes else ranks.BatchNorm1d)(4)
    theirs = (torch.nn.BatchNorm2d if axes else torch.nn.BatchNorm1d)(4)
    for layer in (ours, theirs):
        torch.nn.init.constant_(layer.weight, 1.5)
        torch.nn.init.constant_(layer.bias, -0.5)
    for seed in range(2):
        images = torch.randn(6, 4, *axes, generator=torch.Generator().manual_seed(seed)) * 3 + 1
        one, other = images.clone().requires_grad_(), images.clone().requires_grad_()
        first, second = ranks._normalise(ours, one), theirs(other)
        assert torch.allclose(first, second, atol=1e-5)
        (first**3).sum().backward()
        (second**3).sum().backward()
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-2, rtol=1e-4)
    assert torch.allclose(ours.running_mean, theirs.running_mean, atol=1e-6)
    assert torch.allclose(ours.running_var, theirs.running_var, rtol=1e-5)
