"""A client of a run with privacy: what it uploads comes with noise, is counted, and all else stays at home.

What leaves in training are F_l out of DP-SGD, W_T out of noised sums, and what both have given away so far, epsilon.
All of it is computed on G as the server sent it: the client's own BatchNorm statistics would make every example's
features depend on all others, and then no single one could be hidden. They serve the client's own predictions as
before.
"""

import copy
import json
import math
import os
from collections.abc import Mapping

import torch
from flwr.app import Message, MetricRecord
from torch import Tensor

from fmtda.adaptation.mixture import HELD_OUT_FROM, Mixture, hold_out
from fmtda.adaptation.network import Network
from fmtda.adaptation.privacy_account import Release, epsilon
from fmtda.adaptation.private_classifier import sampling_rate, train_privately
from fmtda.adaptation.private_mixture import fit_privately
from fmtda.clients import local_part
from fmtda.clients.identity import Client
from fmtda.clients.mixture import fitted_and_held_out
from fmtda.clients.network import feature_rows, inputs_of
from fmtda.domains.examples import DataError
from fmtda.protocol.settings import Settings

DECLARED = ("num-examples", "seconds", "epsilon")
"""The metrics that leave a client in a run with privacy: docs/privacy.md says what each tells."""

PROTECTED = ("dualadapt", "source-only")
"""The strategies of which nothing leaves a client without noise: source-only uploads nothing."""

RELEASED = "released.json"
"""In the client's folder: what each message of the run has given away."""


def check(client: Client) -> None:
    """Refuse, before anything is computed, what would break the promises of the run or of the client's owner.

    Raises
    ------
    DataError
        Naming the key, what was given and what to do.
    """
    settings, examples = client.settings, len(client.train)
    if client.epsilon_limit is not None and not settings.private:
        raise DataError(
            f"{client.name}: epsilon-limit={client.epsilon_limit:g} in its node config, but this run adds no noise; "
            "set privacy-noise and mixture-noise"
        )
    if settings.private and settings.strategy not in PROTECTED:
        raise DataError(
            f"{client.name}: strategy={settings.strategy} uploads what no noise is added to; "
            f"allowed with privacy-noise are {', '.join(PROTECTED)}"
        )
    fitted = len(hold_out(examples, seed=0)[0])
    if isinstance(settings, Settings) and settings.mixture_floor > fitted:
        raise DataError(
            f"{client.name} has {fitted} of {examples} training examples to fit its mixture on; "
            f"mixture-floor={settings.mixture_floor} needs as many; lower it, or leave the client out by min-examples"
        )
    if settings.private and examples < HELD_OUT_FROM:
        raise DataError(
            f"{client.name} has {examples} training examples; privacy-noise={settings.privacy_noise:g} needs at least "
            f"{HELD_OUT_FROM}"
        )
    if settings.private and settings.privacy_delta * examples >= 1:
        raise DataError(
            f"{client.name} has {examples} training examples; privacy-delta={settings.privacy_delta:g} must be below "
            f"1/{examples}: a delta of that size allows to send an example as it is"
        )


def withheld(reply: Message, client: Client) -> Message:
    """The reply without the metrics that say more of the client's examples than docs/privacy.md declares."""
    if client.settings.private:
        metrics = reply.content["metrics"]
        reply.content["metrics"] = MetricRecord({key: metrics[key] for key in DECLARED if key in metrics})
    return reply


def withheld_evaluation(reply: Message, client: Client) -> Message:
    """`withheld`, unless the client's owner lets the numbers of its evaluation leave."""
    return reply if client.shares_evaluation else withheld(reply, client)


def learn(
    network: Network, source_mixture: Mixture, client: Client, start: Mapping[str, Tensor] | None = None
) -> tuple[torch.nn.Module, Mixture, dict[str, float]]:
    """Algorithm 1, lines 7-11, under noise: F_l and W_T of a client, also written to its folder, and epsilon.

    F_l begins as F_g, or at `start` in the first rounds of a client that joined late.
    """
    settings = client.settings
    features = _features(network, client)
    source_mixture = source_mixture.to(features.device)
    classifier = copy.deepcopy(network.classifier).requires_grad_(True)  # F_l <- F_g
    if start is not None:
        classifier.load_state_dict(start)
    rate = sampling_rate(len(features), settings.client_batch)
    noise = (settings.privacy_noise, settings.mixture_noise)
    spent = _account(client, Release(settings.client_steps, rate, *noise))
    train_privately(
        classifier,
        features,
        global_logits=network.classifier(features),
        weights=source_mixture.typicality(features),  # w_S(x)
        discrepancy_weight=settings.discrepancy_weight,
        steps=settings.client_steps,
        batch_size=settings.client_batch,
        learning_rate=settings.client_learning_rate,
        clip=settings.privacy_clip,
        noise=settings.privacy_noise,
        uniforms=client.secret_uniforms("noise of the classifier"),
    )
    mixture = _noised_mixture(source_mixture, features, client)
    local_part.write_uploaded(client.folder, classifier, mixture)
    return classifier, mixture, {"epsilon": spent}


def fit_mixture(network: Network, source_mixture: Mixture, client: Client) -> tuple[Mixture, dict[str, float]]:
    """W_T alone, with which a client joins: the one that it would upload if it trained; and epsilon."""
    features = _features(network, client)
    spent = _account(client, Release(0, 1.0, 0.0, client.settings.mixture_noise))
    return _noised_mixture(source_mixture.to(features.device), features, client), {"epsilon": spent}


def _features(network: Network, client: Client) -> Tensor:
    """z of every example, each from that example and the server's network alone: (N, D)."""
    return feature_rows(network, inputs_of(client, client.train), client.settings, client.generator("places"))


def _noised_mixture(source_mixture: Mixture, features: Tensor, client: Client) -> Mixture:
    settings = client.settings
    fitted, held_out = (part.to(features.device) for part in fitted_and_held_out(client, len(features)))
    return fit_privately(
        source_mixture,
        features[fitted],
        features[held_out],
        settings.mixture_noise,
        settings.mixture_floor,
        client.secret_uniforms("noise of the mixture"),
    )


def _account(client: Client, release: Release) -> float:
    """Write down what is about to be sent, and return what all that was sent in this run gives away.

    A simulated client that is asked again for a round sends the same bits again, which tell nothing new; a real one
    draws fresh noise, and both messages count.

    Raises
    ------
    DataError
        If it has no bound, or is more than the client's owner allows; then nothing is written down.
    """
    file = client.folder / RELEASED
    earlier = json.loads(file.read_text()) if file.exists() else []
    if client.simulated:
        earlier = [entry for entry in earlier if entry["round"] < client.round]
    entries = [*earlier, {"round": client.round, **release._asdict()}]
    releases = [Release(*(entry[field] for field in Release._fields)) for entry in entries]
    spent = epsilon(releases, client.settings.privacy_delta)
    if not math.isfinite(spent):
        raise DataError(
            f"{client.name}: privacy-noise={release.noise:g}, mixture-noise={release.mixture_noise:g} would give away "
            "all there is; set both above 0"
        )
    if client.epsilon_limit is not None and spent > client.epsilon_limit:
        raise DataError(
            f"{client.name}: epsilon would be {spent:.3g}, epsilon-limit={client.epsilon_limit:g} in its node config"
        )
    client.folder.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{RELEASED}.{os.getpid()}")
    aside.write_text(json.dumps(entries, indent=1) + "\n")
    aside.rename(file)
    return spent
