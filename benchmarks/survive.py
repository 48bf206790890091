"""Does it survive? Hostile files, kills at random moments, a full disk.

    python benchmarks/survive.py                      # prints and writes docs/results/survive.md

Hostile: over 200 files of every kind that breaks tools; the run must end and list each with its reason.
Kills: the same small run is killed with SIGKILL at 20 random moments, then started again; it must end with
the bytes of an undisturbed run, nothing lost or doubled. Full disk: a run onto a small disk image (root
only, else a limit on file sizes) must end in one line and leave the old collection as it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hostile import make_hostile

SMALL = [
    "--encoder",
    "resnet",
    "--encoder.depth",
    "10",
    "--encoder.width",
    "8",
    "--size",
    "16",
    "--epochs",
    "3",
]


def digits(folder: Path, count: int) -> Path:
    """A folder of `count` small PNG files."""
    folder.mkdir()
    for index, image in enumerate(load_digits().images[:count]):
        Image.fromarray((image * 15).astype(np.uint8)).resize((16, 16)).save(folder / f"{index:04d}.png")
    return folder


def command(*words: str) -> list[str]:
    """The words that start `semblance` in a process of its own."""
    return [sys.executable, "-m", "semblance", *words]


def fingerprint(collection: Path) -> str:
    """A hash of the parts that must not depend on what happened on the way."""
    digest = hashlib.blake2b(digest_size=8)
    for name in ("pixels.npy", "embeddings.npy"):
        digest.update((collection / name).read_bytes())
    info = json.loads((collection / "collection.json").read_text(encoding="utf-8"))
    digest.update(json.dumps([info["counts"], info["model"]], sort_keys=True).encode())
    return digest.hexdigest()


def hostile(place: Path) -> dict[str, Any]:
    """How many hostile files there were, how many were listed as expected, and those that were not."""
    import pyarrow.parquet as pq

    folder = place / "hostile"
    folder.mkdir()
    expected = make_hostile(folder)
    digits(folder / "fine", 40)
    done = subprocess.run(
        command("run", str(folder), "--out", str(place / "hostile.smb"), *SMALL),
        capture_output=True,
        text=True,
    )
    found: dict[str, str] = {}
    if done.returncode == 0:
        table = pq.read_table(place / "hostile.smb" / "images.parquet").to_pydict()
        found = dict(zip(table["path"], table["status"], strict=True))
    wrong = [
        f"{path!r}: expected {want}, found {found.get(path)}"
        for path, want in expected.items()
        if not found.get(path, "").removeprefix("unreadable: ").startswith(want)
    ]
    unreadable = sum(status != "ok" for status in found.values())
    return {"exit": done.returncode, "files": len(expected), "unreadable": unreadable, "wrong": wrong}


def kills(place: Path, count: int) -> dict[str, Any]:
    """Kill at random moments, start again, compare with an undisturbed run."""
    folder = digits(place / "digits", 300)
    words = command("run", str(folder), *SMALL)
    begin = time.monotonic()
    subprocess.run([*words, "--out", str(place / "whole.smb")], check=True, capture_output=True)
    length = time.monotonic() - begin
    want = fingerprint(place / "whole.smb")
    draw, moments, equal, hit, lines = random.Random(5), [], 0, 0, []
    for index in range(count):
        target = place / f"killed-{index}.smb"
        moment = draw.uniform(0.1, 1.0) * length
        process = subprocess.Popen(
            [*words, "--out", str(target)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moment)
        hit += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        again = subprocess.run([*words, "--out", str(target)], capture_output=True, text=True)
        same = again.returncode == 0 and fingerprint(target) == want
        equal += same
        moments.append(round(moment, 1))
        if not same:
            lines.append(f"killed after {moment:.1f} s: exit {again.returncode}, {again.stderr[-200:]}")
        leftovers = [
            path.name
            for path in place.iterdir()
            if path.name.startswith(".") and "killed" in path.name and path.is_dir()
        ]
        lines += [f"left behind: {name}" for name in leftovers]
        shutil.rmtree(target, ignore_errors=True)
    return {
        "kills": count,
        "hit a live run": hit,
        "equal": equal,
        "seconds of a run": round(length, 1),
        "moments": moments,
        "wrong": lines,
    }


def full_disk(place: Path) -> dict[str, Any]:
    """Overwrite a collection on a disk that fills up: what was said, and whether the old one stands."""
    folder = place / "digits"
    disk = place / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)], capture_output=True
        ).returncode
        == 0
    )
    try:
        target = disk / "small.smb"
        subprocess.run(
            command("run", str(folder), "--out", str(target), *SMALL), check=True, capture_output=True
        )
        before = fingerprint(target)
        if mounted:
            free = shutil.disk_usage(disk).free
            (disk / "ballast").write_bytes(bytes(max(0, free - 150_000)))
        said = subprocess.run(
            command("run", str(folder), "--out", str(target), "--overwrite", *SMALL, "--seed", "1"),
            capture_output=True,
            text=True,
            preexec_fn=None if mounted else _small_files,
        )
        opens = subprocess.run(
            command("search", str(target), str(folder / "0001.png"), "--json"), capture_output=True, text=True
        )
        # A second way: the check before the start is off the table, the disk fills up in the middle.
        middle = _fill_while_running(folder, target, disk) if mounted else None
        return {
            "how": "a 96 MB disk image" if mounted else "a limit on file sizes",
            "exit": said.returncode,
            "said": said.stderr.strip().splitlines(),
            "filled while running": middle,
            "old collection intact": fingerprint(target) == before and opens.returncode == 0,
        }
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=False)


def _fill_while_running(folder: Path, target: Path, disk: Path) -> dict[str, Any]:
    ballast = disk / "ballast"
    ballast.unlink()
    process = subprocess.Popen(
        command("run", str(folder), "--out", str(target), "--overwrite", *SMALL, "--seed", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(disk.glob(".*/decode*")) + list(disk.glob(".*/pixels*")):
        time.sleep(0.02)
    try:
        with ballast.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
    except OSError:
        said = process.communicate()[1]
    ballast.unlink()
    lines = [line.replace(f"{disk}/", "") for line in said.splitlines()]
    return {"exit": process.returncode, "said": [x for x in lines if x.startswith(("error", "hint"))]}


def _small_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/survive.md"))
    parser.add_argument("--kills", type=int, default=20)
    wanted = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        lines = ["# Does it survive?", "", "Made by `benchmarks/survive.py`.", ""]
        bad = hostile(place)
        lines += [
            f"- {bad['files']} hostile files: exit {bad['exit']}, {bad['unreadable']} listed with a reason, "
            f"{len(bad['wrong'])} not as expected."
        ]
        lines += [f"    - {line}" for line in bad["wrong"]]
        print("\n".join(lines), flush=True)
        killed = kills(place, wanted.kills)
        lines += [
            f"- {killed['kills']} SIGKILLs, {killed['hit a live run']} of them into a live run of "
            f"{killed['seconds of a run']} s: {killed['equal']} ended with the bytes of an undisturbed run. "
            f"Moments (s): {killed['moments']}."
        ]
        lines += [f"    - {line}" for line in killed["wrong"]]
        print(lines[-1], flush=True)
        full = full_disk(place)
        lines += [
            f"- Full disk ({full['how']}): exit {full['exit']}; it said {full['said']}; "
            f"old collection intact: {full['old collection intact']}."
        ]
        if full["filled while running"]:
            lines += [f"    - Filled while the run was going: {full['filled while running']}"]
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    if bad["exit"] or bad["wrong"] or killed["equal"] < killed["kills"] or not full["old collection intact"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
