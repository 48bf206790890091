"""How fast? Images per second of the whole training step, beside a plain port of the released code.

    python benchmarks/speed.py --data .data            # prints and writes docs/results/speed.md

Same encoder, same weights, same batch, same machine, in one run: one round of ours, one of the port, one of
the encoder alone, over and over; the ratio is taken round by round. Images per second counts source
images (each seen twice). The step includes views, losses, decoder and optimiser, and, for the port, its
DataLoader with two workers. Then: embedding a folder of files against the encoder's own inference.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if "--port" not in sys.argv:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line sets it

import numpy as np
import torch

from semblance import plugins
from semblance.images.sources import scan
from semblance.images.store import build_store, open_store
from semblance.images.views import Views, centre
from semblance.native import processor
from semblance.objectives._decoder import doublings
from semblance.training.config import TrainConfig, choose_precision
from semblance.training.loop import train
from speed_port import Port, batches

SETTINGS: dict[str, tuple[str, dict[str, Any], int, int, int, int]] = {
    # name: encoder, options, stored side, side of the views, batch, steps a round
    "32 px, ResNet-10 width 32": ("resnet", {"depth": 10, "width": 32, "size": 32}, 36, 32, 64, 20),
    "96 px, ResNet-18 width 16": ("resnet", {"depth": 18, "width": 16, "size": 96}, 110, 96, 64, 10),
    "224 px, ResNet-18 width 16": ("resnet", {"depth": 18, "width": 16, "size": 224}, 256, 224, 64, 5),
    "224 px, GoogLeNet": ("googlenet", {}, 256, 224, 16, 3),
}


WIDTHS = (32, 64)
"""Of the encoders that embed a folder: a small one, and the ResNet-18 of the literature."""


class StopError(Exception):
    """Ends a training from its progress callback: the steps taken are enough."""


class Ours:
    """Our training loop, advanced a few steps at a time from its own progress callback."""

    def __init__(self, pixels: Any, encoder: Any, side: int, batch: int, views: Views, variant: str) -> None:
        config = plugins.configure(
            "objectives", "cbswr", {"variant": variant, "clusters": min(32, batch), "partner": 0.0}
        )
        self.objective = plugins.get("objectives", "cbswr").Objective(config, encoder)
        self.config = TrainConfig(
            epochs=10_000, batch=batch, optimiser="sgd", lr=1e-3, momentum=0.0, views=views, patience=0
        )
        self.pixels, self.side = pixels, side

    def seconds(self, steps: int) -> float:
        """Seconds of `steps` steps, without the first two of the call."""
        times: list[float] = []

        def watch(stage: str, done: int, total: int) -> None:
            times.append(time.perf_counter())
            if len(times) == steps + 2:
                raise StopError

        with tempfile.TemporaryDirectory() as folder:
            try:
                train(self.pixels, self.objective, self.config, Path(folder), self.side, watch)
            except StopError:
                return times[-1] - times[1]
        raise RuntimeError("the epoch was shorter than the measurement")


def alone(encoder: Any, x: torch.Tensor) -> float:
    """Seconds of the encoder's own forward and backward on one batch of two views, as a training runs it."""
    encoder.train()
    begin = time.perf_counter()
    with narrow():
        maps = encoder.maps(x)
    maps.float().mean().backward()
    return time.perf_counter() - begin


def narrow() -> Any:
    """bf16 where a training takes it by itself."""
    bf16 = choose_precision("auto", torch.device("cpu")) == "bf16"
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16)


def port_alone(name: str, stored: Path) -> float:
    """Seconds of a step of the port, measured in a process of its own: nothing of ours is set there."""
    kind, options, _, side, batch, steps = SETTINGS[name]
    torch.manual_seed(0)
    encoder = plugins.get("encoders", kind).build(plugins.configure("encoders", kind, options))
    port = Port(encoder, min(32, batch), doublings(encoder))
    loader: Iterator[Any] = batches(np.load(stored), side, batch, 2)
    for _ in range(2):
        port.step(*next(loader))
    begin = time.perf_counter()
    for _ in range(steps):
        port.step(*next(loader))
    return (time.perf_counter() - begin) / steps


def port_seconds(name: str, stored: Path) -> float:
    """`port_alone` in another process."""
    command = [sys.executable, __file__, "--port", name, "--stored", str(stored)]
    plain = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=plain)
    return float(done.stdout.split()[-1])


def measure(name: str, source: Any, rounds: int) -> dict[str, list[float]]:
    """Per round: images/s of ours, of the port, and the share of our step outside the encoder."""
    kind, options, stored, side, batch, steps = SETTINGS[name]
    torch.manual_seed(0)
    module = plugins.get("encoders", kind)
    encoder = module.build(plugins.configure("encoders", kind, options))
    pixels = source(stored)
    views = Views(
        crop=side / stored, flip=0.75, brightness=0, contrast=0, saturation=0, hue=0, jitter=0, grey=0
    )
    ours = Ours(pixels, copy.deepcopy(encoder), side, batch, views, "released")
    fixed = Ours(pixels, copy.deepcopy(encoder), side, batch, views, "fixed")
    bare = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
    x = torch.rand(2 * batch, 3, side, side).to(memory_format=torch.channels_last)
    for _ in range(2):
        alone(bare, x)
    place = Path(tempfile.mkdtemp()) / "pixels.npy"
    np.save(place, pixels)
    found: dict[str, list[float]] = {
        "ours": [],
        "fixed": [],
        "port": [],
        "ratio": [],
        "limit": [],
        "outside": [],
    }
    for _ in range(rounds):
        ours_s = ours.seconds(steps) / steps
        port_s = port_seconds(name, place)
        encoder_s = statistics.median(alone(bare, x) for _ in range(max(2, steps)))
        fixed_s = fixed.seconds(steps) / steps
        found["ours"].append(batch / ours_s)
        found["fixed"].append(batch / fixed_s)
        found["port"].append(batch / port_s)
        found["ratio"].append(port_s / ours_s)
        found["limit"].append(port_s / encoder_s)
        found["outside"].append(100 * (1 - encoder_s / fixed_s))
    shutil.rmtree(place.parent)
    return found


def embedding(data: Path, rounds: int, width: int) -> dict[str, list[float]]:
    """Images/s of embedding a folder of files (decoding included) and a pixel store, and of their parts."""
    from semblance.collection.model import Model, build_encoder, build_objective  # after torch is set up

    folder = data / "clothing-small" / "test"
    options = {"depth": 18, "width": width, "size": 96}
    encoder: Any = build_encoder("resnet", plugins.configure("encoders", "resnet", options), 0)
    learner: Any = build_objective("sme", plugins.configure("objectives", "sme", {}), encoder, 0)
    model = Model(
        encoder, learner.head, {"size": 96, "fit": "squash", "crop": None, "head": {"outside": 128}}, None
    )
    encoder.eval().to(memory_format=torch.channels_last)
    found: dict[str, list[float]] = {}
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as place:
            decoded = timed(lambda place=place: build_store(scan(folder), Path(place), 96))
            pixels = np.array(open_store(Path(place) / "pixels.npy"))
        x = centre(torch.from_numpy(pixels), 96)
        inferred = timed(lambda x=x: [infer(encoder, part) for part in x.split(256)])
        files = timed(lambda: model.embed(str(folder)))
        store = timed(lambda pixels=pixels: model.embed_pixels(pixels))
        measured = {"inference": inferred, "decoding": decoded, "folder": files, "store": store}
        for name, seconds in measured.items():
            found.setdefault(name, []).append(len(pixels) / seconds)
            found.setdefault(f"{name} ratio", []).append(inferred / seconds)
        found.setdefault("both ratio", []).append((inferred + decoded) / files)
    return {name: values[1:] for name, values in found.items()}  # the first round warms up


@torch.inference_mode()
def infer(encoder: Any, x: torch.Tensor) -> torch.Tensor:
    """The encoder alone."""
    with narrow():
        features: torch.Tensor = encoder(x)
    return features


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def spread(values: list[float], digits: int = 1) -> str:
    """median (min to max)"""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def agreement() -> float:
    """Largest relative difference of the port's loss and ours (`released`) on equal weights and batches."""
    torch.manual_seed(3)
    module = plugins.get("encoders", "resnet")
    encoder = module.build(module.Config(depth=10, width=8, size=32)).double()
    from semblance.contracts import Batch

    config = plugins.configure("objectives", "cbswr", {"variant": "released", "clusters": 8, "dropout": 0.0})
    ours = plugins.get("objectives", "cbswr").Objective(config, encoder).double()
    port = Port(copy.deepcopy(encoder), 8, doublings(encoder)).double()
    port.embedding.load_state_dict(ours.head.linear.state_dict())
    port.logits.load_state_dict(ours.cluster.linear.state_dict())
    port.drop.p = 0.0
    convolutions = [layer for layer in port.decoder if isinstance(layer, torch.nn.Conv2d)]
    for layer, twin in zip(convolutions, [*ours.decoder.convolutions, ours.decoder.last], strict=True):
        layer.load_state_dict(twin.state_dict())
    first, second = torch.rand(2, 16, 3, 32, 32, dtype=torch.float64)
    mine = ours(Batch((first, second), torch.arange(16)))
    # The port redraws the images it was fed, ours the mean-subtracted ones: compare without that term.
    theirs = port.loss(first, second) - 0.001 * torch.nn.functional.mse_loss(
        port.decoder(_rows(port, first, second)), torch.cat([first, second])
    )
    rest = mine.terms["metric"] + mine.terms["rim"]
    return float(((theirs - rest).abs() / rest.abs()).detach())


def _rows(port: Port, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    maps = port.encoder.maps(torch.cat([first, second]))
    f = torch.nn.functional.normalize(port.embedding(maps.mean((2, 3))))
    q = port.logits(port.norm(f))[: len(first)].argmax(1).repeat(2)
    return torch.stack([maps[q == k].mean(0) for k in q])


def embedding_table(found: dict[str, list[float]], width: int) -> list[str]:
    """The lines of one table."""
    lines = ["", f"Embedding clothing-small's test files, ResNet-18 width {width} at 96 px:", ""]
    lines += ["| | images/s | of inference |", "| --- | --- | --- |"]
    rows = {
        "inference": "the encoder's inference alone",
        "decoding": "decoding the files into a pixel store alone",
        "folder": "a folder of files, decoding included",
        "store": "a pixel store",
    }
    for name, what in rows.items():
        lines += [f"| {what} | {spread(found[name])} | {spread(found[f'{name} ratio'], 2)} |"]
    both = spread(found["both ratio"], 2)
    return [*lines, "", f"A folder takes 1 / {both} of its decoding and its inference one after the other."]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/speed.md"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--port", help=argparse.SUPPRESS)
    parser.add_argument("--stored", type=Path, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.port:
        print(port_alone(wanted.port, wanted.stored))
        return
    stores: dict[int, Any] = {}

    def source(side: int) -> Any:
        if side not in stores:
            with tempfile.TemporaryDirectory() as place:
                build_store(scan(wanted.data / "clothing-small" / "test"), Path(place), side)
                stores[side] = np.array(open_store(Path(place) / "pixels.npy"))
        return np.tile(stores[side], (4, 1, 1, 1)) if len(stores[side]) < 1000 else stores[side]

    lines = [
        "# How fast?",
        "",
        f"Made by `benchmarks/speed.py` on {machine()}, {wanted.rounds} rounds; median (min to max).",
        "",
    ]
    lines += [
        f"The port's loss and ours agree to {agreement():.0e} (relative, metric and RIM terms, float64).",
        "",
    ]
    heads = ["setting", "batch", "ours `released`, images/s", "ours `fixed`, images/s", "port, images/s"]
    heads += ["ours `released` / port"]
    heads += ["encoder alone / port", "outside the encoder, % of a `fixed` step"]
    lines += [f"| {' | '.join(heads)} |"]
    lines += ["| --- " * 8 + "|"]
    for name in wanted.settings:
        found = measure(name, source, wanted.rounds if "GoogLeNet" not in name else min(3, wanted.rounds))
        cells = [spread(found[k]) for k in ("ours", "fixed", "port")] + [
            spread(found["ratio"], 2),
            spread(found["limit"], 2),
            spread(found["outside"]),
        ]
        lines += [f"| {name} | {SETTINGS[name][4]} | {' | '.join(cells)} |"]
        print(lines[-1], flush=True)
    for width in WIDTHS:
        lines += embedding_table(embedding(wanted.data, wanted.rounds, width), width)
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def machine() -> str:
    """Processor, threads and library."""
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


if __name__ == "__main__":
    main()
