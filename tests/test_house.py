"""The house rules that a machine can check: floors, sizes, names, words, how fast it opens."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import semblance
from semblance import errors
from semblance.cli.main import VERBS

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "semblance"
FILES = sorted(SRC.rglob("*.py"))
FLOORS = {
    **dict.fromkeys(("amounts", "contracts", "errors", "files", "native", "plugins", "ranks"), 1),
    **dict.fromkeys(("images", "encoders", "objectives", "codes", "index", "engines"), 2),
    **dict.fromkeys(("training", "groups", "evaluation"), 3),
    **dict.fromkeys(("verdict", "labels"), 4),
    **dict.fromkeys(("collection",), 5),
    **dict.fromkeys(("report", "server"), 6),
    **dict.fromkeys(("cli",), 7),
    "__main__": 8,
}
BESIDE = {("objectives", "codes")}
"""An objective may take the formula that a coder of the same paper is fitted by: it is written once."""
LONGEST = 600
LONG = 300


def named(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def rooms_imported(tree: ast.AST) -> set[str]:
    """First name below `semblance` of every import, wherever in the file it stands."""
    rooms: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                rooms.add("(relative)")
                continue
            from_root = node.module == "semblance"
            names = [f"semblance.{alias.name}" for alias in node.names] if from_root else [node.module or ""]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("semblance.")}
    return rooms - {"__version__"}


def _may(floor: int, other: int) -> bool:
    """The files of floor 1 are one room; everybody else looks down."""
    return other < floor or other == floor == 1


def breaches(path: Path, source: str) -> list[str]:
    """What `path` imports and may not, given its text."""
    room = room_of(path)
    if room == "__init__":  # the front door: it may hand out anything, but only when asked
        return []
    return [
        f"{named(path)} (floor {FLOORS.get(room)}) imports {other}"
        for other in sorted(rooms_imported(ast.parse(source)))
        if other != room
        and (room, other) not in BESIDE
        and not _may(FLOORS.get(room, 0), FLOORS.get(other, 99))
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from semblance.errors import InputError", 0),
        ("import semblance.contracts as c\nfrom semblance import plugins", 0),
        ("from semblance.encoders import resnet", 1),
        ("from semblance.codes import qsmi", 1),
        ("def f():\n    from semblance.collection.build import run", 1),
        ("from semblance import cli", 1),
        ("from . import decode", 1),
    ],
)
def test_a_breach_of_floors_is_seen(source: str, expected: int) -> None:
    assert len(breaches(SRC / "images" / "views.py", source)) == expected


def test_rooms_import_only_lower_floors() -> None:
    found = [line for path in FILES for line in breaches(path, path.read_text(encoding="utf-8"))]
    assert found == []


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} <= set(FLOORS)


def test_files_are_short() -> None:
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    for name, length in sorted(lengths.items(), key=lambda item: -item[1]):
        if length > LONG:
            print(f"{length} lines: {name}")
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_functions_fit_a_screen() -> None:
    long = [
        f"{named(path)}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno > 80
    ]
    assert long == []


@pytest.mark.parametrize("path", FILES, ids=named)
def test_module_says_what_it_offers(path: Path) -> None:
    """A docstring, `__future__` annotations, and `__all__` whose names exist and explain themselves."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "no docstring"
    if len(tree.body) == 1:  # a room's `__init__.py` with nothing but its sentence
        return
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert futures, "no `from __future__ import annotations`"
    module = importlib.import_module(module_name(path))
    offered = module.__all__
    assert len(set(offered)) == len(offered)
    for name in offered:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name} has no docstring"
            assert not (inspect.getdoc(thing) or "").startswith(f"{name}("), f"{name}: generated docstring"


def test_public_functions_are_typed() -> None:
    bare = [
        f"{named(path)}: {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.returns is None
    ]
    assert bare == []


def test_no_room_without_a_name_of_its_own() -> None:
    vague = re.compile(r"utils?|helpers?|common|misc|tools?|base|manager")
    assert [named(path) for path in FILES if vague.fullmatch(path.stem.strip("_"))] == []


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    assert [named(path) for path in FILES if later.search(path.read_text(encoding="utf-8"))] == []


def test_user_input_is_not_asserted_and_broad_excepts_say_why() -> None:
    found = []
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.Assert) and "is not None" not in ast.unparse(node.test):  # tells mypy
                found.append(f"{named(path)}:{node.lineno} assert")
            if isinstance(node, ast.ExceptHandler) and ast.unparse(node.type or ast.Name("")) in (
                "",
                "Exception",
                "BaseException",
            ):
                reraised = any(isinstance(inner, ast.Raise) for inner in node.body)
                if "#" not in lines[node.lineno - 1] and not reraised:
                    found.append(f"{named(path)}:{node.lineno} except without its reason")
    assert found == []


def test_weights_are_never_pickled() -> None:
    pickled = re.compile(r"\b(pickle|torch\.save|torch\.load|allow_pickle=True)\b")
    assert [named(path) for path in FILES if pickled.search(path.read_text(encoding="utf-8"))] == []


def fresh(code: str) -> str:
    """What `code` prints in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_is_quick() -> None:
    """Under 0.3 s beyond the bare interpreter's own start, best of three."""
    code = "import time; t = time.perf_counter(); import semblance; print(time.perf_counter() - t)"
    assert min(float(fresh(code)) for _ in range(3)) < 0.3


HEAVY = (
    "import sys; print([m for m in ('torch', 'pyarrow', 'sklearn', 'lightning_fabric') if m in sys.modules])"
)


def test_import_loads_nothing_heavy() -> None:
    assert fresh(f"import semblance; {HEAVY}") == "[]"


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["objectives"], ["encoders", "--json"], ["run", "--help"]]
)
def test_quick_verbs_load_nothing_heavy(words: list[str]) -> None:
    call = f"try: semblance({words!r})\nexcept SystemExit: pass"
    code = f"from semblance.cli.main import semblance\n{call}\n{HEAVY}"
    started = time.perf_counter()
    printed = fresh(code)
    assert printed.splitlines()[-1] == "[]"
    assert len(printed) > len("[]")
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_file_and_shows_an_example(verb: str) -> None:
    command = importlib.import_module(f"semblance.cli.{verb}").command
    text = command.get_help(click.Context(command, info_name=verb))
    assert f"semblance {verb}" in text
    assert "Example" in text
    assert command.get_short_help_str(), "no first line"
    names = {name for parameter in command.params for name in parameter.opts}
    assert {"-v", "--verbose", "--json"} <= names
    unexplained = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help and not parameter.show_default
    ]
    assert unexplained == []


def test_verbs_are_the_files_of_the_room() -> None:
    quiet = {"__init__", "main", "options", "screen", "watch"}
    assert {path.stem for path in (SRC / "cli").glob("*.py")} - quiet == set(VERBS)


def test_the_tree_of_errors() -> None:
    kinds = {name: getattr(errors, name) for name in errors.__all__}
    assert all(issubclass(kind, errors.SemblanceError) for kind in kinds.values())
    codes = {name: kind.exit_code for name, kind in kinds.items()}
    assert codes == {
        "SemblanceError": 1,
        "ConfigError": 2,
        "MissingExtra": 2,
        "InputError": 3,
        "CollectionError": 3,
        "ModelMismatch": 3,
        "TrainingCollapsed": 4,
    }
    drawn = {
        line.split()[0]: len(line) - len(line.lstrip())
        for line in (errors.__doc__ or "").splitlines()[2:]
        if line
    }
    assert set(drawn) == set(kinds)
    for name, kind in kinds.items():
        parent = kind.__base__.__name__
        assert parent == "Exception" or drawn[name] == drawn[parent] + 2


def test_only_the_tree_is_raised() -> None:
    """Built-in exceptions only where Python's own protocol asks for them."""
    protocol = {
        "KeyboardInterrupt",
        "AttributeError",
        "StopIteration",
        "KeyError",
        "IndexError",
        "TypeError",
        "ValueError",
    }
    allowed = protocol | set(errors.__all__)
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = ast.unparse(node.exc.func)
                if name in {"Exception", "RuntimeError", "OSError", "AssertionError"} or (
                    name.endswith("Error") and name.split(".")[-1] not in allowed
                ):
                    found.append(f"{named(path)}:{node.lineno} raises {name}")
    assert found == []


def test_the_ground_is_there() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert (SRC / "py.typed").exists()
    for name in (
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "constraints.txt",
        "Makefile",
        "docs/usage.md",
    ):
        assert (ROOT / name).stat().st_size > 500, name
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_version_is_in_one_voice() -> None:
    ground = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{semblance.__version__}"' in ground
    assert f"## {semblance.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_direct_dependencies_are_pinned() -> None:
    ground = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = {name.lower() for name in re.findall(r'^    "([A-Za-z0-9-]+)[><=]', ground, flags=re.MULTILINE)}
    needed |= {
        name.lower()
        for line in re.findall(
            r"^(?:pretrained|onnx|pandas|map|graph) = \[(.*)\]", ground, flags=re.MULTILINE
        )
        for name in re.findall(r'"([A-Za-z0-9-]+)', line)
    }
    pinned = re.findall(
        r"^([A-Za-z0-9-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert needed - {"tomli"} <= {name.lower() for name in pinned}
    assert {"torch", "numpy", "onnxruntime", "ruff"} <= needed
