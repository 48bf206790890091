"""Coders on disk: damaged, foreign, unwritable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from semblance import codes
from semblance.codes import itq, lsh
from semblance.errors import CollectionError, ConfigError


@pytest.fixture
def saved(embeddings: np.ndarray, tmp_path: Path) -> Path:
    """An ITQ coder of 16 bits on disk."""
    return codes.save(tmp_path / "here" / "coder.safetensors", itq.Coder(itq.Config(16)).fit(embeddings), "m")


def about(path: Path) -> dict[str, str]:
    """The metadata in the file's header."""
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]


def test_truncated_anywhere(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in (0, 5, 20, 200, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(CollectionError, match="cannot be read as a coder"):
            codes.load(saved)


def test_changed(saved: Path) -> None:
    state, said = load_file(saved), about(saved)
    state["weights"] = state["weights"].copy()
    state["weights"][0, 0] += 1
    save_file(state, saved, said)
    with pytest.raises(CollectionError, match="changed since it was written"):
        codes.load(saved)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("format", 2, "format 2"),
        ("coder", "itk", "known: itq"),
        ("coder", "../itq", "no code is called"),
        ("config", {"bits": 24}, "24-bit itq"),
        ("config", {"bits": 16, "colour": 1}, "colour"),
        ("config", {"bits": "many"}, "whole number"),
    ],
)
def test_foreign(saved: Path, key: str, value: object, reason: str) -> None:
    state, said = load_file(saved), json.loads(about(saved)["semblance"])
    save_file(state, saved, {"semblance": json.dumps({**said, key: value})})
    with pytest.raises(CollectionError) as caught:
        codes.load(saved)
    assert "\n" not in str(caught.value)
    assert reason in str(caught.value)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(CollectionError):
        codes.load(tmp_path / "absent.safetensors")
    with pytest.raises(CollectionError):
        codes.load(tmp_path)
    save_file({"weights": np.zeros((3, 8))}, tmp_path / "model.safetensors")
    with pytest.raises(CollectionError):
        codes.load(tmp_path / "model.safetensors")


def test_a_write_that_fails_leaves_the_old_file(
    saved: Path, embeddings: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    other = lsh.Coder(lsh.Config(16)).fit(embeddings)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(CollectionError, match="the disk is full"):
            codes.save(saved, other, "m")
    assert saved.read_bytes() == before
    assert not list(saved.parent.glob("*.part"))
    codes.save(saved, other, "m")
    assert isinstance(codes.load(saved, "m"), lsh.Coder)


def test_only_fitted_methods_are_saved(embeddings: np.ndarray, tmp_path: Path) -> None:
    class Own(lsh.Coder):
        """Not the class of any file."""

    with pytest.raises(ConfigError, match="no method of the room codes"):
        codes.save(tmp_path / "x", Own(lsh.Config(16)).fit(embeddings))
    with pytest.raises(ConfigError, match="not fitted"):
        codes.save(tmp_path / "x", lsh.Coder(lsh.Config(16)))
    assert not (tmp_path / "x").exists()


def test_identity_tells_apart(embeddings: np.ndarray) -> None:
    coder = lsh.Coder(lsh.Config(16)).fit(embeddings)
    again = lsh.Coder(lsh.Config(16)).fit(embeddings)
    others = [
        lsh.Coder(lsh.Config(24)).fit(embeddings),
        lsh.Coder(lsh.Config(16, seed=1)).fit(embeddings),
        lsh.Coder(lsh.Config(16)).fit(embeddings[:300]),
        itq.Coder(itq.Config(16)).fit(embeddings),
        lsh.Coder.restore(coder.config, coder.state()).rethreshold(embeddings[:300]),
    ]
    assert codes.identity(coder, "m") == codes.identity(again, "m")
    found = {codes.identity(one, "m") for one in (coder, *others)} | {codes.identity(coder, "n")}
    assert len(found) == 6  # the third and the last are the same coder
