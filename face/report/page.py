"""Puts a report together: one self-contained page out of run directories or a benchmark's folder."""

import base64
import hashlib
import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fmtda.protocol.printable import printable
from fmtda.protocol.settings import SettingsError

FILE = "report.html"
PACKAGES = ("plotly", "jinja2")
INSTALL = "pip install 'fmtda[report]'"

LONGEST_TEXT = 20_000
"""Characters of a text in the page at most: a run with a thousand classes names them all."""


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
    aside.unlink(missing_ok=True)
    with aside.open("x", encoding="utf-8") as file:  # a link there would lead the page elsewhere
        file.write(page)
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
    """Lay out the page as text, in one pass: what stands in a value is never looked at again."""
    import jinja2
    from jinja2.utils import htmlsafe_json_dumps
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    from fmtda.face.report.blocks import as_plotly_text

    room = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(room), autoescape=True, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    figures: list[dict[str, Any]] = []

    def number_of(figure: Any) -> int:
        """Keep a figure for the page's one list, and say where it stands there."""
        figures.append({"data": as_plotly_text(figure.data), "layout": as_plotly_text(figure.layout)})
        return len(figures) - 1

    scripts = [get_plotlyjs(), (room / "drawing.js").read_text(encoding="utf-8")]
    library, drawing = (Markup(script.replace("\r\n", "\n")) for script in scripts)  # as a browser reads them
    return environment.get_template("template.html").render(
        **_content(paths),
        policy=_policy([library, drawing]),
        number_of=number_of,
        figures=lambda: htmlsafe_json_dumps(figures, separators=(",", ":"), allow_nan=False),
        library=library,
        drawing=drawing,
        numeric=_numeric,
        made=time.strftime("%Y-%m-%d %H:%M"),
    )


def _policy(scripts: Sequence[str]) -> str:
    """What a browser may do with the page: run these scripts, show pictures that are inside, and nothing else.

    Styles are allowed wherever they stand: plotly writes them into elements as it draws.
    """
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    sources = f"script-src {allowed}; style-src 'unsafe-inline'; img-src data:"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def _shown(value: Any) -> Any:
    """Make text what a reader can see all of; what is markup already, pictures among it, stays."""
    return printable(value, LONGEST_TEXT) if type(value) is str else value


def _content(paths: Sequence[Path]) -> dict[str, Any]:
    """Gather title, sentence, key figures and sections."""
    from fmtda.face.report import adaptation, benchmark, comparison, configuration, costs, generative, illustration
    from fmtda.face.report.blocks import percent, shown_bytes, shown_number, shown_seconds, with_what_is_left_out
    from fmtda.face.report.runs import Run

    if len(paths) == 1 and (paths[0] / benchmark.FILE).exists():
        results, left_out = benchmark.read_results(paths[0])
        return {
            "title": benchmark.title(results),
            "sentence": benchmark.sentence(results),
            "tiles": [],
            **with_what_is_left_out(benchmark.sections(results), left_out),
        }
    for path in paths:
        if (path / benchmark.FILE).exists():
            raise SettingsError(f"{path}: this is a benchmark; report it alone, or name runs below its cells")
    runs = [Run.read(path) for path in paths]
    if len(runs) > 1:
        sections = comparison.sections(runs)
        left_out = [f"{run.name}: {line}" for run in runs for line in run.left_out]
        return {
            "title": f"{len(runs)} runs",
            "sentence": comparison.sentence(runs),
            "tiles": [],
            **with_what_is_left_out(sections, left_out),
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
        **with_what_is_left_out(sections, run.left_out),
    }


def _numeric(table: Any) -> list[bool]:
    """Tell which columns of a table stand at the right: those of numbers alone, units included."""
    return [all(_is_number(row[place]) for row in table.rows) for place in range(len(table.head))]


def _is_number(cell: object) -> bool:
    if isinstance(cell, str):
        return cell[:1] in "0123456789+-−–" and len(cell) < 16
    return isinstance(cell, int | float)
