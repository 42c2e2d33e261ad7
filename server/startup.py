"""Before anything starts: the effective settings, and everything that can be refused early.

Flower needs ten seconds before it says anything; a wrong setting should not have to wait for that.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from fmtda.adaptation.privacy_account import EXTRA, is_installed
from fmtda.adaptation.registry import NETWORKS, build
from fmtda.domains.examples import DataError
from fmtda.domains.family import Family
from fmtda.domains.partition import limited_split, split_labels
from fmtda.domains.registry import family, spec_of
from fmtda.generative.registry import MODELS, MissingExtraError
from fmtda.generative.registry import build as build_model
from fmtda.protocol.generative_settings import GenerativeSettings
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.seeds import domain_of
from fmtda.protocol.settings import AUTO, RunSettings, Scalar, Settings, SettingsError
from fmtda.protocol.workloads import own_keys, settings_class
from fmtda.server.trackers import check_installed as check_trackers
from fmtda.strategies.registry import check_strategy


def effective_settings(config: Mapping[str, Scalar]) -> RunSettings:
    """A flat run config with every ``auto`` resolved and every name checked.

    Raises
    ------
    SettingsError, DataError
        Naming the key, what was given and what is allowed.
    """
    given = {key: value for key, value in own_keys(config).items() if value != AUTO}
    data_dir = Path(str(given["data-dir"])) if given.get("data-dir") else None
    settings_type = settings_class(config)
    data = family(str({**settings_type.auto_values(given), **given}["data"]))
    if issubclass(settings_type, GenerativeSettings):
        settings = settings_type.from_run_config(given, _generative_defaults(data, data_dir, given))
    else:
        settings = settings_type.from_run_config(given, data.defaults(data_dir, given))
        _check_adaptation(settings)
    try:
        choose_device(settings.device)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    check_trackers(settings)
    _check_targets(settings)
    if isinstance(settings, GenerativeSettings):  # last: what it imports takes seconds
        _check_model(settings)
    return settings


def check_source(settings: RunSettings) -> None:
    """Refuse a source whose files are missing or damaged, where there is one; looks at headers and sizes only."""
    if isinstance(settings, Settings):
        family(settings.data).check([settings.source], spec_of(settings))


def check_simulation(settings: RunSettings) -> None:
    """Refuse what a simulation on this machine could not split: target files, and more clients than examples."""
    data = family(settings.data)
    data.check(settings.target_domains, spec_of(settings))
    names = settings.simulated_names(settings.supernodes)
    for domain in settings.target_domains:
        shares = sum(domain_of(name) == domain for name in names)
        labels = split_labels(data.load(domain, "train", spec_of(settings)))
        available = min(len(labels), settings.target_limit or len(labels))
        if shares * settings.min_examples > available:
            raise DataError(
                f"clients={settings.clients}: {shares} of them would share the {available} training examples of "
                f"{domain}, at least {settings.min_examples} each; take fewer clients"
            )
        if settings.partition != "iid":  # the labels decide whether every share is large enough
            how = (settings.partition, settings.alpha, settings.seed, settings.min_examples)
            limited_split(labels, settings.target_limit, shares, *how, domain)


def _generative_defaults(data: Family, data_dir: Path | None, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """What the data say of a generative run: without a word from the user, the clients share the source's domain."""
    of_adaptation = data.defaults(data_dir, {"targets": "given or the source", **given})
    own = {key: of_adaptation[key] for key in ("classes", "input-shape")}
    return {"targets": of_adaptation["source"], **own}


def _check_model(settings: GenerativeSettings) -> None:
    """Refuse a model that is not installed, can't be built so, or doesn't learn the data's kind of examples."""
    try:
        MODELS[settings.workload].kind.check(settings)
        build_model(settings.workload, settings, seed=0)
    except MissingExtraError as error:
        raise SettingsError(f"workload={settings.workload}: {error}") from None
    except ValueError as error:  # a model names the settings as attributes
        text = str(error)
        for name, field in type(settings).model_fields.items():
            text = text.replace(f"{name}=", f"{field.alias}=")
        raise SettingsError(text) from None


def _check_adaptation(settings: Settings) -> None:
    """Refuse a strategy or network that there isn't, and extras that don't go together."""
    data = family(settings.data)
    check_strategy(settings.strategy)
    _check_network(settings)
    if settings.scenery and data.kind != "digits":
        raise SettingsError(f"scenery=True: data={settings.data} knows none, digits alone do; set scenery=false")
    if settings.scenery and not settings.randomise:
        raise SettingsError("scenery=True: it is a part of the randomisation; set randomise=true, or scenery=false too")
    if data.segmentation and not settings.cache_features:
        raise SettingsError("cache-features=False: segmentation keeps the features of sampled places; set it to true")
    if settings.personalise and settings.strategy != "dualadapt":
        raise SettingsError(
            f"personalise=True: strategy={settings.strategy} has no part of a client's own; use dualadapt"
        )
    if settings.private or settings.mixture_floor:
        _check_privacy(settings)


def _check_privacy(settings: Settings) -> None:
    """Refuse noise that would leave a part of the uploads bare, or that nobody could account for."""
    given = f"mixture-floor={settings.mixture_floor}"
    if settings.private:
        given = f"privacy-noise={settings.privacy_noise:g}, mixture-noise={settings.mixture_noise:g}"
        if not (settings.privacy_noise and settings.mixture_noise):
            raise SettingsError(
                f"{given}: one of F_l and W_T would leave the clients without noise, and epsilon be infinite; "
                "set both above 0, or both to 0"
            )
        if not is_installed():
            raise SettingsError(
                f"{given}: epsilon is accounted by dp-accounting, which is not installed here; "
                f"pip install -e '.[{EXTRA}]', on the clients too"
            )
    if settings.strategy != "dualadapt":
        raise SettingsError(
            f"{given}: of what strategy={settings.strategy} uploads nothing is protected; use dualadapt"
        )
    if family(settings.data).segmentation:
        raise SettingsError(
            f"{given}: a picture of data={settings.data} counts as many examples as it has places, so nothing would be "
            "promised of a picture; use data with one class an input"
        )


def _check_network(settings: Settings) -> None:
    """Refuse a network that doesn't take the data's inputs or doesn't give its kind of labels; computes nothing."""
    if settings.network not in NETWORKS:
        raise SettingsError(f"network={settings.network}: no such network; allowed are {', '.join(NETWORKS)}")
    try:
        with torch.device("meta"):
            network = build(settings.network, len(settings.class_names), settings.shape, seed=0).eval()
            features = network.feature_extractor(torch.zeros(2, *settings.shape))
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"network={settings.network}: doesn't take inputs of {settings.input_shape} ({reason})"
        ) from None
    if (features.ndim > 2) != family(settings.data).segmentation:
        gives, needs = ("a class a pixel", "one class an input")[:: 1 if features.ndim > 2 else -1]
        raise SettingsError(f"network={settings.network}: gives {gives}, but data={settings.data} has {needs}")


def _check_targets(settings: RunSettings) -> None:
    data = family(settings.data)
    allowed = data.domains_in(spec_of(settings).data_dir)
    source = (settings.source,) if isinstance(settings, Settings) else ()
    known_here = (*source, *settings.target_domains) if data.domains else source
    for domain in known_here:  # where domains are folders, a real client's may be nowhere but with the client
        if domain not in allowed:
            raise DataError(f"{domain}: no such domain in {settings.data}; allowed are {', '.join(allowed)}")
    if not settings.target_domains:
        raise DataError(f"targets={settings.targets}: names no domain; allowed are {', '.join(allowed)}")
    if set(source) & set(settings.target_domains):
        raise DataError(
            f"targets={settings.targets}: {settings.source} is the source, it can't be a target too; "
            "name another with source="
        )
    if len(set(settings.target_domains)) < len(settings.target_domains):
        raise DataError(f"targets={settings.targets}: a domain is named twice")
    from_the_start = [domain for domain in settings.target_domains if domain not in settings.late_domains]
    if settings.clients < len(from_the_start):
        raise SettingsError(
            f"clients={settings.clients}: {len(from_the_start)} targets need a client each; "
            f"set clients to {len(from_the_start)} or more, or name fewer targets"
        )
    if isinstance(settings, Settings) and settings.joining:
        _check_joining(settings)


def _check_joining(settings: Settings) -> None:
    """Refuse clients that join late and don't fit the others, or the rounds."""
    late, targets = set(settings.late_domains), set(settings.target_domains)
    if strangers := sorted(late - targets):
        raise DataError(f"joining={settings.joining}: {', '.join(strangers)} is not among targets={settings.targets}")
    if not targets - late:
        raise DataError(f"joining={settings.joining}: no target is left that is there from the start")
    if settings.join_round > settings.rounds:
        raise SettingsError(
            f"join-round={settings.join_round}: this run has rounds={settings.rounds}; take an earlier one, "
            "or more rounds"
        )
