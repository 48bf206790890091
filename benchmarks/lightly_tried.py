"""What was tried to speed up a training step, one change at a time, each in a process of its own.

    python benchmarks/lightly_tried.py --rounds 3 --width 32      # adds to docs/results/lightly.jsonl
    python benchmarks/lightly_tried.py --profile                  # where the time of a step goes

A step here is the encoder's forward and backward over two views of a batch, and its optimiser: most of a
whole one. "as it is": bf16 where the processor has it, channels-last, memory kept, threads that wait awake
for a moment, the fused SGD. Rates are of source images; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["VARIANTS", "once"]

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "float32": {"bf16": False},
    "bf16 in torch's own layout": {"layout": "contiguous"},
    "memory handed back after every use": {"keep": False},
    "threads that never wait awake": {"env": {"GOMP_SPINCOUNT": "0"}},
    "threads that wait awake as by default": {"env": {"GOMP_SPINCOUNT": None}},
    "threads pinned to cores": {"env": {"OMP_PROC_BIND": "true"}},
    "optimiser not fused": {"fused": False},
    "one pass for each view": {"passes": 2},
    "batch 64": {"batch": 64},
    "batch 1024": {"batch": 1024},
    "compiled graph": {"compile": True},
}
SETTINGS = {
    "bf16": True, "layout": "channels_last", "keep": True, "fused": True, "passes": 1, "batch": 256,
    "compile": False,
}  # fmt: skip


PARTS = {
    "convolutions, backward": ("aten::convolution_backward",),
    "convolutions, forward": ("aten::mkldnn_convolution",),
    "batch normalisation": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "ReLU and sums": ("aten::threshold_backward", "aten::clamp_min_", "aten::add_", "aten::add"),
}


def stepper(width: int, chosen: dict[str, Any]) -> Callable[[], float]:
    """A training step of a variant; calling it takes one and gives its seconds."""
    from lightly_speed import encoder
    from semblance.training.machine import keep_memory

    if chosen["keep"]:
        keep_memory()
    torch.manual_seed(0)
    layout = torch.channels_last if chosen["layout"] == "channels_last" else torch.contiguous_format
    net = encoder(width).to(memory_format=layout).train()
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, fused=chosen["fused"])
    x = torch.rand(2 * chosen["batch"], 3, 32, 32).contiguous(memory_format=layout)
    run: Any = torch.compile(net) if chosen["compile"] else net

    def step() -> float:
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=chosen["bf16"]):
            rows = torch.cat([run(part) for part in x.chunk(chosen["passes"])])
        rows.square().mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return time.perf_counter() - begin

    return step


def once(width: int, chosen: dict[str, Any], seconds: float) -> dict[str, float]:
    """Images a second of one variant in this process, and the seconds of its first step."""
    step = stepper(width, chosen)
    first = step()
    step()
    times = [step()]
    while sum(times) < seconds or len(times) < 3:
        times.append(step())
    return {"images/s": round(chosen["batch"] / statistics.median(times), 2), "first": round(first, 1)}


def shares(width: int, steps: int = 3) -> dict[str, float]:
    """Where the time of a step goes, percent by kind of operation."""
    step = stepper(width, SETTINGS)
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            step()
    own = {row.key: row.self_cpu_time_total for row in found.key_averages()}
    parts = {name: sum(own.get(key, 0) for key in keys) for name, keys in PARTS.items()}
    parts["the rest"] = sum(own.values()) - sum(parts.values())
    return {name: round(100 * value / sum(own.values()), 1) for name, value in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/lightly.jsonl"))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.one:
        print(json.dumps(once(wanted.width, SETTINGS | json.loads(wanted.one), wanted.seconds)))
        return
    from lightly_speed import write
    from speed import machine

    if wanted.profile:
        record = {"kind": "profile", "width": wanted.width, "shares": shares(wanted.width)}
        write(wanted.out, {**record, "machine": machine()})
        return
    for _ in range(wanted.rounds):
        rates = {}
        for name in wanted.variants:
            options = dict(VARIANTS[name])
            env = {**os.environ, "GOMP_SPINCOUNT": "10000", **options.pop("env", {})}
            command = [sys.executable, __file__, "--one", json.dumps(options), "--width", str(wanted.width)]
            done = subprocess.run(
                [*command, "--seconds", str(wanted.seconds)],
                check=True,
                capture_output=True,
                text=True,
                env={key: value for key, value in env.items() if value is not None},
            )
            rates[name] = json.loads(done.stdout.splitlines()[-1])
        write(wanted.out, {"kind": "tried", "width": wanted.width, "rates": rates, "machine": machine()})


if __name__ == "__main__":
    main()
