"""Makes the effective settings, and refuses early what can be refused, before anything starts.

Flower needs ten seconds before it says anything; a wrong setting should not have to wait for that.
"""

from collections.abc import Mapping
from pathlib import Path

from fmtda.domains.examples import DataError
from fmtda.domains.partition import limited_split, split_labels
from fmtda.domains.registry import family, spec_of
from fmtda.protocol.client_names import domain_of
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.settings import RunSettings
from fmtda.protocol.tables import Scalar, SettingsError
from fmtda.server.trackers import check_installed as check_trackers
from fmtda.server.workload_kinds import WORKLOADS
from fmtda.strategies.composition import resolve


def effective_settings(config: Mapping[str, Scalar]) -> RunSettings:
    """Resolve every ``auto`` of a run config, given by dotted keys, and check every name.

    Raises
    ------
    SettingsError, DataError
        Naming the key, what was given and what is allowed.
    """
    settings = resolve(config)
    try:
        choose_device(settings.device)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    check_trackers(settings)
    _check_targets(settings)
    WORKLOADS[settings.kind].check(settings)  # last: what it imports may take seconds
    return settings


def check_source(settings: RunSettings) -> None:
    """Refuse a source whose files are missing or damaged, where there is one; looks at headers and sizes only."""
    if settings.source_domains:
        family(settings.data.name).check(settings.source_domains, spec_of(settings))


def check_simulation(settings: RunSettings) -> None:
    """Refuse what a simulation on this machine could not split: target files, and more clients than examples."""
    data, given = family(settings.data.name), settings.data
    data.check(settings.target_domains, spec_of(settings))
    names = settings.simulated_names(settings.supernodes)
    for domain in settings.target_domains:
        shares = sum(domain_of(name) == domain for name in names)
        labels = split_labels(data.load(domain, "train", spec_of(settings)))
        available = min(len(labels), given.target_limit or len(labels))
        if shares * given.min_examples > available:
            raise DataError(
                f"clients={settings.clients}: {shares} of them would share the {available} training examples of "
                f"{domain}, at least {given.min_examples} each; take fewer clients"
            )
        if given.partition != "iid":  # the labels decide whether every share is large enough
            how = (given.partition, given.alpha, settings.seed, given.min_examples)
            limited_split(labels, given.target_limit, shares, *how, domain)


def _check_targets(settings: RunSettings) -> None:
    data, given, source = family(settings.data.name), settings.data, settings.source_domains
    allowed = data.domains_in(Path(given.dir) if given.dir else None)
    known_here = (*source, *settings.target_domains) if data.domains else source
    for domain in known_here:  # where domains are folders, a real client's may be nowhere but with the client
        if domain not in allowed:
            raise DataError(f"{domain}: no such domain in {given.name}; allowed are {', '.join(allowed)}")
    if not settings.target_domains:
        raise DataError(f"data.targets={given.targets}: names no domain; allowed are {', '.join(allowed)}")
    if set(source) & set(settings.target_domains):
        raise DataError(
            f"data.targets={given.targets}: {source[0]} is the source, it can't be a target too; "
            "name another with data.source="
        )
    if len(set(settings.target_domains)) < len(settings.target_domains):
        raise DataError(f"data.targets={given.targets}: a domain is named twice")
    from_the_start = [domain for domain in settings.target_domains if domain not in settings.late_domains]
    if settings.clients < len(from_the_start):
        raise SettingsError(
            f"clients={settings.clients}: {len(from_the_start)} targets need a client each; "
            f"set clients to {len(from_the_start)} or more, or name fewer targets"
        )
