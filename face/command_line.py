"""The command line: ``fmtda simulate`` and what belongs to it."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from fmtda.face.data import data_cli
from fmtda.face.deploy.command import deploy_cli
from fmtda.face.doctor import doctor
from fmtda.face.export import export
from fmtda.face.generate import generate
from fmtda.face.given import INTERRUPTED, check_resources, checked_settings, open_console, pairs, refuse
from fmtda.face.join import join
from fmtda.face.launch import carry_out_simulation
from fmtda.face.predict import predict
from fmtda.face.report.command import end_with_report, report
from fmtda.face.sample import sample
from fmtda.protocol.settings import SettingsError

cli = typer.Typer(
    name="fmtda",
    help="Federated multi-target domain adaptation on Flower: one labelled source, many unlabelled clients.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"fmtda {version('fmtda')}, Flower {version('flwr')}, torch {version('torch')}")
        raise typer.Exit


@cli.callback()
def fmtda(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    """Federated multi-target domain adaptation on Flower: one labelled source, many unlabelled clients.

    Begin with:

    - `fmtda doctor`  (is this machine fit?)

    - `fmtda simulate`  (train on embedded digits, about five minutes on two cores)

    - `fmtda predict RUN_DIR pictures/`  (label pictures with what was trained)

    - `fmtda data list`  (the domains there are)

    Every command's `--help` has examples; `fmtda --install-completion` teaches your shell commands and options.
    """


@cli.command()
def simulate(
    data: Annotated[
        str | None, typer.Option(help="family of domains, see `fmtda data list`; default: digits, embedded")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="folder with the data files; embedded data needs none")] = None,
    source: Annotated[str | None, typer.Option(help="the labelled domain on the server, e.g. mnist")] = None,
    targets: Annotated[str | None, typer.Option(help="the clients' domains, e.g. mnist-m,svhn,usps")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="dualadapt, or a peer: source-only, adabn, fedavg-self-training, fed-mcd, fed-dann"),
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

    - `fmtda simulate`  (embedded digits, about five minutes on two cores, no download)

    - `fmtda simulate --preset paper --rounds 5`

    - `fmtda simulate --data digit-five --data-dir ~/data --source mnist --targets mnist-m,svhn,usps --rounds 5`

    - `fmtda simulate --clients 40 -c partition=dirichlet -c alpha=0.3`

    - `fmtda simulate --resume runs/20260101-120000-dualadapt-digits`

    Every run-config key, its meaning and its range: docs/configuration.md.
    """
    console = open_console()
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
    given = {**pairs(config or []), **{key: value for key, value in named.items() if value is not None}}
    settings = checked_settings(given, resume, "simulate")
    check_resources(settings, client_cpus, client_gpus)

    carry_out_simulation(settings, console, client_cpus, client_gpus)


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
    console = open_console()
    from fmtda.benchmarking.sitting import BenchmarkRequest, plan
    from fmtda.domains.examples import DataError
    from fmtda.face.benchmark import carry_out_benchmark, print_plan

    folder = data_dir and data_dir.expanduser().absolute()
    request = BenchmarkRequest(
        data=data,
        data_dir=folder,
        methods=methods,
        seeds=seeds,
        output=output.expanduser().absolute(),
        config=pairs(config or []),
        client_cpus=client_cpus,
        client_gpus=client_gpus,
    )
    try:
        planned = plan(request)
        check_resources(planned.asked[0].settings, client_cpus, client_gpus)
        if dry_run:
            print_plan(planned, console)
            return
        complete = carry_out_benchmark(planned, console)
    except (SettingsError, DataError) as error:
        refuse(error)
    except KeyboardInterrupt:
        print(f"fmtda: interrupted; continue with: {request.command()}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    end_with_report(console, request.output)
    if not complete:
        print(f"fmtda: some cells failed; try them again with: {request.command()}", file=sys.stderr)
        raise typer.Exit(1)
    print(f"fmtda: table and pictures are in {request.output}")


cli.command()(join)
cli.command()(generate)
cli.command()(sample)
cli.command()(predict)
cli.command()(export)
cli.command()(report)
cli.add_typer(deploy_cli, name="deploy")

cli.command()(doctor)
cli.add_typer(data_cli, name="data")


def main() -> None:
    """Entry point of the ``fmtda`` command."""
    cli()
