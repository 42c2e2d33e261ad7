"""Tells whether this machine can run fmtda, and what to do where it can't: ``fmtda doctor``.

Our choice: how much space should be free.
"""

import importlib
import logging
import os
import platform
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Annotated, Literal

import typer

from fmtda.face.console import open_console, plain, say
from fmtda.face.refusals import FAILED
from fmtda.protocol import telemetry
from fmtda.simulation.ray_cluster import cluster_address, knock

Verdict = Literal["ok", "note", "broken"]

PYTHONS = ((3, 11), (3, 12))
"""The versions that all packages here are known to work with together."""

LEAST_FREE_GB = 2.0
"""What should be free in a folder that runs or prepared data are written to."""

PORTS = {
    8000: "a deployment's front",
    8001: "a deployment's SuperLink",
    9094: "a deployment's first SuperNode",
    39091: "Flower's local SuperLink",
}

GIGABYTE = 10**9


@dataclass(frozen=True)
class Finding:
    """Says what was found of one thing, and what to do.

    Attributes
    ----------
    subject
        What.
    state
        ``broken``: fmtda does not work; ``note``: something that some uses need is not there.
    found
        What was found.
    advice
        What to do, empty where nothing is to be done.
    """

    subject: str
    state: Verdict
    found: str
    advice: str = ""


def doctor(
    ray: Annotated[bool, typer.Option("--ray/--no-ray", help="also start and stop Ray, some ten seconds")] = True,
) -> None:
    """Check versions, cores, GPU, Ray, ports, free space, the cache and extras, and say what to do.

    The exit status is 1 where something is broken that fmtda can't do without.

    Examples:

    - `fmtda doctor`

    - `fmtda doctor --no-ray`  (at once)
    """
    from rich.table import Table
    from rich.text import Text

    console = open_console()
    table = Table("", "what", "found", "what to do")
    findings = []
    for finding in look(ray):
        findings.append(finding)
        colour = {"ok": "green", "note": "yellow", "broken": "red"}[finding.state]
        table.add_row(Text(finding.state, colour), *map(plain, (finding.subject, finding.found, finding.advice)))
    console.print(table)
    broken = [finding.subject for finding in findings if finding.state == "broken"]
    if broken:
        say(f"broken: {', '.join(broken)}", sys.stderr)
        raise typer.Exit(FAILED)
    console.print("fmtda works here: try `fmtda simulate`", highlight=False)


def look(ray: bool = True) -> Iterator[Finding]:
    """Look at everything, one thing after another; with `ray` also start Ray."""
    yield _python()
    yield from _pins()
    yield _torchvision()
    yield from _cores_and_gpu()
    yield _bfloat16()
    if ray:
        yield _ray()
    yield from _ports()
    yield _space("working folder", Path.cwd())
    from fmtda.domains.cache import cache_root

    yield _writable("cache", cache_root())
    yield from _extras()


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info[:2] in PYTHONS:
        return Finding("Python", "ok", found)
    needed = ".".join(map(str, PYTHONS[0]))
    return Finding("Python", "broken", found, f"make an environment with Python {needed}: python{needed} -m venv ENV")


def _pins() -> Iterator[Finding]:
    """Compare every package that fmtda depends on with the versions it was made for."""
    from packaging.requirements import Requirement

    wrong = 0
    needed = [requirement for text in _requirements() if not (requirement := Requirement(text)).marker]
    for requirement in needed:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = ""
        if not requirement.specifier.contains(found or "0", prereleases=True) or not found:
            wrong += 1
            yield Finding(requirement.name, "broken", found or "not installed", f"pip install '{requirement}'")
    if not needed:
        yield Finding("fmtda", "broken", "not installed as a package", "pip install -e . in its folder")
    elif not wrong:
        yield Finding("packages", "ok", f"flwr {version('flwr')}, torch {version('torch')}, and {len(needed) - 2} more")


def _requirements() -> list[str]:
    try:
        return requires("fmtda") or []
    except PackageNotFoundError:
        return []


def _torchvision() -> Finding:
    from fmtda.protocol.runtime import repair_torchvision

    try:
        repair_torchvision()
    except (ImportError, RuntimeError, OSError) as error:
        advice = "install the torchvision that fits torch: pip install torchvision==0.28.*"
        return Finding("torchvision", "broken", f"can't be imported: {str(error).splitlines()[0]}", advice)
    return Finding("torchvision", "ok", version("torchvision"))


def _cores_and_gpu() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = "" if cores > 1 else "clients run one after another; more cores, more at once"
    yield Finding("cores", "ok" if cores > 1 else "note", f"{cores}: as many simulated clients at once", advice)
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("GPU", "ok", names, "share it between clients: fmtda simulate --client-gpus 0.25")
    else:
        built = torch.version.cuda is not None
        why = "torch sees none" if built else "this torch is built without CUDA"
        advice = "embedded data and small networks need none"
        if not built and shutil.which("nvidia-smi"):
            advice = "there is an NVIDIA driver: install a CUDA build of torch 2.13"
        yield Finding("GPU", "note", why, advice)


def _bfloat16() -> Finding:
    """Tell whether the GPU, or else the processor, multiplies in bfloat16 by itself; torch can without, slowly."""
    import torch

    if torch.cuda.is_available():
        where, known = "GPU", torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        where, known = "processor", any(able for name, able in capabilities.items() if name.endswith("bf16"))
    if known:
        advice = "larger networks train faster with -c network.precision=bfloat16"
        return Finding("bfloat16", "ok", f"this {where} computes it", advice)
    return Finding(
        "bfloat16", "ok", f"this {where} doesn't compute it; fmtda needs none", "leave network.precision=float32"
    )


ALONE = {"address": "local", "num_cpus": 1}
"""Without "local", Ray would join whatever cluster was last started on this machine."""


def _ray() -> Finding:
    """Start Ray with one core, have it compute something, and stop it."""
    telemetry.switch_off()
    address = cluster_address()
    try:
        knock(address)
        warnings.filterwarnings("ignore", category=FutureWarning)
        ray = importlib.import_module("ray")
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **({} if address else ALONE))
        answer = ray.get(ray.remote(lambda: 6 * 7).options(num_cpus=0).remote(), timeout=120)
        ray.shutdown()
    except Exception as error:  # whatever Ray raises, the user has to know
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        advice = "end what keeps the machine busy, and try again; else look at /tmp/ray/session_latest/logs"
        if address:
            advice = f"is the cluster at RAY_ADDRESS={address} up?"
        return Finding("Ray", "broken", reason, advice)
    if answer != 42:
        return Finding("Ray", "broken", f"computes 6 x 7 = {answer}", "pip install --force-reinstall ray")
    return Finding("Ray", "ok", f"{version('ray')}, {f'cluster {address}' if address else 'starts here'}")


def _ports() -> Iterator[Finding]:
    taken = {port: what for port, what in PORTS.items() if not _free(port)}
    for port, what in taken.items():
        advice = "give the deployment another port, or end what listens there"
        if port == 39091:
            advice = "flwr run will use what listens there; FLWR_LOCAL_SUPERLINK_HTTP_API_PORT sets another port"
        yield Finding(f"port {port}", "note", f"taken; it is for {what}", advice)
    free = [str(port) for port in PORTS if port not in taken]
    if free:
        yield Finding("ports", "ok", f"{', '.join(free)} free; fmtda simulate needs none of them")


def _free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _space(subject: str, folder: Path) -> Finding:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free / GIGABYTE
    if free < LEAST_FREE_GB:
        return Finding(subject, "note", f"{folder}: {free:.1f} GB free", "make room, or go to another folder")
    return Finding(subject, "ok", f"{folder}: {free:.0f} GB free")


def _writable(subject: str, folder: Path) -> Finding:
    """Look at a folder as `_space` does, and whether it can be written to."""
    advice = "set FMTDA_CACHE to a folder that can be written to"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(subject, "broken", f"{folder} can't be written to: {error.strerror}", advice)
    return _space(subject, folder)


def _extras() -> Iterator[Finding]:
    """Look for each extra of the package, whether all that it brings is there."""
    from packaging.requirements import Requirement

    try:
        extras = metadata("fmtda").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return
    requirements = [Requirement(text) for text in _requirements()]
    for extra in extras:
        own = [r for r in requirements if r.marker and r.marker.evaluate({"extra": extra}) and r.name != "fmtda"]
        missing = [r.name for r in own if not _installed(r.name)]
        if missing:
            yield Finding(f"extra {extra}", "note", f"{', '.join(missing)} missing", f"pip install -e '.[{extra}]'")
        else:
            yield Finding(f"extra {extra}", "ok", "installed")


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
