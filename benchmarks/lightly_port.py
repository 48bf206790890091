"""SimCLR, VICReg and SwAV written with `lightly`: the peer of `lightly_speed.py` and `lightly_knn.py`.

Both call it with a Python that has lightly and torchvision. The encoder is ours (`PYTHONPATH=src`), so that
both sides compute the same network; its losses, heads, transforms and training loop are lightly's as its own
examples write them: PIL images through a DataLoader, every view through the model by itself.

    python benchmarks/lightly_port.py speed --pixels x.npy --method simclr --width 32 --workers 2 [--bf16]
    python benchmarks/lightly_port.py train --pixels x.npy --score y.npy --out features.npz --epochs 6
    python benchmarks/lightly_port.py losses --rows z.npy
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

try:
    import torchvision  # noqa: F401
except RuntimeError:
    # Its wheel's compiled code does not load beside a torch without CUDA, and its import then asks for these
    # operators; no transform uses one.
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import lightly
from lightly.data.multi_view_collate import MultiViewCollate
from lightly.loss import NTXentLoss, SwaVLoss, VICRegLoss
from lightly.models.modules.heads import ProjectionHead, SwaVPrototypes
from lightly.transforms import SimCLRTransform, SwaVTransform, VICRegTransform

from semblance.encoders import resnet

SIDE, DIM, TAU, PROTOTYPES, LOCAL = 32, 128, 0.1, 64, 4
COLOUR = {"cj_strength": 0.5, "gaussian_blur": 0.0, "normalize": None}
"""What lightly recommends for small images; the encoder normalises by itself."""


def transform(method: str) -> Any:
    """The views of a method in the ranges that the other side draws from."""
    if method == "simclr":
        return SimCLRTransform(input_size=SIDE, **COLOUR)
    if method == "vicreg":
        ranges = {"cj_bright": 0.8, "cj_contrast": 0.8, "cj_sat": 0.8, "cj_hue": 0.2}
        return VICRegTransform(
            input_size=SIDE, min_scale=0.08, cj_prob=0.8, solarize_prob=0.0, **ranges, **COLOUR
        )
    return SwaVTransform(
        crop_sizes=(SIDE, SIDE // 2),
        crop_counts=(2, LOCAL),
        crop_min_scales=(0.08, 0.024),
        crop_max_scales=(1.0, 0.3),
        **COLOUR,
    )


class Images(torch.utils.data.Dataset[Any]):
    """Stored pixels as PIL images, transformed one at a time: what `LightlyDataset` does, without files."""

    def __init__(self, pixels: np.ndarray[Any, Any], views: Any) -> None:
        self.pixels, self.views = pixels, views

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, int, str]:
        return self.views(Image.fromarray(self.pixels[index])), 0, str(index)


def epochs_of(pixels: np.ndarray[Any, Any], method: str, batch: int, workers: int) -> Iterator[Iterator[Any]]:
    """One iterator over batches of views per epoch, for ever."""
    loader = torch.utils.data.DataLoader(
        Images(pixels, transform(method)),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=MultiViewCollate(),
    )
    while True:
        yield (views for views, _, _ in loader)


class Model(nn.Module):
    """Encoder, head and loss of a method."""

    def __init__(self, method: str, width: int) -> None:
        super().__init__()
        self.encoder = resnet.build(resnet.Config(depth=18, width=width, stem="32", size=SIDE))
        self.head = ProjectionHead([(self.encoder.dim, DIM, None, None)])
        self.method = method
        self.prototypes = SwaVPrototypes(DIM, PROTOTYPES) if method == "swav" else None
        self.criterion: Any = {
            "simclr": lambda: NTXentLoss(temperature=TAU),
            "vicreg": VICRegLoss,
            "swav": lambda: SwaVLoss(temperature=TAU),
        }[method]()

    def forward(self, views: list[Tensor]) -> Tensor:
        """The loss of a batch."""
        if self.prototypes is None:
            first, second = (self.head(self.encoder(view)).float() for view in views)
            loss: Tensor = self.criterion(first, second)
            return loss
        self.prototypes.normalize()
        rows = [nn.functional.normalize(self.head(self.encoder(view)).float(), dim=1) for view in views]
        scores = [self.prototypes(row).float() for row in rows]
        swapped: Tensor = self.criterion(scores[:2], scores[2:])
        return swapped


class Step:
    """One training step after another, in the precision and layout asked for."""

    def __init__(self, model: Model, bf16: bool, channels_last: bool, rate: float, steps: int) -> None:
        self.bf16, self.layout = bf16, torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.layout)
        self.optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
        warm = max(1, round(0.05 * steps))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser,
            lambda step: (
                (step + 1) / warm
                if step < warm
                else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
            ),
        )

    def __call__(self, views: list[Tensor]) -> float:
        """The loss, after the step."""
        self.model.train()
        views = [view.to(memory_format=self.layout) for view in views]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.model(views)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        return float(loss.detach())


def speed(wanted: argparse.Namespace) -> dict[str, Any]:
    """Images per second of `wanted.steps` steps after `wanted.warm`, and the share of them spent waiting."""
    torch.manual_seed(0)
    model = Model(wanted.method, wanted.width)
    step = Step(model, wanted.bf16, wanted.channels_last, 1e-3, 10_000)
    loader = epochs_of(np.load(wanted.pixels), wanted.method, wanted.batch, wanted.workers)
    batches = (views for epoch in loader for views in epoch)
    begin = waited = 0.0
    for count in range(wanted.steps + wanted.warm):
        if count == wanted.warm:
            begin, waited = time.perf_counter(), 0.0
        asked = time.perf_counter()
        views = next(batches)
        waited += time.perf_counter() - asked
        step(views)
    seconds = time.perf_counter() - begin
    return {"images/s": wanted.batch * wanted.steps / seconds, "waiting": waited / seconds}


def training(wanted: argparse.Namespace) -> dict[str, Any]:
    """Train for some epochs; features of the training and the score images go to `wanted.out`."""
    torch.manual_seed(wanted.seed)
    pixels = np.load(wanted.pixels)
    model = Model(wanted.method, wanted.width)
    total = wanted.epochs * (len(pixels) // wanted.batch)
    step = Step(model, wanted.bf16, wanted.channels_last, wanted.rate, total)
    begin, losses = time.perf_counter(), []
    for _, epoch in zip(
        range(wanted.epochs),
        epochs_of(pixels, wanted.method, wanted.batch, wanted.workers),
        strict=False,
    ):
        losses.append([step(views) for views in epoch])
        print(f"epoch {len(losses)}: loss {np.mean(losses[-1]):.4f}", flush=True)
    seconds = time.perf_counter() - begin
    found = {name: features(model, np.load(path)) for name, path in _stores(wanted).items()}
    np.savez(wanted.out, **found)
    return {"seconds": seconds, "loss": float(np.mean(losses[-1]))}


def _stores(wanted: argparse.Namespace) -> dict[str, Path]:
    return {"train": wanted.pixels, "score": wanted.score}


@torch.inference_mode()
def features(model: Model, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`(n, dim)` of the encoder, in evaluation mode, float32."""
    model.eval()
    parts = [
        model.encoder(torch.from_numpy(part).permute(0, 3, 1, 2) / 255)
        for part in np.array_split(pixels, max(1, len(pixels) // 256))
    ]
    return torch.cat(parts).numpy()


def losses(wanted: argparse.Namespace) -> dict[str, float]:
    """Every loss on the rows `(2, m, d)` of a file, in float64; SwAV's on `(2, m, K)` scores."""
    first, second = torch.from_numpy(np.load(wanted.rows))
    return {
        "simclr": float(NTXentLoss(temperature=TAU)(first, second)),
        "vicreg": float(VICRegLoss()(first, second)),
        "swav": float(SwaVLoss(temperature=TAU)([first, second], [])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["speed", "train", "losses"])
    parser.add_argument("--pixels", type=Path)
    parser.add_argument("--score", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--method", default="simclr", choices=["simclr", "vicreg", "swav"])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--warm", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rate", type=float, default=0.12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    wanted = parser.parse_args()
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    found = {"speed": speed, "train": training, "losses": losses}[wanted.verb](wanted)
    print(
        json.dumps(
            {
                **found,
                "lightly": lightly.__version__,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
