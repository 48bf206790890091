"""Evaluation: the four rows, from every form of labels, and where the result is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semblance.collection.evaluate import read_labels, rows_of
from semblance.collection.model import build_encoder
from semblance.collection.store import Collection
from semblance.encoders import resnet
from semblance.errors import ConfigError, InputError
from semblance.objectives._levels import principal


def recall_at_1(rows: Any, labels: list[str]) -> float:
    """By a plain loop over all pairs."""
    rows = np.asarray(rows, np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    right, asked = 0, 0
    for i, row in enumerate(rows):
        if labels.count(labels[i]) < 2:
            continue
        distances = ((rows - row) ** 2).sum(1)
        distances[i] = np.inf
        right += labels[int(distances.argmin())] == labels[i]
        asked += 1
    return right / asked


def test_rows_and_scores(pair: tuple[Path, Path]) -> None:
    _, out = pair
    collection = Collection.open(out)
    table = collection.evaluate()
    labels = [Path(path).parent.name for path in collection.paths]
    rows = rows_of(collection)
    assert list(table["rows"]) == [
        "raw pixels",
        "whitened pixels",
        "untrained encoder",
        "frozen start",
        "learned",
    ]
    for name, embeddings in rows.items():
        assert table["rows"][name]["recall@1"] == pytest.approx(recall_at_1(embeddings, labels))
    assert rows["frozen start"] is rows["untrained encoder"]
    assert (rows["learned"] == collection.embeddings).all()
    assert table["column"] == "folder"
    assert Collection.open(out).info["evaluation"] == table
    assert collection.evaluate(record=False) == table


def test_the_untrained_row_is_the_encoder_before_training(built: Path) -> None:
    collection = Collection.open(built)
    described = collection.model.facts["encoder"]["config"]
    config = resnet.Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in described.items()})
    encoder = build_encoder("resnet", config, 0).eval()
    every = torch.from_numpy(np.array(collection.pixels)).permute(0, 3, 1, 2).float() / 255
    encoder.look_at(every)
    start = collection.model.start_weights()
    assert all((value == start[name]).all() for name, value in encoder.state_dict().items())
    with torch.no_grad():
        levels = encoder.levels(every)
    head = principal(levels, encoder.level_dims, collection.model.dim)
    assert head is not None
    wanted = head(levels).detach().numpy()
    found = rows_of(collection)["untrained encoder"]  # axes of nearly equal spreads are anybody's
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-3)


def test_every_form_of_labels(built: Path, tmp_path: Path) -> None:
    collection = Collection.open(built)
    labels = [Path(path).parent.name for path in collection.paths]
    by_path = dict(zip(collection.paths, labels, strict=True))
    lines = [f"{path},{label},x" for path, label in sorted(by_path.items(), reverse=True)]
    (tmp_path / "two.csv").write_text("\n".join(["path,digit,other", *lines]))
    (tmp_path / "one.csv").write_text("\n".join(["path,digit", *(line[:-2] for line in lines)]))
    wanted = collection.evaluate(record=False)["rows"]
    forms: list[tuple[Any, str | None]] = [
        (labels, None), (by_path, None), (tmp_path / "two.csv", "digit"), (tmp_path / "one.csv", None),
    ]  # fmt: skip
    for form, column in forms:
        assert collection.evaluate(form, column, record=False)["rows"] == wanted
        assert read_labels(collection, form, column) == by_path
    assert Collection.open(built).info["evaluation"] is None


def test_labels_that_do_not_fit(built: Path, tmp_path: Path) -> None:
    collection = Collection.open(built)
    table = tmp_path / "two.csv"
    table.write_text("path,digit,other\nx.png,1,2\n")
    with pytest.raises(ConfigError, match="several columns"):
        collection.evaluate(table)
    with pytest.raises(ConfigError, match="no column"):
        collection.evaluate(table, "digits")
    with pytest.raises(InputError, match="no image of the collection"):
        collection.evaluate(table, "digit")
    with pytest.raises(InputError, match="3 labels for 60"):
        collection.evaluate(["a", "b", "c"])
    with pytest.raises(InputError, match="none of the labels"):
        collection.evaluate({"x": 1})
    with pytest.raises(InputError, match="cannot be read"):
        collection.evaluate(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match="without a table"):
        collection.evaluate(None, "digit")
