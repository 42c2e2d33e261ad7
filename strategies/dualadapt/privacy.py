"""Adds noise to what a client of a run with privacy uploads, and counts it; all else stays at home.

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
from torch import Tensor

from fmtda.adaptation.labelled_features import feature_rows
from fmtda.adaptation.mixture import HELD_OUT_FROM, Mixture, hold_out
from fmtda.adaptation.network import Network
from fmtda.adaptation.privacy_account import Release, epsilon
from fmtda.adaptation.privacy_noise import Uniforms, seeded_uniforms, system_uniforms
from fmtda.adaptation.private_classifier import sampling_rate, train_privately
from fmtda.adaptation.private_mixture import fit_privately
from fmtda.domains.client import Client
from fmtda.domains.examples import DataError
from fmtda.strategies.algorithm import adaptation
from fmtda.strategies.dualadapt.parameters import DualAdaptParameters

RELEASED = "released.json"
"""In the client's folder: what each message of the run has given away."""


def check(client: Client) -> None:
    """Refuse a client that is too small for the noise, or for a mixture with a floor, before anything is computed.

    Raises
    ------
    DataError
        Naming the key, what was given and what to do.
    """
    settings, examples = adaptation(client).privacy, len(client.train)
    fitted = len(hold_out(examples, seed=0)[0])
    if settings.mixture_floor > fitted:
        raise DataError(
            f"{client.name} has {fitted} of {examples} training examples to fit its mixture on; "
            f"privacy.mixture-floor={settings.mixture_floor} needs as many; lower it, or leave the client out by "
            "data.min-examples"
        )
    if client.settings.private and examples < HELD_OUT_FROM:
        raise DataError(
            f"{client.name} has {examples} training examples; privacy.noise={settings.noise:g} needs at least "
            f"{HELD_OUT_FROM}"
        )
    if client.settings.private and settings.delta * examples >= 1:
        raise DataError(
            f"{client.name} has {examples} training examples; privacy.delta={settings.delta:g} must be below "
            f"1/{examples}: a delta of that size allows to send an example as it is"
        )


def learn(
    network: Network, source_mixture: Mixture, client: Client, start: Mapping[str, Tensor] | None = None
) -> tuple[torch.nn.Module, Mixture, dict[str, float]]:
    """Learn F_l and W_T of a client under noise (Algorithm 1, lines 7-11), and return epsilon too.

    F_l begins as F_g, or at `start` in the first rounds of a client that joined late.
    """
    own, noise = client.settings.own(DualAdaptParameters), adaptation(client).privacy
    features = _features(network, client)
    source_mixture = source_mixture.to(features.device)
    classifier = copy.deepcopy(network.classifier).requires_grad_(True)  # F_l <- F_g
    if start is not None:
        classifier.load_state_dict(start)
    rate = sampling_rate(len(features), own.client_batch)
    spent = _account(client, Release(own.client_steps, rate, noise.noise, noise.mixture_noise))
    train_privately(
        classifier,
        features,
        global_logits=network.classifier(features),
        weights=source_mixture.typicality(features),  # w_S(x)
        discrepancy_weight=own.discrepancy_weight,
        steps=own.client_steps,
        batch_size=own.client_batch,
        learning_rate=own.client_learning_rate,
        clip=noise.clip,
        noise=noise.noise,
        uniforms=secret_uniforms(client, "noise of the classifier"),
    )
    return classifier, _noised_mixture(source_mixture, features, client), {"epsilon": spent}


def fit_mixture(network: Network, source_mixture: Mixture, client: Client) -> tuple[Mixture, dict[str, float]]:
    """Fit W_T alone, with which a client joins: the one that it would upload if it trained; return epsilon too."""
    features = _features(network, client)
    spent = _account(client, Release(0, 1.0, 0.0, adaptation(client).privacy.mixture_noise))
    return _noised_mixture(source_mixture.to(features.device), features, client), {"epsilon": spent}


def secret_uniforms(client: Client, purpose: str) -> Uniforms:
    """Return what noise is made of: nobody can compute it on a real client; equal seeds repeat it in a simulation."""
    return seeded_uniforms(client.generator(purpose)) if client.simulated else system_uniforms


def _features(network: Network, client: Client) -> Tensor:
    """z of every example, each from that example and the server's network alone: (N, D)."""
    inputs, places = client.inputs(client.train), client.settings.own(DualAdaptParameters).places
    return feature_rows(network, inputs, places, client.generator("places"))


def _noised_mixture(source_mixture: Mixture, features: Tensor, client: Client) -> Mixture:
    settings = adaptation(client).privacy
    fitted, held_out = (part.to(features.device) for part in client.divided(len(features)))
    return fit_privately(
        source_mixture,
        features[fitted],
        features[held_out],
        settings.mixture_noise,
        settings.mixture_floor,
        secret_uniforms(client, "noise of the mixture"),
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
    spent = epsilon(releases, adaptation(client).privacy.delta)
    if not math.isfinite(spent):
        raise DataError(
            f"{client.name}: privacy.noise={release.noise:g}, privacy.mixture-noise={release.mixture_noise:g} would "
            "give away all there is; set both above 0"
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
