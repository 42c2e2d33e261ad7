"""Writes the adapted model of a domain as one file, with a model card: ``fmtda export``."""

from pathlib import Path
from typing import Annotated

import typer

from fmtda.face.code_option import AllowCode
from fmtda.face.console import say
from fmtda.face.file_names import file_name
from fmtda.face.refusals import refuse, writable
from fmtda.protocol.settings import SettingsError


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="run directory, or a client's own folder", show_default=False)
    ],
    domain: Annotated[
        str | None, typer.Option(help="svhn, or one of its clients, svhn/0003", show_default=False)
    ] = None,
    form: Annotated[str, typer.Option("--format", help="onnx, safetensors or torch-export")] = "onnx",
    local: Annotated[
        Path | None,
        typer.Option(help="the client's own folder; default: RUN_DIR/clients/NAME", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="file to write; default: RUN_DIR/exports/DOMAIN-NUMBER.onnx and alike", show_default=False),
    ] = None,
    allow_code: AllowCode = False,
) -> None:
    """Write the model of a domain as one file: standardisation, BatchNorm statistics and both heads inside.

    It takes uint8 pictures (B, 3, H, W), any B, and gives class probabilities. A model card, FILE.md, says what it was
    trained on, how good it is, and what it is not for. ONNX needs the extra `export`: `pip install -e '.[export]'`.

    Examples:

    - `fmtda export runs/20260101-120000-dualadapt-digits --domain pen`  (ONNX)

    - `fmtda export RUN_DIR --domain svhn --format safetensors --output svhn.safetensors`

    - `fmtda predict svhn.safetensors pictures/`  (that file is a whole model for fmtda too)

    - `fmtda export FOLDER/RUN/svhn/0000 --format torch-export`  (a real client, on its own machine)
    """
    from fmtda.face.model_card import model_card
    from fmtda.inference.adapted_model import AdaptedModel
    from fmtda.inference.export_formats import FORMATS, MissingExportExtra

    if form not in FORMATS:
        refuse(f"--format {form}: allowed are {', '.join(FORMATS)}")
    path = run.expanduser().absolute()
    ending, write = FORMATS[form]
    try:
        model = AdaptedModel.load(path, domain, local, "cpu", allow_code)
        file = _file(output, path, file_name(model.client or "model"), ending)
        write(model, file)
        card = file.with_name(f"{file.name}.md")
        card.write_text(model_card(model, path, file, form), encoding="utf-8")
    except (SettingsError, MissingExportExtra) as error:
        refuse(error)
    except OSError as error:
        refuse(f"--output {output or path}: {error}")
    say(f"{file}, {file.stat().st_size / 1e6:.1f} MB: {model.account}")
    say(card)


def _file(output: Path | None, run: Path, name: str, ending: str) -> Path:
    """Give the file to write; make its folder where that is the run's own."""
    if output is None:
        folder = run / "exports" if run.is_dir() else run.parent
        folder.mkdir(exist_ok=True)
        return folder / f"{name}{ending}"
    return writable(output, Path(f"{name}{ending}"))
