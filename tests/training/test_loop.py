"""The loop: what it writes, how long it takes, what it refuses, and that it learns."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from semblance.contracts import Batch, Loss, View
from semblance.errors import CollectionError, ConfigError, TrainingCollapsed
from semblance.images.views import PRESETS
from semblance.training import loop
from semblance.training.config import TrainConfig
from semblance.training.loop import train

Make = Callable[..., Any]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["sme", "cbswr"])
def test_what_is_written(name: str, store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    learner = objective(name)
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    done = train(store(20), learner, config(), tmp_path, 8, lambda *step: seen.append(step))
    assert done.epochs == 2
    assert done.seconds >= done.history[-1]["seconds"] > done.history[0]["seconds"] > 0
    assert lines(tmp_path) == done.history
    assert (tmp_path / "checkpoint" / "last.safetensors").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "metrics.jsonl"}
    for number, record in enumerate(done.history, 1):
        assert set(record) == {"epoch", "seconds", "lr", "loss", "terms", "stats", "health"}
        assert record["epoch"] == number
        assert record["loss"] == pytest.approx(sum(record["terms"].values()), rel=1e-5)
        assert {"effective_rank", "mean_cosine", "positive_cosine"} <= set(record["health"])
    if name == "cbswr":
        last = done.history[-1]
        assert 0 < last["health"]["used_clusters"] <= 1
        assert sum(last["health"]["gradient_shares"].values()) == pytest.approx(1, abs=1e-5)
        assert {"confidence", "degenerate", "gamma", "conditional_entropy"} <= set(last["stats"])
    assert [step for step in seen if step[0] == "learn"] == [("learn", 8 * i, 32) for i in (1, 2, 3, 4)]
    assert any(not torch.equal(value, before[key]) for key, value in learner.state_dict().items())
    assert not learner.training


def test_loss_of_a_record_is_the_mean_of_its_steps(
    store: Make, objective: Make, config: Make, tmp_path: Path
) -> None:
    learner, losses = objective(), []
    learner.register_forward_hook(lambda module, given, loss: losses.append(float(loss.total.detach())))
    done = train(store(32), learner, config(epochs=1), tmp_path, 8)
    assert len(losses) == 4
    assert done.history[0]["loss"] == pytest.approx(math.fsum(losses) / 4, rel=1e-12)


def test_who_wants_to_hear_it_is_told_how_the_epoch_goes(
    store: Make, objective: Make, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listener:
        notes: ClassVar[list[tuple[str, str]]] = []

        def __call__(self, stage: str, done: int, total: int) -> None:
            clock.step()

        def note(self, stage: str, text: str) -> None:
            self.notes.append((stage, text))

    clock = Clock(0.6)
    monkeypatch.setattr(loop, "time", clock)
    learner, losses = objective(), []
    learner.register_forward_hook(lambda module, given, loss: losses.append(float(loss.total.detach())))
    train(store(32), learner, config(), tmp_path, 8, Listener())
    means = [
        sum(losses[first : last + 1]) / (last + 1 - first) for first, last in ((0, 0), (0, 2), (4, 4), (4, 6))
    ]
    epochs = (1, 1, 2, 2)
    assert Listener.notes == [
        ("learn", f"epoch {epoch} of 2, loss {mean:.3f}") for epoch, mean in zip(epochs, means, strict=True)
    ]


def test_every_image_is_seen_once_an_epoch(
    store: Make, objective: Make, config: Make, tmp_path: Path
) -> None:
    learner, seen = objective(), []
    learner.register_forward_pre_hook(lambda module, given: seen.extend(given[0].ids.tolist()))
    train(store(16), learner, config(), tmp_path, 8)
    assert sorted(seen[:16]) == sorted(seen[16:]) == list(range(16))
    assert seen[:16] != seen[16:]


def test_the_same_seed_gives_the_same_weights(
    store: Make, objective: Make, config: Make, tmp_path: Path
) -> None:
    """And the global random state, whatever it is, plays no part."""
    states = []
    for attempt, seed in enumerate((3, 3, 4)):
        learner = objective("cbswr", 0)
        torch.manual_seed(attempt)
        train(store(), learner, config(seed=seed), tmp_path / str(attempt), 8)
        states.append(torch.cat([value.flatten().double() for value in learner.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    "options",
    [{"optimiser": "sgd", "lr": 3e-3}, {"optimiser": "sgd", "momentum": 0.0}, {"optimiser": "adamw"}],
)
def test_it_learns(
    options: dict[str, Any], store: Make, objective: Make, config: Make, tmp_path: Path
) -> None:
    done = train(store(16), objective(), config(epochs=10, **options), tmp_path, 8)
    losses = [record["loss"] for record in done.history]
    assert sum(losses[-2:]) < sum(losses[:2])


def test_rates_follow_the_schedule(store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    options = {"schedule": "steps", "milestones": (1, 2), "factors": (0.5, 0.1), "warmup": 0.0, "lr": 0.01}
    done = train(store(), objective(), config(epochs=3, **options), tmp_path, 8)
    assert [record["lr"] for record in done.history] == pytest.approx([0.01, 0.005, 0.001])


def test_weight_decay_of_a_group_is_its_own(
    store: Make, objective: Make, config: Make, tmp_path: Path
) -> None:
    """With a rate of 0.1 and decay 0.5 the cluster head shrinks by 5 % a step on top of its gradient."""
    kept = []
    for decay in (0.0, 0.5):
        learner = objective("cbswr", head_decay=decay, logits="raw", rim=1e-12)
        start = learner.cluster.linear.weight.detach().clone()
        options = {"optimiser": "sgd", "momentum": 0.0, "lr": 0.1, "weight_decay": 0.0, "warmup": 0.0}
        train(store(8), learner, config(epochs=1, schedule="constant", **options), tmp_path / str(decay), 8)
        kept.append((learner.cluster.linear.weight.detach() / start).mean().item())
    assert kept == pytest.approx([1.0, 0.95], abs=1e-4)


def test_a_batch_is_at_most_the_store(store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    sizes = []
    learner = objective()
    learner.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0].ids)))
    train(store(5), learner, config(batch=64), tmp_path, 8)
    assert sizes == [5, 5]


@pytest.mark.parametrize("n", [0, 1])
def test_one_image_is_not_enough(n: int, store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        train(store(n), objective(), config(), tmp_path, 8)
    assert not list(tmp_path.iterdir())


def test_more_clusters_than_images(store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cbswr\.clusters is 9, a batch has 8 images"):
        train(store(), objective("cbswr", clusters=9), config(), tmp_path, 8)


class Clock:
    """Time that passes by `tick` at every step of the training."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 100.0, tick

    def monotonic(self) -> float:
        return self.now

    def step(self, *progress: Any) -> None:
        self.now += self.tick


@pytest.mark.parametrize(("budget", "epochs"), [(25.0, 2), (29.9, 2), (30.1, 3), (10.5, 1)])
def test_a_budget_ends_at_whole_epochs(
    budget: float, epochs: int, store: Make, objective: Make, config: Make, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Ten steps an epoch, a second a step: an epoch takes 10 s, and the rate ends near 0."""
    clock = Clock(1.0)
    monkeypatch.setattr(loop, "time", clock)
    done = train(store(20), objective(), config(batch=2, budget=budget), tmp_path, 8, clock.step)
    assert done.epochs == epochs == len(done.history)
    assert done.seconds == pytest.approx(10 * epochs)
    assert done.seconds <= budget
    assert done.history[-1]["lr"] < 0.05 * TrainConfig().base_lr() + 1e-3 * (epochs == 1)


def test_a_budget_counts_what_was_spent_before(
    store: Make, objective: Make, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(1.0)
    monkeypatch.setattr(loop, "time", clock)
    stop = {"after": 13}

    def interrupted(*progress: Any) -> None:
        clock.step()
        stop["after"] -= 1
        if not stop["after"]:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(store(20), objective(), config(batch=2, budget=35.0), tmp_path, 8, interrupted)
    done = train(store(20), objective(), config(batch=2, budget=35.0), tmp_path, 8, clock.step)
    assert done.epochs == 3
    assert done.seconds == pytest.approx(30)


def test_a_budget_below_an_epoch_is_said_early(
    store: Make, objective: Make, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(1.0)
    monkeypatch.setattr(loop, "time", clock)
    steps = []
    with pytest.raises(ConfigError, match=r"one epoch takes about 20 s here, the budget is 15 s") as caught:
        train(
            store(40), objective(), config(batch=2, budget=15.0), tmp_path, 8,
            lambda *progress: (clock.step(), steps.append(1)),
        )  # fmt: skip
    assert "--budget" in caught.value.hint
    assert len(steps) == loop.TIMING_STEPS


def test_what_comes_once_is_not_taken_for_the_pace(
    store: Make, objective: Make, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 steps of 1 s, 3 s for neighbours before each epoch, and a first step of 30 s: 23 s an epoch."""
    clock = Clock(1.0)
    monkeypatch.setattr(loop, "time", clock)
    learner, planned = objective(), []

    def look(embed: Any) -> None:
        clock.now += 3.0

    learner.before_epoch = look

    def step(stage: str, done: int, total: int) -> None:
        clock.now += 30.0 if done == 2 else 1.0
        planned.append(total // 40)

    done = train(store(40), learner, config(batch=2, budget=100.0, epochs=9), tmp_path, 8, step)
    assert done.epochs == 3
    assert done.seconds == pytest.approx(3 * 23 + 29)
    assert planned[loop.TIMING_STEPS :] == [3] * (60 - loop.TIMING_STEPS)


def test_another_budget_goes_on_from_the_same_checkpoint(
    store: Make, objective: Make, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(1.0)
    monkeypatch.setattr(loop, "time", clock)
    assert train(store(20), objective(), config(batch=2, budget=25.0), tmp_path, 8, clock.step).epochs == 2
    done = train(store(20), objective(), config(batch=2, budget=45.0), tmp_path, 8, clock.step)
    assert done.epochs == 4
    assert done.seconds == pytest.approx(40)


def test_saves_every_two_minutes(
    store: Make, objective: Make, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(50.0)
    monkeypatch.setattr(loop, "time", clock)
    saved = []
    whole = loop.checkpoint.save

    def save(path: Any, module: Any, optimiser: Any, meta: Any) -> None:
        saved.append((meta["epoch"], meta["step"]))
        whole(path, module, optimiser, meta)

    monkeypatch.setattr(loop.checkpoint, "save", save)
    train(store(20), objective(), config(batch=2, epochs=1), tmp_path, 8, clock.step)
    assert saved == [(0, 3), (0, 6), (0, 9), (1, 0)]


def test_a_loss_that_is_not_finite(store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    learner = objective()

    def spoil(module: Any, given: Any, loss: Any) -> Any:
        loss.total = loss.total * math.nan
        return loss

    learner.register_forward_hook(spoil)
    with pytest.raises(TrainingCollapsed, match="not finite at epoch 1, step 1") as caught:
        train(store(), learner, config(), tmp_path, 8)
    assert caught.value.exit_code == 4
    assert "--training.lr" in caught.value.hint


class Flat(torch.nn.Module):
    """A head that says the same of every image."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(features * 0 + 1, dim=1)


def test_a_collapse_is_an_error_and_stays_one(
    store: Make, objective: Make, config: Make, tmp_path: Path
) -> None:
    """Two flat epochs end it with exit code 4 and a knob; the same command again says so again."""

    def collapsed() -> Any:
        learner = objective()
        learner.head = Flat()
        return learner

    for _ in range(2):
        with pytest.raises(TrainingCollapsed, match=r"mean cosine 1\.000") as caught:
            train(store(), collapsed(), config(epochs=2, lr=1e-4), tmp_path, 8)
        assert caught.value.exit_code == 4
        assert "--training.patience" in caught.value.hint
    assert len(lines(tmp_path)) == 2
    patient = config(epochs=3, lr=1e-4, patience=0)
    assert train(store(), collapsed(), patient, tmp_path / "patient", 8).epochs == 3


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"lr": 0.5}, {"batch": 4}, {"epochs": 3}, {"objective": {"tau": 0.3}}, {"n": 21}]
)
def test_a_checkpoint_of_other_settings_is_refused(
    change: dict[str, Any], store: Make, objective: Make, config: Make, tmp_path: Path
) -> None:
    train(store(20), objective(), config(), tmp_path, 8)
    options = {key: value for key, value in change.items() if key not in ("objective", "n")}
    with pytest.raises(ConfigError, match="other settings") as caught:
        train(
            store(change.get("n", 20)), objective(**change.get("objective", {})), config(**options),
            tmp_path, 8,
        )  # fmt: skip
    assert "delete it" in caught.value.hint


def test_a_finished_training_is_not_repeated(
    store: Make, objective: Make, config: Make, tmp_path: Path
) -> None:
    """The second call takes no step, and restores the metrics that a kill may have lost."""
    first, second = objective(), objective(seed=9)
    done = train(store(), first, config(), tmp_path, 8)
    (tmp_path / "metrics.jsonl").unlink()
    steps: list[Any] = []
    again = train(store(), second, config(device="auto", patience=5), tmp_path, 8, lambda *s: steps.append(s))
    assert not steps
    assert again.history == done.history == lines(tmp_path)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])


def test_a_damaged_checkpoint_is_one_line(store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    train(store(), objective(), config(), tmp_path, 8)
    path = tmp_path / "checkpoint" / "last.safetensors"
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"\xff" * 64, whole[:8] + b"{" * 20 + whole[28:]):
        path.write_bytes(damage)
        with pytest.raises(CollectionError, match="damaged") as caught:
            train(store(), objective(), config(), tmp_path, 8)
        assert "delete it" in caught.value.hint
        assert "\n" not in caught.value.message


def test_trains_in_a_thread(store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    """Where Ctrl-C cannot be caught, training runs all the same."""
    done = []
    thread = threading.Thread(
        target=lambda: done.append(train(store(), objective(), config(epochs=1), tmp_path, 8))
    )
    thread.start()
    thread.join()
    assert done[0].epochs == 1


def test_neighbours_are_looked_up_every_epoch(
    store: Make, objective: Make, config: Make, tmp_path: Path
) -> None:
    """With `partner` 1 the second view shows the nearest neighbour as the epoch began."""
    learner, looked = objective(partner=1.0), []
    find = learner.partner.find

    def watch(embed: Any) -> None:
        rows = embed()
        looked.append(rows)
        find(lambda: rows)

    learner.partner.find = watch
    train(store(20), learner, config(), tmp_path, 8)
    assert [tuple(rows.shape) for rows in looked] == [(20, learner.encoder.dim)] * 2
    unit = torch.nn.functional.normalize(looked[-1], dim=1)
    similar = (unit @ unit.T).fill_diagonal_(-2)
    assert torch.equal(learner.partner.neighbours, similar.argmax(1))


def test_a_read_only_store_will_do(store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", store())
    pixels = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    assert train(pixels, objective(), config(epochs=1), tmp_path, 8).epochs == 1


def test_bf16(store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    done = train(store(), objective("cbswr"), config(precision="bf16"), tmp_path, 8)
    assert all(math.isfinite(record["loss"]) for record in done.history)


@pytest.mark.parametrize("views", [None, (View(), View(), View(0.5, 0.25), View(0.5), View(0.1))])
def test_an_objective_says_which_views_it_wants(
    views: tuple[View, ...] | None, store: Make, objective: Make, config: Make, tmp_path: Path
) -> None:
    """Sides and areas as declared; every second view shows the partner; the first two as without a word."""
    learner, seen = objective(), []
    learner.partners = lambda ids, _: (ids + 1) % 8
    own = learner.forward

    def forward(batch: Batch) -> Loss:
        seen.append(batch)
        return own(Batch(batch.views[:2], batch.ids))

    learner.forward = forward
    if views:
        learner.views = views
    pixels = store(8)
    train(pixels, learner, config(epochs=1, views=PRESETS["none"]), tmp_path, 8)
    (batch,) = seen
    whole = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    shown, partners = whole[batch.ids], whole[(batch.ids + 1) % 8]
    assert torch.allclose(batch.views[0], shown)
    assert torch.allclose(batch.views[1], partners)
    if not views:
        assert len(batch.views) == 2
        return
    assert [view.shape[-1] for view in batch.views] == [8, 8, 4, 4, 1]
    # Each image is four squares: at half the size all are there, in a quarter of the area they cannot be.
    assert torch.allclose(batch.views[3], partners[:, :, ::2, ::2])
    assert not torch.allclose(batch.views[2], shown[:, :, ::2, ::2], atol=0.02)
    assert torch.allclose(batch.views[4], shown.mean((2, 3), keepdim=True), atol=1e-5)
