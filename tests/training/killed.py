"""Trains in children that are killed, and once more in peace; run as a program by `test_resume.py`.

One interpreter with torch in it forks all attempts. Prints, as JSON, how each child ended and a digest of
the weights and records that the last one arrived at.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semblance import plugins
from semblance.training import checkpoint, loop
from semblance.training.config import TrainConfig

Scene = dict[str, Any]


def learn(scene: Scene, folder: Path, progress: Callable[..., None] | None = None) -> str:
    """One training; returns the digest."""
    torch.manual_seed(0)
    encoder = plugins.configure("encoders", "resnet", {"depth": 10, "width": 2, "size": 8})
    config = plugins.configure("objectives", scene["objective"], {"dim": 4, **scene["options"]})
    built = plugins.get("encoders", "resnet").build(encoder)
    objective = plugins.get("objectives", scene["objective"]).Objective(config, built)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    training = TrainConfig(
        **{"epochs": 3, "batch": 8, "device": "cpu", "precision": "32", **scene["training"]}
    )
    done = loop.train(pixels, objective, training, folder, 8, progress)
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(objective.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    records = [{k: v for k, v in one.items() if k != "seconds"} for one in done.history]
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert written == done.history
    digest.update(json.dumps(records).encode())
    return digest.hexdigest()


def child(work: Callable[[], str], after: float | None = None) -> str:
    """What `work` returned in a process of its own; "killed" where it was, `after` seconds if given."""
    reads, writes = os.pipe()
    number = os.fork()
    if number == 0:
        os.close(reads)
        os.write(writes, work().encode())
        os._exit(0)
    os.close(writes)
    timer = threading.Timer(after, os.kill, (number, signal.SIGKILL)) if after is not None else None
    if timer:
        timer.start()
    said = b""
    while piece := os.read(reads, 4096):
        said += piece
    os.close(reads)
    _, status = os.waitpid(number, 0)
    if timer:
        timer.cancel()
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "killed"
    return said.decode() or f"failed with {status}"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at_step(scene: Scene, folder: Path, last: int) -> str:
    """Dies in the progress call of the step after `last` steps of this run."""
    seen = 0

    def progress(*given: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == last:
            die()

    return learn(scene, folder, progress)


def killed_while_saving(scene: Scene, folder: Path, number: int, after: bool) -> str:
    """Dies just before or just after the rename that makes checkpoint `number` count."""
    replace, seen = os.replace, 0

    def counted(*given: Any) -> None:
        nonlocal seen
        seen += given[1].name == "last.safetensors"
        if seen == number and not after:
            die()
        replace(*given)
        if seen == number:
            die()

    checkpoint.os.replace = counted
    return learn(scene, folder)


def main() -> None:
    torch.set_num_threads(1)
    scene: Scene = json.loads(sys.argv[1])
    loop.SAVE_EVERY = scene["save_every"]
    folder = Path(scene["folder"])
    started = time.monotonic()
    whole = child(lambda: learn(scene, folder / "whole"))
    took = time.monotonic() - started
    chance, ends = random.Random(scene["seed"]), []
    for attempt in range(scene["random"]):
        ends.append(child(lambda: learn(scene, folder / "moments"), chance.uniform(0.1, 0.8) * took))
        if attempt == scene["random"] - 1:
            ends.append(child(lambda: learn(scene, folder / "moments")))
    for last in scene["steps"]:
        ends.append(child(lambda last=last: killed_at_step(scene, folder / "steps", last)))
    ends.append(child(lambda: learn(scene, folder / "steps")))
    for number, after in scene["saves"]:
        ends.append(child(lambda n=number, a=after: killed_while_saving(scene, folder / "saves", n, a)))
    ends.append(child(lambda: learn(scene, folder / "saves")))
    print(json.dumps({"whole": whole, "ends": ends}))


if __name__ == "__main__":
    main()
