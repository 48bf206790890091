"""Builds that are killed: imports once, then forks a fresh child for every attempt.

Reads a JSON list of scenarios from stdin and prints the list of what became of each:

    {"kind": "random", "source", "out", "options", "attempts", "seed"}   killed at times, then left
    {"kind": "rename", "source", "out", "options", "n"}                  dies at its n-th rename, then again
    {"kind": "limit", "source", "out", "options", "bytes"}               no file may grow beyond, then it may
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from semblance.collection import disk
from semblance.collection.build import learn
from semblance.errors import SemblanceError

DEAD = 77


def child(work: Callable[[], Any], killed_after: float | None = None) -> dict[str, Any]:
    """What `work` came to in a forked process: its exit status, and its error or outcome."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        torch.set_num_threads(1)
        said: dict[str, Any] = {}
        try:
            said = {"outcome": work().outcome}
        except SemblanceError as error:
            said = {"error": error.kind, "message": error.message, "hint": error.hint}
        os.write(writing, json.dumps(said).encode())
        os._exit(3 if "error" in said else 0)
    os.close(writing)
    if killed_after is not None:
        time.sleep(killed_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with open(reading, "rb") as pipe:
        said = json.loads(pipe.read() or b"{}")
    return {"code": code, **said}


def die_at_rename(n: int) -> None:
    rename = os.rename
    seen = 0

    def counted(*names: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == n:
            os._exit(DEAD)
        rename(*names)

    disk.os.rename = counted


def play(scene: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry per attempt; the last is left in peace."""

    def build() -> Any:
        return learn(scene["source"], scene["out"], **scene["options"])

    def troubled() -> Any:
        if scene["kind"] == "rename":
            die_at_rename(scene["n"])
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (scene["bytes"], scene["bytes"]))
        return build()

    if scene["kind"] != "random":
        return [child(troubled), child(build)]
    moments = random.Random(scene["seed"])
    started = time.monotonic()
    whole = child(lambda: learn(scene["source"], scene["out"] + ".whole.smb", **scene["options"]))
    took = time.monotonic() - started
    tries = [child(build, moments.uniform(0, took)) for _ in range(scene["attempts"])]
    return [whole, *tries, child(build)]


if __name__ == "__main__":
    importlib.import_module("pyarrow.dataset")  # once here, not in every child
    importlib.import_module("torch._dynamo")
    print(json.dumps([play(scene) for scene in json.load(sys.stdin)]))
