from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from semblance import amounts
from semblance.cli import screen


def test_json_is_always_json(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_json(
        {"a": np.float32(0.5), "b": float("nan"), "c": [np.arange(2), Path("x/y")], "d": (1, True, None)}
    )
    assert json.loads(capsys.readouterr().out) == {
        "a": 0.5,
        "b": None,
        "c": [[0, 1], "x/y"],
        "d": [1, True, None],
    }


def test_a_table_sets_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_table(
        ["rank", "distance", "path"], [[1, 0.25, "a.png"], [10, None, "long name.png"]], "query.jpg"
    )
    assert capsys.readouterr().out.splitlines() == [
        "query.jpg",
        "rank  distance  path",
        "   1    0.2500  a.png",
        "  10         -  long name.png",
    ]


def test_an_empty_table_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_table(["rank", "path"], [])
    assert capsys.readouterr().out == "rank  path\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min")],
)
def test_seconds_to_read(seconds: float, text: str) -> None:
    assert amounts.seconds_text(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5e12, "5.0 TB")])
def test_bytes_to_read(count: float, text: str) -> None:
    assert amounts.bytes_text(count) == text


def test_stages_are_plain_lines_where_nobody_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 31.0, 40.0, 62.0, 62.0])
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    with screen.Screen() as watched:
        for done in (0, 100, 310, 400, 620, 620):
            watched.progress("decode", done, 620)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["decode: 310 of 620 in 31 s, 10/s, 31 s left", "decode: 620 in 1 min 2 s, 10/s"]


def test_the_first_interrupt_waits_for_a_safe_place(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    in_thread: list[None] = []

    def work() -> None:
        with screen.Screen() as watched:
            os.kill(os.getpid(), signal.SIGINT)
            worker = threading.Thread(target=lambda: in_thread.append(watched.progress("decode", 1, 2)))
            worker.start()
            worker.join()
            watched.progress("decode", 1, 2)
            in_thread.append(None)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert in_thread == [None], "stopped too early or too late"
    assert "safe place" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_stops_at_once() -> None:
    after: list[int] = []

    def work() -> None:
        with screen.Screen():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            after.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert after == []


def test_bars_where_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen.sys.stderr, "isatty", lambda: True, raising=False)
    with screen.Screen() as watched:
        watched.progress("decode", 1, 4)
        watched.progress("decode", 4, 4)
        watched.progress("learn", 1, 9)
        assert watched.bars is not None
        seen = [(task.description, task.completed, task.total) for task in watched.bars.tasks]
    assert seen == [("decode", 4, 4), ("learn", 1, 9)]
