"""Draws new examples out of a run's model: ``fmtda sample``."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from fmtda.face.code_option import AllowCode
from fmtda.face.console import open_console, say
from fmtda.face.refusals import INTERRUPTED, refuse, writable
from fmtda.protocol.settings import GenerativeSettings, SettingsError


def sample(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="run directory of fmtda generate", show_default=False)],
    count: Annotated[int, typer.Option(min=1, max=100_000, help="how many")] = 64,
    output: Annotated[
        Path | None, typer.Option(help="file to write; default: in RUN_DIR/samples, named by all that decides it")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="equal seeds give equal samples")] = 0,
    sampler: Annotated[
        str | None, typer.Option(help="ddpm only: ddpm (all ancestral steps) or ddim; default: as the run sampled")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="steps of --sampler ddim, 50 without")] = None,
    allow_code: AllowCode = False,
) -> None:
    """Draw from the moving average of a run's model, after its last whole round; the run may be under way.

    Examples:

    - `fmtda sample runs/20260101-120000-ddpm-fedavg-digits`  (a grid of 64 pictures)

    - `fmtda sample RUN_DIR --count 100 --seed 1 --output pictures.png`

    - `fmtda sample RUN_DIR --sampler ddim --steps 20`  (fast, a little worse)
    """
    console = open_console()
    path = run.expanduser().absolute()

    from fmtda.domains.examples import DataError
    from fmtda.domains.registry import family
    from fmtda.generative.registry import MODELS, MissingExtraError
    from fmtda.inference.model_check import trusting
    from fmtda.protocol.runtime import prepare_to_compute
    from fmtda.protocol.seeds import generator_for
    from fmtda.server import checkpoints
    from fmtda.server.generative import Results
    from fmtda.server.run_directory import RunDirectory, stored_run_config
    from fmtda.strategies.composition import read_settings

    try:
        with trusting(allow_code):
            settings = read_settings(stored_run_config(path))
            family(settings.data.name)
        if not isinstance(settings, GenerativeSettings):
            refuse(f"{run}: workload={settings.workload} draws nothing; name a run of fmtda generate")
        changes = settings.model.sampled_by(sampler, steps)
        settings = settings.changed({f"{settings.workload}.{key}": value for key, value in changes.items()})
        directory = RunDirectory(path)
        checkpoint = checkpoints.latest(directory.checkpoints)
        if checkpoint is None:
            refuse(f"{run}: no whole checkpoint here yet; let it finish a round with: fmtda generate --resume {path}")
        kind = MODELS[settings.workload].kind
        asked = "".join(f"-{given}" for given in (sampler, steps) if given is not None)
        name = f"seed-{seed}-count-{count}-round-{checkpoint.round}{asked}{kind.suffix}"
        file = writable(output, directory.samples / name)
        if file.suffix != kind.suffix:
            refuse(f"--output {output}: samples of {settings.workload} are written as {kind.suffix}; end the name so")
        prepare_to_compute(settings.server_threads)
        results = Results(settings)
        results.restore(checkpoint)
    except (SettingsError, DataError, MissingExtraError, ValueError) as error:
        refuse(error)

    from fmtda.face.interruption import interruptible
    from fmtda.face.progress import StageBar
    from fmtda.server.progress import Lines

    progress = StageBar(console) if console.is_terminal else Lines()
    try:
        with closing(progress), interruptible():
            stage = f"sampling {count} after round {checkpoint.round}"
            generator = generator_for(seed, "sample")
            samples = results.draw(count, generator, stage, progress)  # type: ignore[arg-type]  # uses stages alone
    except KeyboardInterrupt:
        say("interrupted; nothing was written", sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    try:
        file.parent.mkdir(exist_ok=True)
        kind.write(samples, file, settings)
    except OSError as error:
        refuse(f"--output {file}: {error}; draw them again into a folder that can be written to")
    say(file)
