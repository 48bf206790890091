"""Several objectives as one: `sigreg+measure` adds their losses over one pass of one encoder.

The losses are weighted so that their gradients at the shared feature maps E keep stated shares: every 50
steps the norms `g_k = |dL_k / dE|` are measured, and `w_k = (s_k / s_1) (g_1 / g_k)`; the first keeps its own
scale. (GradNorm, Chen et al., ICML 2018, arXiv 1711.02257, balances the same norms by learning the weights;
here they are solved for.) The first objective's head makes the embedding that is kept; where another `joins`
(measure), its own stands beside it, at half the weight of the cosine each. The views are those of the
objective that asks for most; one that asks for fewer sees the first of them. The first is plain for as large
a share of a batch as any of them wants it; one that is always plain, where it is asked for, comes after them.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from semblance import plugins, ranks
from semblance.contracts import PAIR, Batch, Loss
from semblance.errors import ConfigError
from semblance.objectives._closing import Erased
from semblance.objectives._shared import Joined, Shared, recall

__all__ = ["Combined", "balanced", "combine"]

EVERY = 50
MOST = 1e3


@functools.cache
def combine(title: str) -> types.ModuleType:
    """What the module of an objective offers, for the sum `title`, such as "sme+cbswr".

    Raises `ConfigError` for an unknown name and for one that stands there twice.
    """
    names = title.split("+")
    if "" in names or len(set(names)) < len(names):
        raise ConfigError(f'"{title}" is no sum of different objectives', "write for example sme+cbswr")
    kinds = {name: plugins.get("objectives", name).Config for name in names}
    config = dataclasses.make_dataclass(
        "Config",
        [
            *((name, kind, dataclasses.field(default=kind())) for name, kind in kinds.items()),
            ("shares", tuple[float, ...], dataclasses.field(default=())),
        ],
        namespace={
            "__doc__": f"`{'`, `'.join(names)}`: options of each. `shares`: of the gradient; none is equal.",
            "__module__": f"semblance.objectives.{title}",
            "__post_init__": _check,
            # A class that no file holds: another process makes it again from its name.
            "__reduce__": lambda self: (plugins.configure, ("objectives", title, dataclasses.asdict(self))),
            "dim": property(lambda self: sum(getattr(self, name).dim for name in _kept(names))),
        },
        frozen=True,
    )
    module = types.ModuleType(config.__module__, f"The sum of {', '.join(names)}.")
    labels = any(getattr(plugins.get("objectives", name).Objective, "labels", False) for name in names)
    objective = type("Objective", (Combined,), {"__module__": module.__name__, "labels": labels})
    module.__dict__.update(Config=config, Objective=objective, SETTINGS={})
    return module


def _check(config: Any) -> None:
    names = _names(config)
    if config.shares and (len(config.shares) != len(names) or min(config.shares) <= 0):
        raise ConfigError(
            f"shares is {','.join(f'{share:g}' for share in config.shares)}",
            f"expected one number above 0 for each of {', '.join(names)}",
        )


def _kept(names: Sequence[str]) -> list[str]:
    """Whose embeddings are kept: the first, and those that join."""
    joins = [name for name in names[1:] if getattr(plugins.get("objectives", name).Objective, "joins", False)]
    return [names[0], *joins]


def _names(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config) if field.name != "shares"]


def balanced(norms: Tensor, shares: Tensor) -> Tensor:
    """Weights `(k,)` that give gradients of `norms` `(k,)` the proportions `shares` `(k,)`; the first is 1.

    A loss without any gradient keeps the weight 1: no factor gives it a share.
    """
    wanted = (shares / shares[0] * norms[0] / norms.clamp(min=1e-12)).clamp(max=MOST)
    return torch.where((norms > 0) & (norms[0] > 0), wanted, torch.ones_like(wanted))


class Combined(nn.Module):
    """The weighted sum of the objectives that `config` has a field for."""

    weights: Tensor
    norms: Tensor
    steps: Tensor

    def __init__(self, config: Any, encoder: Any) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.shared = Shared(encoder)
        self.parts = nn.ModuleDict()
        for name in _names(config):
            part = plugins.get("objectives", name).Objective(getattr(config, name), encoder)
            del part.encoder  # it is kept once, above; the part looks through the shared one
            part.encoder = self.shared
            if hasattr(part, "joined"):
                part.joined()
            self.parts[name] = part
        self.erased: Erased | None = None
        if len(_kept(list(self.parts))) > 1 and any(getattr(part, "erases", False) for part in self._list()):
            self.erased = Erased(config.dim)
        self.views = _common_views(self.parts)
        shares = torch.tensor(config.shares or (1.0,) * len(self.parts))
        if self._having("take_columns"):
            self.take_columns = self._take_columns
        if self._having("take_labels"):
            self.take_labels = self._take_labels
        if self._having("finish"):
            self.finish = self._finish
        self.shares: tuple[float, ...] = tuple((shares / shares.sum()).tolist())
        self.register_buffer("weights", torch.ones(len(self.parts)))
        self.register_buffer("norms", torch.zeros(len(self.parts)))
        self.register_buffer("steps", torch.tensor(0))
        self.count = 0  # `steps` where reading it does not wait for the device
        self.register_load_state_dict_post_hook(recall)  # type: ignore[no-untyped-call]
        choosing = [name for name, part in self.parts.items() if _share(part) > 0]
        if len(choosing) > 1:
            raise ConfigError(
                f"{' and '.join(choosing)} both choose the partners of images",
                "leave one of them its partners",
            )
        ordering = [name for name, part in self.parts.items() if hasattr(part, "order")]
        if len(ordering) > 1:
            raise ConfigError(f"{' and '.join(ordering)} both make the batches", "combine only one of them")

    def _take_columns(self, columns: Any) -> None:
        """Hand the columns to who has roles for them, or else to every objective that asks: nobody is to keep
        what another one drops."""
        asking = self._having("take_columns")
        for part in [part for part in asking if hasattr(part, "roles")] or asking:
            part.take_columns(columns)

    def _take_labels(self, labels: Any) -> None:
        """Hand the labels to every objective that learns from them."""
        for part in self._having("take_labels"):
            part.take_labels(labels)

    def _finish(self, embed: Callable[..., Tensor], head: nn.Module) -> None:
        """Let every objective that asks have a last word on the head that is kept."""
        once = functools.cache(embed)
        for part in self._having("finish"):
            part.finish(once, head)
        if self.erased is not None:
            told = [part.erased() for part in self._list() if getattr(part, "erases", False)]
            with torch.no_grad():
                self.erased.fit(head.eval()(once()), torch.cat(told, 1))

    @property
    def head(self) -> nn.Module:
        """The first objective's, and beside it those of the others that join."""
        kept: list[Any] = [self.parts[name].head for name in _kept(list(self.parts))]
        whole: nn.Module = kept[0] if len(kept) == 1 else Joined(kept, self.erased)
        return whole

    @property
    def partner(self) -> Any:
        """Who chooses partners, where one of the objectives does."""
        return next((part.partner for part in self._list() if _share(part) > 0), None)

    def before_epoch(self, embed: Callable[[], Tensor]) -> None:
        """Tell every objective that asks; the features are made once, and only if one looks at them."""
        once = functools.cache(embed)
        for part in self._having("before_epoch"):
            part.before_epoch(once)

    def partners(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """`(m,)` ids -> the ids that the one objective which chooses wants to see."""
        return self.partner.draw(ids, generator) if self.partner is not None else ids

    def order(self, shuffled: Tensor, batch: int) -> Tensor:
        """An epoch's ids as the one objective wants them that makes its batches."""
        for part in self._having("order"):
            shuffled = part.order(shuffled, batch)
        return shuffled

    def after_step(self) -> None:
        """Tell every objective that asks."""
        for part in self._having("after_step"):
            part.after_step()

    def check_batch(self, batch: int) -> None:
        """Raise `ConfigError` where one of the objectives does."""
        for part in self._having("check_batch"):
            part.check_batch(batch)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The encoder's and every objective's own."""
        groups: list[dict[str, Any]] = [{"params": list(self.encoder.parameters())}]
        for part in self._list():
            own = part.parameter_groups() if hasattr(part, "parameter_groups") else None
            groups += own or [{"params": list(part.parameters())}]
        return [group for group in groups if group["params"]]

    def forward(self, batch: Batch) -> Loss:
        """`sum_k w_k L_k` of one batch, every view encoded once."""
        maps = self.shared.look(batch.views)
        losses = [part(Batch(self._seen(part, batch.views), batch.ids, batch.plain)) for part in self._list()]
        self.shared.forget()
        if self.training and self.count % EVERY == 0:
            self._weigh(losses, maps)
        self.steps += self.training
        self.count += self.training
        w = self.weights.clone()
        total = sum((w[k] * loss.total for k, loss in enumerate(losses)), torch.zeros((), device=w.device))
        named = list(zip(self.parts, losses, strict=True))
        terms = {
            f"{name}.{term}": w[k] * value
            for k, (name, loss) in enumerate(named)
            for term, value in loss.terms.items()
        }
        return Loss(total, terms, self._stats(named))

    def _seen(self, part: Any, views: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Those of the batch's views that one objective asks for."""
        own = _views(part)
        drawn = sum(view.plain < 1 for view in own)
        return (*views[:drawn], *(views[-1:] if len(own) > drawn else ()))

    def _weigh(self, losses: Sequence[Loss], maps: Sequence[Tensor]) -> None:
        """Measure every loss's gradient at E and move the weights half way to what would balance them."""
        maps = [part for part in maps if part.requires_grad]
        if not maps:
            return
        for k, loss in enumerate(losses):
            if loss.total.requires_grad:
                slopes = torch.autograd.grad(loss.total, maps, retain_graph=True, allow_unused=True)
                squares = [slope.float().square().sum() for slope in slopes if slope is not None]
                zero = torch.zeros((), device=self.norms.device)
                self.norms[k] = ranks.total(torch.stack([zero, *squares]).sum()).sqrt()
        wanted = balanced(self.norms, self.norms.new_tensor(self.shares))
        self.weights.copy_(wanted if self.count == 0 else 0.5 * (self.weights + wanted))

    @torch.no_grad()
    def _stats(self, named: Sequence[tuple[str, Loss]]) -> dict[str, Tensor]:
        stats: dict[str, Tensor] = {}
        for k, (name, loss) in enumerate(named):
            prefix = "" if k == 0 else f"{name}."
            stats |= {
                (f"{name}.{key}" if key.startswith("share.") else f"{prefix}{key}"): value
                for key, value in loss.stats.items()
            }
        strength = self.norms * self.weights
        shares = strength / strength.sum().clamp(min=1e-20)
        stats |= {f"share.{name}": share for (name, _), share in zip(named, shares, strict=True)}
        return stats | {f"weight.{name}": w for (name, _), w in zip(named, self.weights.clone(), strict=True)}

    def _list(self) -> list[Any]:
        return list(self.parts.values())

    def _having(self, method: str) -> list[Any]:
        return [part for part in self._list() if hasattr(part, method)]


def _views(part: Any) -> tuple[Any, ...]:
    views: tuple[Any, ...] = getattr(part, "views", PAIR)
    return views


def _share(part: Any) -> float:
    return float(getattr(getattr(part, "partner", None), "share", 0.0))


def _common_views(parts: nn.ModuleDict) -> tuple[Any, ...]:
    """The longest list of drawn views, the first as often plain as any part wants it, then one that is always
    plain where any part asks for it; raises `ConfigError` where another's drawn views are not its beginning.
    """
    often = max((view.plain for part in parts.values() for view in _views(part) if view.plain < 1), default=0)
    drawn = {}
    for name, part in parts.items():
        own = [view for view in _views(part) if view.plain < 1]
        drawn[name] = (*(dataclasses.replace(view, plain=often) for view in own[:1]), *own[1:])
    most = max(drawn.values(), key=len)
    for name, views in drawn.items():
        if views != most[: len(views)]:
            raise ConfigError(
                f"{name} needs other views than the rest of {'+'.join(parts)}", "give them the same views"
            )
    plain = [view for part in parts.values() for view in _views(part) if view.plain == 1]
    return (*most, *plain[:1])
