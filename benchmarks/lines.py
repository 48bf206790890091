"""The result files of the benchmarks: one line of JSON for each thing measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["records"]


def records(path: Path) -> list[dict[str, Any]]:
    """What was measured so far; nothing where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
