"""Writes a page to look at what happened: ``fmtda report``."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fmtda.face.code_option import AllowCode
from fmtda.face.console import LONGEST_LINE, say
from fmtda.face.refusals import refuse
from fmtda.protocol.printable import printable
from fmtda.protocol.settings import SettingsError


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="run directories, or one folder of a benchmark", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option(help="file to write; default: report.html in RUN_DIR, here for several")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
    allow_code: AllowCode = False,
) -> None:
    """Write report.html: one file that opens offline, with what a run reached, cost and looked like.

    `fmtda simulate`, `generate` and `benchmark` end with it; this writes it for any other run, such as one of `flwr
    run`, one that is still going on, or several side by side. Needs the extra `report`: `pip install -e '.[report]'`.

    Examples:

    - `fmtda report runs/20260101-120000-dualadapt-digits`

    - `fmtda report runs/* --output compare.html`  (side by side)

    - `fmtda report out`  (a benchmark: its table, its methods, its ablation)
    """
    from fmtda.domains.examples import DataError
    from fmtda.face.report.page import FILE, MissingReportExtra, write_report
    from fmtda.inference.model_check import trusting

    paths = list(dict.fromkeys(path.expanduser().absolute() for path in runs))
    file = (output or (paths[0] / FILE if len(paths) == 1 else Path(FILE))).expanduser().absolute()
    for path in paths:
        if not path.is_dir():
            refuse(f"{path}: there is no such folder; name run directories, as in fmtda report runs/*")
    if file.is_dir() or not file.parent.is_dir():
        refuse(f"--output {output}: no file can be written there; name one in a folder that exists")
    try:
        with trusting(allow_code):
            write_report(paths, file)
    except (MissingReportExtra, DataError, SettingsError) as error:
        refuse(error)
    except OSError as error:
        refuse(f"{file}: can't be written ({error.strerror}); name another file with --output")
    say(f"report: {file}")
    if show:
        webbrowser.open(file.as_uri())


def end_with_report(console: Console, path: Path) -> None:
    """Write the report of a run that has just ended, or say why there is none; the run is done either way."""
    from fmtda.face.report.page import FILE, INSTALL, MissingReportExtra, write_report

    try:
        write_report([path], path / FILE)
    except MissingReportExtra:
        text = f"no report: its packages are not installed; {INSTALL}, then fmtda report {path}"
    except (OSError, ValueError) as error:
        text = f"no report: {error}"
    else:
        text = f"report: {path / FILE}"
    console.print(printable(text, LONGEST_LINE), highlight=False, soft_wrap=True, markup=False, emoji=False)
