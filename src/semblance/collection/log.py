"""What happened, one JSON line per event, in `log.jsonl`."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

from semblance.collection.model import plain

__all__ = ["Log", "now"]


class Log:
    """An append-only log; `before` is an older one whose lines come first."""

    def __init__(self, path: Path, before: Path | None = None) -> None:
        self.path = path
        if before is not None and before.is_file() and not path.exists():
            shutil.copyfile(before, path)

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with the time it happened."""
        line = json.dumps({"time": now(), "event": event, **plain(facts)}, ensure_ascii=False)
        with open(self.path, "ab") as file:
            file.write(line.encode("utf-8", "backslashreplace") + b"\n")


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
