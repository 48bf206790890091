"""A results file: one line of JSON for each experiment and seed, to which lines are only added.

A line is added with one write: a kill leaves whole lines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semblance.errors import CollectionError, InputError
from semblance.files import disk_error

__all__ = ["append", "read_results"]


def read_results(out: Path) -> list[dict[str, Any]]:
    """The rows of a results file, none where there is no file. Raises `InputError` for a damaged line."""
    try:
        lines = out.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{out} cannot be read: {error}", "give --out another file") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or "recipe" not in row or "hash" not in row:
            raise InputError(
                f"{out}, line {number} is not a result", "delete the line, or give --out another file"
            )
        rows.append(row)
    return rows


def append(out: Path, row: Mapping[str, Any]) -> None:
    """`row` as one more line of `out`, whole or not at all.

    Makes missing folders. Raises `CollectionError` where the disk is full or `out` cannot be written.
    """
    line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, "ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            if file.write(line) != len(line):
                file.truncate(before)
                raise CollectionError(f"the disk is full: {out} could not be written", "free some space")
            os.fsync(file.fileno())
    except OSError as error:
        raise disk_error(out, error) from error
