"""Handles a simulated client's share of the machine: its options, whether the machine has it, the line that resumes.

The module's types go into the signatures of commands that simulate, so that all of them offer the same options.
"""

import os
import shlex
from typing import Annotated

import typer

from fmtda.face.checked_settings import COMMANDS
from fmtda.face.refusals import refuse
from fmtda.protocol.settings import RunSettings
from fmtda.simulation.client_resources import client_options
from fmtda.simulation.ray_cluster import cluster_address, knock

ClientCPUs = Annotated[float, typer.Option(min=0.01, help="CPUs that Ray reserves for a client")]
ClientGPUs = Annotated[float, typer.Option(min=0.0, help="GPU (a fraction will do) for a client")]


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


def resume_line(settings: RunSettings, client_cpus: float, client_gpus: float) -> str:
    """Write the command line that continues a run with the same share of the machine for each client."""
    command = ["fmtda", COMMANDS[settings.kind], "--resume", settings.output]
    return shlex.join([*command, *client_options(client_cpus, client_gpus)])
