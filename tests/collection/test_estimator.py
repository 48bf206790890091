"""`Embedder` keeps the conventions of scikit-learn that apply to something that takes images."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import (
    check_estimator_repr,
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
)
from tests.collection.conftest import TINY

from semblance import Embedder, InputError
from semblance.collection.settings import Options

SMALL: dict[str, Any] = {key: TINY[key] for key in ("encoder", "encoder_options", "size", "device")}


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def fitted(images: Any) -> Embedder:
    return Embedder(epochs=1, **SMALL).fit(images)


@pytest.mark.parametrize(
    "check",
    [
        check_estimator_repr,
        check_get_params_invariance,
        check_no_attributes_set_in_init,
        check_parameters_default_constructible,
        check_set_params,
    ],
)
def test_scikit_learn_says(check: Callable[[str, Any], None]) -> None:
    check("Embedder", Embedder())


def test_the_constructor_only_stores() -> None:
    given = {"objective": "nonsense", "epochs": -5, "encoder_options": {"width": 4}, "seed": "x"}
    embedder = Embedder(**given)  # type: ignore[arg-type]
    assert {name: embedder.get_params()[name] for name in given} == given
    assert embedder.get_params()["encoder_options"] is given["encoder_options"]
    assert clone(embedder).get_params() == embedder.get_params()


def test_its_parameters_are_options() -> None:
    own = set(inspect.signature(Embedder.__init__).parameters) - {"self", "out", "square"}
    assert own <= set(Options.__dataclass_fields__)


def test_fit_and_transform(fitted: Embedder, images: Any) -> None:
    rows = fitted.transform(images)
    assert rows.shape == (30, 120)
    np.testing.assert_allclose(rows, fitted.embedding_, atol=1e-5)
    assert fitted.n_features_in_ == 12 * 12 * 3
    assert fitted.n_features_out_ == 120
    assert len(fitted.paths_) == 30
    assert fitted.get_feature_names_out()[:2].tolist() == ["embedder0", "embedder1"]
    again = clone(fitted)
    assert not hasattr(again, "model_")
    np.testing.assert_array_equal(again.fit_transform(images), fitted.embedding_)


def test_pickle(fitted: Embedder, images: Any) -> None:
    again = pickle.loads(pickle.dumps(fitted))
    assert again.model_.identity == fitted.model_.identity
    np.testing.assert_array_equal(again.transform(images[:4]), fitted.transform(images[:4]))


def test_before_fit(images: Any) -> None:
    for call in (lambda e: e.transform(images), lambda e: e.get_feature_names_out()):
        with pytest.raises(NotFittedError):
            call(Embedder())
    with pytest.raises(InputError):
        Embedder(epochs=1, **SMALL).fit(images.astype(complex))


def test_in_a_pipeline_on_files(digits: Path, tmp_path: Path) -> None:
    paths = sorted(str(path) for path in digits.glob("*/*.png"))
    labels = [Path(path).parent.name for path in paths]
    out = tmp_path / "kept.smb"
    pipeline = make_pipeline(Embedder(epochs=1, out=out, **SMALL), KNeighborsClassifier(1))
    assert pipeline.fit(paths, labels).score(paths, labels) == 1
    assert (out / "collection.json").is_file()
