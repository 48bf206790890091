"""Stopped anywhere, started again: the weights and records of a training that was never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semblance.training import checkpoint, loop
from semblance.training.loop import train

Make = Callable[..., Any]
STEPS = 2 * 3  # epochs times steps of the trainings below


class StoppedError(Exception):
    """Stands for the power cut."""


def run(
    store: Make, objective: Make, config: Make, folder: Path, name: str, progress: Any = None, **options: Any
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    learner = objective(name, **options)
    done = train(store(24), learner, config(), folder, 8, progress)
    return learner.state_dict(), [{k: v for k, v in one.items() if k != "seconds"} for one in done.history]


def assert_same(first: Any, second: Any) -> None:
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    for key, value in first[0].items():
        assert torch.equal(value, second[0][key]), key


def after(steps: int, act: Callable[[], None]) -> Callable[..., None]:
    left = steps

    def progress(stage: str, *given: int) -> None:
        nonlocal left
        left -= stage == "learn"
        if not left:
            act()

    return progress


def stop() -> None:
    raise StoppedError


@pytest.mark.parametrize(
    ("save_every", "name", "options"),
    [
        (-1.0, "sme", {"partner": 0.5}),
        (-1.0, "cbswr", {"partner": 0.5}),
        (-1.0, "cbswr", {"variant": "released"}),
        (120.0, "cbswr", {"partner": 0.5}),
    ],
    ids=["sme", "cbswr", "cbswr released", "cbswr, saved every epoch"],
)
def test_stopped_after_any_step(
    save_every: float, name: str, options: dict[str, Any], store: Make, objective: Make, config: Make,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As often as there are steps, one step later each time."""
    monkeypatch.setattr(loop, "SAVE_EVERY", save_every)
    whole = run(store, objective, config, tmp_path / "whole", name, **options)
    for steps in range(1, STEPS):
        folder = tmp_path / str(steps)
        with pytest.raises(StoppedError):
            run(store, objective, config, folder, name, after(steps, stop), **options)
        assert_same(run(store, objective, config, folder, name, **options), whole)


def test_stopped_after_any_checkpoint(
    store: Make, objective: Make, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each step and each epoch, the last step's before its epoch is closed included."""
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    whole = run(store, objective, config, tmp_path / "whole", "sme")
    save = checkpoint.save
    for number in range(1, STEPS + 2):
        left = [number]

        def counted(*given: Any, left: list[int] = left) -> None:
            save(*given)
            left[0] -= 1
            if not left[0]:
                stop()

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save", counted)
            with pytest.raises(StoppedError):
                run(store, objective, config, tmp_path / str(number), "sme")
        assert_same(run(store, objective, config, tmp_path / str(number), "sme"), whole)


def test_ctrl_c_saves_the_step_and_leaves(store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    """In the middle of an epoch; the next run takes only the steps that are left."""
    whole = run(store, objective, config, tmp_path / "whole", "cbswr")
    previous = signal.getsignal(signal.SIGINT)
    ring = after(2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(store, objective, config, tmp_path / "rung", "cbswr", ring)
    assert signal.getsignal(signal.SIGINT) is previous
    assert (tmp_path / "rung" / "checkpoint" / "last.safetensors").is_file()
    taken: list[Any] = []
    done = run(store, objective, config, tmp_path / "rung", "cbswr", lambda *step: taken.append(step))
    assert sum(stage == "learn" for stage, *_ in taken) == STEPS - 2
    assert_same(done, whole)


def test_ctrl_c_at_the_end_of_an_epoch_is_not_forgotten(
    store: Make, objective: Make, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the last epoch is closed: all is saved, the next run has nothing left to learn; it is said."""
    whole, said, close = (
        run(store, objective, config, tmp_path / "whole", "sme"),
        [],
        loop._Training._end_epoch,
    )

    def ring(self: Any, epoch: int) -> None:
        close(self, epoch)
        if epoch == self.epochs - 1:
            signal.raise_signal(signal.SIGINT)

    def progress(*step: Any) -> None: ...

    progress.say = said.append  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "_end_epoch", ring)
        with pytest.raises(KeyboardInterrupt):
            run(store, objective, config, tmp_path / "rung", "sme", progress)
    assert len(said) == 1
    assert "stopping" in said[0]
    taken: list[Any] = []
    assert_same(run(store, objective, config, tmp_path / "rung", "sme", lambda *s: taken.append(s)), whole)
    assert not [stage for stage, *_ in taken if stage == "learn"]


def test_a_second_ctrl_c_does_not_wait(store: Make, objective: Make, config: Make, tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(store, objective, config, tmp_path, "sme", after(2, twice))
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the attempts are forked")
def test_killed_at_random_moments_at_steps_and_while_saving(tmp_path: Path) -> None:
    """SIGKILL: by the clock, in the middle of a step, and on either side of a checkpoint's rename."""
    scene = {
        "objective": "cbswr",
        "options": {"clusters": 4, "partner": 0.5},
        "training": {"optimiser": "adamw"},
        "folder": str(tmp_path),
        "save_every": 0.0,
        "seed": 7,
        "random": 5,
        "steps": [2, 3, 4],
        "saves": [[1, False], [1, True], [2, False]],
    }
    program = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, str(program), json.dumps(scene)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["whole"]) == 32, found
    ends = found["ends"]
    peaceful = [ends[5], ends[9], ends[13]]
    assert peaceful == [found["whole"]] * 3
    assert ends[6:9] == ends[10:13] == ["killed"] * 3
    assert set(ends[:5]) <= {"killed", found["whole"]}
