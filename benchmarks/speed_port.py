"""The training step of CBSwR as the released code is written: the peer of `benchmarks/speed.py`.

Written anew from the method's description (nothing is copied): PIL transforms in DataLoader workers, float32
in torch's default layout, a Python loop over clusters with boolean masks, every row decoded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Port", "TwoCrops", "batches"]

TAU, ALPHA, BETA, GAMMA = 0.1, 0.9, 0.3, 0.001


class TwoCrops(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Two independent random crops and flips of each stored image, one image at a time."""

    def __init__(self, pixels: np.ndarray[Any, Any], side: int) -> None:
        self.pixels, self.side = pixels, side

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.fromarray(self.pixels[index])
        return self._view(image), self._view(image)

    def _view(self, image: Image.Image) -> Tensor:
        room = image.width - self.side
        left, top = (int(torch.randint(room + 1, ())) for _ in range(2))
        crop = image.crop((left, top, left + self.side, top + self.side))
        if torch.rand(()) < 0.75:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.asarray(crop, np.float32) / 255).permute(2, 0, 1).contiguous()


def batches(
    pixels: np.ndarray[Any, Any], side: int, batch: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of two views, for ever, from a DataLoader with `workers` processes."""
    loader = torch.utils.data.DataLoader(
        TwoCrops(pixels, side),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


class Port(nn.Module):
    """Encoder, embedding, cluster head, decoder and one SGD step after another."""

    def __init__(self, encoder: Any, clusters: int, stages: int) -> None:
        super().__init__()
        self.encoder, self.clusters = encoder, clusters
        self.embedding = nn.Linear(encoder.dim, 128)
        self.norm, self.drop, self.logits = nn.BatchNorm1d(128), nn.Dropout(0.6), nn.Linear(128, clusters)
        widths = [encoder.dim, 128, 64, 32, 16, 16][: stages + 1]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(a, b, 3, padding=1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
                nn.Upsample(scale_factor=2),
            ]
        self.decoder = nn.Sequential(
            *layers, nn.Conv2d(widths[-1], 3, 3, padding=1, bias=False), nn.Sigmoid()
        )
        self.optimiser = torch.optim.SGD(self.parameters(), lr=1e-3)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The whole loss of one batch of m images."""
        m = len(first)
        images = torch.cat([first, second])
        maps = self.encoder.maps(images)
        f = F.normalize(self.embedding(maps.mean((2, 3))))
        p = F.softmax(F.normalize(self.logits(self.drop(self.norm(f)))), dim=1)
        q = p[:m].argmax(1).repeat(2)
        present = [k for k in range(self.clusters) if bool((q == k).any())]
        means = {k: maps[q == k].mean(0) for k in present}
        c = torch.stack(
            [F.normalize(self.embedding(means[k].detach().mean((1, 2))), dim=0).detach() for k in present]
        )
        own = torch.tensor([present.index(int(k)) for k in q])
        e = torch.exp(f @ c.T / TAU)
        pair = torch.cat([f[m:], f[:m]]).detach()
        foreign = torch.ones_like(e, dtype=torch.bool)
        foreign[torch.arange(2 * m), own] = False
        positive = torch.exp((f * pair).sum(1) / TAU) / (e * foreign).sum(1)
        negative = torch.log(1 - e / e.sum(1, keepdim=True))
        metric = -(torch.log(positive) + (negative * foreign).sum(1)).mean()
        mean = p.mean(0)
        entropy = -(mean * mean.log()).sum()
        rim = -(p * p.log()).sum(1).mean() / math.log(2 * m) + 1 - entropy / math.log(self.clusters)
        drawn = self.decoder(torch.stack([means[int(k)] for k in q]))
        return ALPHA * metric + BETA * rim + GAMMA * F.mse_loss(drawn, images)

    def step(self, first: Tensor, second: Tensor) -> float:
        """One training step; returns the loss."""
        self.train()
        loss = self.loss(first, second)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(loss)
