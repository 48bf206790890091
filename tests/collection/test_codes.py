"""Codes in a collection: made, kept, updated, searched, refused where they do not belong."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tests.collection.conftest import TINY, write_digits

import semblance
from semblance.cli.main import semblance as verbs
from semblance.collection import disk
from semblance.collection import search as searching
from semblance.collection.build import run
from semblance.collection.store import Collection
from semblance.errors import CollectionError, ConfigError, InputError, ModelMismatch


@pytest.fixture
def opened(pair: tuple[Path, Path]) -> Collection:
    return Collection.open(pair[1])


def test_a_build_encodes_by_the_price(built: Path) -> None:
    found = semblance.open(built)
    about = found.info["codes"]
    assert about["coder"] in ("pca", "itq")
    assert found.codes.shape == (len(found), about["bits"] // 8)
    assert np.array_equal(found.codes, found.coder.encode(found.embeddings))
    assert {row["coder"] for row in found.info["price"]["rows"]} == {"pca", "itq"}
    assert str(about["bits"]) in about["chosen"]


def test_encode_keeps_what_it_was_told(opened: Collection) -> None:
    packed = opened.encode("lsh", 24, seed=3)
    again = Collection.open(opened.path)
    assert packed.shape == (len(again), 3)
    assert np.array_equal(again.codes, packed)
    assert again.info["codes"] | {"coder": "lsh", "bits": 24} == again.info["codes"]
    assert again.info["codes"]["config"]["seed"] == 3


def test_labels_reach_a_coder_that_learns_from_them(opened: Collection) -> None:
    opened.encode("sdh", 16)
    assert opened.info["codes"]["labels"] == "folder"
    opened.encode("sdh", 16, clusters=4)
    assert opened.info["codes"]["labels"] == "4 clusters"
    opened.encode("sdh", 16, dict(zip(opened.paths, "ab" * len(opened), strict=False)))
    assert opened.info["codes"]["labels"] == "label"
    with pytest.raises(ConfigError, match="learns without labels"):
        opened.encode("itq", 16, clusters=4)
    with pytest.raises(ConfigError, match="by name"):
        opened.encode(clusters=4)
    with pytest.raises(ConfigError, match="itq"):
        opened.encode("itqq")
    with pytest.raises(InputError, match="fewer than 2 classes"):
        opened.encode("sdh", 16, dict.fromkeys(opened.paths, "same"))


def test_rethreshold_keeps_the_coder(opened: Collection) -> None:
    opened.encode("pca", 16)
    before = opened.coder.state()
    opened.encode(rethreshold=True)
    after = opened.coder.state()
    assert opened.info["codes"]["rethresholded"]
    assert np.array_equal(before["weights"], after["weights"])
    with pytest.raises(ConfigError, match="keeps the coder"):
        opened.encode("itq", rethreshold=True)
    with pytest.raises(ConfigError, match="keeps the coder"):
        opened.encode(clusters=4, rethreshold=True)


def test_labels_of_a_table_are_called_as_its_column(opened: Collection, tmp_path: Path) -> None:
    lines = [f"{path},{'ab'[i % 2]}" for i, path in enumerate(opened.paths)]
    (tmp_path / "table.csv").write_text("\n".join(["path,breed", *lines]) + "\n")
    opened.encode("sdh", 16, tmp_path / "table.csv")
    assert opened.info["codes"]["labels"] == "breed"


@pytest.mark.parametrize("bits", [0, -8, 12, 1_000_000])
def test_a_length_that_no_code_has_is_told_at_once(opened: Collection, bits: int) -> None:
    for coder in ("auto", "itq"):
        with pytest.raises(ConfigError, match=f"bits is {bits}"):
            opened.encode(coder, bits)


@pytest.mark.parametrize("fails", ["codes.npy", "coder.safetensors"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_write_that_stops_half_way_leaves_the_codes_that_were(
    opened: Collection, monkeypatch: pytest.MonkeyPatch, fails: str, error: BaseException
) -> None:
    before = np.array(opened.encode("lsh", 16))
    replace = os.replace

    def stopping(source: Any, target: Any) -> None:
        if Path(target).name == fails:
            raise error
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stopping)
        with pytest.raises(CollectionError if isinstance(error, OSError) else KeyboardInterrupt):
            opened.encode("lsh", 32)
    again = Collection.open(opened.path)
    assert np.array_equal(again.codes, before)
    assert again.coder.config.bits == 16
    assert not list(opened.path.glob(".codes-*"))


def test_codes_of_another_make_are_refused(opened: Collection) -> None:
    opened.encode("lsh", 16)
    (opened.path / "codes.npy").write_bytes((opened.path / "codes.npy").read_bytes()[:-1] + b"\x00")
    with pytest.raises(ModelMismatch, match=r"codes\.npy"):
        _ = Collection.open(opened.path).codes
    (opened.path / "codes.npy").unlink()
    with pytest.raises(CollectionError, match="has no codes"):
        _ = Collection.open(opened.path).codes


def test_a_coder_of_another_model_is_refused(opened: Collection) -> None:
    opened.encode("lsh", 16)
    info = json.loads((opened.path / "collection.json").read_text())
    about = semblance.open(opened.path).info
    opened.info = {**about, "model": "0" * len(info["model"])}
    with pytest.raises(ModelMismatch, match="belongs to the model"):
        _ = opened.coder


def test_an_update_encodes_what_is_new_with_the_coder_it_has(pair: tuple[Path, Path]) -> None:
    images, folder = pair
    first = Collection.open(folder)
    first.encode("lsh", 16)
    identity = first.info["codes"]["identity"]
    write_digits(images, 100, 5)
    updated = run(images, folder)
    assert updated.outcome.startswith("updated")
    assert updated.info["codes"]["identity"] == identity
    assert len(updated.codes) == len(updated) == len(first) + 5
    assert np.array_equal(updated.codes, updated.coder.encode(updated.embeddings))


def test_searching_codes_and_then_floats(opened: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.encode("itq", 64)
    exact = opened.search(list(range(5)), k=4)
    coded = opened.search(list(range(5)), k=4, exact=False)
    assert np.array_equal(exact.ids[:, 0], coded.ids[:, 0])
    shared = [len(set(a) & set(b)) for a, b in zip(exact.ids.tolist(), coded.ids.tolist(), strict=True)]
    assert np.mean(shared) > 3.5
    for i in range(5):
        same = {int(j): float(d) for j, d in zip(exact.ids[i], exact.distances[i], strict=True)}
        for j, d in zip(coded.ids[i], coded.distances[i], strict=True):
            assert same.get(int(j), float(d)) == float(d)
    assert not searching.by_codes(opened)
    monkeypatch.setattr(searching, "MANY", 10)
    assert searching.by_codes(opened)
    assert not searching.by_codes(opened, exact=True)
    opened.record(codes=None)
    assert not searching.by_codes(opened)
    with pytest.raises(CollectionError, match="has no codes"):
        opened.search(0, exact=False)


def test_the_codes_are_described(opened: Collection) -> None:
    opened.encode("itq", 32)
    found = opened.describe_codes()
    assert found["bits"] == 32
    assert len(found["histogram"]) == 33
    assert sum(found["histogram"]) == pytest.approx(1)
    assert 0 < found["distinct"] <= found["n"] == len(opened)
    assert found["reason"]


def test_embeddings_that_are_all_alike_build_without_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semblance.collection import build

    write_digits(tmp_path / "photos", 0, 12)
    whole = build.embed_rows

    def flat(*args: object, **options: object) -> np.ndarray:
        return np.ones_like(whole(*args, **options))

    monkeypatch.setattr(build, "embed_rows", flat)
    done = build.learn(tmp_path / "photos", tmp_path / "a.smb", **TINY)
    assert done.info["codes"] is None
    assert done.info["price"] is None


def call(*words: object) -> Result:
    return CliRunner().invoke(verbs, [str(word) for word in words])


def test_the_verbs_answer_in_json(opened: Collection) -> None:
    made = json.loads(call("encode", opened.path, "--coder", "lsh", "--bits", 16, "--json").stdout)
    assert (made["coder"], made["bits"], made["bytes"]) == ("lsh", 16, 2 * len(opened))
    seen = json.loads(call("codes", opened.path, "--json").stdout)
    assert (seen["coder"], seen["bits"], seen["n"]) == ("lsh", 16, len(opened))
    table = json.loads(call("price", opened.path, "--coders", "lsh,pca", "--bits", "8,16", "--json").stdout)
    assert [(row["coder"], row["bits"]) for row in table["rows"]] == [
        *(("lsh", 8), ("lsh", 16)),
        *(("pca", 8), ("pca", 16)),
    ]
    assert Collection.open(opened.path).info["price"]["rows"] == table["rows"]
    assert call("encode", opened.path, "--bits", 0).exit_code == 2


def test_the_verbs_say_what_they_did(opened: Collection) -> None:
    assert "learned from the names of the folders" in call("encode", opened.path, "--coder", "sdh").stdout
    assert "thresholds set anew" in call("encode", opened.path, "--rethreshold").stdout


def test_a_price_that_cannot_be_kept_is_still_seen(
    opened: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(disk, "write_json", refused)
    result = call("price", opened.path, "--coders", "lsh", "--bits", "8")
    assert result.exit_code == 3
    assert "lsh" in result.stdout
    assert "no permission" in result.stderr
