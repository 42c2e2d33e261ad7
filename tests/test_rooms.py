"""The house: which room may import which, no circle of files, and one import root wherever fmtda is installed."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "protocol": set(),
    "adaptation": {"protocol"},
    "generative": {"protocol"},
    "domains": {"generative", "protocol"},
    "strategies": {"adaptation", "protocol"},
    "clients": {"adaptation", "domains", "generative", "protocol"},
    "server": {"strategies", "adaptation", "domains", "generative", "protocol"},
    "inference": {"server", "clients", "strategies", "adaptation", "domains", "protocol"},
    "simulation": {"server", "clients", "protocol"},
    "benchmarking": {
        *("inference", "simulation", "server", "clients", "strategies", "adaptation", "domains", "protocol"),
    },
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
