"""The model: encoder, embedding head and what must be done to an image before them, under one identity.

On disk a model is a folder: `model.safetensors` (weights of encoder and head), `start.safetensors` (the
encoder when training began), `model.json` (what the weights belong to) and `card.md` (for people).
Loading runs no code from the folder: weights are safetensors, all else is JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from semblance import __version__, plugins
from semblance.collection import disk
from semblance.collection.card import card
from semblance.collection.read import read_images
from semblance.contracts import Progress
from semblance.errors import CollectionError, ConfigError, ModelMismatch
from semblance.images.formats import PixelFormat
from semblance.objectives._levels import Levels
from semblance.training.embed import embed

__all__ = ["FORMAT", "Model", "Named", "identity", "load", "plain"]

FORMAT = 1
RANDOM = "random weights"
"""What a training that was given no weights starts from."""
REPAIR = "restore the folder from a copy, or build it again with --overwrite"


@dataclasses.dataclass(frozen=True)
class Named:
    """Embeddings with the names of their images: `paths` of the n readable images in order,
    `embeddings` `(n, d)` float32, `problems` as (path, reason)."""

    paths: tuple[str, ...]
    embeddings: NDArray[np.float32]
    problems: tuple[tuple[str, str], ...] = ()


class Model:
    """From images to embeddings: `embed(images) -> (n, d)` float32, rows of length 1.

    `facts` is what `model.json` holds: encoder, objective, size, fit, crop, data, training, versions.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        facts: Mapping[str, Any],
        start: Mapping[str, Tensor] | Path | None = None,
    ) -> None:
        self.encoder, self.head = encoder.eval(), head.eval()
        self._start = start
        self.facts: dict[str, Any] = {**json.loads(json.dumps(facts)), "format": FORMAT}
        self.facts["identity"] = identity(self.weights(), self.facts)

    @property
    def identity(self) -> str:
        """Sixteen hex digits of the weights and of everything that decides what they mean."""
        return str(self.facts["identity"])

    @property
    def size(self) -> int:
        """Side in pixels at which images are stored."""
        return int(self.facts["size"])

    @property
    def pixels(self) -> PixelFormat:
        """What it takes: RGB pictures, or values of so many channels and the curve they are stored by."""
        return PixelFormat.read(self.facts.get("pixels"))

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.facts["head"]["outside"])

    def weights(self) -> dict[str, Tensor]:
        """Every tensor of encoder and head by name, on the CPU."""
        parts = {"encoder": self.encoder, "head": self.head}
        return {
            f"{part}.{name}": value.detach().cpu().contiguous()
            for part, module in parts.items()
            for name, value in module.state_dict().items()
        }

    def start_weights(self) -> dict[str, Tensor]:
        """The encoder's weights when training began. Raises `CollectionError` where they were not kept."""
        if self._start is None:
            raise CollectionError("the weights that the training began with were not kept")
        start = read_weights(self._start) if isinstance(self._start, Path) else dict(self._start)
        if identity(start, {}) != self.facts.get("start"):
            raise ModelMismatch(f"{self._start} does not belong to the model {self.identity}", REPAIR)
        return start

    def embed(
        self, images: Any, *, device: str = "auto", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Embeddings `(n, d)` float32 of images, in order.

        `images`: a path, a folder, glob or manifest, bytes of a file, a PIL image, an array `(h, w, c)` or
        `(n, h, w, c)`, or a list of these. Raises `InputError` for one that cannot be read;
        of a folder or glob only the readable images have rows (`embed_named` says which).
        """
        return self.embed_named(images, device=device, progress=progress).embeddings

    def embed_named(self, images: Any, *, device: str = "auto", progress: Progress | None = None) -> Named:
        """The same with the name of each image and the files that could not be read."""
        with read_images(images, self.size, str(self.facts["fit"]), progress, self.pixels) as found:
            rows = self.embed_pixels(found.pixels, device=device, progress=progress)
        return Named(found.names, rows, found.problems)

    def embed_pixels(
        self, pixels: NDArray[Any], *, device: str = "auto", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Embeddings `(n, d)` float32 of a pixel store `(n, size, size, c)` uint8 or uint16."""
        if not len(pixels):
            return np.zeros((0, self.dim), np.float32)
        crop = self.facts["crop"]
        rows: NDArray[np.float32] = embed(
            self.encoder,
            self.head,
            pixels,
            view_size(self.size, crop),
            crop=crop,
            device=device,
            precision=self.precision,
            progress=progress,
        )
        return rows

    @property
    def precision(self) -> str:
        """What the training was asked for: auto, 32 or bf16."""
        return str(self.facts["training"]["config"].get("precision", "auto"))

    def save(self, folder: str | Path) -> Path:
        """`folder` with the model in it; `model.json` comes last, so that a folder with it is whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.json").unlink(missing_ok=True)
        header = {"identity": self.identity, "format": "pt"}
        whole = save_tensors(self.weights(), header)
        disk.write_atomically(folder / "model.safetensors", lambda file: file.write(whole))
        if self._start is not None:
            first = save_tensors({k: v.contiguous() for k, v in self.start_weights().items()}, header)
            disk.write_atomically(folder / "start.safetensors", lambda file: file.write(first))
        text = card(self.facts).encode("utf-8", "backslashreplace")
        disk.write_atomically(folder / "card.md", lambda file: file.write(text))
        disk.write_json(folder / "model.json", self.facts)
        return folder

    def __repr__(self) -> str:
        made = f"{self.facts['encoder']['name']}, {self.facts['objective']['name']}"
        return f"Model({made}, {self.size} px, {self.dim}-d, {self.identity})"


def identity(weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Sixteen hex digits: BLAKE2b over every tensor and over `facts` (without a former identity)."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    facts = {key: value for key, value in facts.items() if key != "identity"}
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()


def load(path: str | Path) -> Model:
    """The model of a collection folder or of a model folder.

    Raises `CollectionError` for a folder that is neither or is damaged, `ModelMismatch` when weights
    and `model.json` do not belong together or were changed.
    """
    folder = Path(path)
    if (folder / "model").is_dir():
        folder = folder / "model"
    if not (folder / "model.json").is_file():
        raise CollectionError(
            f"{path} holds no model", "give a collection such as photos.smb, or a model folder"
        )
    facts = disk.read_json(folder / "model.json")
    if facts.get("format") != FORMAT:
        newer = "a newer version of Semblance may read it"
        raise CollectionError(f"{folder}: model format {facts.get('format')!r} is not known", newer)
    weights = read_weights(folder / "model.safetensors")
    if identity(weights, facts) != facts.get("identity"):
        raise ModelMismatch(f"{folder}: model.safetensors and model.json do not belong together", REPAIR)
    try:
        encoder, head = _rebuild(facts)
        _fill(encoder, weights, "encoder.")
        _fill(head, weights, "head.")
    except ConfigError:
        raise
    except (KeyError, TypeError, RuntimeError) as error:
        raise CollectionError(f"{folder}: the model cannot be rebuilt: {error}", REPAIR) from error
    start = folder / "start.safetensors"
    return Model(encoder, head, facts, start if start.is_file() else None)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises `CollectionError` where it is missing or damaged."""
    try:
        tensors: dict[str, Tensor] = load_tensors(path.read_bytes())
    except OSError as error:
        raise CollectionError(f"{path} cannot be read: {error.strerror}", REPAIR) from error
    except SafetensorError as error:
        raise CollectionError(f"{path} is damaged: {error}", REPAIR) from error
    return tensors


def view_size(size: int, crop: float | None) -> int:
    """Side in pixels that the encoder sees of a stored image of `size`."""
    return size if crop is None else max(1, round(size * crop))


def build_encoder(name: str, config: Any, seed: int) -> nn.Module:
    """A freshly initialised encoder, the same for the same seed; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder: nn.Module = plugins.get("encoders", name).build(config)
    return encoder


def build_objective(name: str, config: Any, encoder: nn.Module, seed: int) -> nn.Module:
    """The objective around `encoder`, its heads the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective: nn.Module = plugins.get("objectives", name).Objective(config, encoder)
    return objective


def plain(value: Any) -> Any:
    """`value` (a dataclass, tuple, path, NumPy number, ...) as JSON knows it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (np.integer, np.floating)):
        return plain(value.item())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return str(value) if isinstance(value, Path) else value


def versions() -> dict[str, str]:
    """What the model was made with."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    return {"semblance": __version__, "torch": torch.__version__.partition("+")[0], "python": python}


def _rebuild(facts: Mapping[str, Any]) -> tuple[nn.Module, nn.Module]:
    described = facts["encoder"]
    config = plugins.configure("encoders", described["name"], described["config"])
    encoder = build_encoder(described["name"], config, 0)
    if facts["head"].get("levels"):
        return encoder, Levels(facts["head"]["inside"], facts["head"]["outside"])
    aim = facts["objective"]
    options = plugins.configure("objectives", aim["name"], aim["config"])
    head: Any = build_objective(aim["name"], options, encoder, 0).head
    return encoder, head


def _fill(module: nn.Module, weights: Mapping[str, Tensor], prefix: str) -> None:
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    module.load_state_dict(own)
