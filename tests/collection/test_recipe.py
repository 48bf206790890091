"""Recipes: what a file says, which images learn and are scored, what a run adds to the results."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from semblance.collection import bench, build, results
from semblance.collection.pick import natural, pick
from semblance.collection.recipe import Data, read_recipe
from semblance.collection.settings import resolve
from semblance.collection.store import Collection
from semblance.encoders import googlenet
from semblance.errors import CollectionError, ConfigError, InputError

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
LINES = """
size = 16
epochs = 1
batch = 16
device = "cpu"
precision = "32"

[objective]
name = "sme"
dim = 16

[encoder]
name = "resnet"
depth = 10
width = 4
"""
HELD = "\n[data]\nheld_out = 0.4\n"
SPLIT = (
    '\n[data]\ntrain = { split = "a" }\nscore = { split = "b" }\n[protocol]\nname = "knn"\nneighbours = 5\n'
)


def write(place: Path, text: str, name: str = "mine.toml") -> Path:
    (place / name).write_text(text, encoding="utf-8")
    return place / name


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """48 images of 4 classes in two folders, `a` and `b`, told apart by their colour."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for i in range(48):
        path = folder / "ab"[i // 24] / str(i % 4 * 5) / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (
            np.full((12, 12, 3), 40)
            + 50 * np.array([i % 2, i % 4 // 2, 1])
            + rng.integers(0, 60, (12, 12, 3))
        )
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def tabled(photos: Path, header: str = "path,class,fold") -> list[list[str]]:
    """A label table beside the images, in a shuffled order."""
    rows = [
        [path.relative_to(photos).as_posix(), path.parent.name, path.parts[-3]]
        for path in photos.rglob("*.png")
    ]
    random.Random(0).shuffle(rows)
    with (photos / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return rows


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_its_command_its_time_and_what_to_expect(path: Path) -> None:
    recipe = read_recipe(path)
    text = path.read_text(encoding="utf-8")
    comment = text[: text.index("\n\n")]
    assert all(line.startswith("#") for line in comment.splitlines())
    assert f"semblance bench recipes/{path.name}" in comment
    assert "Time:" in comment
    assert re.search(r"Expected(: not measured here|, per cent.*: .*\d)", comment)
    assert recipe.name == path.stem
    assert recipe.data.folder.startswith(".data/")
    assert recipe.options.objective is not None
    assert recipe.options.weights is None or recipe.get.weights


def test_what_to_expect_is_what_was_measured() -> None:
    measured = results.read_results(RECIPES[0].parents[1] / "docs" / "results" / "recipes.jsonl")
    last = {row["recipe"]: row["hash"] for row in measured}
    assert set(last) == {path.stem for path in RECIPES} - set(PAPERS)
    for name, one in last.items():
        rows = [row["rows"]["learned"] for row in measured if row["hash"] == one]
        metrics = ["recall@1", "map@r"] if "recall@1" in rows[0] else [list(rows[0])[-1]]
        text = (RECIPES[0].parent / f"{name}.toml").read_text(encoding="utf-8")
        for metric in metrics:
            mean = 100 * sum(row[metric] for row in rows) / len(rows)
            assert f" {mean:.1f}" in text[: text.index("\n\n")], (name, metric, mean)


PLAIN = {"optimiser": "sgd", "lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0, "epochs": 30, "batch": 64}
SEEN = {"optimiser": "sgd", "lr": 0.03, "momentum": 0.9, "weight_decay": 5e-4, "epochs": 301, "batch": 128}
PAPERS: dict[str, dict[str, Any]] = {
    "cbswr-cub200": PLAIN,
    "cbswr-cars196": PLAIN,
    "sme-cifar10": SEEN,
    "sme-stl10": SEEN,
    "stml-cub200": {"optimiser": "adamw", "lr": 1e-4, "weight_decay": 1e-2, "epochs": 90, "batch": 120},
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_settings(name: str) -> None:
    """What the papers and their code say, written down here once more."""
    recipe = read_recipe(next(path for path in RECIPES if path.stem == name))
    options = recipe.options
    settings = resolve(options if options.weights is None else _without_weights(options), 5_864, 256)
    got = {key: getattr(settings.training, key) for key in PAPERS[name]}
    assert got == PAPERS[name]
    assert settings.training.warmup == 0
    assert settings.objective_config.dim == 128
    views = settings.views_for("photo")[1]
    if name.startswith("cbswr"):
        aim = settings.objective_config.resolved()
        assert (settings.encoder, settings.size, views.crop, views.flip) == ("googlenet", 256, 0.875, 0.75)
        assert (aim.variant, aim.clusters, aim.tau) == ("released", 32, 0.1)
        assert aim.partner == (0.5 if "cub" in name else 0.0)
        assert settings.training.schedule == "constant"
        assert recipe.data.train_classes == 0.5
    elif name.startswith("sme"):
        assert settings.encoder_config.stem_for_size() == "32"
        assert (settings.encoder_config.depth, settings.encoder_config.width) == (18, 64)
        assert settings.size == (32 if "cifar" in name else 96)
        assert (views.scale, views.grey, views.flip, views.jitter) == ((0.2, 1.0), 0.2, 0.5, 1.0)
        assert (views.brightness, views.contrast, views.saturation, views.hue) == (0.4,) * 4
        assert settings.training.milestones == (120, 160, 200)
        assert settings.training.factors == (0.1, 0.05, 0.01)
        assert (recipe.protocol.name, recipe.protocol.neighbours, recipe.protocol.temperature) == (
            "knn",
            200,
            0.1,
        )
    else:
        aim = settings.objective_config
        assert (aim.neighbours, aim.sigma, aim.delta, aim.momentum, aim.background) == (
            5,
            3.0,
            1.0,
            0.999,
            1024,
        )
        assert (views.scale, views.flip, views.jitter, views.grey) == ((0.16, 1.0), 0.5, 0.0, 0.0)
        assert (settings.encoder, settings.size, settings.training.schedule) == ("googlenet", 227, "cosine")


def _without_weights(options: Any) -> Any:
    return dataclasses.replace(options, weights=None)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("epoch = 3", r'mine.toml: there is no option "epoch".*epochs'),
        ("[objectve]\nname = 'sme'", r'"objectve".*objective'),
        ("[objective]\nname = 'smee'", r"smee.*sme"),
        ("[objective]\nname = 'sme'\ntua = 0.1", r'sme has no option "tua".*tau'),
        ("[objective]\nname = 3", r"objective.name is 3.*text"),
        ("[encoder]\nname = 'resnet'\nwidth = 'wide'", r"resnet.width.*whole number"),
        ("[training]\nlearning = 1", r'training has no option "learning"'),
        ("[training]\nepochs = 1", r"option of its own"),
        ("training = 3", r"training is 3.*table"),
        ("epochs = 'many'", r"epochs is 'many'.*whole number"),
        ("epochs = [1, 2]", r"epochs is .*one value"),
        ("freeze = 'perhaps'", r"freeze is 'perhaps'.*true or false"),
        ("device = 3", r"device is 3.*text"),
        ("weights = ''", r"weights must not be empty"),
        ("seed = 1", r'does not take "seed".*--seeds'),
        ("column = 'class'", r"does not take"),
        ("[views]\nname = 'photos'", r"photo"),
        ("[data]\nheld_out = 0.5\ncolum = 'x'", r'data has no option "colum".*column'),
        ("[data]\nheld_out = 1.5", r"held_out is 1.5"),
        ("[data]\nheld_out = 0.5\nimages = 1", r"images is 1"),
        ("[data]\ntrain = { split = 'x' }", r"in one way"),
        ("[data]\nheld_out = 0.5\ntrain_classes = 0.5", r"in one way"),
        ("epochs = 2", r"in one way"),
        ("[data]\nscore = 'test'", r"data.score is 'test'.*column"),
        ("[data]\nscore = { split = [['x']] }", r"data.score has the value"),
        ("data = 3", r"data is 3.*table"),
        ("[data]\nheld_out = 0.5\n[protocol]\nname = 'retreival'", r"retreival.*retrieval"),
        ("[data]\nheld_out = 0.5\n[protocol]\nneighbours = 0", r"neighbours >= 1"),
        ("[data]\nheld_out = 0.5\n[get]\ndate = 'x'", r'get has no option "date".*data'),
    ],
)
def test_what_a_recipe_may_not_say(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){wanted}") as raised:
        read_recipe(write(tmp_path, text))
    assert str(raised.value).startswith("mine.toml: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_recipe(tmp_path: Path) -> None:
    write(tmp_path, HELD)
    with pytest.raises(InputError, match=r"no recipe .*main.toml.*mine.toml"):
        read_recipe(tmp_path / "main.toml")
    with pytest.raises(InputError, match="cannot be read as TOML"):
        read_recipe(write(tmp_path, "a = = b", "other.toml"))


def test_what_the_line_says_comes_first(tmp_path: Path) -> None:
    changes = {"epochs": 7, "size": None, "encoder_options": {"width": "8"}, "views_options": {"flip": "0"}}
    options = read_recipe(write(tmp_path, LINES + HELD), changes).options
    assert (options.epochs, options.size, options.batch) == (7, 16, 16)
    assert options.encoder_options == {"depth": 10, "width": "8"}
    assert options.views_options == {"flip": "0"}
    with pytest.raises(ConfigError, match=r"widht.*width"):
        read_recipe(tmp_path / "mine.toml", {"encoder_options": {"widht": "8"}})


def test_names_in_natural_order() -> None:
    names = ["1", "2", "9", "10", "100", "001.a", "2.b", "b2", "b10"]
    shuffled = random.Random(1).sample(names, len(names))
    assert sorted(shuffled, key=natural) == ["1", "001.a", "2", "2.b", "9", "10", "100", "b2", "b10"]


def paths_of(found: Any, rows: tuple[int, ...]) -> set[str]:
    paths = found.table["path"].to_pylist()
    return {paths[row] for row in rows}


def test_classes_of_folders_are_shared_out(photos: Path) -> None:
    found = pick(Data(train_classes=0.5), photos)
    assert set(found.labels(found.train)) == {"0", "5"}  # "10" and "15" come after them
    assert set(found.labels(found.score)) == {"10", "15"}
    assert (len(found.train), len(found.score), found.seen()) == (24, 24, 0)
    assert all(Path(file).is_file() for file in found.files(found.score))


def test_rows_of_a_table(photos: Path) -> None:
    tabled(photos)
    found = pick(Data(train={"fold": ("a",)}, score={"fold": ("b",), "class": ("0", "15")}), photos)
    assert all(path.startswith("a/") for path in paths_of(found, found.train))
    assert {path.split("/")[1] for path in paths_of(found, found.score)} == {"0", "15"}
    assert (len(found.train), len(found.score), found.bank) == (24, 12, found.train)
    rest = pick(Data(score={"class": ("0",)}, bank={"fold": ("b",)}), photos)
    assert len(rest.train) == 36
    assert "0" not in rest.labels(rest.train)
    assert all(path.startswith("b/") for path in paths_of(rest, rest.bank))


def test_what_is_held_out_hangs_on_paths_alone(photos: Path) -> None:
    plain = pick(Data(held_out=0.25), photos)
    tabled(photos)
    table = pick(Data(held_out=0.25), photos)
    assert paths_of(plain, plain.score) == paths_of(table, table.score)
    assert len(plain.score) == 12
    assert not paths_of(plain, plain.score) & paths_of(plain, plain.train)
    few = pick(Data(held_out=0.25, images=10, scored=8), photos, most=9)
    assert (len(few.train), len(few.score)) == (9, 8)
    assert paths_of(few, few.train) < paths_of(plain, plain.train)
    assert plain.hash == table.hash != few.hash


def test_the_hash_knows_labels(photos: Path) -> None:
    rows = tabled(photos)
    before = pick(Data(held_out=0.5), photos).hash
    rows[0][1] = "another"
    with (photos / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "class", "fold"], *rows])
    assert pick(Data(held_out=0.5), photos).hash != before


def test_images_without_a_label_learn_and_are_not_scored(photos: Path) -> None:
    rows = tabled(photos)
    for row in rows[:8]:
        row[1] = ""
    with (photos / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "class", "fold"], *rows])
    found = pick(Data(train={"fold": ("a", "b")}, score={"fold": ("a", "b")}), photos)
    assert (len(found.train), len(found.bank), len(found.score)) == (48, 40, 40)


def test_images_that_cannot_be_picked(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="are not in"):
        pick(Data(held_out=0.5), tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"table .*list.csv does not exist"):
        pick(Data(held_out=0.5, table="list.csv"), photos)
    with pytest.raises(ConfigError, match="kind"):
        pick(Data(held_out=0.5, column="kind"), photos)
    tabled(photos)
    with pytest.raises(ConfigError, match=r'no column "kind".*class, fold'):
        pick(Data(held_out=0.5, column="kind"), photos)
    with pytest.raises(ConfigError, match='no column "split"'):
        pick(Data(score={"split": ("a",)}), photos)
    with pytest.raises(InputError, match=r'fold = "x" or "y".*a, b'):
        pick(Data(score={"fold": ("x", "y")}), photos)
    with pytest.raises(InputError, match="leaves 0 images to learn"):
        pick(Data(score={"fold": ("a", "b")}), photos)
    (photos / "a" / "0" / "00.png").unlink()
    with pytest.raises(InputError, match=r"1 of 48 images are missing, first .*00.png"):
        pick(Data(held_out=0.5), photos)


def unit(rows: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_seed_is_learned_scored_and_added(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "results.jsonl"
    task = bench.prepare(read_recipe(write(tmp_path, LINES + HELD)), photos)
    row = bench.run_seed(task, out, 3)
    assert json.loads(out.read_text(encoding="utf-8")) == row
    collection = Collection.open(task.collection(out))
    scored = task.picked.files(task.picked.score)
    learned = {str(collection.file(path).resolve()) for path in collection.paths}
    assert len(learned) == row["trained"] == 29
    assert not learned & {str(Path(path).resolve()) for path in scored}
    assert collection.model.facts["training"]["config"]["seed"] == 3
    labels, x = task.picked.labels(task.picked.score), unit(collection.embed(scored))
    right = []
    for i in range(len(x)):  # every class has several images
        others = [(float(((x[i] - x[j]) ** 2).sum()), labels[j]) for j in range(len(x)) if j != i]
        right.append(min(others)[1] == labels[i])
    assert row["rows"]["learned"]["recall@1"] == pytest.approx(np.mean(right))
    assert list(row["rows"]) == ["raw pixels", "whitened pixels", "untrained encoder", "learned"]
    assert {"recall@1", "map@r", "ami", "nmi"} <= set(row["rows"]["raw pixels"])
    assert (row["recipe"], row["seed"], row["hash"], row["epochs"]) == ("mine", 3, task.hash, 1)
    assert {"device", "threads", "precision"} <= set(row["machine"])
    assert "semblance" in row["versions"]
    assert row["seconds"]["learn"] > 0


def test_neighbours_of_a_bank_vote(photos: Path, tmp_path: Path) -> None:
    task = bench.prepare(read_recipe(write(tmp_path, LINES + SPLIT)), photos)
    out = tmp_path / "results.jsonl"
    row = bench.run_seed(task, out, 0)
    collection = Collection.open(task.collection(out))
    bank, asked = (
        unit(collection.embed(task.picked.files(rows))) for rows in (task.picked.bank, task.picked.score)
    )
    votes, labels = task.picked.labels(task.picked.bank), task.picked.labels(task.picked.score)
    right = 0
    for query, label in zip(asked, labels, strict=True):
        near = sorted(
            ((float(query @ one), name) for one, name in zip(bank, votes, strict=True)), reverse=True
        )[:5]
        names = sorted({name for _, name in near})
        sums = [sum(math.exp(s / 0.1) for s, other in near if other == name) for name in names]
        right += names[int(np.argmax(sums))] == label
    assert row["rows"]["learned"] == {"knn@5": pytest.approx(right / len(labels))}
    assert row["settings"] == {"bank": 24, "neighbours": 5, "temperature": 0.1}
    assert (row["classes"], row["images"]) == (4, 24)
    assert bench.summary([row])["rows"]["learned"]["knn@5"]["low"] is None


def test_seeds_that_are_there_are_known_by_their_hash(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    path = write(tmp_path, LINES + SPLIT)
    task = bench.prepare(read_recipe(path), photos)
    assert bench.results_of(task, out, 9) == {}
    rows = [bench.run_seed(task, out, seed) for seed in (0, 1)]
    again = bench.prepare(read_recipe(path), photos)
    assert bench.results_of(again, out, 9) == {0: rows[0], 1: rows[1]}
    assert bench.results_of(again, out, 1) == {0: rows[0]}
    others = [{"epochs": 2}, {"objective_options": {"tau": 0.2}}, {"views": "grey"}]
    tasks = [bench.prepare(read_recipe(path, other), photos) for other in others]
    tasks += [bench.prepare(read_recipe(path), photos, most=20)]
    assert len({one.hash for one in (task, *tasks)}) == len(tasks) + 1
    same = bench.prepare(read_recipe(path, {"threads": 1, "objective_options": {"tau": "0.1"}}), photos)
    assert same.hash == task.hash
    mean = bench.summary(rows)["rows"]["learned"]["knn@5"]
    values = [row["rows"]["learned"]["knn@5"] for row in rows]
    half = 12.7062 * np.std(values, ddof=1) / math.sqrt(2)  # Student's t, one degree of freedom, 97.5 %
    assert mean["mean"] == pytest.approx(np.mean(values))
    assert mean["high"] == pytest.approx(np.mean(values) + half, abs=1e-5)


def test_what_was_learned_is_not_learned_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.prepare(read_recipe(write(tmp_path, LINES + SPLIT)), photos)
    out = tmp_path / "results.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(bench, "_scored", lambda *words: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bench.run_seed(task, out, 0)
    assert not out.exists()
    model = Collection.open(task.collection(out)).info["model"]
    with monkeypatch.context() as patch:
        patch.delattr(build, "learn")
        assert bench.run_seed(task, out, 0)["model"] == model
    assert bench.run_seed(task, out, 1)["model"] != model


def test_a_damaged_results_file_is_told_before_learning(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.prepare(read_recipe(write(tmp_path, LINES + SPLIT)), photos)
    out = tmp_path / "results.jsonl"
    out.write_text('{"recipe": "x", "hash": "y", "seed": 0}\n{"recipe":', encoding="utf-8")
    monkeypatch.delattr(build, "learn")
    with pytest.raises(InputError, match="line 2 is not a result"):
        bench.run_seed(task, out, 0)


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.jsonl"
    results.append(out, {"recipe": "ä", "hash": "1"})

    class Short:
        """A file on a disk with room for five more bytes."""

        def __init__(self, *words: Any, **more: Any) -> None:
            self.file = out.open("ab", buffering=0)

        def __enter__(self) -> Short:
            return self

        def __exit__(self, *error: Any) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            return self.file.write(data[:5])

    monkeypatch.setattr(results, "open", Short, raising=False)
    with pytest.raises(CollectionError, match="disk is full"):
        results.append(out, {"recipe": "b", "hash": "2"})
    monkeypatch.undo()
    assert results.read_results(out) == [{"recipe": "ä", "hash": "1"}]
    with pytest.raises(CollectionError, match="could not be written"):
        results.append(tmp_path, {"recipe": "b"})


def test_images_and_weights_that_are_missing(photos: Path, tmp_path: Path) -> None:
    text = (
        f'weights = "start.safetensors"\n{LINES}{HELD}[get]\ndata = "birds go here"\nweights = "from there"\n'
    )
    recipe = read_recipe(write(tmp_path, text))
    with pytest.raises(InputError, match=r"mine: the images are not in .*, and the weights") as raised:
        bench.prepare(recipe, tmp_path / "nowhere")
    assert raised.value.hint.startswith("birds go here; --data FOLDER")
    assert "from there; --weights FILE" in raised.value.hint
    with pytest.raises(InputError, match=r"mine: the weights start.safetensors are missing \(from there"):
        bench.prepare(recipe, photos)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GoogLeNet's weights, random ones."""
    path = tmp_path_factory.mktemp("weights") / "googlenet.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(
            {k: v.contiguous() for k, v in googlenet.build(googlenet.Config()).state_dict().items()}, path
        )
    return path


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipes_run(name: str, photos: Path, weights: Path, tmp_path: Path) -> None:
    """Every wire, on few small images: classes of folders stand for a table's columns."""
    for old, new in (("a", "train"), ("b", "test")):
        (photos / old).rename(photos / new)
    if name == "sme-stl10":
        (photos / "train" / "15").rename(photos / "unlabelled")
    changes: dict[str, Any] = {"epochs": 1, "batch": 10, "size": 32, "device": "cpu", "precision": "32"}
    changes["training_options"] = {"patience": 0}  # one epoch of random weights spreads nothing
    if name.startswith("cbswr"):
        changes["objective_options"] = {"clusters": 4}
    if name.startswith("sme"):
        changes["encoder_options"] = {"depth": 10, "width": 8}
    else:
        changes["weights"] = weights
        changes |= {"size": 40}
    recipe = read_recipe(next(path for path in RECIPES if path.stem == name), changes)
    row = bench.run_seed(bench.prepare(recipe, photos, most=12), tmp_path / "results.jsonl", 0)
    assert list(row["rows"]) == ["raw pixels", "whitened pixels", "untrained encoder"] + ["frozen start"] * (
        "sme" not in name
    ) + ["learned"]
    assert set(row["rows"]["learned"]) >= ({"knn@200"} if "sme" in name else {"recall@1", "nmi"})
    assert all(0 <= value <= 1 for scores in row["rows"].values() for value in scores.values())


def test_means_over_classes(photos: Path, tmp_path: Path) -> None:
    for path in sorted((photos / "b" / "0").glob("*.png"))[1:]:
        path.unlink()
    task = bench.prepare(read_recipe(write(tmp_path, LINES + SPLIT + "balanced = true\n")), photos)
    row = bench.run_seed(task, tmp_path / "results.jsonl", 0)
    scores = row["rows"]["raw pixels"]
    assert set(scores) == {"knn@5", "knn@5_balanced"}
    plain = bench.prepare(read_recipe(write(tmp_path, LINES + SPLIT)), photos)
    assert plain.hash != task.hash


def test_an_image_that_cannot_be_scored_is_told_before_learning(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.prepare(read_recipe(write(tmp_path, LINES + SPLIT)), photos)
    Path(task.picked.files(task.picked.score)[3]).write_bytes(b"\x89PNG\r\n\x1a\nno more")
    monkeypatch.delattr(build, "learn")
    with pytest.raises(InputError, match=r"\.png cannot be used"):
        bench.run_seed(task, tmp_path / "results.jsonl", 0)


def test_an_objective_with_labels_learns_from_the_recipes_column(photos: Path, tmp_path: Path) -> None:
    """Folders say 4 classes; the column says two others."""
    rows = tabled(photos)
    with (photos / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        kinds = [[path, str(int(name) % 2), fold] for path, name, fold in rows]
        csv.writer(file).writerows([["path", "kind", "fold"], *kinds])
    text = LINES.replace("sme", "qsmi") + '\n[data]\nheld_out = 0.4\ncolumn = "kind"\n'
    task = bench.prepare(read_recipe(write(tmp_path, text)), photos)
    out = tmp_path / "results.jsonl"
    bench.run_seed(task, out, 0)
    said = Collection.open(task.collection(out)).model.facts["training"]["labels"]
    assert "kind" in said
    assert "folders" not in said


def test_what_cannot_be_scored_is_told_before_learning(photos: Path, tmp_path: Path) -> None:
    rows = tabled(photos)
    names = {"a": "", "b": "x"}
    with (photos / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        header = ["path", "class", "split"]
        csv.writer(file).writerows([header, *([path, names[fold], fold] for path, _, fold in rows)])
    with pytest.raises(InputError, match="no image that votes has a label"):
        bench.prepare(read_recipe(write(tmp_path, LINES + SPLIT)), photos)
    with (photos / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([path, path, fold] for path, _, fold in rows)])
    text = LINES + '\n[data]\ntrain = { split = "a" }\nscore = { split = "b" }\n'
    with pytest.raises(InputError, match="no class has two images"):
        bench.prepare(read_recipe(write(tmp_path, text)), photos)
