"""What was asked for (`Options`) and what that comes to for these images (`Settings`).

An option left at None was not asked for: a new collection takes the default, an existing one keeps what
it has. That is how `semblance run photos/` updates a collection that was made with other options.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semblance import plugins
from semblance.collection.begin import Beginning, beginning
from semblance.collection.labelled import Lesson, lesson_for
from semblance.collection.model import plain, view_size
from semblance.encoders._sizing import choose
from semblance.errors import ConfigError
from semblance.images.decode import Fit
from semblance.images.formats import PHOTO, PixelFormat
from semblance.images.sources import Source
from semblance.images.views_presets import PRESETS, Views
from semblance.training.config import TrainConfig, choose_device

__all__ = ["Options", "Settings", "choose_epochs", "read_fields", "resolve", "setting_of", "with_manifest"]

OWN = ("epochs", "budget", "seed", "device", "precision", "views")
"""Fields of `TrainConfig` that are options of their own, not training options."""


@dataclass(frozen=True)
class Options:
    """What a person may ask for; None = not asked.

    `objective`, `encoder`, `views`: names, with `..._options` for each; values may be strings. `setting`: a
    published training setting of the objective (its `SETTINGS`), taken as default for everything. `weights`:
    a safetensors file that the encoder starts from. `start_from`: a collection whose model (encoder, and head
    where it fits) is continued. `freeze`: only the head learns. `budget`: seconds. `batch`, `epochs`, `size`
    (pixels), `fit` (squash or crop), `seed`. `pixels`: auto, or photo to make 8-bit RGB of whatever can be.
    `positives`: what the second view shows: view (the image itself), folder or column:NAME (another of the
    same), time:NAME (the one before or after in its folder). `labels`, `column`: for an objective that learns
    from them, as `evaluate` takes them. `training_options`: fields of `TrainConfig`.
    `where`: rows of a manifest. `overwrite`: replace a collection made from other options. `device`,
    `threads` do not change what is made; `precision`: auto, 32 or bf16, of the training and of embeddings.
    """

    objective: str | None = None
    objective_options: Mapping[str, Any] = field(default_factory=dict)
    encoder: str | None = None
    encoder_options: Mapping[str, Any] = field(default_factory=dict)
    views: str | None = None
    views_options: Mapping[str, Any] = field(default_factory=dict)
    training_options: Mapping[str, Any] = field(default_factory=dict)
    setting: str | None = None
    weights: str | Path | None = None
    start_from: str | Path | None = None
    freeze: bool = False
    epochs: int | None = None
    budget: float | None = None
    batch: int | None = None
    size: int | None = None
    fit: str | None = None
    positives: str | None = None
    labels: Any = None
    column: str | None = None
    pixels: str | None = None
    seed: int | None = None
    where: Mapping[str, Any] | None = None
    overwrite: bool = False
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Options:
        """Options from keyword arguments. Raises `ConfigError` for an unknown one, naming the nearest."""
        known = [one.name for one in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
                raise ConfigError(f'there is no option "{name}"', f"known: {', '.join(near)}")
        optional = {"objective_options", "encoder_options", "views_options", "training_options"}
        return cls(
            **{name: {} if name in optional and value is None else value for name, value in values.items()}
        )


@dataclass(frozen=True)
class Settings:
    """Everything that decides what comes out, for one set of images; `record()` is what is compared.

    `views` "auto" is decided when the images are decoded. `reason` says why this encoder and size.
    """

    objective: str
    objective_config: Any
    encoder: str
    encoder_config: Any
    size: int
    fit: Fit
    views: str
    views_options: Mapping[str, Any]
    training: TrainConfig
    begin: Beginning | None
    freeze: bool
    where: Mapping[str, Any] | None
    reason: str
    device: str = "auto"
    pixels: PixelFormat = PHOTO
    positives: str = "view"
    lesson: Lesson | None = None

    def record(self) -> dict[str, Any]:
        """The settings as JSON; equal records give equal collections."""
        training = {
            key: value for key, value in plain(self.training).items() if key not in ("device", "views")
        }
        record: dict[str, Any] = plain(
            {
                "objective": {"name": self.objective, "config": self.objective_config},
                "resolved": _resolved(self.objective_config),
                "encoder": {"name": self.encoder, "config": self.encoder_config, "reason": self.reason},
                "size": self.size,
                "fit": self.fit,
                "pixels": self.pixels,
                "positives": self.positives,
                "labels": None if self.lesson is None else self.lesson.said,
                "views": {"name": self.views, "options": self.views_options},
                "training": training,
                "weights": None if self.begin is None else self.begin.hash,
                "freeze": self.freeze,
                "where": self.where,
            }
        )
        return record

    def train_config(self, views: Views) -> TrainConfig:
        """What the training is given."""
        return dataclasses.replace(self.training, views=views)

    def views_for(self, sample_preset: str) -> tuple[str, Views]:
        """The preset's name and the views to draw; `sample_preset` is what "auto" becomes."""
        name = sample_preset if self.views == "auto" else self.views
        views: Views = read_fields("views", PRESETS[name], self.views_options)
        if views.crop is not None:  # whole pixels: nothing is interpolated where nothing is scaled
            views = dataclasses.replace(views, crop=view_size(self.size, views.crop) / self.size)
        return name, views


def resolve(options: Options, images: int, side: int, pixels: PixelFormat = PHOTO) -> Settings:
    """The settings for a collection of `images` images, `pixels` each, whose median short side is `side`.

    Raises `ConfigError` for an option that is unknown, of the wrong type or contradicts another.
    """
    objective = options.objective or "cbswr"
    begin = beginning(options.weights, options.start_from, options.encoder, options.encoder_options)
    pixels = begin.settings["pixels"] if begin and begin.continues else pixels
    base = {**setting_of(objective, options.setting), **(begin.settings if begin else {})}
    aim = plugins.configure(
        "objectives", objective, {**base.get("objective_options", {}), **options.objective_options}
    )
    device = choose_device(options.device).type
    wanted = options.encoder if options.encoder not in (None, "auto") else base.get("encoder")
    asked_size = options.size or base.get("size")
    choice = None if wanted and asked_size else choose(images, side, device)
    size = plugins.read("size", asked_size or (choice.size if choice else None), int)
    if size < 8:
        raise ConfigError(f"size is {size}", "at least 8 pixels")
    fit = plugins.read("fit", options.fit or base.get("fit") or "squash", Fit)
    views = options.views or base.get("views") or "auto"
    if views != "auto" and views not in PRESETS:
        near = difflib.get_close_matches(views, PRESETS, n=3, cutoff=0.5) or sorted(PRESETS)
        raise ConfigError(f'no views are called "{views}"', f"known: auto, {', '.join(near)}")
    read_fields("views", PRESETS["photo" if views == "auto" else views], options.views_options)
    name, given = wanted or "resnet", {**base.get("encoder_options", {}), **options.encoder_options}
    reason = "as asked for"
    if not wanted and choice:
        name, given, reason = choice.encoder, {**choice.options, **given}, choice.reason
    if options.freeze and begin is None and name != "pretrained":
        raise ConfigError(
            "--freeze would keep an encoder that has learned nothing",
            "begin with --from a collection, --weights, or --encoder pretrained",
        )
    gentle = {} if options.freeze else _gentle(name, begin, options.training_options)
    return Settings(
        objective=objective,
        objective_config=aim,
        encoder=name,
        encoder_config=_encoder_config(name, given, size, pixels),
        size=size,
        fit=fit,
        views=views,
        views_options=dict(options.views_options),
        training=_training(options, {**gentle, **base.get("training", {})}, images),
        begin=begin,
        freeze=options.freeze,
        where=options.where,
        reason=reason,
        device=options.device,
        pixels=pixels,
        positives=_positives(options.positives or "view"),
        lesson=lesson_for(objective, options.labels, options.column),
    )


def with_manifest(options: Options, source: Any, found: Source) -> Options:
    """The options, with the manifest that the images come from as table where a column alone was named."""
    if options.column is None or options.labels is not None or found.kind != "manifest":
        return options
    return dataclasses.replace(options, labels=source)


def choose_epochs(images: int) -> int:
    """How often to see every image: 20 times, small collections more often, at most 100 times.

    >>> [choose_epochs(n) for n in (60, 1_797, 10_000)]
    [100, 20, 20]
    """
    return max(20, min(100, 36_000 // max(images, 1)))


def read_fields(where: str, base: Any, options: Mapping[str, Any]) -> Any:
    """The dataclass instance `base` with `options` set; strings are read as the field's type.

    Raises `ConfigError` for an unknown key (naming the nearest) or a value of the wrong type.
    """
    hints = typing.get_type_hints(type(base))
    values = {}
    for key, value in options.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=3, cutoff=0.5) or sorted(hints)
            raise ConfigError(f'{where} has no option "{key}"', f"known: {', '.join(near)}")
        values[key] = plugins.read(f"{where}.{key}", value, hints[key])
    return dataclasses.replace(base, **values)


def setting_of(objective: str, name: str | None) -> dict[str, Any]:
    """What a published setting of an objective stands for. Raises `ConfigError` for one that it has not."""
    if name is None:
        return {}
    known: dict[str, dict[str, Any]] = getattr(plugins.get("objectives", objective), "SETTINGS", {})
    if name not in known:
        raise ConfigError(f'{objective} has no setting "{name}"', f"known: {', '.join(known) or 'none'}")
    return known[name]


def _positives(wanted: str) -> str:
    kind, _, name = wanted.partition(":")
    if (kind in ("view", "folder") and not name) or (kind in ("column", "time") and name):
        return wanted
    raise ConfigError(f'positives is "{wanted}"', "view, folder, column:NAME or time:NAME")


def _encoder_config(name: str, given: Mapping[str, Any], size: int, pixels: PixelFormat) -> Any:
    fields = {one.name for one in dataclasses.fields(plugins.get("encoders", name).Config)}
    # An encoder that is shaped by its input is told the size; one that has a size of its own keeps it.
    known = {"size": size} if "size" in fields and "size" not in given and name == "resnet" else {}
    if "channels" in fields and not pixels.photo:
        known["channels"] = pixels.channels
    return plugins.configure("encoders", name, {**known, **given})


def _gentle(encoder: str, begin: Beginning | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder that has learned something already is not thrown about: AdamW at a smaller learning rate,
    unless another optimiser is asked for, which has a rate of its own."""
    learned = encoder == "pretrained" or begin is not None
    free = asked.get("optimiser", "adamw") == "adamw"
    return {"optimiser": "adamw", "lr": 3e-4} if learned and free else {}


def _training(options: Options, base: Mapping[str, Any], images: int) -> TrainConfig:
    for key in options.training_options:
        if key in OWN:
            raise ConfigError(f"training.{key} is an option of its own", f"give {key} instead")
    given: dict[str, Any] = {"epochs": choose_epochs(images), **base, **options.training_options}
    for name in ("epochs", "budget", "batch", "seed", "device", "precision"):
        value = getattr(options, name)
        if value is not None:
            given[name] = value
    config: TrainConfig = read_fields("training", TrainConfig(), given)
    return config


def _resolved(config: Any) -> Any:
    """What a variant sets where nothing else was asked for, of a sum's parts too: it may change from one
    version to the next."""
    if hasattr(config, "resolved"):
        return config.resolved()
    parts = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        name: found
        for name, part in parts.items()
        if dataclasses.is_dataclass(part) and (found := _resolved(part))
    }
