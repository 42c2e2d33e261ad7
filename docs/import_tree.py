"""Lays the rooms below one folder `fmtda`, as links, for programs that read code without importing it.

mkdocstrings and mypy don't see that `fmtda.server` is the folder `server`: ``python docs/import_tree.py``, then
``MYPYPATH=build/tree mypy -p fmtda``. mkdocs calls `on_startup` (mkdocs.yml).
"""

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TREE = ROOT / "build" / "tree"


def make() -> None:
    """Make the tree anew out of pyproject.toml's list of packages."""
    shutil.rmtree(TREE, ignore_errors=True)
    package = TREE / "fmtda"
    package.mkdir(parents=True)
    for file in (ROOT / "fmtda").glob("*.py"):
        (package / file.name).symlink_to(file)
    rooms = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    for name, folder in rooms.items():
        if name.count(".") == 1:
            (package / folder).symlink_to(ROOT / folder, target_is_directory=True)


def on_startup(**_) -> None:
    """Make the tree before mkdocs builds or serves."""
    make()


if __name__ == "__main__":
    make()
