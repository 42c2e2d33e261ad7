"""What the user gave, looked at before anything starts: bad input ends with one line that names it and status 2."""

import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from fmtda.protocol.settings import RunSettings, Scalar, SettingsError, key_and_value
from fmtda.protocol.workloads import settings_class
from fmtda.simulation.client_resources import client_options
from fmtda.simulation.ray_cluster import cluster_address, knock

BAD_INPUT, INTERRUPTED = 2, 130
WIDTH_WITHOUT_TERMINAL = 120


def open_console() -> Console:
    """The terminal, or lines of one width where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


def pairs(texts: list[str]) -> dict[str, Scalar]:
    """What ``-c KEY=VALUE`` gave."""
    try:
        return dict(map(key_and_value, texts))
    except SettingsError as error:
        refuse(error)


def checked_settings(given: dict[str, Scalar], resume: Path | None, command: str) -> RunSettings:
    """Everything that can be refused before Flower starts is refused here, within seconds.

    Parameters
    ----------
    given
        Run-config keys that the user set.
    resume
        The run directory to continue, or None for a new run.
    command
        The subcommand that asks: a workload has one alone.
    """
    from fmtda.domains.examples import DataError
    from fmtda.server import run_directory, startup
    from fmtda.server.app import new_output

    try:
        if resume is not None:
            if "output" in given:
                refuse(f"--output {given['output']}: a resumed run stays in its own folder; leave --output out")
            path = resume.expanduser().absolute()
            stored = run_directory.stored_run_config(path)
            if given.get("workload", stored["workload"]) != stored["workload"]:
                refuse(
                    f"workload={given['workload']}: the run in {path} has workload={stored['workload']}; leave it out"
                )
            given = {**stored, **given, "output": str(path), "resume": True}
        asked = settings_class(given)
        if asked.command != command:
            refuse(f"workload={given.get('workload')}: this is run, and continued, with fmtda {asked.command}")
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
        refuse(error)
    return settings


def check_resources(settings: RunSettings, client_cpus: float, client_gpus: float) -> None:
    """Refuse a client that this machine can't hold, and a Ray cluster that isn't there; its size is for Ray to know."""
    if address := cluster_address():
        try:
            knock(address)
        except OSError as error:
            refuse(
                f"RAY_ADDRESS={address}: nobody answers there ({error.strerror or error}); start the cluster with "
                "ray start --head, or unset RAY_ADDRESS to simulate on this machine alone"
            )
        return
    import torch

    if client_cpus > (os.cpu_count() or 1):
        refuse(f"--client-cpus {client_cpus:g}: this machine has {os.cpu_count()} cores; give at most that many")
    if client_gpus > torch.cuda.device_count():
        refuse(
            f"--client-gpus {client_gpus:g}: torch sees {torch.cuda.device_count()} GPUs here; give at most that many"
        )
    if settings.device == "cuda" and client_gpus == 0:
        refuse("device=cuda: clients need a share of a GPU; give one with --client-gpus, as in --client-gpus 0.25")


def writable(output: Path | None, default: Path) -> Path:
    """The file to write, or a refusal before any work is done."""
    if output is None:
        return default
    file = output.expanduser().absolute()
    if file.is_dir():
        refuse(f"--output {output}: this is a folder; name a file, such as {output / default.name}")
    if not file.parent.is_dir():
        refuse(f"--output {output}: there is no folder {file.parent}; make it, or name another")
    if not os.access(file.parent, os.W_OK):
        refuse(f"--output {output}: {file.parent} can't be written to; name another folder")
    return file


def refuse(problem: Exception | str) -> NoReturn:
    """End with what was wrong, a line each."""
    for line in str(problem).splitlines():
        print(f"fmtda: error: {line}", file=sys.stderr)
    raise typer.Exit(BAD_INPUT)


def stop(problem: Exception, resume: str) -> NoReturn:
    """End a run that began and can't go on, with the line that continues it."""
    print(f"fmtda: stopped: {problem}\nfmtda: continue with: {resume}", file=sys.stderr)
    raise typer.Exit(1)


def resume_line(settings: RunSettings, client_cpus: float, client_gpus: float) -> str:
    """The line that continues a run with the same share of the machine for each client."""
    return shlex.join([*shlex.split(settings.resume_command), *client_options(client_cpus, client_gpus)])
