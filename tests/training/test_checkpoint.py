"""Checkpoints: whole or the old one, exact, and refused with one line where they do not fit."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from semblance.errors import CollectionError
from semblance.training import checkpoint

Make = Callable[..., Any]


def stepped(optimiser: type[torch.optim.Optimizer], seed: int, steps: int, **options: Any) -> Any:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    made = optimiser(
        [{"params": module[0].parameters()}, {"params": module[1].parameters()}], lr=0.1, **options
    )
    for _ in range(steps):
        module(torch.randn(2, 3, 5, 5)).square().mean().backward()
        made.step()
        made.zero_grad()
    return module, made


OPTIMISERS = [
    (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
    (torch.optim.SGD, {"fused": True}),
    (torch.optim.AdamW, {"fused": True}),
]


@pytest.mark.parametrize(("kind", "options"), OPTIMISERS)
def test_comes_back_bit_for_bit(kind: Any, options: dict[str, Any], tmp_path: Path) -> None:
    """Weights, BatchNorm's counters, moments; and the next steps are the same ones."""
    path = tmp_path / "deep" / "last.safetensors"
    module, made = stepped(kind, 0, 3, **options)
    checkpoint.save(path, module, made, {"epoch": 2, "history": [{"loss": 0.1}]})
    other, fresh = stepped(kind, 1, 0, **options)
    assert checkpoint.load(path, other, fresh) == {"epoch": 2, "history": [{"loss": 0.1}]}
    for pair in ((module, made), (other, fresh)):
        torch.manual_seed(5)
        for _ in range(2):
            pair[0](torch.randn(2, 3, 5, 5)).square().mean().backward()
            pair[1].step()
            pair[1].zero_grad()
    for key, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert [path.name for path in path.parent.iterdir()] == ["last.safetensors"]


class Growing(nn.Module):
    """One buffer that is empty until something is looked up."""

    table: torch.Tensor

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2)
        self.register_buffer("table", torch.empty(0, dtype=torch.int64))


def test_a_buffer_that_grew(tmp_path: Path) -> None:
    grown, fresh = Growing(), Growing()
    grown.table = torch.arange(7)
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, grown, torch.optim.SGD(grown.parameters()), {})
    checkpoint.load(path, fresh, torch.optim.SGD(fresh.parameters()))
    assert torch.equal(fresh.table, torch.arange(7))


def test_another_network(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, Growing(2), torch.optim.SGD(Growing(2).parameters()), {})
    other = Growing(3)
    with pytest.raises(CollectionError, match="another network") as caught:
        checkpoint.load(path, other, torch.optim.SGD(other.parameters()))
    assert "delete it" in caught.value.hint


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CollectionError, match="damaged"):
        checkpoint.load(path, Growing(), torch.optim.SGD(Growing().parameters()))


def test_a_full_disk_leaves_the_old_one(tmp_path: Path) -> None:
    """No file may grow beyond 4 KB: the new checkpoint fails, the old one still loads."""
    path = tmp_path / "last.safetensors"
    module = nn.Linear(8, 8)
    made = torch.optim.SGD(module.parameters(), lr=0.1)
    checkpoint.save(path, module, made, {"epoch": 1})
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        large = nn.Linear(200, 200)
        with pytest.raises(CollectionError, match="the disk is full") as caught:
            checkpoint.save(path, large, torch.optim.SGD(large.parameters()), {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free some space" in caught.value.hint
    assert path.read_bytes() == old
    assert [one.name for one in tmp_path.iterdir()] == ["last.safetensors"]
    assert checkpoint.load(path, module, made) == {"epoch": 1}


def test_streams() -> None:
    """The same position gives the same numbers, any other position others, at 63 bits."""
    draws = {
        position: torch.randint(2**62, (4,), generator=checkpoint.stream(*position)).tolist()
        for position in [(0,), (1,), (0, 0), (0, 1), (0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0)]
    }
    assert len({tuple(numbers) for numbers in draws.values()}) == len(draws)
    again = torch.randint(2**62, (4,), generator=checkpoint.stream(0, 1)).tolist()
    assert again == draws[(0, 1)]
