"""Puts the subcommands of ``fmtda`` together; most have a file of their own, of their name."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from fmtda.face.client_resources import ClientCPUs, ClientGPUs, check_resources
from fmtda.face.console import open_console, say
from fmtda.face.data import data_cli
from fmtda.face.deploy.command import deploy_cli
from fmtda.face.doctor import doctor
from fmtda.face.export import export
from fmtda.face.generate import generate
from fmtda.face.join import join
from fmtda.face.predict import predict
from fmtda.face.refusals import FAILED, INTERRUPTED, refuse
from fmtda.face.report.command import end_with_report, report
from fmtda.face.sample import sample
from fmtda.face.setting_options import ConfigFile, SettingPairs, settings_given
from fmtda.face.simulate import simulate
from fmtda.protocol import telemetry
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
    telemetry.switch_off()


cli.command()(simulate)


@cli.command()
def benchmark(
    output: Annotated[Path, typer.Option(help="folder of the benchmark; one that is there is gone on with")],
    data: Annotated[str, typer.Option(help="family of domains, as in `fmtda data list`")] = "digits",
    data_dir: Annotated[Path | None, typer.Option(help="folder with the data files; embedded data needs none")] = None,
    methods: Annotated[str, typer.Option(help="comma list of methods, or of the words below")] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="seeds 0, 1, ... of each method")] = 3,
    config: ConfigFile = None,
    pairs: SettingPairs = None,
    client_cpus: ClientCPUs = 1.0,
    client_gpus: ClientGPUs = 0.0,
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
        config=settings_given(config, pairs),
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
        say(f"interrupted; continue with: {request.command()}", sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    end_with_report(console, request.output)
    if not complete:
        say(f"some cells failed; try them again with: {request.command()}", sys.stderr)
        raise typer.Exit(FAILED)
    say(f"table and pictures are in {request.output}")


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
    """Run the ``fmtda`` command."""
    cli()
