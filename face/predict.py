"""Labels pictures with an adapted model, one line a picture, as they are done: ``fmtda predict``."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from fmtda.face.code_option import AllowCode
from fmtda.face.refusals import FAILED, INTERRUPTED, refuse
from fmtda.protocol.printable import printable
from fmtda.protocol.settings import SettingsError

if TYPE_CHECKING:
    from fmtda.face.prediction_files import Writer
    from fmtda.face.progress import StageProgress
    from fmtda.inference.adapted_model import AdaptedModel

ENDINGS = {".csv": "csv", ".json": "json"}
"""Formats that the name of the output file says."""


def predict(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR",
            help="run directory, a client's own folder, or a .safetensors file of fmtda export",
            show_default=False,
        ),
    ],
    pictures: Annotated[list[Path], typer.Argument(help="files, and folders that are searched", show_default=False)],
    domain: Annotated[
        str | None,
        typer.Option(help="svhn, or one of its clients, svhn/0003; default: the mixtures choose", show_default=False),
    ] = None,
    local: Annotated[
        Path | None,
        typer.Option(help="the client's own folder; default: RUN_DIR/clients/NAME", show_default=False),
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="table, csv or json; default: as --output is called, else table")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="file to write; for segmentation a folder, and needed", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Label pictures with the model of a domain: class, probability, F_g's and F_l's say, and the mixture's verdict.

    Pictures of any size are brought to the run's input shape. Those that can't be read are named at the end, and the
    exit status is then 1. Segmentation writes label maps and overlays as PNG into the folder --output.

    Examples:

    - `fmtda predict runs/20260101-120000-dualadapt-digits photo.png --domain pen`

    - `fmtda predict RUN_DIR pictures/ --domain svhn --output labels.csv`

    - `fmtda predict RUN_DIR pictures/ --format json`  (the domain is chosen by the mixtures)

    - `fmtda predict FOLDER/RUN/svhn/0000 pictures/`  (a real client, on its own machine)

    - `fmtda predict STREETS_RUN pictures/ --domain dusk --output maps`  (label maps, overlays, a table)

    What the columns mean: docs/use.md.
    """
    from fmtda.domains.examples import DataError
    from fmtda.face.interruption import interruptible
    from fmtda.inference.pictures import found

    try:
        files = found(pictures)
        model, account = _model(run, domain, local, files, device, allow_code)
        format_name = _format(form, output, model.segmentation)
        _refuse_unusable(output, pictures, model.segmentation)
        if account:
            print(f"fmtda: {printable(account)}", file=sys.stderr)
        print(f"fmtda: labelled by {printable(model.account)}", file=sys.stderr)
        with interruptible(), _results(output, format_name, model.segmentation) as (stream, place):
            unreadable = label(model, files, run, format_name, stream, place, _progress())
    except (SettingsError, DataError, ValueError) as error:
        refuse(error)
    except BrokenPipeError:
        raise  # whoever reads stdout has had enough
    except OSError as error:
        refuse(f"--output {output}: {error}" if output else f"standard output: {error}")
    except KeyboardInterrupt:
        kept = f"; {output} holds what was done" if output else ""
        print(f"fmtda: interrupted{kept}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    labelled = len(files) - len(unreadable)
    print(f"fmtda: {labelled:,} of {len(files):,} pictures{f': {output}' if output else ''}", file=sys.stderr)
    if unreadable:
        print(f"fmtda: {len(unreadable):,} could not be read:", file=sys.stderr)
        for problem in unreadable:
            print(f"    {printable(problem)}", file=sys.stderr)
        raise typer.Exit(FAILED)


def _model(
    run: Path, domain: str | None, local: Path | None, files: list[Path], device: str, allow_code: bool
) -> tuple["AdaptedModel", str]:
    """Load the model, and say how it was chosen where it was."""
    from fmtda.domains.kept_model import is_kept
    from fmtda.domains.reading_rights import rights_to_read
    from fmtda.inference.adapted_model import AdaptedModel
    from fmtda.inference.domain_choice import choose, spread
    from fmtda.inference.model_check import loading
    from fmtda.inference.pictures import decoder, read_all
    from fmtda.inference.run_clients import adaptation_settings

    path = run.expanduser().absolute()
    with rights_to_read(path):
        whole = path.is_file()
    if whole or local is not None or is_kept(path):
        model = AdaptedModel.load(path, domain, local, device, allow_code)
        decoder(model.settings)
        return model, ""
    with loading(path, allow_code):
        settings = adaptation_settings(path, device)
        decoder(settings)
    choice = choose(path, domain, lambda: read_all(spread(files), settings)[0], device, allow_code)
    return choice.model, choice.account


def label(
    model: "AdaptedModel",
    files: list[Path],
    run: Path,
    form: str,
    stream: TextIO,
    folder: Path | None,
    progress: "StageProgress",
) -> list[str]:
    """Write a line for every picture as it is done; returns what was wrong with those that can't be read."""
    from fmtda.adaptation.batches import FORWARD_EXAMPLES, FORWARD_VALUES
    from fmtda.face.prediction_files import LabelMaps, lines_of, writer
    from fmtda.inference.adapted_model import LOOKS_LIKE_FROM
    from fmtda.inference.pictures import batches, decoder

    about: dict[str, object] = {"run": str(run), "domain": model.domain, "client": model.client, "parts": model.parts}
    about |= {"round": model.round}
    about |= {"head": model.head, "looks_like_from": LOOKS_LIKE_FROM, "classes": list(model.classes)}
    lines: Writer = writer(form, stream, model, about)
    maps: LabelMaps | None = LabelMaps(folder, model.classes, files) if folder else None
    values = model.input_shape[0] * model.input_shape[1] * model.input_shape[2]
    size = max(2, min(FORWARD_EXAMPLES, FORWARD_VALUES // values))
    unreadable: list[str] = []
    progress.stage("pictures", len(files))
    with closing(progress):
        try:
            for batch in batches(files, decoder(model.settings), size):
                if batch.files:
                    prediction = model.predict(batch.inputs)
                    lines.add(lines_of(model, batch.files, prediction))
                    if maps is not None:
                        maps.add(batch.files, prediction.labels.byte().cpu().numpy())
                unreadable += batch.unreadable
                progress.advance(len(batch))
        finally:
            lines.close(unreadable)
    return unreadable


def _format(form: str | None, output: Path | None, segmentation: bool) -> str:
    from fmtda.face.prediction_files import FORMATS

    if form is None:
        return ENDINGS.get(output.suffix.lower(), "table") if output and not segmentation else "table"
    if form not in FORMATS:
        refuse(f"--format {form}: allowed are {', '.join(FORMATS)}")
    return form


def _refuse_unusable(output: Path | None, pictures: list[Path], segmentation: bool) -> None:
    if output is None:
        if segmentation:
            refuse("no --output: this run labels every pixel; name a folder for the label maps, as in --output maps")
        return
    path = output.expanduser().absolute()
    if segmentation:
        if path.exists() and not path.is_dir():
            refuse(f"--output {output}: this is a file; name a folder for the label maps")
        for given in pictures:
            if given.is_dir() and path.is_relative_to(given.absolute()):
                refuse(f"--output {output}: inside {given}, whose pictures are read; name a folder outside it")
    elif path.is_dir():
        refuse(f"--output {output}: this is a folder; name a file, such as {output / 'predictions.csv'}")
    elif not path.parent.is_dir():
        refuse(f"--output {output}: there is no folder {path.parent}; make it, or name another")


@contextmanager
def _results(output: Path | None, form: str, segmentation: bool) -> Iterator[tuple[TextIO, Path | None]]:
    """Open where the lines go, and make the folder of the label maps."""
    if output is None:
        yield sys.stdout, None
        return
    path = output.expanduser().absolute()
    folder = path if segmentation else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"predictions.{'txt' if form == 'table' else form}"
    with path.open("w", newline="") as stream:
        yield stream, folder


def _progress() -> "StageProgress":
    from rich.console import Console

    from fmtda.face.progress import ErrorLines, StageBar

    return StageBar(Console(stderr=True)) if sys.stderr.isatty() else ErrorLines()
