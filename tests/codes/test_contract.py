"""What every coder must do, for each name that the room finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semblance import codes, plugins
from semblance.codes import _rows
from semblance.errors import CollectionError, ConfigError, InputError, ModelMismatch, SemblanceError

NAMES = plugins.names("codes")
BITS = 16
FAST: dict[str, dict[str, Any]] = {
    "bihalf": {"epochs": 2},
    "cibhash": {"epochs": 2, "hidden": 32},
    **{trained: {"epochs": 8} for trained in ("classwise", "csq", "orthohash", "qsmi")},
    "sdh": {"anchors": 100},
}
"""Options that shorten a training; a method without them runs as it is."""


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fitted(embeddings: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """A coder of each name, fitted once; tests that change one make their own."""
    return {name: fit(name, embeddings, classes) for name in NAMES}


def fit(name: str, x: Any, y: Any, **options: Any) -> Any:
    module = plugins.get("codes", name)
    config = plugins.configure("codes", name, {"bits": BITS, **FAST.get(name, {}), **options})
    coder = module.Coder(config)
    return coder.fit(x, y if coder.labels else None)


def attempt(call: Callable[[], Any]) -> Any:
    """What the call gives, or the reason why not, which must have a hint."""
    try:
        return call()
    except SemblanceError as error:
        return error if error.hint else pytest.fail(f"no hint: {error}")


def test_the_room_has_the_coders_without_labels() -> None:
    without = {name for name in NAMES if not plugins.get("codes", name).Coder.labels}
    assert {"bihalf", "cibhash", "itq", "lsh", "pca", "pca_rotation"} <= without


def test_configuration(name: str) -> None:
    config = plugins.configure("codes", name)
    assert (config.bits, config.seed) == (64, 0)
    assert dataclasses.is_dataclass(config)
    assert type(config).__dataclass_params__.frozen
    for bits in (0, 12, -8):
        with pytest.raises(ConfigError, match="multiple of 8"):
            plugins.get("codes", name).Coder(dataclasses.replace(config, bits=bits))
    with pytest.raises(ConfigError, match=r"bits is 1000000 \(give at most 4,096"):
        plugins.get("codes", name).Coder(dataclasses.replace(config, bits=1_000_000))


def test_shapes_and_signs(name: str, fitted: dict[str, Any], embeddings: np.ndarray) -> None:
    coder = fitted[name]
    values, packed = coder.project(embeddings), coder.encode(embeddings)
    assert coder.dim_in == embeddings.shape[1]
    assert values.dtype == np.float32
    assert packed.dtype == np.uint8
    assert values.shape == (len(embeddings), BITS)
    assert packed.shape == (len(embeddings), BITS // 8)
    for row in range(0, len(values), 97):
        for bit in range(BITS):
            assert bool(packed[row, bit // 8] >> (bit % 8) & 1) == bool(values[row, bit] >= 0)


def test_neighbours_share_bits(name: str, fitted: dict[str, Any], embeddings: np.ndarray) -> None:
    bits = codes.unpack(fitted[name].encode(embeddings))
    found = codes.diagnose(fitted[name].encode(embeddings))
    assert found.dead == 0
    assert found.balance < 0.25
    assert found.distinct > 5
    differ = (bits[:, None, :] != bits[None, :, :]).sum(2)
    far = ((embeddings[:, None] - embeddings[None]) ** 2).sum(2)
    pairs = np.triu_indices(len(bits), 1)
    assert np.corrcoef(differ[pairs], far[pairs])[0, 1] > 0.3


def test_labels_are_needed_only_where_said(name: str, embeddings: np.ndarray, classes: np.ndarray) -> None:
    module = plugins.get("codes", name)
    coder = module.Coder(plugins.configure("codes", name, {"bits": BITS, **FAST.get(name, {})}))
    if not coder.labels:
        return
    for wrong in (None, classes[:-1], classes.astype(float), np.zeros(len(classes), int), classes - 2):
        with pytest.raises(InputError):
            coder.fit(embeddings, wrong)
    unlabelled = np.where(np.arange(len(classes)) % 3 == 0, -1, classes)
    several = np.zeros((len(classes), 6), dtype=bool)
    several[np.arange(len(classes)), classes] = np.arange(len(classes)) % 3 != 0
    kept = np.arange(len(classes)) % 3 != 0
    one = coder.fit(embeddings[kept], classes[kept]).encode(embeddings)
    for y in (unlabelled, several):
        again = coder.fit(embeddings, y).encode(embeddings)
        assert codes.diagnose(again).dead == 0
        assert (codes.unpack(again) != codes.unpack(one)).mean() < 0.6
    assert codes.diagnose(one).dead == 0


def test_same_seed_same_codes(
    name: str, fitted: dict[str, Any], embeddings: np.ndarray, classes: np.ndarray
) -> None:
    again = fit(name, embeddings, classes)
    for key, array in fitted[name].state().items():
        assert np.array_equal(array, again.state()[key]), key
    state = np.random.get_state()[1].copy()  # type: ignore[index]
    fit(name, embeddings, classes, seed=1)
    assert np.array_equal(state, np.random.get_state()[1])  # type: ignore[index]


def test_a_streamed_fit_is_the_full_fit(
    name: str,
    fitted: dict[str, Any],
    embeddings: np.ndarray,
    classes: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "x.npy"
    np.save(path, embeddings)
    mapped = np.load(path, mmap_mode="r")
    whole = fit(name, mapped, classes)
    for key, array in fitted[name].state().items():
        assert np.array_equal(array, whole.state()[key]), key
    monkeypatch.setattr(_rows, "BLOCK_BYTES", 8 * 24 * 37)
    streamed = fit(name, mapped, classes)
    differ = codes.unpack(streamed.encode(mapped)) != codes.unpack(fitted[name].encode(embeddings))
    assert differ.mean() < 0.01  # sums in another order: a training may take another turn at a rounded value


def test_a_row_s_code_does_not_depend_on_its_company(
    name: str, fitted: dict[str, Any], embeddings: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    coder, x = fitted[name], embeddings[:60]
    packed, values = coder.encode(x), coder.project(x)
    for rows in (1, 7, 59):
        parts = [x[i : i + rows] for i in range(0, len(x), rows)]
        assert np.array_equal(np.concatenate([coder.encode(part) for part in parts]), packed)
        np.testing.assert_allclose(np.concatenate([coder.project(p) for p in parts]), values, atol=1e-6)
    assert np.array_equal(coder.encode(x[3]), packed[3:4])
    assert np.array_equal(coder.encode(x[::-1])[::-1], packed)
    monkeypatch.setattr(_rows, "BLOCK_BYTES", 8 * 24 * 5)
    assert np.array_equal(coder.encode(x), packed)


def test_saved_and_loaded(name: str, fitted: dict[str, Any], embeddings: np.ndarray, tmp_path: Path) -> None:
    coder, path = fitted[name], tmp_path / "coder.safetensors"
    codes.save(path, coder, "0123456789abcdef")
    again = codes.load(path, "0123456789abcdef")
    assert type(again) is type(coder)
    assert again.config == coder.config
    assert again.dim_in == coder.dim_in
    assert np.array_equal(again.encode(embeddings), coder.encode(embeddings))
    assert np.array_equal(again.project(embeddings), coder.project(embeddings))
    assert codes.identity(again, "a") == codes.identity(coder, "a") != codes.identity(coder, "b")
    with pytest.raises(ModelMismatch, match="0123456789abcdef"):
        codes.load(path, "fedcba9876543210")
    assert codes.load(path).dim_in == coder.dim_in


def test_thresholds_move_with_the_domain(
    name: str, fitted: dict[str, Any], embeddings: np.ndarray, classes: np.ndarray
) -> None:
    coder = type(fitted[name]).restore(fitted[name].config, fitted[name].state())
    rng = np.random.default_rng(5)
    shifted = (embeddings + rng.standard_normal(embeddings.shape[1]) * 0.2).astype(np.float32)
    before = codes.diagnose(coder.encode(shifted))
    kept = {key: array.copy() for key, array in coder.state().items() if key != "threshold"}
    assert coder.rethreshold(shifted) is coder
    after = codes.diagnose(coder.encode(shifted))
    assert after.balance < max(before.balance, 0.15)
    assert all(np.array_equal(array, kept[key]) for key, array in coder.state().items() if key in kept)
    # A linear coder moved with its data gives the codes it gave before.
    own = type(fitted[name]).restore(fitted[name].config, fitted[name].state()).rethreshold(embeddings)
    if set(kept) == {"dim_in", "weights"}:
        assert (codes.unpack(own.encode(embeddings)) != codes.unpack(coder.encode(shifted))).mean() < 0.001
    with pytest.raises(InputError, match="dimensions"):
        coder.rethreshold(embeddings[:, :5])


def test_bad_embeddings(
    name: str, fitted: dict[str, Any], embeddings: np.ndarray, classes: np.ndarray
) -> None:
    hurt = embeddings.copy()
    hurt[123, 4] = np.nan
    for use in (lambda x: fit(name, x, classes), fitted[name].encode, fitted[name].project):
        with pytest.raises(InputError, match="row 123 of the embeddings is not finite"):
            use(hurt)
    with pytest.raises(InputError, match="row 0"):
        fitted[name].encode(np.full((1, 24), np.inf))
    for use in (fitted[name].encode, fitted[name].project):
        with pytest.raises(InputError, match="23 dimensions, the coder was fitted on 24"):
            use(embeddings[:, :23])
    with pytest.raises(InputError, match="all 600 embeddings are the same"):
        fit(name, np.full_like(embeddings, 0.1), classes)
    for wrong in (embeddings[:1], embeddings[:0], np.zeros((5, 0), np.float32), np.zeros((2, 3, 4))):
        with pytest.raises(InputError):
            fit(name, wrong, classes[: len(wrong)])
    with pytest.raises(InputError, match="not an array of numbers"):
        fit(name, [["a", "b"], ["c", "d"]], classes[:2])
    assert fitted[name].encode(embeddings[:0]).shape == (0, BITS // 8)


def test_a_failed_fit_leaves_the_coder_as_it_was(
    name: str, fitted: dict[str, Any], embeddings: np.ndarray
) -> None:
    coder = type(fitted[name]).restore(fitted[name].config, fitted[name].state())
    with pytest.raises(InputError):
        coder.fit(np.full_like(embeddings, np.nan))
    with pytest.raises(InputError):
        coder.rethreshold(np.full_like(embeddings, 2.0))
    assert np.array_equal(coder.encode(embeddings), fitted[name].encode(embeddings))


def test_not_fitted(name: str, embeddings: np.ndarray) -> None:
    coder = plugins.get("codes", name).Coder(plugins.configure("codes", name))
    assert coder.dim_in is None
    for use in (coder.encode, coder.project, coder.rethreshold):
        with pytest.raises(ConfigError, match="not fitted"):
            use(embeddings)
    with pytest.raises(ConfigError, match="not fitted"):
        coder.state()


def test_more_bits_than_dimensions_or_a_reason(
    name: str, embeddings: np.ndarray, classes: np.ndarray
) -> None:
    coder = attempt(lambda: fit(name, embeddings, classes, bits=40))
    if isinstance(coder, SemblanceError):
        assert isinstance(coder, ConfigError)
        assert "at most" in coder.message
        return
    found = codes.diagnose(coder.encode(embeddings))
    assert found.dead == 0
    assert coder.labels or found.max_correlation < 0.999  # few classes may share few codes


def test_fewer_directions_than_bits(name: str, embeddings: np.ndarray, classes: np.ndarray) -> None:
    """Five rows span four directions; nothing may crash, and what comes out is codes."""
    few, y = embeddings[:5], np.array([0, 0, 1, 1, 1])
    coder = attempt(lambda: fit(name, few, y))
    if isinstance(coder, SemblanceError):
        return
    packed = coder.encode(few)
    assert packed.shape == (5, BITS // 8)
    assert len(np.unique(packed, axis=0)) > 1


def test_a_constant_dimension_and_other_types_do_no_harm(
    name: str, embeddings: np.ndarray, classes: np.ndarray
) -> None:
    flat = embeddings.astype(np.float64)
    flat[:, 3] = 0.25
    coder = fit(name, flat, classes)
    assert codes.diagnose(coder.encode(flat)).dead == 0
    half = embeddings.astype(np.float16)
    assert fit(name, half, classes).encode(half).shape == (600, BITS // 8)


def test_another_state_is_refused(name: str, fitted: dict[str, Any]) -> None:
    state, coder = fitted[name].state(), fitted[name]
    for key in state:
        with pytest.raises(CollectionError, match=f"16-bit {name} coder"):
            type(coder).restore(coder.config, {k: v for k, v in state.items() if k != key})
    with pytest.raises(CollectionError):
        type(coder).restore(dataclasses.replace(coder.config, bits=32), state)
