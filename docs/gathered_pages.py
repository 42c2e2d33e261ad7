"""Gathers the pages of the site that stand elsewhere: README, CONTRIBUTING, measured results, and the reference.

mkdocs calls these functions; see mkdocs.yml.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ROOMS = {
    "protocol": "What both sides of the wire agree on.",
    "adaptation": "The mathematics: networks, mixtures, losses, augmentation.",
    "domains": "Where examples come from.",
    "generative": "The generative models.",
    "clients": "The Flower ClientApp.",
    "strategies": "One file a federated algorithm.",
    "server": "The Flower ServerApp.",
    "inference": "What a client predicts with, as one model, and the classes for notebooks.",
    "simulation": "A federation on this machine, on a Ray cluster, or within one process.",
    "benchmarking": "What `fmtda benchmark` is made of.",
    "face": "The command line and what it shows.",
}
SHOWN = {".json", ".md", ".png", ".svg"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what doesn't lie in docs/."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text()))
    files.append(File.generated(config, "contributing.md", content=(ROOT / "CONTRIBUTING.md").read_text()))
    results = ROOT / "benchmarks" / "results"
    for path in sorted(results.rglob("*")):
        if path.suffix in SHOWN and path.name != "cell.json":
            name = f"results/{path.relative_to(results).as_posix()}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    for room, what in ROOMS.items():
        files.append(File.generated(config, f"reference/{room}.md", content=_reference(room, what)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links, which are made for the repository, so that they lead to the same things on the site."""
    if page.file.src_uri in ("index.md", "contributing.md"):
        markdown = markdown.replace("](docs/", "](").replace("](CONTRIBUTING.md", "](contributing.md")
    markdown = re.sub(r"\[([^\]]*)\]\(\.\./benchmarks/results(?:/[\w-]+)*\)", r"\1", markdown)  # folders are no pages
    markdown = re.sub(r"\]\((\.\./)?benchmarks/results/", "](results/", markdown)
    return markdown.replace("](../README.md", "](index.md")


def _reference(room: str, what: str) -> str:
    modules = sorted(
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in (ROOT / room).rglob("*.py")
        if not path.name.startswith("__")
    )
    return f"# {room}\n\n{what}\n\n" + "".join(f"::: fmtda.{module}\n\n" for module in modules)
