"""The library in scikit-learn's shape: `Embedder(...).fit(images).transform(images)`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from semblance import plugins
from semblance.collection.build import learn
from semblance.collection.model import Model
from semblance.collection.store import Collection

__all__ = ["Embedder"]


class Embedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learns an embedding on images without labels, and embeds images.

    The constructor only stores; the parameters are those of `semblance.collection.settings.Options`, with
    `square` for its `fit`. With `out` the collection that `fit` makes is kept there, else only the model.

    After `fit`: `model_` (`Model`), `embedding_` `(n, d)` float32 of the images it was fitted to,
    `paths_` their names, `n_features_out_` = d, and for an array `n_features_in_` = h w c.

    >>> Embedder(objective="sme", epochs=3)
    Embedder(epochs=3, objective='sme')
    """

    def __init__(
        self,
        objective: str = "cbswr",
        *,
        objective_options: Mapping[str, Any] | None = None,
        encoder: str | None = None,
        encoder_options: Mapping[str, Any] | None = None,
        views: str | None = None,
        views_options: Mapping[str, Any] | None = None,
        training_options: Mapping[str, Any] | None = None,
        weights: str | Path | None = None,
        epochs: int | None = None,
        budget: float | None = None,
        batch: int | None = None,
        size: int | None = None,
        square: str | None = None,
        device: str = "auto",
        seed: int = 0,
        out: str | Path | None = None,
        overwrite: bool = True,
    ) -> None:
        self.objective = objective
        self.objective_options = objective_options
        self.encoder = encoder
        self.encoder_options = encoder_options
        self.views = views
        self.views_options = views_options
        self.training_options = training_options
        self.weights = weights
        self.epochs = epochs
        self.budget = budget
        self.batch = batch
        self.size = size
        self.square = square
        self.device = device
        self.seed = seed
        self.out = out
        self.overwrite = overwrite

    def fit(self, X: Any, y: Any = None) -> Embedder:
        """Itself, after learning on `X`: a folder, glob, manifest, list of paths or uint8 `(n, h, w, c)`.

        `y`: for an objective that learns from labels, one for each image (-1 or None for none), or bool
        `(n, classes)`; else it is ignored. Raises what `semblance.learn` raises.
        """
        options = {name: value for name, value in self.get_params(deep=False).items() if value is not None}
        if y is not None and getattr(plugins.get("objectives", self.objective).Objective, "labels", False):
            options["labels"] = list(y)
        out, square = options.pop("out", None), options.pop("square", None)
        if square is not None:
            options["fit"] = square
        if out is not None:
            self._keep(learn(X, out, **options))
        else:
            with tempfile.TemporaryDirectory(prefix="semblance-") as folder:
                self._keep(learn(X, Path(folder) / "fitted.smb", **options))
        if isinstance(X, np.ndarray):
            self.n_features_in_ = int(np.prod(X.shape[1:]))
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embeddings `(n, d)` float32 of `X` (as for `fit`, or what `Model.embed` takes).

        Raises `NotFittedError` before `fit`, `InputError` for an image that cannot be read.
        """
        check_is_fitted(self, "model_")
        return self.model_.embed(X, device=self.device)

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> NDArray[np.float32]:
        """The embeddings of the readable images in `X`, after learning on them."""
        rows: NDArray[np.float32] = self.fit(X, y, **fit_params).embedding_
        return rows

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """The names `embedder0`, `embedder1`, ... of the columns."""
        check_is_fitted(self, "model_")
        return np.asarray([f"embedder{i}" for i in range(self.n_features_out_)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def _keep(self, collection: Collection) -> None:
        self.model_: Model = collection.model
        self.embedding_ = np.array(collection.embeddings)
        self.paths_ = collection.paths
        self.n_features_out_ = self.model_.dim
