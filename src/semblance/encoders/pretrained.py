"""Any vision model of Hugging Face `transformers`, from a folder on disk or by its name on the hub.

Use it to start from what others have learned (DINOv2, ViT, ConvNeXt, ResNet, Swin, CLIP's and SigLIP's image
side). Needs the extra "pretrained". A folder is read without touching the network; a hub name is fetched,
because you named it. Weights must be safetensors. Images are normalised with the model's own mean and
deviation (0.5 where it has none) and resized to the side it was trained for.

Features are the class token where there is one, else the mean of the maps. The maps of a model with a class
token are its patch tokens, shifted by one vector so that their mean is the class token. So `forward(x)` is
`maps(x)` averaged over its places, here as in every encoder, and objectives that start from maps train what
is kept. Register tokens are dropped.

The cost is the model's own: a ViT-S/14 at 224 px takes 5.5 G multiply-adds per image, so on a CPU prefer to
freeze it. `encoder.config` describes the network completely, without the folder or the hub (`hf_config`).
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semblance.encoders import _huggingface
from semblance.errors import ConfigError, MissingExtra
from semblance.ranks import BatchNorm2d

__all__ = ["Config", "Pretrained", "build"]

# Their class token becomes a feature only after a last norm, which `pooler_output` has seen.
POOLED_TOKEN = ("clip_vision_model", "chinese_clip_vision_model", "metaclip_2_vision_model")


@dataclass(frozen=True)
class Config:
    """Which model, and how it is used.

    `name`: a folder, or a name on the hub such as "facebook/dinov2-small". `size`: side to which images are
    resized before the network; none = the side it was trained for, or as they come where it names none.
    `pool`: "auto" takes the class token where there is one. `freeze`: its weights and statistics stay as they
    are. `mean`, `std`: of pixels in [0, 1]; empty = the model's own. `hf_config`: JSON of the model's
    configuration; if given, the network is built from it with random weights and nothing is read from `name`.
    """

    name: str = ""
    size: int | None = None
    pool: Literal["auto", "token", "mean"] = "auto"
    freeze: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    hf_config: str = ""

    def __post_init__(self) -> None:
        """Raises `ConfigError` for values that no model could have."""
        if self.size is not None and self.size < 1:
            raise ConfigError(f"pretrained.size is {self.size}", "expected at least 1")
        if self.std and min(self.std) <= 0:
            raise ConfigError(f"pretrained.std is {self.std}", "expected values above 0")


class Pretrained(nn.Module):
    """`(n, channels, h, w)` in [0, 1] -> features `(n, dim)`."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, config: Config) -> None:
        super().__init__()
        self.model = model
        self.config = config
        described: Any = model.config
        self.channels = int(getattr(described, "num_channels", 3))
        self.pooled_token = described.model_type in POOLED_TOKEN
        self.register_buffer("mean", _per_channel("mean", config.mean or (0.5,), self.channels))
        self.register_buffer("std", _per_channel("std", config.std or (0.5,), self.channels))
        trained_for = getattr(described, "image_size", None)
        # The model refuses other sides than its own unless its position embeddings are stretched.
        takes = inspect.signature(model.forward).parameters
        stretch = config.size != trained_for and "interpolate_pos_encoding" in takes
        self.extra: dict[str, Any] = {"interpolate_pos_encoding": True} if stretch else {}
        self.grid: tuple[int, int] | None = None
        self.prefix = 0
        self.dim = 0
        self._probe()

    def normalise(self, x: Tensor) -> Tensor:
        """`(x - mean) / std`, the same shape."""
        return (x - self.mean) / self.std

    def maps(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` in [0, 1] -> `(n, dim, h', w')` whose mean over places is `forward(x)`."""
        tokens, token = self._run(x)
        if self.grid is None:
            return tokens
        maps = tokens[:, self.prefix :].transpose(1, 2).reshape(-1, self.dim, *self.grid)
        if token is None:
            return maps
        maps = maps.float()
        return maps + (token.float() - maps.mean((2, 3)))[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` in [0, 1] -> features `(n, dim)`, float32 under autocast too."""
        tokens, token = self._run(x)
        if token is not None:
            return token.float()
        places = (2, 3) if self.grid is None else (1,)
        return tokens[:, self.prefix :].float().mean(places) if self.grid else tokens.float().mean(places)

    def train(self, mode: bool = True) -> Pretrained:
        """Itself in training mode; a frozen model stays in evaluation mode (no dropout, fixed statistics)."""
        super().train(mode)
        if self.config.freeze:
            self.model.eval()
        return self

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Last hidden state, and the class token if it is to be the feature."""
        x = self.normalise(x)
        side = self.config.size
        if side is not None and x.shape[-2:] != (side, side):
            shrinks = bool(x.shape[-1] > side)
            x = F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=shrinks)
        with _huggingface.fixed_positions(self.model):
            output = self.model(pixel_values=x, **self.extra)
        hidden: Tensor = output.last_hidden_state
        if self.grid is None or self.prefix == 0 or self.config.pool == "mean":
            return hidden, None
        token: Tensor = output.pooler_output if self.pooled_token else hidden[:, 0]
        return hidden, token

    def _probe(self) -> None:
        """Sets `dim`, `grid` and `prefix` from one black image, and freezes weights that features ignore.

        Such weights (a pooler, a mask token) never get a gradient, for which data-parallel ranks would wait.
        """
        self.eval()
        side = self.config.size or 224
        black = torch.zeros(1, self.channels, side, side)
        with torch.no_grad():
            hidden, _ = self._run(black)
        self.dim = hidden.shape[1] if hidden.dim() == 4 else hidden.shape[2]
        if hidden.dim() == 3:
            self.grid, self.prefix = _huggingface.layout(hidden.shape[1], side, self.model.config)
            self.config = replace(self.config, size=side)
        if self.config.pool == "token" and self.prefix == 0:
            raise ConfigError(
                f"{self.config.name or 'the model'} has no class token", "use pool auto or mean"
            )
        if self.config.freeze:
            self.requires_grad_(False)
        else:
            with torch.enable_grad():
                self.forward(black).sum().backward()  # type: ignore[no-untyped-call]
            for weight in self.parameters():
                weight.requires_grad_(weight.grad is not None)
                weight.grad = None
        self.train()


def build(config: Config) -> Pretrained:
    """The model with its weights, or, from `hf_config`, the same network with random ones.

    Its `config` has `hf_config`, `size`, `mean` and `std` filled in, which is what a saved model must keep.
    Raises `MissingExtra` without transformers and `ConfigError` where no such vision model can be had.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("pretrained", "the pretrained encoder") from error
    if not config.name and not config.hf_config:
        raise ConfigError("pretrained.name is empty", "name a folder or a model of the Hugging Face hub")
    with _huggingface.quiet(transformers):
        if config.hf_config:
            return _finish(_huggingface.from_json(transformers, config.hf_config), config)
        model, missing, says = _huggingface.from_folder_or_hub(transformers, config.name)
    folder = Path(config.name).expanduser()
    config = replace(
        config,
        # A saved model must not tell where on the disk its ancestor lay.
        name=folder.resolve().name if folder.is_dir() else config.name,
        size=config.size or _huggingface.side(says),
        mean=config.mean or tuple(says.get("image_mean") or ()),
        std=config.std or tuple(says.get("image_std") or ()),
    )
    encoder = _finish(model, config)
    lost = sorted(
        key
        for key, weight in encoder.model.named_parameters()
        if weight.requires_grad and any(key == gone or gone.endswith("." + key) for gone in missing)
    )
    if lost:
        raise ConfigError(f"{config.name} has no weights for {len(lost)} tensors, first {lost[0]}")
    return encoder


def _finish(model: nn.Module, config: Config) -> Pretrained:
    """The image side of the model as an encoder whose config can build it again."""
    image_side: Any = getattr(model, "vision_model", model)
    if not hasattr(image_side, "config"):
        image_side.config = getattr(model.config, "vision_config", model.config)
    if getattr(image_side, "main_input_name", "pixel_values") != "pixel_values":
        raise ConfigError(f"{config.name} is not a vision model", "it does not take pixels")
    for module in image_side.modules():
        if type(module) is nn.BatchNorm2d:
            # Ours adds only statistics over all ranks; weights and buffers stay where they are.
            module.__class__ = BatchNorm2d
    described = image_side.config.to_dict()
    described.pop("_name_or_path", None)
    size = config.size or described.get("image_size")
    channels = int(described.get("num_channels", 3))
    whole = replace(
        config,
        size=int(size) if isinstance(size, int) else None,
        mean=config.mean or (0.5,) * channels,
        std=config.std or (0.5,) * channels,
        hf_config=json.dumps(described, sort_keys=True),
    )
    try:
        return Pretrained(image_side, whole)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        # Models of every kind can be named; what they raise on a plain image is theirs to choose.
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{config.name or 'the model'} gives no features for an image: {reason}") from error


def _per_channel(name: str, values: tuple[float, ...], channels: int) -> Tensor:
    if len(values) not in (1, channels):
        raise ConfigError(f"pretrained.{name} has {len(values)} values", f"expected 1 or {channels}")
    return torch.tensor(values, dtype=torch.float32).expand(channels).clone().view(1, channels, 1, 1)
