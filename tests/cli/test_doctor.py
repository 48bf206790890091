from __future__ import annotations

import json
import os
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from semblance.cli import doctor
from semblance.cli.main import semblance


def test_what_the_doctor_finds_here() -> None:
    result = CliRunner().invoke(semblance, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == (2 if found["problems"] else 0)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["packages"]["pillow"] == metadata.version("pillow")
    assert None not in found["packages"].values()
    assert found["cores"] <= (os.cpu_count() or 1)
    assert found["torch_instructions"] == torch.backends.cpu.get_cpu_capability()
    assert found["memory"] > 1e8
    assert found["disk_free"] > 0
    assert {"pretrained", "onnx", "pandas", "map", "dev"} <= set(found["extras"])
    for facts in found["extras"].values():
        assert facts["installed"] == (None not in facts["packages"].values())
        assert (facts["mend"] is None) == facts["installed"]


def test_for_people() -> None:
    printed = CliRunner().invoke(semblance, ["doctor"]).stdout
    assert metadata.version("torch") in printed
    assert "disk free" in printed
    assert "extra onnx" in printed


def test_what_is_missing_comes_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    has = doctor._version
    gone = ("onnxruntime", "pyarrow")
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in gone else has(name))
    found = doctor.examine()
    assert found["extras"]["onnx"]["installed"] is False
    assert found["extras"]["onnx"]["mend"] == 'pip install "semblance[onnx]"'
    assert {"what": "pyarrow is not installed", "mend": 'pip install "pyarrow"'} in found["problems"]
    result = CliRunner().invoke(semblance, ["doctor"])
    assert result.exit_code == 2
    assert 'mend it with: pip install "pyarrow"' in result.stdout
    assert 'extra onnx: missing: pip install "semblance[onnx]"' in result.stdout


def test_a_torchvision_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "_version", lambda name: "0.28.0")
    monkeypatch.setattr(doctor.importlib, "import_module", refuse)
    problems: list[dict[str, str]] = []
    doctor._torchvision(problems)
    assert problems == [
        {
            "what": "torchvision does not fit torch: operator torchvision::nms does not exist",
            "mend": "pip uninstall torchvision",
        }
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags : fpu avx2 avx512f avx512_bf16\n", ["AVX2", "AVX-512", "AVX-512 BF16"]),
        ("Features\t: fp asimd bf16\n", ["NEON", "NEON BF16"]),
        ("model name: odd\n", []),
    ],
)
def test_instruction_sets(text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, **_: text)
    assert doctor._instructions() == expected


def test_no_proc_no_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert doctor._instructions() == []
