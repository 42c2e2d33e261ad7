"""The command line: ``fmtda simulate`` and what belongs to it."""

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from protocol.settings import Scalar, Settings, SettingsError

cli = typer.Typer(
    name="fmtda",
    help="Federated multi-target domain adaptation on Flower: one labelled source, many unlabelled clients.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
BAD_INPUT = 2
INTERRUPTED = 130
WIDTH_WITHOUT_TERMINAL = 120


@cli.callback()
def fmtda() -> None:
    """Federated multi-target domain adaptation on Flower: one labelled source, many unlabelled clients."""


@cli.command()
def simulate(
    data: Annotated[
        str | None, typer.Option(help="family of domains, see `fmtda data list`; default: digits, embedded")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="folder with the data files; embedded data needs none")] = None,
    source: Annotated[str | None, typer.Option(help="the labelled domain on the server, e.g. mnist")] = None,
    targets: Annotated[str | None, typer.Option(help="the clients' domains, e.g. mnist-m,svhn,usps")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="federated algorithm: dualadapt, or a peer, see docs/benchmarks.md")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="default, or paper: the published algorithm alone")] = None,
    clients: Annotated[
        int | None, typer.Option(help="simulated clients, spread over the targets; default: one each")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="federated rounds")] = None,
    seed: Annotated[int | None, typer.Option(help="root of every random draw")] = None,
    output: Annotated[Path | None, typer.Option(help="run directory; default: a new one below ./runs")] = None,
    resume: Annotated[Path | None, typer.Option(help="continue the run in this directory")] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", "-c", metavar="KEY=VALUE", help="any run-config key; repeatable"),
    ] = None,
    client_cpus: Annotated[float, typer.Option(min=0.01, help="CPUs that Ray reserves for a client")] = 1.0,
    client_gpus: Annotated[float, typer.Option(min=0.0, help="GPU (a fraction will do) for a client")] = 0.0,
) -> None:
    """Train and adapt on simulated clients, on this machine or on the Ray cluster named by RAY_ADDRESS.

    Examples:

    - `fmtda simulate`  (embedded digits, two minutes, no download)

    - `fmtda simulate --preset paper --rounds 5`

    - `fmtda simulate --data digit-five --data-dir ~/data --source mnist --targets mnist-m,svhn,usps --rounds 5`

    - `fmtda simulate --clients 40 -c partition=dirichlet -c alpha=0.3`

    - `fmtda simulate --resume runs/20260101-120000-dualadapt-digits`

    Every run-config key, its meaning and its range: docs/configuration.md.
    """
    console = _console()
    named = {
        "data": data,
        "data-dir": data_dir and str(data_dir.expanduser().absolute()),
        "source": source,
        "targets": targets,
        "strategy": strategy,
        "preset": preset,
        "clients": clients,
        "rounds": rounds,
        "seed": seed,
        "output": output and str(output),
    }
    given = {**_pairs(config or []), **{key: value for key, value in named.items() if value is not None}}
    settings = _checked_settings(given, resume)
    _check_resources(settings, client_cpus, client_gpus)

    from domains.examples import DataError
    from fmtda.progress import Bars
    from fmtda.run_table import print_run
    from fmtda.simulation import simulate as launch
    from server.checkpoints import CheckpointError
    from server.metrics import metric_of
    from server.progress import Lines
    from server.rounds import NoClientAnswered

    metric = metric_of(settings)
    progress = Bars(console, settings.rounds, metric) if console.is_terminal else Lines(metric)
    try:
        with closing(progress):
            launch(settings, progress, client_cpus, client_gpus)
    except (SettingsError, DataError) as error:
        _refuse(error)
    except (CheckpointError, NoClientAnswered) as error:
        print(
            f"fmtda: stopped: {error}\nfmtda: continue with: fmtda simulate --resume {settings.output}",
            file=sys.stderr,
        )
        raise typer.Exit(1) from None
    path = Path(settings.output)
    print_run(console, json.loads((path / "summary.json").read_text()), path)


@cli.command()
def benchmark(
    output: Annotated[Path, typer.Option(help="folder of the benchmark; one that is there is gone on with")],
    data: Annotated[str, typer.Option(help="family of domains, as in `fmtda data list`")] = "digits",
    data_dir: Annotated[Path | None, typer.Option(help="folder with the data files; embedded data needs none")] = None,
    methods: Annotated[str, typer.Option(help="comma list of methods, or of the words below")] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="seeds 0, 1, ... of each method")] = 3,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", "-c", metavar="KEY=VALUE", help="any run-config key, for all methods; repeatable"),
    ] = None,
    client_cpus: Annotated[float, typer.Option(min=0.01, help="CPUs that Ray reserves for a client")] = 1.0,
    client_gpus: Annotated[float, typer.Option(min=0.0, help="GPU (a fraction will do) for a client")] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would run and how long it takes")] = False,
) -> None:
    """Compare methods over seeds: a table, pictures, and results.json.

    Each method with each seed is a cell, run in a process of its own; the federated ones as `fmtda simulate` runs them.
    A cell that is done is not run again, one that was cut short goes on, so Ctrl-C is harmless and a table can grow
    over several sittings in the same folder.

    Examples:

    - `fmtda benchmark --output out`  (embedded digits, three seeds)

    - `fmtda benchmark --data digit-five --data-dir ~/data --output out -c rounds=5 --dry-run`

    - `fmtda benchmark --methods dualadapt,fed-mcd,dann --seeds 1 --output out`

    - `fmtda benchmark --methods ablation --seeds 1 --output out`  (into the same table)

    `--methods` takes the words `all`, `federated`, `references` (centralised, they break privacy) and `ablation`, and
    single names; docs/benchmarks.md has the list, and how to read what comes out.
    """
    console = _console()
    from domains.examples import DataError
    from fmtda.benchmark import Request, carry_out, plan, print_plan

    folder = data_dir and data_dir.expanduser().absolute()
    request = Request(
        data=data,
        data_dir=folder,
        methods=methods,
        seeds=seeds,
        output=output.expanduser().absolute(),
        config=_pairs(config or []),
        client_cpus=client_cpus,
        client_gpus=client_gpus,
    )
    try:
        planned = plan(request)
        _check_resources(planned.asked[0].settings, client_cpus, client_gpus)
        if dry_run:
            print_plan(planned, console)
            return
        complete = carry_out(planned, console)
    except (SettingsError, DataError) as error:
        _refuse(error)
    except KeyboardInterrupt:
        print(f"fmtda: interrupted; continue with: {request.command()}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if not complete:
        print(f"fmtda: some cells failed; try them again with: {request.command()}", file=sys.stderr)
        raise typer.Exit(1)
    print(f"fmtda: table and pictures are in {request.output}")


data_cli = typer.Typer(help="Look at the domains there are, and fetch their files.", no_args_is_help=True)
cli.add_typer(data_cli, name="data")


@data_cli.command("list")
def list_domains(
    data_dir: Annotated[
        Path | None, typer.Option(help="folder whose domains to list, for data read from files")
    ] = None,
) -> None:
    """Which families and domains there are, with their defaults.

    Examples:

    - `fmtda data list`

    - `fmtda data list --data-dir ~/data/PACS`  (what each family finds there)
    """
    from rich.table import Table

    from domains.examples import DataError
    from domains.registry import FAMILIES

    table = Table("family", "kind", "domains", "source", "targets")
    for family in FAMILIES.values():
        try:
            defaults = family.defaults(data_dir, {})
            domains = ", ".join(family.domains_in(data_dir))
            table.add_row(family.name, family.kind, domains, defaults["source"], defaults["targets"])
        except DataError:
            found = "none in this folder" if data_dir else "those in the files below --data-dir"
            table.add_row(family.name, family.kind, found, "", "")
    Console().print(table)


@data_cli.command()
def fetch(
    domain: Annotated[str, typer.Argument(help="mnist, usps or svhn")],
    data_dir: Annotated[Path, typer.Option(help="folder for the files")],
) -> None:
    """Download a domain's files; does nothing if they are there already.

    Example: `fmtda data fetch mnist --data-dir ~/data`
    """
    from domains.digit_five import DigitFive
    from domains.examples import DataError

    try:
        DigitFive().fetch(domain, data_dir.expanduser())
    except DataError as error:
        _refuse(error)
    print(f"fmtda: {domain} is in {data_dir}")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


def _pairs(texts: list[str]) -> dict[str, Scalar]:
    pairs: dict[str, Scalar] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            _refuse(f"-c {text}: expected KEY=VALUE, as in -c rounds=5")
        pairs[key.strip()] = value.strip()
    return pairs


def _checked_settings(given: dict[str, Scalar], resume: Path | None) -> Settings:
    """Everything that can be refused before Flower starts is refused here, within seconds."""
    from domains.examples import DataError
    from server import run_directory, startup
    from server.app import new_output

    try:
        if resume is not None:
            if "output" in given:
                _refuse(f"--output {given['output']}: a resumed run stays in its own folder; leave --output out")
            path = resume.expanduser().absolute()
            given = {**run_directory.stored_run_config(path), **given, "output": str(path), "resume": True}
        settings = startup.effective_settings(given)
        output = Path(settings.output).expanduser().absolute() if settings.output else new_output(settings)
        settings = settings.changed(output=str(output))
        if resume is None:
            run_directory.refuse_unusable_output(output)
        else:
            run_directory.refuse_other_settings(settings)
        startup.check_source(settings)
        startup.check_simulation(settings)
    except (SettingsError, DataError) as error:
        _refuse(error)
    return settings


def _check_resources(settings: Settings, client_cpus: float, client_gpus: float) -> None:
    """Refuse a client that this machine can't hold; a Ray cluster is asked by Ray itself."""
    if os.environ.get("RAY_ADDRESS"):
        return
    import torch

    if client_cpus > (os.cpu_count() or 1):
        _refuse(f"--client-cpus {client_cpus:g}: this machine has {os.cpu_count()} cores; give at most that many")
    if client_gpus > torch.cuda.device_count():
        _refuse(
            f"--client-gpus {client_gpus:g}: torch sees {torch.cuda.device_count()} GPUs here; give at most that many"
        )
    if settings.device == "cuda" and client_gpus == 0:
        _refuse("device=cuda: clients need a share of a GPU; give one with --client-gpus, as in --client-gpus 0.25")


def _refuse(problem: Exception | str) -> None:
    for line in str(problem).splitlines():
        print(f"fmtda: error: {line}", file=sys.stderr)
    raise typer.Exit(BAD_INPUT)


def main() -> None:
    """Entry point of the ``fmtda`` command."""
    cli()
