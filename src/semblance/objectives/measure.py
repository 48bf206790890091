"""Measurements as targets (Martinazzo, Espadoto and Hirata, ICPR 2020, arXiv 2004.11336), made general.

The paper learns an embedding of sky objects by regressing their catalogue magnitudes, which exist for every
object for free. Here the targets are what is measured on the pixels of any collection (`images.measure`) and
the user's own columns, each in a role: KEEP (predicted), DROP (predicted through a reversed gradient, so that
the features forget it; Ganin et al., JMLR 2016, arXiv 1505.07818), SHOW (only reported) or IGNORE.
Measurements are kept and the user's columns shown unless said otherwise: a table often holds the very labels
that a model shall later be tested on.

    L = mean_k w_k huber(h_k(e), y_k) + cross-entropies of categories + the same of DROP behind -lambda

over the targets that are there; a missing one is masked. What a linear reader can still tell of a DROP column
at the end is erased from the head in closed form (`_closing`): an adversary alone is slow, leaves a rest and,
where it is strong, takes what one wants to keep along. h is one hidden layer on the encoder's features e, and
a linear layer on the unit embedding, which so stays linear in what is kept; w equalises the columns' gradient
norms at e, measured every 50 steps. At the end the embedding is moved to a mean of zero before its rows get
length 1: regression does not care, and cosines otherwise tell mostly what all images share. Heads see the
image itself, not a view with other colours: targets are of the image. Alone, half of the images are mirrored
or turned by quarters, and what that changes is masked for them. One image in ten (`holdout`) lends no
targets, so that R^2 can be told on images whose values were not learned.

Use it alone where brightness, colour or size are what matters (microscopy, sky, sensors), down to batches of
8 and 200 images: regression cannot collapse; or in a sum, `sigreg+measure`, where invariance would throw
those away. Measuring takes 0.1 to 1 ms per image, once; the heads are small beside the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from semblance import ranks
from semblance.contracts import Batch, Column, Encoder, Loss, View
from semblance.errors import ConfigError
from semblance.objectives._closing import centre, erase_from
from semblance.objectives._heads import Heads, reverse
from semblance.objectives._parts import UnitHead, wide
from semblance.objectives._roles import asked_roles, roles
from semblance.objectives._shared import recall
from semblance.objectives._targets import Targets, prepare, read_circles

__all__ = ["SETTINGS", "Config", "Objective", "asked_roles", "equalised", "held_out", "roles", "turn"]

SETTINGS: dict[str, dict[str, Any]] = {
    "sky": {
        "encoder": "resnet",
        "size": 32,
        "views": "sky",
        "training": {
            "batch": 32,
            "epochs": 100,
            "optimiser": "adamw",
            "lr": 1e-4,
            "weight_decay": 0.0,
            "schedule": "constant",
            "warmup": 0.0,
        },
    },
}
EVERY = 50
RAMP = 300
"""Steps after which the reversed gradient has its full strength; the ramp is Ganin's, 2 / (1 + exp(-10 p)) -
1."""


@dataclass(frozen=True)
class Config:
    """`dim`: embedding size. `keep`, `drop`, `ignore`: names of columns separated by commas, `mean_*` for all
    that begin so; measurements that are not named are kept, the user's columns only shown. `circular`:
    columns that come round, as `hour:24`. `targets`: normal scores of the ranks, or of the `log`arithm.
    `hidden`: width of the heads' hidden layer, 0 for linear ones. `suppress`: strength of DROP. `turn`:
    chance that an image is mirrored or turned. `holdout`: share of images without targets."""

    dim: int = 128
    keep: str = ""
    drop: str = ""
    ignore: str = ""
    circular: str = ""
    targets: Literal["rank", "log"] = "rank"
    hidden: int = 128
    suppress: float = 0.1
    turn: float = 0.5
    holdout: float = 0.1

    def __post_init__(self) -> None:
        if self.dim < 2 or self.hidden < 0 or self.suppress < 0:
            raise ConfigError("measure needs dim >= 2, hidden >= 0 and suppress >= 0")
        if not 0 <= self.turn <= 1 or not 0 <= self.holdout < 1:
            raise ConfigError("measure needs 0 <= turn <= 1 and 0 <= holdout < 1")
        read_circles(self.circular)


def equalised(norms: Tensor) -> Tensor:
    """Weights `(k,)` of mean 1 that give gradients of `norms` one length; at most tenfold up or down. A
    column without a gradient keeps 1."""
    good = norms > 0
    if not bool(good.any()):
        return torch.ones_like(norms)
    middle = norms[good].log().mean().exp()
    weights = torch.where(good, middle / norms.clamp(min=1e-20), torch.ones_like(norms)).clamp(0.1, 10.0)
    return weights / weights.mean()


class Objective(nn.Module):
    """Regression of whatever `take_columns` brings."""

    views = (View(plain=1.0),)
    joins = True  # in a sum the embedding that is kept holds this one's too
    steps: Tensor
    weights: Tensor

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = UnitHead(encoder.dim, config.dim)
        self.register_buffer("steps", torch.tensor(0))
        self.count = 0  # `steps` where reading it does not wait for the device
        self.erases = bool(config.drop)
        self.roles: dict[str, str] = {}
        self.kept: nn.ModuleList | None = None
        self.dropped: nn.ModuleList | None = None
        self.register_load_state_dict_post_hook(recall)  # type: ignore[no-untyped-call]

    def take_columns(self, columns: Mapping[str, Column]) -> None:
        """Make targets and heads. Raises `ConfigError` where no column is left to predict."""
        self.roles = roles(self.config, columns)
        rows = len(next(iter(columns.values())).values) if columns else 0
        held = held_out(rows, self.config.holdout)
        circles = read_circles(self.config.circular)
        sets = []
        for role in ("keep", "drop"):
            chosen = {name: column for name, column in columns.items() if self.roles[name] == role}
            targets = prepare(chosen, self.config.targets, circles, held)
            sets.append(targets)
            codes = [one.codes for one in targets.categories]
            stacked = np.stack(codes, axis=1) if codes else np.zeros((len(targets.values), 0), np.int64)
            for name, table in {"values": targets.values, "codes": stacked, "turns": targets.turns}.items():
                self.register_buffer(f"{role}_{name}", torch.from_numpy(table), persistent=False)
        keep, drop = sets
        if not len(keep) and not len(drop):
            raise ConfigError(
                "measure has nothing to predict: every column is ignored, only shown or of one value",
                "ignore fewer, or name some of your own with --objective.keep",
            )
        self.kept, self.dropped = self._heads(keep), self._heads(drop)
        self.register_buffer("weights", torch.ones(len(keep)))

    def _heads(self, targets: Targets) -> nn.ModuleList | None:
        """On the features and on the embedding."""
        if not len(targets):
            return None
        config, dim = self.config, int(self.encoder.dim)
        return nn.ModuleList([Heads(dim, targets, config.hidden), Heads(config.dim, targets, 0, unit=True)])

    def check_batch(self, batch: int) -> None:
        """Raise `ConfigError` where there are no columns yet."""
        if self.kept is None and self.dropped is None:
            raise ConfigError("measure has no columns to predict", "train it through `semblance learn`")

    def forward(self, batch: Batch) -> Loss:
        """Terms `keep` and `drop` of one batch."""
        self.check_batch(len(batch.ids))
        alone = isinstance(self.encoder, nn.Module)  # in a sum the images are encoded once, for all
        images, turned = torch.cat(batch.views), None
        if alone and self.training and self.config.turn:
            images, turned = turn(images, self.config.turn)
        features = wide(self.encoder(images))
        with torch.autocast(features.device.type, enabled=False):
            return self._loss(features, batch.ids, turned)

    def finish(self, embed: Callable[[], Tensor], head: nn.Module) -> None:
        """Centre the own embedding, and take what is linearly left of the DROP columns out of all that is
        kept."""
        kept = [one.linear for one in head.modules() if isinstance(one, UnitHead)]
        if any(one is self.head.linear for one in kept):
            centre(self.head.linear, embed())
        if self.dropped is None or not kept:
            return
        features, hidden = embed(), self.erased()
        for linear in kept:
            erase_from(linear, features, hidden)

    def erased(self) -> Tensor:
        """What no linear reader shall tell of the images: `(n, k)`, the values of the DROP columns, NaN where
        missing, and a column for each level of a category."""
        codes = self._table("drop", "codes")
        levels = [
            (codes[:, [k]] == torch.arange(int(n), device=codes.device))
            for k, n in enumerate(codes.amax(0) + 1)
        ]
        hidden = [torch.where(codes[:, [k]] >= 0, one.float(), torch.nan) for k, one in enumerate(levels)]
        return torch.cat([self._table("drop", "values"), *hidden], 1)

    def _loss(self, features: Tensor, ids: Tensor, turned: Tensor | None) -> Loss:
        views = len(features) // len(ids)
        e = ranks.gather(features)
        rows = ranks.gather(ids.repeat(views))
        lost = None if turned is None else ranks.gather(turned)
        terms: dict[str, Tensor] = {}
        stats: dict[str, Tensor] = {}
        if self.kept is not None:
            losses = self._losses(self.kept, "keep", (e, self.head(e)), rows, lost)
            if self.training and self.count % EVERY == 0 and e.requires_grad:
                self._equalise(losses[0], e)
            terms["keep"] = (self.weights.clone() * (losses[0] + losses[1])).mean() / 2
            stats["weight.spread"] = self.weights.max() / self.weights.min()
        if self.dropped is not None:
            strength = self.config.suppress * (2 / (1 + float(np.exp(-10 * self.count / RAMP))) - 1)
            x = (reverse(e, strength), reverse(self.head(e), strength))
            terms["drop"] = torch.stack(self._losses(self.dropped, "drop", x, rows, lost)).mean()
        self.steps += self.training
        self.count += self.training
        return Loss(sum(terms.values(), torch.zeros((), device=e.device)), terms, stats)

    def _losses(
        self, heads: nn.ModuleList, role: str, x: tuple[Tensor, Tensor], rows: Tensor, turned: Tensor | None
    ) -> list[Tensor]:
        values, codes = self._table(role, "values")[rows], self._table(role, "codes")[rows]
        if turned is not None:
            lost = turned[:, None] & self._table(role, "turns")[None]
            values = values.masked_fill(lost, torch.nan)
        return [head.losses(one, values, codes) for head, one in zip(heads, x, strict=True)]  # type: ignore[operator]

    def _table(self, role: str, name: str) -> Tensor:
        table: Tensor = self.get_buffer(f"{role}_{name}")
        return table

    def _equalise(self, losses: Tensor, e: Tensor) -> None:
        """The norm of every column's gradient at e, and weights half way to what would make them equal."""
        norms = [torch.autograd.grad(one, e, retain_graph=True)[0].norm() for one in losses]
        wanted = equalised(torch.stack(norms))
        self.weights.copy_(wanted if self.count == 0 else 0.5 * (self.weights + wanted))


def held_out(n: int, share: float) -> Any:
    """`(n,)` bool: which rows lend no targets; the same for the same n. At least two are always left."""
    held = np.zeros(n, bool)
    chosen = np.random.default_rng(n).permutation(n)[: min(round(share * n), max(n - 2, 0))]
    held[chosen] = True
    return held


def turn(images: Tensor, chance: float) -> tuple[Tensor, Tensor]:
    """`(m, c, s, s)` images, each with `chance` mirrored or turned by quarters, and which were, `(m,)` bool.

    Drawn for the images of all ranks, so that each gets what one process would have given it.
    """
    m = len(images)
    here = slice(ranks.index() * m, (ranks.index() + 1) * m)
    coins = torch.rand(m * ranks.count())[here] < chance
    ways = torch.randint(1, 8, (m * ranks.count(),))[here] * coins
    out = images.clone()
    for way in range(1, 8):
        rows = (ways == way).nonzero()[:, 0].to(images.device)
        if len(rows):
            some = torch.rot90(images[rows], way % 4, (2, 3))
            out[rows] = some.flip(3) if way >= 4 else some
    return out, coins.to(images.device)
