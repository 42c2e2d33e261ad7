"""The house: which room may import which, no circle of files, and one import root wherever fmtda is installed."""

import ast
import re
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from fmtda.strategies.registry import ALGORITHMS

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "protocol": set(),
    "adaptation": {"protocol"},
    "generative": {"protocol"},
    "domains": {"adaptation", "generative", "protocol"},
    "strategies": {"adaptation", "domains", "generative", "protocol"},
    "clients": {"strategies", "adaptation", "domains", "protocol"},
    "server": {"strategies", "adaptation", "domains", "generative", "protocol"},
    "inference": {"server", "strategies", "adaptation", "domains", "protocol"},
    "simulation": {"server", "clients", "strategies", "protocol"},
    "benchmarking": {"simulation", "inference", "server", "strategies", "adaptation", "domains", "protocol"},
}
"""The rooms that each room's code may import, beside itself."""

FREE = {"face", "benchmarks"}
"""What may import everything, and is imported by nobody else."""

ROOMS = {*ALLOWED, "face"}
FLOWER = {"flwr", "ray"}


def modules() -> dict[str, Path]:
    """Every file of the product by the name under which it is imported."""
    found = {"fmtda": ROOT / "fmtda" / "__init__.py", "fmtda.__main__": ROOT / "fmtda" / "__main__.py"}
    for room in [*sorted(ROOMS), "benchmarks"]:
        for path in (ROOT / room).rglob("*.py"):
            words = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(words[:-1] if words[-1] == "__init__" else words)
            found[name if room == "benchmarks" else f"fmtda.{name}"] = path
    return found


MODULES = modules()


def imports(path: Path) -> set[str]:
    """The modules of ours, and the top-level packages of others, that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            members = {f"{node.module}.{name.name}" for name in node.names}
            found |= {each if each in MODULES else str(node.module) for each in members}
    return {each if each in MODULES else each.split(".")[0] for each in found}


def room_of(module: str) -> str:
    words = module.split(".")
    return words[1] if words[0] == "fmtda" and len(words) > 1 else words[0]


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_the_rooms_below_it(room):
    used = {
        room_of(imported)
        for module, path in MODULES.items()
        if room_of(module) == room
        for imported in imports(path)
        if imported in MODULES
    }
    assert used - {room} <= ALLOWED[room]


@pytest.mark.parametrize("room", ["adaptation", "domains", "generative"])
def test_the_mathematics_and_the_data_know_nothing_of_flower(room):
    assert not [m for m, path in MODULES.items() if room_of(m) == room and imports(path) & FLOWER]


def test_a_room_is_imported_from_fmtda_alone():
    """`import server` works in a checkout, and then there are two copies of each module."""
    for path in (*MODULES.values(), *(ROOT / "tests").rglob("*.py")):
        top = {name.split(".")[0] for name in imports(path) if name not in MODULES}
        assert not top & ROOMS, path
        if path != Path(__file__):
            named = re.findall(rf"""["'](?:{"|".join(sorted(ROOMS))})\.\w+(?::\w+|\.\w+)["']""", path.read_text())
            assert not [name for name in named if not re.search(r"\.(key|crt)\b", name)], path


def test_the_packages_of_the_wheel_are_the_folders():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {m: path.parent for m, path in MODULES.items() if path.name == "__init__.py" and m[:10] != "benchmarks"}
    assert sorted(setuptools["packages"]) == sorted(folders)
    assert setuptools["package-dir"] == {m: p.relative_to(ROOT).as_posix() for m, p in sorted(folders.items())}
    assert {path.parent for path in MODULES.values()} == {*folders.values(), ROOT / "benchmarks"}


def test_no_circle_of_files():
    """Imports of every kind count, those within functions and behind TYPE_CHECKING too."""
    edges = {module: imports(path) & MODULES.keys() - {module} for module, path in MODULES.items()}
    try:
        TopologicalSorter(edges).prepare()
        circle = []
    except CycleError as error:
        circle = error.args[1]
    assert not circle, " -> ".join(circle)


PEOPLES_WORD = "source-only"
"""An algorithm whose name is also that of a column in tables: what a run starts from."""


def test_no_file_outside_strategies_names_an_algorithm():
    """Whoever has to know something of an algorithm reads an attribute of it; its name is nobody else's business."""
    names = "|".join(re.escape(name) for name in ALGORITHMS if name != PEOPLES_WORD)
    named = re.compile(rf"(?<![\w-])(?:{names})(?![\w-])")
    found = []
    for module, path in MODULES.items():
        if room_of(module) in ("strategies", "benchmarks"):
            continue
        tree = ast.parse(path.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
            if is_text and named.search(node.value):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value[:80]!r}")
    assert not found


def test_no_two_public_types_have_one_name():
    """A newcomer who reads a type's name finds one thing that it can be."""
    places: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, set()).add(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_two_files_of_a_room_differ_by_an_ending():
    """`network` and `networks`, `export` and `exporting`: which of the two it is in, nobody can tell."""
    endings = ("s", "es", "ing", "ed", "er", "or")
    for module in MODULES:
        for ending in endings:
            assert module + ending not in MODULES, (module, module + ending)
