"""One of several processes that train together; run as a program by `test_ranks.py`.

Reads its rank from the environment, as `torchrun` sets it, and writes what it arrived at as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from semblance import plugins, ranks
from semblance.errors import ConfigError
from semblance.images.formats import PHOTO
from semblance.images.measure import measure_store
from semblance.training import loop
from semblance.training.config import TrainConfig

TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in plugins.names("objectives")},
    "sme with partners": ("sme", {"partner": 0.5}),
    "cbswr fixed": ("cbswr", {"variant": "fixed", "clusters": 4}),
    "cbswr released": ("cbswr", {"variant": "released", "clusters": 5}),
    "measured, in a sum": ("sme+measure", {"sme.dim": 4, "measure.dim": 4}),
    "cbswr plus": ("cbswr", {"variant": "plus", "clusters": 4, "memory": 0.9}),
    "cbswr plus, all on": (
        "cbswr",
        {
            "variant": "plus",
            "clusters": 4,
            "teacher": 0.9,
            "assign": "soft",
            "rebuild": "features",
            "memory": 0.5,
        },
    ),
    "a sum": ("sme+cbswr", {"sme.dim": 4, "cbswr.dim": 4, "cbswr.clusters": 4}),
    "cbswr through": ("cbswr", {"clusters": 4, "through": True, "negatives": "instances"}),
}


def learn(name: str, folder: Path, progress: Any = None, **options: Any) -> dict[str, Any]:
    """Train on 20 images in global batches of 8 and say what came of it."""
    objective_name, wanted = TRAININGS[name]
    torch.manual_seed(0)
    encoder = plugins.configure("encoders", "resnet", {"depth": 10, "width": 2, "size": 8})
    small = {} if "+" in objective_name else {"dim": 4}
    config = plugins.configure("objectives", objective_name, {**small, **wanted})
    built = plugins.get("encoders", "resnet").build(encoder)
    objective = plugins.get("objectives", objective_name).Objective(config, built)
    colours = np.random.default_rng(0).integers(0, 256, (20, 2, 2, 3), dtype=np.uint8)
    pixels = colours.repeat(4, 1).repeat(4, 2)
    if hasattr(objective, "take_columns"):
        objective.take_columns(measure_store(pixels, PHOTO))
    if hasattr(objective, "take_labels"):
        objective.take_labels(np.arange(20) % 4 - (np.arange(20) % 7 == 0))
    plain = {"epochs": 2, "batch": 8, "device": "cpu", "precision": "32", "lr": 1e-3}
    done = loop.train(pixels, objective, TrainConfig(**{**plain, **options}), folder, 8, progress)
    digest = hashlib.blake2b()
    for value in objective.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    history = [{k: v for k, v in one.items() if k != "seconds"} for one in done.history]
    return {"history": history, "digest": digest.hexdigest()}


def ring_once(stage: str, done: int, total: int) -> None:
    """Ctrl-C in the second process, at its first step."""
    if ranks.index() == 1 and done == 8:
        signal.raise_signal(signal.SIGINT)


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found: dict[str, Any] = {"count": ranks.count(), "index": ranks.index()}
    for name in TRAININGS:
        found[name] = learn(name, folder / name)
    found["again"] = learn("sme", folder / "sme")
    found["odd batch"] = learn("sme", folder / "odd", batch=7)
    try:
        learn("sme", folder / "short", budget=1e-9)
    except ConfigError as error:
        found["budget"] = error.message.replace(str(folder), "")
    try:
        learn("sme", folder / "rung", ring_once)
    except KeyboardInterrupt:
        found["rung"] = learn("sme", folder / "rung")
    x = torch.arange(3.0) + 10 * ranks.index()
    found["gathered"] = ranks.gather(x).tolist()
    leaf = torch.ones(2, requires_grad=True)
    (ranks.gather(leaf * 2).sum() + ranks.total(leaf * 3).sum()).backward()
    found["slope"] = leaf.grad.tolist() if leaf.grad is not None else None
    found["total"] = ranks.total(x).tolist()
    found["untouched"] = x.tolist()
    (folder / f"rank{ranks.index()}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main()
