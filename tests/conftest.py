"""What holds for all tests: numbers in float32, also where the processor has bf16."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def no_bf16_by_itself() -> Iterator[None]:
    """`--precision auto` is float32 here, so that a comparison with float32 means the same everywhere."""
    found = getattr(torch.cpu, "get_capabilities", dict)()
    with pytest.MonkeyPatch.context() as patch:
        capabilities = {name: value for name, value in found.items() if "bf16" not in name} | {"known": True}
        patch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
        yield
