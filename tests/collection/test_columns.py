"""A manifest's columns on their way into a collection, and any channels from end to end."""

from __future__ import annotations

import csv
import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.collection.conftest import TINY

from semblance.collection import columns
from semblance.collection.build import learn
from semblance.collection.checks import check_columns, said_of
from semblance.collection.store import Collection
from semblance.contracts import Column
from semblance.errors import ConfigError, InputError
from semblance.images.formats import PHOTO
from semblance.objectives.measure import Config


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """30 images in two folders, one of them unreadable, with every kind of column."""
    chance = np.random.default_rng(0)
    rows = []
    for i in range(30):
        path = f"{'ab'[i % 2]}/{i}.png"
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shade = np.clip(chance.normal(8 * i, 10, (9, 9, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(shade).save(tmp_path / path)
        rows.append(
            {
                "path": path,
                "z": "" if i % 5 == 0 else f"{i / 2}",
                "kind": "xyz"[i % 3] if i else "NA",
                "taken": f"2024-01-{i + 1:02d}T12:00:00Z",
                "thing": f"t{i // 3}",
            }
        )
    (tmp_path / "a/4.png").write_bytes(b"no image")
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "table.csv"


def test_columns_come_along(manifest: Path, tmp_path: Path) -> None:
    made = learn(manifest, tmp_path / "c.smb", objective="sme", **TINY)
    found = made.columns
    assert set(found) == {"z", "kind", "taken", "thing"}
    numbers = [int(Path(path).stem) for path in made.paths]
    assert 4 not in numbers
    for row, i in enumerate(numbers):
        z = found["z"].values[row]
        assert math.isnan(z) if i % 5 == 0 else z == i / 2
        when = datetime.datetime(2024, 1, i + 1, 12, tzinfo=datetime.timezone.utc)
        assert found["taken"].values[row] == when.timestamp()
        level = found["kind"].values[row]
        assert math.isnan(level) if i == 0 else found["kind"].levels[int(level)] == "xyz"[i % 3]
    Image.new("RGB", (9, 9), "red").save(tmp_path / "a/new.png")
    with manifest.open("a") as file:
        file.write("a/new.png,99,x,2025-01-01,t1\n")
    again = learn(manifest, tmp_path / "c.smb", objective="sme", **TINY)
    assert again.outcome.startswith("updated")
    assert again.columns["z"].values[list(again.paths).index("a/new.png")] == 99


def test_parquet_types(tmp_path: Path) -> None:
    day = datetime.date(1970, 1, 2)
    table = pa.table(
        {
            "path": ["a", "b"],
            "whole": pa.array([1, None], pa.int8()),
            "true": pa.array([True, None]),
            "day": pa.array([day, None]),
            "coded": pa.array(["u", "v"]).dictionary_encode(),
            "list": pa.array([[1], [2]]),
            "inf": [1.0, np.inf],
        }
    )
    found = columns.given_columns(table)
    assert set(found) == {"whole", "true", "day", "coded", "inf"}
    assert found["true"].levels == ("true",)
    assert found["day"].values[0] == 86400
    assert found["coded"].levels == ("u", "v")
    assert all(math.isnan(found[name].values[1]) for name in ("whole", "true", "day", "inf"))


def test_measure_learns_from_them(manifest: Path, tmp_path: Path) -> None:
    options = {"keep": "z", "drop": "kind", "holdout": 0.4}
    made = learn(manifest, tmp_path / "c.smb", objective="measure", objective_options=options, **TINY)
    assert made.columns["log_sum_0"].source == "measured"
    assert made.columns["angle_cos"].turns
    assert len(made.columns["area"].values) == 29
    terms = made.metrics()[-1]["terms"]
    assert set(terms) == {"keep", "drop"}
    checks = made.info["columns"]
    role = {one["name"]: one["role"] for one in checks["columns"]}
    assert (role["z"], role["kind"], role["taken"], role["mean_0"]) == ("keep", "drop", "show", "keep")
    assert Collection.open(made.path).columns["z"].values == pytest.approx(
        made.columns["z"].values, nan_ok=True
    )
    table = made.evaluate(labels=[str(i % 2) for i in range(29)], record=False)
    assert {"columns alone", "learned + columns"} <= set(table["rows"])


@pytest.mark.parametrize("what", ["folder", "column:thing", "time:taken"])
def test_positives(what: str, manifest: Path, tmp_path: Path) -> None:
    made = learn(manifest, tmp_path / "c.smb", objective="sme", positives=what, **TINY)
    assert made.info["config"]["positives"] == what


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("column:none", 'no column "none"'),
        ("time:kind", "no times"),
        ("colour", "positives is"),
        ("column:taken", "no image has another"),
    ],
)
def test_bad_positives_say_why(what: str, words: str, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        learn(manifest, tmp_path / "c.smb", positives=what, **TINY)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": "nope"}, 'keep names "nope", which is no column'),
        ({"keep": "gone"}, 'keep names "gone", which is empty: nothing to predict'),
        ({"drop": "same"}, 'drop names "same", which holds the same for every image'),
        ({"keep": "z", "drop": "z"}, "both kept and dropped"),
        ({"ignore": "*"}, "every column is ignored or only shown"),
    ],
)
@pytest.mark.parametrize("name", ["measure", "sme+measure"])
def test_bad_roles_are_told_before_anything_is_decoded(
    name: str, options: dict[str, str], words: str, manifest: Path, tmp_path: Path
) -> None:
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "gone", "same"])
        writer.writeheader()
        writer.writerows({**row, "gone": "", "same": 3} for row in rows)
    stages: list[str] = []
    before = "measure." if "+" in name else ""
    asked = {f"{before}{role}": names for role, names in options.items()}
    with pytest.raises(ConfigError, match=words):
        learn(
            manifest, tmp_path / "c.smb", objective=name, objective_options=asked, **TINY,
            progress=lambda stage, done, total: stages.append(stage),
        )  # fmt: skip
    assert not stages


def test_columns_with_holes_are_learned_from_what_is_there(manifest: Path, tmp_path: Path) -> None:
    """`z` is missing in every fifth row, `file` columns have names that are measured on files."""
    options = {"keep": "z", "ignore": "aspect,bytes"}
    made = learn(manifest, tmp_path / "c.smb", objective="measure", objective_options=options, **TINY)
    assert np.isnan(made.columns["z"].values).any()
    assert np.isfinite(made.embeddings).all()
    assert math.isfinite(made.metrics()[-1]["loss"])


def test_warnings_are_said() -> None:
    n = 200
    batch = np.arange(n) // 50 * 1.0
    rows = np.eye(4)[batch.astype(int)] + 0.01 * np.random.default_rng(0).normal(size=(n, 4))
    given = {"batch": Column(batch, tuple("abcd"))}
    paths = [f"{'abcd'[int(b)]}/{i}" for i, b in enumerate(batch)]
    lines = said_of(check_columns(Config(drop="batch"), given, rows, paths))
    assert any("still explained" in line for line in lines)
    assert any("alone explains 1" in line or "alone explains 9" in line for line in lines)
    twins = given | {"copy": given["batch"], "again": given["batch"]}
    several = said_of(check_columns(Config(), twins, rows, paths))
    assert [line for line in several if "alone explains" in line] == [
        'warning: "batch" alone explains 100% of the embedding (2 more explain above half of it)'
    ]
    lines = said_of(check_columns(Config(), given, rows, paths))
    assert any("given away by the folder" in line and "--objective.drop" in line for line in lines)
    assert said_of(check_columns(object(), given, rows, paths)) == []


@pytest.mark.parametrize(("c", "form"), [(1, "npy"), (5, "npy"), (12, "array"), (4, "bytes")])
def test_any_channels_from_end_to_end(c: int, form: str, tmp_path: Path) -> None:
    """Learned, searched, embedded again, shown and exported."""
    chance = np.random.default_rng(0)
    images: Any = np.abs(chance.normal(0, 1, (24, 12, 12, c)) * 10 ** chance.uniform(0, 3, (24, 1, 1, 1)))
    images = images.clip(0, 255).astype(np.uint8) if form == "bytes" else images.astype(np.float32)
    source = images
    if form == "npy":
        source = tmp_path / "in"
        source.mkdir()
        for i, image in enumerate(images):
            np.save(source / f"{i:02d}.npy", image)
        Image.new("RGB", (8, 8)).save(source / "other.png")
    made = learn(source, tmp_path / "c.smb", objective="sme+measure", **TINY)
    assert made.pixels.shape[3] == c
    assert made.info["counts"]["unreadable"] == (form == "npy")
    assert made.model.facts["encoder"]["config"]["channels"] == c
    assert made.model.pixels == made.format
    assert f"{c} channel" in (made.path / "model" / "card.md").read_text()
    np.testing.assert_allclose(made.embed(images), made.embeddings, atol=2e-3)
    np.testing.assert_allclose(made.embed(images[3]), made.embeddings[3:4], atol=2e-3)
    assert made.search(source / "03.npy" if form == "npy" else images[3], k=2).ids[0, 0] == 3
    with pytest.raises(InputError, match=r"images of this collection|channels|cannot be used"):
        made.embed(np.zeros((2, 8, 8, c + 1), np.float32))
    made.evaluate(labels=[str(i % 2) for i in range(24)], record=False)
    made.export_onnx(tmp_path / "m.onnx")


def test_other_channels_than_the_encoder_takes(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((8, 40, 40, 5)).astype(np.float32)
    with pytest.raises(ConfigError, match="takes 3 channels, the images have 5"):
        learn(images, tmp_path / "c.smb", **{**TINY, "encoder": "googlenet", "encoder_options": {}})


def test_sixteen_bit_pngs_are_kept_or_made_photos(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for i in range(6):
        wide = chance.integers(0, 65536, (10, 10)).astype(np.uint16)
        Image.fromarray(wide).save(folder / f"{i}.png")
    made = learn(folder, tmp_path / "c.smb", objective="sme", **TINY)
    assert (made.pixels.shape[3], made.pixels.dtype) == (1, np.uint16)
    plain = learn(folder, tmp_path / "p.smb", objective="sme", pixels="photo", **TINY)
    assert (plain.pixels.shape[3], plain.pixels.dtype) == (3, np.uint8)
    with pytest.raises(ConfigError, match="pixels is"):
        learn(folder, tmp_path / "q.smb", pixels="grey", **TINY)


def test_table_is_written_as_given(manifest: Path, tmp_path: Path) -> None:
    made = learn(manifest, tmp_path / "c.smb", objective="sme", **TINY)
    table = pq.read_table(made.path / columns.GIVEN)
    assert table.num_rows == 29
    assert table.column_names == ["z", "kind", "taken", "thing"]


def test_measurements_of_other_images_are_taken_again(pair: tuple[Path, Path]) -> None:
    """As many images, but not the same: what an earlier, stopped build measured is of no use."""
    folder = pair[1]
    pixels = np.array(Collection.open(folder).pixels)
    before = columns.all_columns(folder, pixels, PHOTO)
    assert columns.all_columns(folder, np.zeros_like(pixels), PHOTO)["mean_0"].values.any(), "kept"
    table = pq.read_table(folder / "images.parquet")
    hashes = pc.replace_substring(table["hash"], table["hash"][0].as_py(), "0" * 16)
    table = table.set_column(table.column_names.index("hash"), "hash", hashes)
    pq.write_table(table, folder / "images.parquet")
    pixels[0] = 255 - pixels[0]
    after = columns.all_columns(folder, pixels, PHOTO)
    moved = before["mean_0"].values != after["mean_0"].values
    assert moved.nonzero()[0].tolist() == [0]


def test_columns_come_in_the_same_order_whoever_measured(manifest: Path, tmp_path: Path) -> None:
    """Heads go by their order: a build that goes on reads what the one that was stopped measured."""
    folder = learn(manifest, tmp_path / "c.smb", objective="sme", **TINY).path
    assert not (folder / columns.MEASURED).exists()
    pixels = Collection.open(folder).pixels
    fresh = columns.all_columns(folder, pixels, PHOTO)
    again = columns.all_columns(folder, pixels, PHOTO)
    assert (folder / columns.MEASURED).is_file()
    assert list(fresh) == list(again)
    assert list(fresh)[:4] == ["z", "kind", "taken", "thing"]


def test_a_frozen_encoder_predicts_no_measurements(pair: tuple[Path, Path]) -> None:
    photos, first = pair
    made = learn(photos, photos.parent / "head.smb", start_from=first, freeze=True, epochs=1, device="cpu")
    assert not (made.path / columns.MEASURED).exists()
    assert "measured" in Collection.open(first).metrics()[0]["terms"]
    assert "measured" not in made.metrics()[0]["terms"]
