from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from sklearn.datasets import load_digits

from semblance.cli import screen, watch
from semblance.cli.main import semblance

TINY = ["--epochs", "2", "--batch", "32", "--size", "16", "--encoder", "resnet", "--encoder.width", "8"]
TINY += ["--objective.clusters", "8", "--device", "cpu", "--precision", "32"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos/` (80 digits, one broken file), labels, `more/`, and `photos.smb`."""
    place = tmp_path_factory.mktemp("desk")
    digits = load_digits()
    lines = ["path,class"]
    for index in range(84):
        name = f"{index:02}.png"
        path = place / ("photos" if index < 80 else "more") / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.round(digits.images[index] * (255 / 16)).astype(np.uint8)).save(path)
        lines.append(f"{name},{digits.target[index]}")
    (place / "photos" / "broken.png").write_bytes(b"")
    (place / "labels.csv").write_text("\n".join(lines[:81]) + "\n", encoding="utf-8")
    words = ["run", str(place / "photos"), "--out", str(place / "photos.smb"), *TINY]
    result = CliRunner().invoke(semblance, words)
    assert result.exit_code == 0, result.output
    (place / "run.out").write_text(result.stdout, encoding="utf-8")
    (place / "run.err").write_text(result.stderr, encoding="utf-8")
    return place


@pytest.fixture
def desk(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of what `made` holds, as the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str) -> Result:
    """What the command line prints for these words."""
    return CliRunner().invoke(semblance, list(words))


def answer(*words: str) -> Any:
    """The JSON value that the command line prints for these words."""
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_run_shows_its_bill_its_health_and_where_it_is(made: Path) -> None:
    printed = (made / "run.err").read_text(encoding="utf-8").splitlines()
    printed = [line for line in printed if not line.startswith("plan:")]  # shown where planning takes long
    assert printed[0].split() == [
        "images",
        "81",
        "found,",
        "1",
        "unreadable",
        "(every",
        "file",
        "was",
        "decoded)",
    ]
    assert [line.split()[0] for line in printed[1:7] if line[0] != " "][:3] == [
        "encoder",
        "objective",
        "time",
    ]
    assert [line.split(":")[0] for line in printed if line.startswith("epoch")] == ["epoch 1", "epoch 2"]
    assert any(line.startswith("decode: 81 in ") for line in printed)
    assert printed[-1] == "built: 81 files, 1 unreadable, 0 exact duplicates"
    last = (made / "run.out").read_text(encoding="utf-8").splitlines()[-1]
    assert last == f"{made / 'photos.smb'}  ·  open {made / 'photos.smb' / 'report.html'}"
    assert (made / "photos.smb" / "report.html").stat().st_size > 10_000


def test_the_same_run_again_finds_nothing_to_do(desk: Path) -> None:
    model = (desk / "photos.smb" / "model" / "model.safetensors").read_bytes()
    done = answer("run", "photos", *TINY)
    assert done["outcome"] == "up to date"
    assert done["counts"] == {"images": 81, "readable": 80, "unreadable": 1, "duplicates": 0}
    assert done["report"].endswith("report.html")
    assert (desk / "photos.smb" / "model" / "model.safetensors").read_bytes() == model


def test_other_options_do_not_replace_a_collection(desk: Path) -> None:
    result = call("run", "photos", *TINY, "--epochs", "3")
    assert result.exit_code == 3
    assert "epochs" in result.stderr
    assert "--overwrite" in result.stderr
    assert call("run", "photos", *TINY, "--epochs", "1", "--overwrite").exit_code == 0
    assert len((desk / "photos.smb" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_a_dry_run_makes_nothing(desk: Path) -> None:
    bill = answer("run", "photos", *TINY, "--out", "other.smb", "--dry-run")
    assert bill["images"] == 81
    assert bill["unreadable"] == 1
    assert bill["epochs"] == 2
    assert bill["encoder_options"]["width"] == 8
    assert bill["total_seconds"] == pytest.approx(sum(bill["seconds"].values()))
    assert min(bill["memory"], bill["disk"]) > 0
    printed = call("learn", "photos", *TINY, "--out", "other.smb", "--dry-run").stdout
    assert "at most" in printed
    assert not (desk / "other.smb").exists()


def test_learn_makes_a_collection_without_a_report(desk: Path) -> None:
    result = call("learn", "photos", *TINY, "--epochs", "1", "--objective", "sme", "--out", "other.smb")
    assert result.exit_code == 2
    assert "clusters" in result.stderr
    words = [word for word in TINY if word not in ("--objective.clusters",)]
    del words[words.index("8", words.index("--encoder.width") + 2)]
    result = call("learn", "photos", *words, "--epochs", "1", "--objective", "sme", "--out", "other.smb")
    assert result.exit_code == 0, result.output
    assert result.stdout == "other.smb\n"
    config = json.loads((desk / "other.smb" / "collection.json").read_text(encoding="utf-8"))["config"]
    assert config["objective"]["name"] == "sme"
    assert config["training"]["epochs"] == 1
    assert config["encoder"]["config"]["width"] == 8
    assert not (desk / "other.smb" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "nowhere"], 3, "nowhere"),
        (["run", "photos", "--objective", "cbsw"], 2, "known: cbswr"),
        (["run", "photos", "--objective.varant", "fixed"], 2, "known: variant"),
        (["run", "photos", "--encoder.width", "wide"], 2, "a whole number"),
        (["run", "photos", "--views", "photos"], 2, "photo"),
        (["run", "photos", "--device", "quantum"], 2, "quantum"),
        (["run", "photos", "--epochs", "0"], 2, "epoch"),
        (["run", "photos", "--weights", "nowhere.safetensors"], 2, "nowhere.safetensors"),
        (["search", "nowhere.smb", "photos/00.png"], 3, "nowhere.smb"),
        (["search", "photos", "photos/00.png"], 3, "not a collection"),
        (["search", "photos.smb", "nowhere.png"], 3, "nowhere.png"),
        (["search", "photos.smb", "photos/broken.png"], 3, "zero bytes"),
        (["evaluate", "photos.smb", "--labels", "nowhere.csv"], 3, "nowhere.csv"),
        (["evaluate", "photos.smb", "--labels", "labels.csv", "--column", "klass"], 2, "class"),
        (["embed", "photos.smb", "more", "--out", "more.txt"], 2, ".npy"),
        (["embed", "photos.smb", "nowhere", "--out", "more.npy"], 3, "nowhere"),
        (["report", "nowhere.smb"], 3, "nowhere.smb"),
        (["export", "photos.smb"], 2, "--onnx"),
    ],
)
def test_what_cannot_be_done_says_so_in_two_lines(
    words: list[str], code: int, message: str, desk: Path
) -> None:
    out = ["--out", "other.smb"] if words[0] == "run" else []
    result = call(*words, *out)
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert message in result.stderr
    assert not (desk / "other.smb").exists()


@pytest.mark.parametrize("objective", ["simclr", "sigreg+measure"])
def test_a_collapse_stops_with_4_and_the_knob_to_turn(objective: str, desk: Path) -> None:
    words = ["--objective", objective, "--epochs", "9", "--size", "16", "--encoder.width", "4"]
    result = call("learn", "photos", *words, "--precision", "32", "--training.lr", "30", "--out", "other.smb")
    assert result.exit_code == 4, result.output
    lines = result.stderr.splitlines()
    assert any(line.startswith("error: ") for line in lines)
    assert any(line.startswith("hint: lower --training.lr") for line in lines)
    assert not any(line.startswith("epoch 9") for line in lines)
    assert not (desk / "other.smb").exists()


def test_search_prints_what_was_promised(desk: Path) -> None:
    one = answer("search", "photos.smb", "photos/03.png", "-k", "4")
    assert one["query"] == "photos/03.png"
    assert [set(match) for match in one["matches"]] == [{"rank", "id", "path", "distance"}] * 4
    assert [match["rank"] for match in one["matches"]] == [1, 2, 3, 4]
    assert one["matches"][0]["path"] == "03.png"
    assert one["matches"][0]["distance"] == pytest.approx(0, abs=1e-3)
    distances = [match["distance"] for match in one["matches"]]
    assert distances == sorted(distances)
    several = answer("search", "photos.smb", "photos/03.png", "more/81.png", "-k", "4")
    assert [found["query"] for found in several] == ["photos/03.png", "more/81.png"]
    assert several[0] == one


def test_search_equals_a_slow_search(desk: Path) -> None:
    rows = np.load(desk / "photos.smb" / "embeddings.npy").astype(np.float64)
    order = np.argsort(np.linalg.norm(rows - rows[7], axis=1), kind="stable")[:5]
    found = answer("search", "photos.smb", "photos/07.png", "-k", "5")["matches"]
    assert [match["path"] for match in found] == [f"{row:02}.png" for row in order]


def test_search_for_people(desk: Path) -> None:
    lines = call("search", "photos.smb", "photos/03.png", "-k", "2").stdout.splitlines()
    assert lines[0].split() == ["rank", "distance", "path"]
    assert lines[1].split()[0::2] == ["1", "03.png"]
    assert len(lines) == 3


def test_more_than_there_is(desk: Path) -> None:
    assert len(answer("search", "photos.smb", "photos/03.png", "-k", "500")["matches"]) == 80


def test_evaluate_prints_its_rows(desk: Path) -> None:
    scores = answer("evaluate", "photos.smb", "--labels", "labels.csv", "--column", "class")
    assert {"raw pixels", "untrained encoder", "learned"} <= set(scores["rows"])
    for row in scores["rows"].values():
        assert {"recall@1", "map@r", "nmi", "ami"} <= set(row)
        assert 0 <= row["recall@1"] <= 1
    pixels = np.load(desk / "photos.smb" / "pixels.npy").reshape(80, -1).astype(np.float64)
    pixels -= pixels.mean(0)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    with (desk / "labels.csv").open(encoding="utf-8") as file:
        labels = np.array([row["class"] for row in csv.DictReader(file)])
    distances = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    expected = np.mean(labels[distances.argmin(1)] == labels)
    assert scores["rows"]["raw pixels"]["recall@1"] == pytest.approx(expected, abs=1e-6)


def test_evaluate_for_people(desk: Path) -> None:
    lines = call("evaluate", "photos.smb", "--labels", "labels.csv", "--column", "class").stdout.splitlines()
    assert lines[0] == "80 images of 10 classes, 0 left out"
    assert {"R@1", "R@8", "MAP@R", "R-prec", "NMI", "AMI", "kNN@20"} <= set(lines[1].split())
    assert any(line.startswith("learned ") for line in lines)


def test_embed_writes_rows_and_their_paths(desk: Path) -> None:
    (desk / "more" / "empty.png").write_bytes(b"")
    done = answer("embed", "photos.smb", "more", "--out", "more.npy")
    rows = np.load(desk / "more.npy")
    assert done["shape"] == list(rows.shape) == [4, rows.shape[1]]
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert [one["path"] for one in done["unreadable"]] == ["empty.png"]
    with (desk / "more.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["row", "path"], *([str(i), f"{80 + i}.png"] for i in range(4))]
    kept = rows.tobytes()
    result = call("embed", "photos.smb", "photos", "--out", "more.npy")
    assert result.exit_code == 3
    assert "--overwrite" in result.stderr
    assert np.load(desk / "more.npy").tobytes() == kept
    result = call("embed", "photos.smb", "photos", "--out", "more.npy", "--table", "parquet", "--overwrite")
    assert result.exit_code == 0, result.output
    assert np.load(desk / "more.npy") == pytest.approx(
        np.load(desk / "photos.smb" / "embeddings.npy"), abs=1e-5
    )
    table = pq.read_table(desk / "more.parquet")
    assert table.column("path").to_pylist() == [f"{i:02}.png" for i in range(80)]
    assert "left out: broken.png: zero bytes" in result.stderr


def test_the_report_is_written_again(desk: Path) -> None:
    (desk / "photos.smb" / "report.html").unlink()
    result = call("report", "photos.smb")
    assert result.stdout.strip().replace("\\", "/") == "photos.smb/report.html"
    assert (desk / "photos.smb" / "report.html").read_text(encoding="utf-8").startswith("<!")
    words = ["report", "photos.smb", "--out", "other.html", "--labels", "labels.csv", "--column", "class"]
    assert answer(*words) == {"report": "other.html"}
    assert call(*words).exit_code == 3
    assert call(*words, "--overwrite").exit_code == 0


def test_the_export_gives_what_the_collection_has(desk: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    assert call("export", "photos.smb", "--onnx").stdout == "photos.onnx\n"
    session = onnxruntime.InferenceSession(desk / "photos.onnx", providers=["CPUExecutionProvider"])
    pixels = np.load(desk / "photos.smb" / "pixels.npy")[:6]
    (rows,) = session.run(None, {session.get_inputs()[0].name: pixels})
    assert rows == pytest.approx(np.load(desk / "photos.smb" / "embeddings.npy")[:6], abs=1e-4)
    assert call("export", "photos.smb", "--onnx").exit_code == 3
    assert answer("export", "photos.smb", "--onnx", "--out", "x.onnx", "--overwrite") == {"onnx": "x.onnx"}


def test_new_images_are_taken_in(desk: Path) -> None:
    Image.open(desk / "more" / "80.png").save(desk / "photos" / "80.png")
    done = answer("run", "photos", *TINY)
    assert done["outcome"].startswith("updated: 1 new")
    assert done["counts"]["readable"] == 81
    again = answer("search", "photos.smb", "more/80.png", "-k", "1")
    assert again["matches"][0]["path"] == "80.png"


def test_an_epoch_in_a_line() -> None:
    record = {
        "epoch": 12,
        "loss": 2.0,
        "terms": {"metric": 1.5, "rim": 0.5},
        "health": {
            "effective_rank": 17.25,
            "mean_cosine": 0.1,
            "used_clusters": 0.5,
            "positive_cosine": 0.875,
        },
    }
    terms = "loss 2.000 (metric 1.500, rim 0.500)"
    expected = f"epoch 12: {terms}, rank 17.2, clusters 50 %, positives 0.88, others 0.10"
    assert watch.health_line(record) == expected
    record["health"]["flat"] = True
    assert watch.health_line(record) == f"{expected}, no spread left"
    assert watch.health_line({"epoch": 1, "loss": 1.0}) == "epoch 1: loss 1.000"


def test_epochs_are_shown_once_and_when_they_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.jsonl"
    line = json.dumps({"epoch": 1, "loss": 1.0}) + "\n"
    path.write_text(line, encoding="utf-8")
    with watch.Watch(path) as watched:
        watched.progress("learn", 1, 9)
        path.write_text(line + line.replace(": 1,", ": 2,"), encoding="utf-8")
        watched.progress("embed", 1, 9)
        path.write_text(line[:5], encoding="utf-8")
        watched.progress("learn", 2, 9)
        path.write_text("".join(line.replace(": 1,", f": {n},") for n in (1, 2, 3)), encoding="utf-8")
    assert capsys.readouterr().err.splitlines() == ["epoch 2: loss 1.000", "epoch 3: loss 1.000"]


def test_epochs_of_a_training_that_starts_over_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    line = json.dumps({"epoch": 1, "loss": 1.0}) + "\n"
    path.write_text(3 * line, encoding="utf-8")
    with watch.Watch(path) as watched:
        path.unlink()
        watched.progress("decode", 1, 9)
        path.write_text(line, encoding="utf-8")
        watched.progress("learn", 1, 9)
    assert capsys.readouterr().err.splitlines() == ["epoch 1: loss 1.000"]


def test_time_left_stands_at_every_epoch_and_the_end_after_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs of 100 images, 10 s each; the first was learned by a run that was stopped."""
    now = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    path = tmp_path / "metrics.jsonl"
    line = json.dumps({"epoch": 1, "loss": 1.0}) + "\n"
    path.write_text(line, encoding="utf-8")
    with watch.Watch(path) as watched:
        for done in range(110, 301, 10):
            watched("learn", done, 300)
            watched.note("learn", f"epoch {(done - 1) // 100 + 1} of 3, loss 2.500")
            now[0] += 1.0
            if done % 100 == 0:
                path.write_text(
                    path.read_text(encoding="utf-8") + line.replace(": 1,", f": {done // 100},"),
                    encoding="utf-8",
                )
        watched.progress("embed", 300, 300)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 2: loss 1.000, 9.0 s left",
        "epoch 3: loss 1.000",
        "learn: 300 in 20 s, 10/s",
        "embed: 300 in 0.0 s",
    ]


def test_a_stage_that_takes_long_says_how_it_goes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 40.0])
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    with screen.Screen() as watched:
        watched("learn", 100, 300)
        watched.note("learn", "epoch 1 of 3, loss 2.500")
        watched("learn", 200, 300)
    expected = "learn: 200 of 300 in 40 s, 2/s, 40 s left (epoch 1 of 3, loss 2.500)\n"
    assert capsys.readouterr().err == expected
