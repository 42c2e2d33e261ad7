"""Reads what a run directory holds of its clients: settings, model, who took part, and a client's own files."""

from pathlib import Path
from typing import cast

import torch

from fmtda.adaptation.network import Network
from fmtda.domains.client import Client
from fmtda.domains.examples import Examples
from fmtda.domains.kept_model import ABOUT, is_kept
from fmtda.domains.reading_rights import matching
from fmtda.protocol.client_names import domain_of
from fmtda.protocol.settings import AdaptationSettings, RunSettings
from fmtda.protocol.tables import SettingsError
from fmtda.server import checkpoints
from fmtda.server.checkpoints import Checkpoint
from fmtda.server.run_directory import RunDirectory, stored_run_config
from fmtda.strategies.algorithm import Algorithm
from fmtda.strategies.composition import read_settings
from fmtda.strategies.registry import algorithm


def adaptation_settings(run: Path, device: str = "auto") -> AdaptationSettings:
    """Read the settings of a run of domain adaptation, on a device of this machine.

    Raises
    ------
    SettingsError
        If there is no run, or one that adapts nothing.
    """
    _refuse_clients_folder(run)
    return classifying(read_settings({**stored_run_config(run), "device": device}), run)


def classifying(settings: RunSettings, run: Path) -> AdaptationSettings:
    """Return settings that are a run's of domain adaptation.

    Raises
    ------
    SettingsError
        If they are another workload's.
    """
    if settings.kind != AdaptationSettings.kind:
        raise SettingsError(
            f"{run}: workload={settings.workload} classifies nothing; name a run of fmtda simulate, or draw from this "
            "one with fmtda sample"
        )
    return cast(AdaptationSettings, settings)


def _refuse_clients_folder(folder: Path) -> None:
    """Refuse what belongs to a client and not to a server, and say where to look."""
    if is_kept(folder):
        raise SettingsError(f"{folder}: a client's folder, and this needs the whole run: name its server's directory")
    if matching(folder, "config.toml"):
        return
    if below := [file.parent for depth in ("*", "*/*", "*/*/*") for file in matching(folder, f"{depth}/{ABOUT}")]:
        more = f" and {len(below) - 3} more" if len(below) > 3 else ""
        raise SettingsError(f"{folder}: no run here; clients' folders are {', '.join(map(str, below[:3]))}{more}")
    if matching(folder, "*.safetensors"):
        raise SettingsError(
            f"{folder}: a client's folder without the global model, which a client keeps from its next evaluation on; "
            f"till then name its server's run directory, with --local {folder}"
        )


def algorithm_of(settings: AdaptationSettings) -> Algorithm:
    """Return a run's algorithm."""
    return cast(Algorithm, algorithm(settings.strategy))


def server_network(run: Path, settings: AdaptationSettings) -> Network:
    """Make the network that predicts of a run's last whole round, as the clients get it.

    Raises
    ------
    SettingsError
        If no round is whole yet.
    """
    return algorithm_of(settings).network(newest_checkpoint(run).model, settings)


def newest_checkpoint(run: Path) -> Checkpoint:
    """Read what a run's last whole round left.

    Raises
    ------
    SettingsError
        If no round is whole yet.
    """
    checkpoint = checkpoints.latest(RunDirectory(run).checkpoints)
    if checkpoint is None:
        raise SettingsError(
            f"{run}: no whole checkpoint here yet; let it finish a round with: fmtda simulate --resume {run}"
        )
    return checkpoint


def client_of(
    run: Path | None, settings: AdaptationSettings, name: str, folder: Path, inputs: torch.Tensor | None
) -> Client:
    """Make a client of a run outside its federation.

    Parameters
    ----------
    run
        The run directory, for what the client uploaded; None where there is none.
    settings
        The run's.
    name
        ``domain/share``, or empty for nobody in particular.
    folder
        The client's own.
    inputs
        Its unlabelled examples, as they are stored; None for none.
    """
    none = torch.zeros(0, *settings.shape) if inputs is None else inputs[:0]
    given = none if inputs is None else inputs
    train = Examples(given, torch.full((len(given),), -1))
    test = Examples(none, torch.zeros(0, dtype=torch.int64))
    uploads = RunDirectory(run).uploads / name if name and run else None
    return Client(name, settings, settings.rounds + 1, folder, train, test, elsewhere=uploads)


def differs_by_domain(settings: AdaptationSettings) -> bool:
    """Say whether the clients of a run predict with something of their own."""
    return algorithm_of(settings).keeps_local_part


def clients_of(run: Path, settings: AdaptationSettings) -> list[str]:
    """List, sorted, the clients that a run has something of; those it was asked to have, where it has nothing.

    Raises
    ------
    Unreadable
        If it has something of a client that this account may not read.
    """
    files = matching(run / "clients", "*/*/*.safetensors")
    folders = {file.parent.relative_to(run / "clients").as_posix() for file in files}
    names = {*RunDirectory(run).senders(), *folders}
    return sorted(names or settings.simulated_names(settings.supernodes))


def named_clients(run: Path, settings: AdaptationSettings, domain: str | None) -> list[str]:
    """List the clients that a domain's or a client's name means; all of them for None.

    Raises
    ------
    SettingsError
        If it means none; the message lists the domains.
    """
    names = clients_of(run, settings)
    chosen = [name for name in names if domain in (None, name, domain_of(name))]
    if not chosen:
        domains = ", ".join(sorted({domain_of(name) for name in names}))
        raise SettingsError(
            f"domain={domain}: this run adapted to no such domain; allowed are {domains}, and one client's name such "
            f"as {names[0]}"
        )
    return chosen


def client_named(run: Path, settings: AdaptationSettings, domain: str | None, own_folder: Path | None) -> str:
    """Name the one client that is meant; empty where all predict alike and none is named.

    Parameters
    ----------
    run
        The run directory.
    settings
        The run's.
    domain
        A domain's name, whose first client is meant, or a client's; None leaves it to `own_folder`.
    own_folder
        The folder that a client outside the run directory keeps.

    Raises
    ------
    SettingsError
        If it means none, or one of several.
    """
    if own_folder is not None:
        share = own_folder.name if own_folder.name.isdecimal() else "0000"
        named = f"{own_folder.parent.name}/{share}" if own_folder.name.isdecimal() else f"{own_folder.name}/{share}"
        if domain is None:
            return named
        return domain if "/" in domain else f"{domain}/{share}"
    if not differs_by_domain(settings) and domain is None:
        return ""
    clients = named_clients(run, settings, domain)
    if domain is None and len({domain_of(name) for name in clients}) > 1:
        domains = ", ".join(sorted({domain_of(name) for name in clients}))
        raise SettingsError(f"no domain named; this run adapted to {domains}")
    return clients[0]
