"""`semblance doctor`: what this machine and installation have, and what mends what is missing."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from semblance import __version__
from semblance.amounts import bytes_text
from semblance.cli import options, screen
from semblance.errors import ConfigError

__all__ = ["command", "examine"]

INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vpopcntdq": "AVX-512 VPOPCNTDQ",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "amx_tile": "AMX",
    "asimd": "NEON",
    "bf16": "NEON BF16",
}
"""Flags of /proc/cpuinfo that change how fast a run is -> what people call them."""

_REQUIREMENT = re.compile(r'([A-Za-z0-9._-]+)[^;]*(?:;.*extra == [\'"]([\w-]+)[\'"])?')


@click.command(epilog="\b\nExample:\n  semblance doctor --json")
@options.json_option
@options.verbose_option
def command(as_json: bool, verbose: bool) -> None:
    """Show versions, cores, instruction sets, device, memory, disk and extras.

    Exit code 2 where something that every run needs is missing or broken.
    """
    found = examine()
    if as_json:
        screen.print_json(found)
    else:
        _print(found)
    if found["problems"]:
        click.get_current_context().exit(ConfigError.exit_code)


def examine() -> dict[str, Any]:
    """Everything the doctor knows, as plain values; `problems` is a list of `{"what", "mend"}`."""
    problems: list[dict[str, str]] = []
    packages, extras = _packages()
    for name, version in packages.items():
        if version is None:
            problems.append({"what": f"{name} is not installed", "mend": f'pip install "{name}"'})
    torch_facts = _torch(problems)
    _torchvision(problems)
    return {
        "semblance": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "extras": extras,
        "cores": _cores(),
        "instructions": _instructions(),
        **torch_facts,
        "memory": _memory(),
        "disk_free": shutil.disk_usage(Path.cwd()).free,
        "openmp": {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")},
        "problems": problems,
    }


def _packages() -> tuple[dict[str, str | None], dict[str, dict[str, Any]]]:
    """(version of every package a run needs, what each extra has and lacks)."""
    needed: dict[str, str | None] = {}
    extras: dict[str, dict[str, Any]] = {}
    for line in metadata.requires("semblance") or []:
        match = _REQUIREMENT.match(line)
        if match is None or match.group(1) == "semblance":
            continue
        name, extra = match.groups()
        if extra is None and "python_version" in line:
            continue
        if extra is None:
            needed[name] = _version(name)
        else:
            extras.setdefault(extra, {"packages": {}})["packages"][name] = _version(name)
    for extra, facts in extras.items():
        facts["installed"] = None not in facts["packages"].values()
        facts["mend"] = None if facts["installed"] else f'pip install "semblance[{extra}]"'
    return needed, extras


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _torch(problems: list[dict[str, str]]) -> dict[str, Any]:
    try:
        import torch

        from semblance.training.config import choose_device, choose_precision
    except (ImportError, OSError, RuntimeError) as error:
        problems.append(
            {"what": f"torch does not start: {error}", "mend": "pip install --force-reinstall torch"}
        )
        return {"device": None, "precision": None, "threads": None, "torch_instructions": None}
    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "precision": choose_precision("auto", device),
        "threads": torch.get_num_threads(),
        "torch_instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _torchvision(problems: list[dict[str, str]]) -> None:
    """A torchvision that does not fit this torch breaks whatever else looks for it."""
    if _version("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        problems.append(
            {"what": f"torchvision does not fit torch: {error}", "mend": "pip uninstall torchvision"}
        )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _instructions() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, flags=re.MULTILINE)
    flags = set(line.group(1).split()) if line else set()
    return [name for flag, name in INSTRUCTIONS.items() if flag in flags]


def _memory() -> int | None:
    """Bytes this process may use: the machine's, or its container's where that is less."""
    sizes = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(sizes, default=None)


def _print(found: dict[str, Any]) -> None:
    memory = bytes_text(found["memory"]) if found["memory"] else "unknown"
    vectors = ", ".join(found["instructions"]) or found["torch_instructions"] or "unknown"
    screen.print_table(
        ["", ""],
        [
            ["semblance", found["semblance"]],
            ["python", f"{found['python']} ({sys.executable})"],
            ["platform", found["platform"]],
            ["cores", f"{found['cores']} ({found['threads']} threads)"],
            ["instructions", vectors],
            ["device", f"{found['device']}, precision {found['precision']}"],
            ["memory", memory],
            ["disk free", bytes_text(found["disk_free"])],
            *[[name, version or "missing"] for name, version in found["packages"].items()],
        ],
    )
    for extra, facts in found["extras"].items():
        state = "installed" if facts["installed"] else f"missing: {facts['mend']}"
        click.echo(f"extra {extra}: {state}")
    for problem in found["problems"]:
        click.echo(f"problem: {problem['what']}; mend it with: {problem['mend']}")
    if not found["problems"]:
        click.echo("nothing that a run needs is missing")
