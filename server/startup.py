"""Before anything starts: the effective settings, and everything that can be refused early.

Flower needs ten seconds before it says anything; a wrong setting should not have to wait for that.
"""

from collections.abc import Mapping
from pathlib import Path

from adaptation.networks import NETWORKS
from domains.examples import DataError
from domains.partition import limited_split
from domains.registry import family
from protocol.runtime import choose_device
from protocol.seeds import client_names, domain_of
from protocol.settings import Scalar, Settings, SettingsError
from strategies.registry import check_strategy


def effective_settings(config: Mapping[str, Scalar]) -> Settings:
    """A flat run config with every ``auto`` resolved and every name checked.

    Raises
    ------
    SettingsError, DataError
        Naming the key, what was given and what is allowed.
    """
    data = family(str(config.get("data", Settings.model_fields["data"].default)))
    settings = Settings.from_run_config(config, data.defaults)
    check_strategy(settings.strategy)
    if settings.network not in NETWORKS:
        raise SettingsError(f"network={settings.network}: no such network; allowed are {', '.join(NETWORKS)}")
    if settings.scenery and not settings.randomise:
        raise SettingsError("scenery=True: it is a part of the randomisation; set randomise=true, or scenery=false too")
    if settings.personalise and settings.strategy != "dualadapt":
        raise SettingsError(
            f"personalise=True: strategy={settings.strategy} has no part of a client's own; use dualadapt"
        )
    try:
        choose_device(settings.device)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    _check_targets(settings)
    return settings


def check_source(settings: Settings) -> None:
    """Refuse a source whose files are missing or damaged; looks at headers and sizes only."""
    family(settings.data).check([settings.source], _data_dir(settings))


def check_simulation(settings: Settings) -> None:
    """Refuse what a simulation on this machine could not split: target files, and more clients than examples."""
    data = family(settings.data)
    data.check(settings.target_domains, _data_dir(settings))
    names = client_names(settings.target_domains, settings.clients)
    for domain in settings.target_domains:
        shares = sum(domain_of(name) == domain for name in names)
        labels = data.load(domain, "train", _data_dir(settings), settings.seed).labels.numpy()
        available = min(len(labels), settings.target_limit or len(labels))
        if shares * settings.min_examples > available:
            raise DataError(
                f"clients={settings.clients}: {shares} of them would share the {available} training examples of "
                f"{domain}, at least {settings.min_examples} each; take fewer clients"
            )
        if settings.partition == "dirichlet":  # the draw decides whether every share is large enough
            how = (settings.partition, settings.alpha, settings.seed, settings.min_examples)
            limited_split(labels, settings.target_limit, shares, *how, domain)


def _check_targets(settings: Settings) -> None:
    allowed = family(settings.data).domains
    for domain in (settings.source, *settings.target_domains):
        if domain not in allowed:
            raise DataError(f"{domain}: no such domain in {settings.data}; allowed are {', '.join(allowed)}")
    if not settings.target_domains:
        raise DataError(f"targets={settings.targets}: names no domain; allowed are {', '.join(allowed)}")
    if settings.source in settings.target_domains:
        raise DataError(f"targets={settings.targets}: {settings.source} is the source, it can't be a target too")
    if len(set(settings.target_domains)) < len(settings.target_domains):
        raise DataError(f"targets={settings.targets}: a domain is named twice")
    if settings.clients < len(settings.target_domains):
        raise SettingsError(
            f"clients={settings.clients}: {len(settings.target_domains)} targets need a client each; "
            f"set clients to {len(settings.target_domains)} or more, or name fewer targets"
        )


def _data_dir(settings: Settings) -> Path | None:
    return Path(settings.data_dir) if settings.data_dir else None
