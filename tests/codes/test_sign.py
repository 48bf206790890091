"""The signs of an embedding that was trained to be a code are that code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semblance import codes
from semblance.codes import sign
from semblance.errors import ConfigError
from semblance.objectives._labelled import CodeHead


def test_the_code_of_a_trained_head() -> None:
    torch.manual_seed(0)
    head, features = CodeHead(6, 16, norm=True), torch.randn(300, 6)
    for _ in range(200):
        head(features)
    head.eval()
    with torch.no_grad():
        embedding, values = head(features).numpy(), head.values(features).numpy()
    found = codes.unpack(sign.Coder(sign.Config(bits=16)).fit(embedding).encode(embedding))
    assert ((values >= 0) != found).mean() < 0.02
    most = np.sort(np.argsort(-embedding.var(axis=0))[:8])
    fewer = codes.unpack(sign.Coder(sign.Config(bits=8)).fit(embedding).encode(embedding))
    assert np.array_equal(fewer, found[:, most])


def test_no_more_bits_than_coordinates(embeddings: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="at most 24 bits for 24-dimensional"):
        sign.Coder(sign.Config(bits=32)).fit(embeddings)
