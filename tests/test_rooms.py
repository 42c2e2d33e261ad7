"""The arrows between the rooms: who may import whom."""

import ast
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
}
FLOWER = {"flwr", "ray"}


def imported(room: str) -> set[tuple[str, str]]:
    """Every (file, top-level package) that the room's code imports."""
    found = set()
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {(path.name, name.name.split(".")[0]) for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((path.name, node.module.split(".")[0]))
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_the_rooms_below_it(room):
    packages = {package for _, package in imported(room)}
    assert packages & {*ALLOWED, "fmtda", "benchmarks"} <= ALLOWED[room] | {room}


@pytest.mark.parametrize("room", ["adaptation", "domains", "generative"])
def test_the_mathematics_and_the_data_know_nothing_of_flower(room):
    assert not [(file, package) for file, package in imported(room) if package in FLOWER]
