"""The model card: what the model is and what was measured, for people, with front matter for hubs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semblance.images.formats import PixelFormat

__all__ = ["card"]


def card(facts: Mapping[str, Any]) -> str:
    """Markdown with YAML front matter, written from `model.json` alone; nothing that was not measured."""
    encoder, objective, data = facts["encoder"], facts["objective"], facts["data"]
    training, head = facts["training"], facts["head"]
    read = ", read off all levels of the encoder" if head.get("levels") else ""
    config = encoder["config"]
    shape = ", ".join(f"{key} {config[key]}" for key in ("depth", "width", "stem") if key in config)
    shown = f" ({shape})" if shape else ""
    version = facts["versions"]["semblance"]
    resize = (
        "squashed to a square" if facts["fit"] == "squash" else "scaled by the short side and centre-cropped"
    )
    pixels = PixelFormat.read(facts.get("pixels")).described
    lines = [
        "---",
        "library_name: semblance",
        "pipeline_tag: image-feature-extraction",
        f"tags: [image-similarity, {_kind(training)}, metric-learning]",
        "---",
        "",
        f"# Image embedding by {objective['name']} ({encoder['name']})",
        "",
        f"Learned {_taught(training)} on {data['images']:,} images with Semblance {version}.",
        "",
        "| | |",
        "| --- | --- |",
        f"| encoder | {encoder['name']}{shown}, {encoder['parameters']:,} parameters |",
        f"| embedding | {head['outside']} numbers, length 1{read} |",
        f"| input | {pixels}, {facts['size']} x {facts['size']} pixels, {resize} |",
        f"| objective | {objective['name']}: {_pairs(objective['config'])} |",
        f"| training | {_training(training)} |",
        f"| started from | {training['start']} |",
        f"| images | hash {data['hash']} |",
        "",
        "## What was measured",
        "",
        *_measured(training),
        "",
        "## Limits",
        "",
        "It was fitted to the images above and knows nothing else: measure before use on other kinds.",
        "Near means alike to this network under the views of the training, not of the same kind to a person.",
        "How well neighbours agree with labels is not part of this card; `semblance evaluate` measures it.",
        "",
        "## Use",
        "",
        "```python",
        "import semblance",
        "",
        'model = semblance.load("model folder or collection")',
        'model.embed(["a.jpg", "b.jpg"])  # (2, ' + str(head["outside"]) + ") float32",
        "```",
        "",
    ]
    return "\n".join(lines)


def _taught(training: Mapping[str, Any]) -> str:
    labels = training.get("labels")
    return f"from labels, {labels}," if labels else "without labels"


def _kind(training: Mapping[str, Any]) -> str:
    return "supervised" if training.get("labels") else "self-supervised"


def _training(training: Mapping[str, Any]) -> str:
    config = training["config"]
    frozen = ", the head alone: the encoder is as it was" if training.get("freeze") else ""
    return (
        f"{training['epochs']} epochs, batch {config['batch']}, {config['optimiser']}, "
        f"views {training['views']}, seed {config['seed']}{frozen}"
    )


def _measured(training: Mapping[str, Any]) -> list[str]:
    """The last epoch's loss and signs of health, as the training wrote them down."""
    last = training.get("last")
    if not last:
        return ["Nothing: it was not trained."]
    health = {key: value for key, value in last["health"].items() if isinstance(value, float)}
    rows = [("loss", last["loss"]), *sorted(health.items())]
    return [
        f"After epoch {last['epoch']}, on the training images, of the head that it was trained with:",
        "",
        "| | |",
        "| --- | --- |",
        *[f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in rows if value is not None],
    ]


def _pairs(config: Mapping[str, Any]) -> str:
    shown = [
        f"{key} ({_pairs(value)})" if isinstance(value, Mapping) else f"{key} {value}"
        for key, value in config.items()
        if value is not None
    ]
    return ", ".join(shown) or "defaults"
