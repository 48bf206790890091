"""The head of CBSwR that says which cluster an image belongs to."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from semblance.objectives._cbswr_config import Config

__all__ = ["ClusterHead"]


class ClusterHead(nn.Module):
    """BatchNorm, dropout and one linear layer: unit embeddings `(n, d)` -> cluster logits `(n, K)`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        assert config.dim is not None
        assert config.clusters is not None
        assert config.scale is not None
        self.config = config
        self.scale = config.scale
        self.norm = nn.BatchNorm1d(config.dim)
        self.linear = nn.Linear(config.dim, config.clusters, bias=config.logits != "cosine")

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Logits with dropout, as trained, and without, for assignment."""
        z = self.norm(f)  # gathered rows: every rank sees the same, so plain statistics are global ones
        noisy = F.dropout(z, self.config.dropout, self.training)
        return self._logits(noisy), self._logits(z.detach()).detach()

    def _logits(self, z: Tensor) -> Tensor:
        if self.config.logits == "cosine":
            return self.scale * F.linear(F.normalize(z, dim=1), F.normalize(self.linear.weight, dim=1))
        logits = self.linear(z)
        return self.scale * F.normalize(logits, dim=1) if self.config.logits == "unit" else logits
