"""What a run directory holds of its clients, and the networks that it makes of it."""

import copy
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fmtda.adaptation.batch_norm import load_batch_norm_state, load_batch_norm_statistics
from fmtda.adaptation.mcd import TwoHeads
from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.network import Network
from fmtda.clients import local_part
from fmtda.clients.network import loaded_network
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.seeds import domain_of
from fmtda.protocol.settings import Settings, SettingsError
from fmtda.protocol.workloads import read_settings
from fmtda.server import checkpoints, uploads
from fmtda.server.run_directory import RunDirectory, stored_run_config
from fmtda.strategies.fed_dann import DISCRIMINATOR

LOCAL_FILES = (local_part.LOCALISED, local_part.UPLOADED, local_part.PERSONAL)
"""What a client's own folder may hold."""


def adaptation_settings(run: Path, device: str = "auto") -> Settings:
    """The settings of a run of domain adaptation, on a device of this machine.

    Raises
    ------
    SettingsError
        If there is no run, or one that adapts nothing.
    """
    settings = read_settings({**stored_run_config(run), "device": device})
    if not isinstance(settings, Settings):
        raise SettingsError(
            f"{run}: workload={settings.workload} classifies nothing; name a run of fmtda simulate, or draw from this "
            "one with fmtda sample"
        )
    return settings


def server_network(run: Path, settings: Settings) -> Network:
    """G and F_g of a run's last whole round, as the clients get them to predict.

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
    predicts = {name: tensor for name, tensor in checkpoint.model.items() if not name.startswith(DISCRIMINATOR)}
    return network_of(settings, predicts)


def clients_of(run: Path, settings: Settings) -> list[str]:
    """The clients that a run has something of, sorted by name; those it was asked to have, where it has nothing."""
    folders = {
        file.parent.relative_to(run / "clients").as_posix() for file in (run / "clients").glob("*/*/*.safetensors")
    }
    names = {*uploads.senders(RunDirectory(run).uploads), *folders}
    return sorted(names or settings.simulated_names(settings.supernodes))


def named_clients(run: Path, settings: Settings, domain: str | None) -> list[str]:
    """The clients that a domain's or a client's name means; all of them for None.

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


def differs_by_domain(settings: Settings) -> bool:
    """Whether a strategy's clients predict with something of their own."""
    return settings.strategy in ("dualadapt", "adabn")


def client_named(run: Path, settings: Settings, domain: str | None, own_folder: Path | None) -> str:
    """The one client that is meant; empty where all predict alike and none is named.

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


def client_parts(
    settings: Settings, client: str, network: Network, folder: Path, run: Path
) -> tuple[dict[str, Network], Mixture | None, str]:
    """The networks by head, W_T, and what of the client was there.

    Parameters
    ----------
    settings
        The run's.
    client
        Its name.
    network
        G and F_g as the server has them; it gets the client's BatchNorm statistics.
    folder
        The client's own.
    run
        The run directory, for what the client uploaded.

    Raises
    ------
    SettingsError
        If the folder belongs to a client of another run.
    """
    if not differs_by_domain(settings):
        return {"global": network}, None, f"the global model; strategy={settings.strategy} keeps nothing on a client"
    localised = local_part.read(folder, local_part.LOCALISED)
    uploaded = local_part.read(folder, local_part.UPLOADED)
    personal = local_part.read(folder, local_part.PERSONAL)
    if uploaded is None:
        uploaded = uploads.read(RunDirectory(run).uploads / client / uploads.FILE)
    device = choose_device(settings.device)
    networks, parts = {"global": network}, ""
    try:
        if localised is not None:
            own = local_part.group("batch-norm", localised)
            if settings.strategy == "dualadapt":
                networks["local"] = _local(network, local_part.group("classifier", localised))
                load_batch_norm_state(networks["local"].feature_extractor, own)
            load_batch_norm_statistics(network.feature_extractor, own)
            parts = f"F_g{' and F_l' if 'local' in networks else ''} with the BatchNorm statistics of {client}"
        elif uploaded is not None:
            networks["local"] = _local(network, local_part.group("classifier", uploaded))
            parts = (
                f"F_g, and F_l as {client} last uploaded it, with the server's BatchNorm statistics: the client's own "
                "part is not here; name its folder with --local"
            )
        else:
            parts = f"F_g alone: nothing of {client} is here; name its folder with --local"
        if personal is not None:
            networks["personal"] = network_of(settings, personal)
            parts = f"its own copy of the network and, with equal say, {parts}"
    except (ValueError, RuntimeError, KeyError) as error:
        raise SettingsError(
            f"{folder}: doesn't fit the run in {run} ({str(error).splitlines()[0]}); is it another run's client?"
        ) from None
    fields = local_part.group("mixture", uploaded or {})
    return networks, Mixture(**fields).to(device) if fields else None, parts


def network_of(settings: Settings, state: Mapping[str, Tensor]) -> Network:
    """A network of a run's kind with these weights, for predictions alone."""
    extended = {"fed-mcd": lambda network: TwoHeads(network, copy.deepcopy(network.classifier))}
    add = extended.get(settings.strategy, lambda network: network)
    return loaded_network(state, settings, add).requires_grad_(False).eval()


def _local(network: Network, classifier: Mapping[str, Tensor]) -> Network:
    """A copy of G and F_g with other weights of the classifier."""
    local = copy.deepcopy(network)
    local.classifier.load_state_dict(classifier)
    return local
