"""How fast beside lightly? Images per second of a training step, ours and the same method by `lightly`.

    python -m venv VENV && VENV/bin/pip install torch==2.13.0 torchvision==0.28.0 lightly==1.6.0
    python benchmarks/lightly_speed.py run --peer VENV/bin/python --width 32 --method simclr --rounds 5
    python benchmarks/lightly_speed.py peak                     # what matrix products reach
    python benchmarks/lightly_table.py                          # writes docs/results/lightly.md

One round: ours, the peer in each of its settings, the encoder alone, one after the other on an idle machine;
ratios are taken within a round. Images per second counts source images, each seen in two views (and, with
`swav`, in four local ones). The encoder is the same network, written once. The peer runs in a process of its
own, so that nothing of ours is set there. All add to docs/results/lightly.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line sets it

import numpy as np
import torch
from torch import Tensor, nn

from learn_sets import open_set
from semblance import plugins
from semblance.contracts import PAIR
from semblance.images.views import Views, apply, draw
from semblance.objectives.simclr import nt_xent
from semblance.objectives.vicreg import covariance, variance
from semblance.training.config import TrainConfig
from semblance.training.embed import pixels_to_tensor
from semblance.training.loop import train
from speed import StopError, alone, machine

__all__ = ["BATCH", "METHODS", "PEERS", "VIEWS", "encoder", "write"]

BATCH, LOCAL = 256, 4
VIEWS = Views(scale=(0.08, 1.0))
"""The ranges of lightly's SimCLRTransform for small images (`cj_strength` 0.5, no blur)."""
METHODS: dict[str, dict[str, Any]] = {
    "simclr": {"tau": 0.1},
    "vicreg": {},
    "swav": {"prototypes": 64, "local": LOCAL, "size": 0.5, "area": 0.3},
}
NARROW = ["--bf16", "--channels-last"]
PEERS: dict[str, list[str]] = {
    "as documented": ["--workers", "2"],
    "bf16, channels-last": ["--workers", "2", *NARROW],
    "bf16, channels-last, no workers": ["--workers", "0", *NARROW],
    "the same, our memory and threads": ["--workers", "2", *NARROW],
}
OURS = {
    "GOMP_SPINCOUNT": "10000",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
"""What our training sets by itself, as environment variables: for the last row of the peer."""
Array = np.ndarray[Any, np.dtype[Any]]


def encoder(width: int) -> Any:
    """ResNet-18 for 32 pixels."""
    options = {"depth": 18, "width": width, "stem": "32", "size": 32}
    return plugins.get("encoders", "resnet").build(plugins.configure("encoders", "resnet", options))


def learner(method: str, width: int) -> Any:
    """The objective with its encoder."""
    torch.manual_seed(0)
    config = plugins.configure("objectives", method, METHODS[method])
    return plugins.get("objectives", method).Objective(config, encoder(width))


def config() -> TrainConfig:
    """What both sides train with; views in the ranges of lightly's transforms."""
    return TrainConfig(epochs=10_000, batch=BATCH, optimiser="sgd", lr=1e-3, views=VIEWS, patience=0)


def ours(pixels: Array, method: str, width: int, steps: int) -> float:
    """Seconds of a step of our training loop, after two to warm up."""
    times: list[float] = []

    def watch(stage: str, done: int, total: int) -> None:
        times.append(time.perf_counter())
        if len(times) == steps + 2:
            raise StopError

    with tempfile.TemporaryDirectory() as folder:
        try:
            train(pixels, learner(method, width), config(), Path(folder), 32, watch)
        except StopError:
            return (times[-1] - times[1]) / steps
    raise RuntimeError("the training was shorter than the measurement")


def views_of(pixels: Array, method: str, repeats: int) -> float:
    """Seconds that a step spends on its views: rows of the store, draws, pixels."""
    declared = getattr(learner(method, 16), "views", PAIR)
    stream = torch.Generator().manual_seed(0)
    found = []
    for _ in range(repeats + 1):
        ids = torch.randperm(len(pixels))[:BATCH]
        begin = time.perf_counter()
        sources = [pixels_to_tensor(pixels, ids.numpy(), torch.device("cpu")) for _ in PAIR]
        for number, view in enumerate(declared):
            x = sources[number % 2]
            apply(x, draw(VIEWS.narrowed(view.area), BATCH, stream), round(32 * view.size))
        found.append(time.perf_counter() - begin)
    return statistics.median(found[1:])


def limit(method: str, width: int, repeats: int) -> float:
    """Seconds of the encoder's own forward and backward over a step's views, as a training runs it."""
    net = encoder(width).to(memory_format=torch.channels_last)
    sizes = [(2 * BATCH, 32)] + ([(LOCAL * BATCH, 16)] if method == "swav" else [])
    inputs = [torch.rand(n, 3, s, s).to(memory_format=torch.channels_last) for n, s in sizes]
    times = [sum(alone(net, x) for x in inputs) for _ in range(repeats + 1)]
    return statistics.median(times[1:])


def products(method: str, width: int) -> float:
    """Floating-point operations of the encoder's convolutions in a step: forward, and twice that back."""
    counted: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        counted.append(2 * out.numel() * module.weight[0].numel())  # type: ignore[index,operator]

    net = encoder(width).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        net(torch.rand(1, 3, 32, 32))
        whole = sum(counted)
        net(torch.rand(1, 3, 16, 16))
    return 3.0 * BATCH * (2 * whole + (LOCAL * (sum(counted) - whole) if method == "swav" else 0))


def theirs(peer: str, store: Path, method: str, width: int, setting: str) -> dict[str, float]:
    """What the peer's process measured: images/s, and the share of its time that it waits for views."""
    command = [peer, str(Path(__file__).with_name("lightly_port.py")), "speed", "--pixels", str(store)]
    steps, warm = (2, 1) if width > 32 else (3, 2)
    command += ["--method", method, "--width", str(width), *PEERS[setting]]
    command += ["--steps", str(steps), "--warm", str(warm)]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_", "KMP_", "MKL_"))}
    plain |= OURS if setting == list(PEERS)[-1] else {}
    plain["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=plain)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(wanted: argparse.Namespace) -> None:
    """Rounds of one method at one width."""
    pixels = np.array(open_set(wanted.data, "cifar10").train)
    steps = 2 if wanted.width > 32 else 5
    facts = {"kind": "speed", "method": wanted.method, "width": wanted.width, "batch": BATCH}
    flop = products(wanted.method, wanted.width)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "pixels.npy"
        np.save(store, pixels)
        for _ in range(wanted.rounds):
            step = ours(pixels, wanted.method, wanted.width, steps)
            views = views_of(pixels, wanted.method, 10)
            bare = limit(wanted.method, wanted.width, steps)
            peers = {
                name: theirs(wanted.peer, store, wanted.method, wanted.width, name)
                for name in wanted.settings
            }
            record = {
                **facts,
                "ours": round(BATCH / step, 2),
                "limit": round(BATCH / bare, 2),
                "limit GFLOP/s": round(flop / bare / 1e9, 1),
                "views ms": round(1000 * views, 2),
                "views %": round(100 * views / step, 2),
                "peers": {name: round(found["images/s"], 2) for name, found in peers.items()},
                "waiting %": {name: round(100 * found["waiting"], 1) for name, found in peers.items()},
                "machine": machine(),
                "lightly": next((str(found["lightly"]) for found in peers.values()), ""),
            }
            write(wanted.out, record)


def peak(wanted: argparse.Namespace) -> None:
    """What square matrix products reach, GFLOP/s: the best of many, in float32 and bfloat16."""
    found: dict[str, float] = {}
    for kind in (torch.float32, torch.bfloat16):
        for side in (1024, 2048, 4096):
            a, b = torch.rand(2, side, side).to(kind)
            times = []
            for _ in range(8):
                begin = time.perf_counter()
                a @ b
                times.append(time.perf_counter() - begin)
            name = str(kind).split(".")[-1]
            found[name] = max(found.get(name, 0.0), 2 * side**3 / min(times) / 1e9)
    write(wanted.out, {"kind": "peak", **{k: round(v, 1) for k, v in found.items()}, "machine": machine()})


def agree(wanted: argparse.Namespace) -> None:
    """Largest relative difference of our losses and lightly's on equal rows, in float64."""
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 64, 32)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        np.save(path, rows.numpy())
        command = [
            wanted.peer,
            str(Path(__file__).with_name("lightly_port.py")),
            "losses",
            "--rows",
            str(path),
        ]
        source = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=source)
    theirs = json.loads(done.stdout.splitlines()[-1])
    first, second = rows
    from semblance.objectives._cbswr_terms import sinkhorn
    from semblance.objectives.swav import swapped

    unit = torch.nn.functional.normalize
    shares = torch.stack([sinkhorn(view, 3, 0.05).exp() for view in rows])
    mine = {
        "simclr": nt_xent(unit(first, dim=1), unit(second, dim=1), 0.1),
        "vicreg": 25 * torch.nn.functional.mse_loss(first, second)
        + 12.5 * (variance(first) + variance(second))
        + covariance(first)
        + covariance(second),
        "swav": swapped(rows, shares, 0.1),
    }
    apart = {name: abs(float(value) / theirs[name] - 1) for name, value in mine.items()}
    write(wanted.out, {"kind": "agree", **apart})


def write(path: Path, record: dict[str, Any]) -> None:
    """Append one line and show it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps(record), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["run", "peak", "agree"])
    parser.add_argument("--peer", help="a Python that has lightly and torchvision")
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/lightly.jsonl"))
    parser.add_argument("--method", default="simclr", choices=list(METHODS))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settings", nargs="*", default=list(PEERS))
    wanted = parser.parse_args()
    {"run": run, "peak": peak, "agree": agree}[wanted.verb](wanted)


if __name__ == "__main__":
    main()
