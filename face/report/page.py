"""Puts a report together: one self-contained page out of run directories or a benchmark's folder."""

import json
import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fmtda.protocol.settings import SettingsError

FILE = "report.html"
PACKAGES = ("plotly", "jinja2")
INSTALL = "pip install 'fmtda[report]'"


class MissingReportExtra(ImportError):
    """Says that packages that draw a report are not installed, and how to install them."""


def write_report(paths: Sequence[Path], output: Path) -> None:
    """Write the report of one run, of several side by side, or of a benchmark.

    Parameters
    ----------
    paths
        Run directories, or one folder of a benchmark.
    output
        The file, replaced as a whole.

    Raises
    ------
    MissingReportExtra
        If the extra `report` is not installed.
    SettingsError
        If a folder holds nothing to report.
    """
    check_installed()
    page = rendered(paths)
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    aside.write_text(page, encoding="utf-8")
    aside.rename(output)


def check_installed() -> None:
    """Refuse to go on without what draws the figures, before anything is read.

    Raises
    ------
    MissingReportExtra
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise MissingReportExtra(
            f"a report needs {', '.join(missing)}, not installed here; install the extra: {INSTALL}"
        )


def rendered(paths: Sequence[Path]) -> str:
    """Lay out the page as text."""
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    figures: list[dict[str, Any]] = []

    def number_of(figure: Any) -> int:
        """Keep a figure for the page's one list, and say where it stands there."""
        figures.append({"data": figure.data, "layout": figure.layout})
        return len(figures) - 1

    body = environment.get_template("template.html").render(
        **_content(paths), number_of=number_of, numeric=_numeric, made=time.strftime("%Y-%m-%d %H:%M")
    )
    # "</" would end the script; JSON reads "<\/" as the same.
    listed = json.dumps(figures, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return body.replace("PLOTLY_FIGURES", listed).replace("PLOTLY_LIBRARY", get_plotlyjs())


def _content(paths: Sequence[Path]) -> dict[str, Any]:
    """Gather title, sentence, key figures and sections."""
    from fmtda.face.report import adaptation, benchmark, comparison, configuration, costs, generative, illustration
    from fmtda.face.report.blocks import percent, shown_bytes, shown_number, shown_seconds
    from fmtda.face.report.runs import Run

    if len(paths) == 1 and (paths[0] / benchmark.FILE).exists():
        results = benchmark.read_results(paths[0])
        sections = benchmark.sections(results)
        return {
            "title": benchmark.title(results),
            "sentence": benchmark.sentence(results),
            "tiles": [],
            "sections": sections,
        }
    for path in paths:
        if (path / benchmark.FILE).exists():
            raise SettingsError(f"{path}: this is a benchmark; report it alone, or name runs below its cells")
    runs = [Run.read(path) for path in paths]
    if len(runs) > 1:
        title = f"{len(runs)} runs"
        return {
            "title": title,
            "sentence": comparison.sentence(runs),
            "tiles": [],
            "sections": comparison.sections(runs),
        }
    (run,) = runs
    of_workload = generative if run.generative else adaptation
    sections = of_workload.sections(run)
    if not run.generative:
        sections += illustration.sections(run)
    sections += [section for section in (costs.section(run), configuration.section(run)) if section]
    words = [run.settings.workload] if run.generative else [run.settings.strategy]
    shown = shown_number if run.generative else percent
    tiles = [("loss, held out" if run.generative else "average over targets", shown(run.average))]
    if not run.generative and (start := run.lines[0].get("source_only")):
        tiles.append(("source-only", percent(sum(start.values()) / len(start))))
    tiles += [
        ("up a client a round", shown_bytes(run.cost("up"))),
        ("a client's round", shown_seconds(run.cost("seconds"))),
        ("in all", shown_seconds(run.summary.get("wall_seconds"))),
        ("failures", str(len(run.failures))),
    ]
    sentence = of_workload.sentence(run)
    if not run.summary:
        sentence += f" The run is not finished: {run.lines[-1]['round']} of {run.settings.rounds} rounds."
    return {
        "title": f"{' '.join(words)} on {run.settings.data.name}",
        "sentence": sentence,
        "tiles": [tile for tile in tiles if tile[1] != "–"],
        "sections": sections,
    }


def _numeric(table: Any) -> list[bool]:
    """Tell which columns of a table stand at the right: those of numbers alone, units included."""
    return [all(_is_number(row[place]) for row in table.rows) for place in range(len(table.head))]


def _is_number(cell: object) -> bool:
    if isinstance(cell, str):
        return cell[:1] in "0123456789+-−–" and len(cell) < 16
    return isinstance(cell, int | float)
