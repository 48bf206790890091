"""What README and docs tell people to type works: every ```python block runs, every command line parses."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import textwrap
import types
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from PIL import Image

from semblance.cli.main import VERBS
from semblance.cli.options import take_dotted

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [textwrap.dedent(text) for _, kind, text in found if kind == language]


def command_lines() -> list[tuple[str, str]]:
    """(page, line) of every `semblance ...` that a page shows, continued lines joined."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.match(r"^(?:\$ )?(?:\.venv/bin/)?(semblance \w+.*?)(?:\s+#.*)?$", line.strip())
                if match:
                    found.append((page.name, match.group(1)))
    return found


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the pages talk about; training kept tiny."""
    rng = np.random.default_rng(0)
    for index in range(24):
        path = tmp_path / "photos" / ("cats" if index % 2 else "dogs") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        light = np.full((16, 16, 3), 60 if index % 2 else 180) + rng.integers(-40, 40, (16, 16, 3))
        Image.fromarray(light.astype(np.uint8)).save(path)
    (tmp_path / "more").mkdir()
    for name in ("query.jpg", "other.jpg", "more/new.png"):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(tmp_path / name)
    lines = [
        f"{path.relative_to(tmp_path / 'photos').as_posix()},{path.parent.name}"
        for path in (tmp_path / "photos").rglob("*.png")
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,class", *lines]) + "\n", encoding="utf-8")
    for name in ("experiment.toml", "start.safetensors"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("semblance.collection.settings.choose_epochs", lambda images: 2)
    return tmp_path


def run_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that ran every ```python block of `page`, one after another."""
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_python_examples_run(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, monkeypatch)
    assert (page.name == "README.md") <= (desk / "photos.smb" / "collection.json").exists()


def test_the_objective_in_contributing_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    from semblance import plugins
    from semblance.contracts import Batch

    example = run_page(ROOT / "CONTRIBUTING.md", monkeypatch)
    torch.manual_seed(0)
    encoder = plugins.get("encoders", "resnet").build(plugins.configure("encoders", "resnet", {"width": 4}))
    objective = example.Objective(example.Config(dim=8), encoder)
    views = tuple(torch.rand(6, 3, 32, 32) for _ in range(2))
    loss = objective(Batch(views, torch.arange(6)))
    assert loss.total.item() == pytest.approx(sum(term.item() for term in loss.terms.values()))
    loss.total.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())
    x = torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
    pairs = [torch.exp(-2 * (x[i] - x[j]).square().sum()) for i in range(5) for j in range(i)]
    assert float(example.uniformity(x, 2.0)) == pytest.approx(
        float(torch.stack(pairs).mean().log()), rel=1e-5
    )


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_command_lines_parse(page: str, line: str, desk: Path) -> None:
    verb, *words = shlex.split(line)[1:]
    if verb.startswith("-"):
        return
    assert verb in VERBS
    (desk / "photos.smb").mkdir(exist_ok=True)
    command = importlib.import_module(f"semblance.cli.{verb}").command
    if {"--help", "-h"} & set(words):
        return
    context = command.make_context(verb, list(words))
    assert isinstance(context, click.Context)
    assert all("." not in word for word in take_dotted(words)[0] if word.startswith("--"))


def test_pages_show_every_verb() -> None:
    shown = {line.split()[1] for _, line in command_lines()}
    assert set(VERBS) <= shown
    usage = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    assert all(f"semblance {verb}" in usage for verb in VERBS)


def test_links_inside_the_repository_lead_somewhere() -> None:
    missing = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                missing.append(f"{page.name}: {target}")
    assert [line for line in missing if not line.endswith("docs/report.png")] == []


def test_results_in_the_readme_are_those_of_the_benchmarks() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## Results\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "results").glob("*.md")]
    known = {line for page in pages for line in page.splitlines()}
    assert len(rows) > 20
    assert [row for row in rows if row not in known] == []
