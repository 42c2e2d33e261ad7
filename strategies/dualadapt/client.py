"""Holds DualAdapt as an algorithm, with its client side: lines 6-12 of Algorithm 1, and the extras on the client.

G and F_g come from the server and stay frozen in training. Only the local classifier F_l and the mixture W_T leave the
client. What the extras add happens before the client predicts, in `localised`, and stays with it.

Our choice: how finely a client reports its weights w_S.
"""

import copy
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from flwr.app import Message
from torch import Tensor, nn

from fmtda.adaptation.batch_norm import batch_norm_state, load_batch_norm_state, load_batch_norm_statistics
from fmtda.adaptation.batches import shuffled_batches
from fmtda.adaptation.class_balanced_self_training import adapt_head_and_scales_by_class
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.labelled_features import feature_rows
from fmtda.adaptation.losses import local_classifier_loss
from fmtda.adaptation.mixture import Mixture, StepwiseEM
from fmtda.adaptation.network import Network
from fmtda.adaptation.predictor import Predictor
from fmtda.adaptation.privacy_account import EXTRA, is_installed
from fmtda.adaptation.self_training import (
    adapt_head_and_scales,
    adapt_network_unless_collapsed,
    adapt_statistics,
    predicted_shares,
)
from fmtda.domains.client import Client
from fmtda.domains.registry import family
from fmtda.protocol.metrics import counts, number, share
from fmtda.protocol.records import reply_to, to_record
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import SettingsError
from fmtda.strategies.algorithm import Algorithm, FederatedStrategy, LabelledSource, adaptation, count, received
from fmtda.strategies.dualadapt import privacy
from fmtda.strategies.dualadapt.parameters import ROWS, DualAdaptParameters
from fmtda.strategies.dualadapt.server import SOURCE_MIXTURE, START, DualAdaptServer

TYPICALITY_BINS = 10
"""Bins of the histogram of w_S over [0, 1] that a client reports."""

EPSILON = number("epsilon", least=sys.float_info.min)
"""What a client's uploads have given away, above 0."""

UPLOADED = "uploaded.safetensors"
"""In the client's folder: F_l and W_T as it last sent them."""

LOCALISED = "localised.safetensors"
"""What it last predicted with beside the server's model: F_l, and G's BatchNorm statistics, scales, shifts."""

PERSONAL = "personal.safetensors"
"""Its own copy of G and its head."""

Weights = Mapping[str, Tensor]
"""A classifier's parameters by name."""


class DualAdapt(Algorithm):
    """This is FMTDA DualAdapt as published (preset `paper`), and with extras that each can be switched."""

    name = "dualadapt"
    title = "F_l and a Gaussian mixture on each client, mixup and Eq. 6 on the server (Yao et al. 2022)"
    parameters = DualAdaptParameters
    rows = ROWS
    joins = keeps_local_part = private = personalises = adapts_outside = True
    closing_records = frozenset({SOURCE_MIXTURE})
    answers = {
        "train": (
            number("cross-entropy", 0),
            number("discrepancy", 0),
            share("source-typicality"),
            counts("source-typicality-counts", TYPICALITY_BINS),
            EPSILON,
        ),
        "join": (EPSILON,),
        "personalise": (number("loss"), share("confident"), share("kept")),
    }

    def server(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> FederatedStrategy:
        return DualAdaptServer(settings, network, source)

    def check(self, settings: AdaptationSettings) -> None:
        if family(settings.data.name).segmentation and not settings.own(DualAdaptParameters).cache_features:
            raise SettingsError(
                "dualadapt.cache-features=False: segmentation keeps the features of sampled places; set it to true"
            )
        if settings.private or settings.privacy.mixture_floor:
            _check_privacy(settings)

    def check_client(self, client: Client) -> None:
        if client.settings.private or adaptation(client).privacy.mixture_floor:
            privacy.check(client)

    def inference(self, settings: AdaptationSettings) -> str:
        return settings.own(DualAdaptParameters).inference

    def personalises_in(self, settings: AdaptationSettings) -> bool:
        return settings.own(DualAdaptParameters).personalise.on

    def train(self, message: Message, client: Client) -> Message:
        """Fit F_l and W_T to the client's unlabelled examples, and upload these two; under noise where there is any."""
        began = time.perf_counter()
        learnt = privacy.learn if client.settings.private else learn
        classifier, mixture, told = learnt(
            self.received(message, client), sent_mixture(message), client, sent_start(message)
        )
        client.keep(UPLOADED, classifier=classifier.state_dict(), mixture=mixture.tensors())
        metrics = {"num-examples": len(client.train), "seconds": time.perf_counter() - began, **told}
        uploads = {"classifier": to_record(classifier.state_dict()), "mixture": to_record(mixture.arrays())}
        return reply_to(message, client.name, metrics, **uploads)

    def join(self, message: Message, client: Client) -> Message:
        """Go through Algorithm 1 without its lines 7 and 10: only W_T follows the features, from W_S on.

        The mixture is, bit by bit, the one that the client would upload if it trained in this round, so that the server
        compares like with like; where it starts comes with its later messages.
        """
        began = time.perf_counter()
        network = self.received(message, client)
        told: dict[str, float] = {}
        if client.settings.private:
            mixture, told = privacy.fit_mixture(network, sent_mixture(message), client)
        else:
            mixture = follow(network, sent_mixture(message), client)
        metrics = {"num-examples": len(client.train), "seconds": time.perf_counter() - began, **told}
        return reply_to(message, client.name, metrics, mixture=to_record(mixture.arrays()))

    def adapt(self, message: Message, client: Client) -> Predictor:
        """Make F_l the client's own (`localised`), and predict by F_g, F_l and their mean.

        A client that joined and has not trained yet is sent the F_l that it predicts with.
        """
        start = sent_start(message)
        network = self.received(message, client)
        use_own_statistics(network, client.inputs(client.train), client)
        local = localised(copy.deepcopy(network), client, start)
        mixture = kept_mixture(client) if start is None else None
        networks = {"global": network, "local": local}
        return Predictor(networks, client.settings.own(DualAdaptParameters).inference, mixture)

    def predictor(self, network: Network, client: Client) -> Predictor:
        """Put together G and F_g with the client's statistics, G and F_l as it last predicted, and its own copy."""
        networks = {"global": network}
        parts = f"F_g alone: nothing of {client.name} is here; name its folder with --local"
        found, uploaded = client.kept(LOCALISED), client.kept(UPLOADED)
        if found is None:
            use_own_statistics(network, client.inputs(client.train), client)
        if found is not None:
            local = copy.deepcopy(network)
            local.classifier.load_state_dict(found["classifier"])
            load_batch_norm_state(local.feature_extractor, found.get("batch-norm", {}))
            load_batch_norm_statistics(network.feature_extractor, found.get("batch-norm", {}))
            networks["local"] = local
            parts = f"F_g and F_l with the BatchNorm statistics of {client.name}"
        elif uploaded is not None:
            networks["local"] = copy.deepcopy(network)
            networks["local"].classifier.load_state_dict(uploaded["classifier"])
            parts = (
                f"F_g, and F_l as {client.name} last uploaded it, with the server's BatchNorm statistics: the client's "
                "own part is not here; name its folder with --local"
            )
        if (personal := client.kept(PERSONAL)) is not None:
            networks["personal"] = self.network(personal["network"], adaptation(client))
            parts = f"its own copy of the network and, with equal say, {parts}"
        return Predictor(networks, client.settings.own(DualAdaptParameters).inference, kept_mixture(client), parts)

    def personalise(self, message: Message, client: Client) -> Message:
        """Train the client's own copy of G and head on its examples, keep it, and report what it brings."""
        began = time.perf_counter()
        network = self.received(message, client)
        losses = personalise_network(network, client)
        # The other heads were reported when the round was evaluated.
        counted = count(client, self.predictor(self.received(message, client), client), ("personal",))
        return reply_to(message, client.name, {"seconds": time.perf_counter() - began, **losses, **counted})

    def adapt_outside(
        self,
        network: Callable[[], Network],
        closing: Mapping[str, Mapping[str, Tensor]],
        client: Client,
        personalise: bool,
    ) -> None:
        """Do what a client of one more round would do: F_l, W_T and the extras; G stays as the run left it."""
        classifier, mixture, _ = learn(network(), Mixture(**closing[SOURCE_MIXTURE]), client)
        client.keep(UPLOADED, classifier=classifier.state_dict(), mixture=mixture.tensors())
        server_network = network()
        use_own_statistics(server_network, client.inputs(client.train), client)
        localised(server_network, client)
        if personalise:
            personalise_network(network(), client)


def learn(
    network: Network, source_mixture: Mixture, client: Client, start: Weights | None = None
) -> tuple[nn.Module, Mixture, dict[str, float | list[int]]]:
    """Learn F_l and W_T of a client (Algorithm 1, lines 7-11), and return the mean losses of R_c mini-batches too.

    `network` is the server's, and takes on the client's BatchNorm statistics where that extra is on. F_l begins as F_g,
    or at `start` in the first rounds of a client that joined late. An example is a row of features: for segmentation,
    one place of a picture's feature map.
    """
    own, inputs = client.settings.own(DualAdaptParameters), client.inputs(client.train)
    use_own_statistics(network, inputs, client)
    source_mixture = source_mixture.to(inputs.device)
    global_classifier = network.classifier
    features = feature_rows(network, inputs, own.places, client.generator("places"))
    classifier = copy.deepcopy(global_classifier).requires_grad_(True)  # F_l <- F_g
    if start is not None:
        classifier.load_state_dict(start)
    mixture = FollowingMixture(source_mixture, features, client)  # W_T <- W_S
    source_weights = source_mixture.typicality(features)  # w_S(x)

    optimiser = torch.optim.Adam(classifier.parameters(), lr=own.client_learning_rate, fused=True)
    sums = {"cross-entropy": 0.0, "discrepancy": 0.0}
    for chosen in shuffled_batches(len(features), own.client_batch, own.client_steps, client.generator("mini-batches")):
        batch = chosen.to(inputs.device)
        z = features[batch] if own.cache_features else network.features(inputs[chosen])
        # F_g and F_l see the very same z: while they are equal the L1 is exactly 0, and rounding decides no sign.
        global_logits = global_classifier(z)
        loss = local_classifier_loss(classifier(z), global_logits, source_weights[batch], own.discrepancy_weight)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        mixture.update(batch, z)
        sums["cross-entropy"] += loss.cross_entropy.item() / own.client_steps
        sums["discrepancy"] += loss.discrepancy.item() / own.client_steps
    bins = torch.histc(source_weights.cpu(), TYPICALITY_BINS, 0, 1).int().tolist()
    told = {**sums, "source-typicality": source_weights.mean().item(), "source-typicality-counts": bins}
    return classifier, mixture.finish(), told


def follow(network: Network, source_mixture: Mixture, client: Client) -> Mixture:
    """Fit W_T alone, by stepwise EM over the mini-batches that training would take."""
    own, inputs = client.settings.own(DualAdaptParameters), client.inputs(client.train)
    use_own_statistics(network, inputs, client)
    features = feature_rows(network, inputs, own.places, client.generator("places"))
    mixture = FollowingMixture(source_mixture.to(inputs.device), features, client)
    generator = client.generator("mini-batches")
    for chosen in shuffled_batches(len(features), own.client_batch, own.client_steps, generator):
        batch = chosen.to(inputs.device)
        mixture.update(batch, features[batch])
    return mixture.finish()


class FollowingMixture:
    """Makes W_T: it begins as W_S and takes a step of EM on every mini-batch (Algorithm 1, line 11).

    Who trains and who only joins drive the same steps: over equal mini-batches both get the same mixture, bit by bit.

    Parameters
    ----------
    source_mixture
        W_S.
    features
        z of all the client's examples, (N, D).
    client
        Whose they are.
    """

    def __init__(self, source_mixture: Mixture, features: Tensor, client: Client) -> None:
        device = features.device
        fitted, held_out = (part.to(device) for part in client.divided(len(features)))
        self._features, self._held_out = features[fitted], features[held_out]
        self._is_fitted = torch.zeros(len(features), dtype=torch.bool, device=device).index_fill(0, fitted, True)
        self._expectation_maximisation = StepwiseEM(source_mixture, self._features)
        self._floor = adaptation(client).privacy.mixture_floor

    def update(self, batch: Tensor, z: Tensor) -> None:
        """Follow the features `z`, (B, D), of the examples `batch`, (B,); held-out ones don't count."""
        z_fitted = z[self._is_fitted[batch]]
        if len(z_fitted):
            self._expectation_maximisation.update(z_fitted)

    def finish(self) -> Mixture:
        """Return W_T, without components of too few examples, with the quantiles of the held-out ones."""
        self._expectation_maximisation.leave_out_small(self._features, self._floor)
        return self._expectation_maximisation.finish(self._held_out)


def use_own_statistics(network: Network, inputs: Inputs, client: Client) -> None:
    """Move G's BatchNorm statistics towards those of the client's inputs, in place (`dualadapt.batch-norm`).

    The client chooses its weight, up to `largest_weight`.
    """
    own, examples = client.settings.own(DualAdaptParameters).batch_norm, len(inputs)
    if own.on and examples > 1:
        weight = largest_weight(examples, own.share, own.prior)
        adapt_statistics(network, inputs, weight, client.generator("statistics"))


def largest_weight(examples: int, share: float, prior: float) -> float:
    """Limit the weight of a client's own statistics, in [0, 1): a few examples give noisy ones."""
    return share * examples / (examples + prior)


def localised(network: Network, client: Client, start: Weights | None = None) -> Network:
    """Make G and F_l as this client predicts with them; what makes them its own is kept in its folder.

    F_l is `start` where one came; else what the client last uploaded; F_g if it has not trained or lost its folder. The
    extra `dualadapt.self-training` goes on from there: F_l and G's BatchNorm scales and shifts learn from confident
    pseudo-labels, those of scenes class by class. `network` shares G with the result, and so its scales and shifts.
    A copy that was personalised on an earlier model is forgotten.
    """
    own = client.settings.own(DualAdaptParameters).self_training
    classifier = copy.deepcopy(network.classifier)
    uploaded = client.kept(UPLOADED)
    if start is not None:
        classifier.load_state_dict(start)
    elif uploaded is not None:
        classifier.load_state_dict(uploaded["classifier"])
    local = Network(network.feature_extractor, classifier, network.feature_size)
    if own.on:
        inputs, generator = client.inputs(client.train), client.generator("self-training")
        by_class = client.segmentation
        adapt = adapt_head_and_scales_by_class if by_class else partial(adapt_head_and_scales, threshold=own.confidence)
        adapt(
            local,
            inputs,
            steps=own.steps,
            batch_size=own.batch,
            learning_rate=own.learning_rate,
            generator=generator,
        )
    batch_norm = batch_norm_state(network.feature_extractor)
    client.keep(LOCALISED, classifier=classifier.state_dict(), **{"batch-norm": batch_norm})
    client.forget(PERSONAL)
    return local


def personalise_network(network: Network, client: Client) -> dict[str, float]:
    """Train the client's own copy of G and head, beginning at what it predicts with, and keep it in its folder.

    Returns
    -------
    dict of float
        The training's losses.
    """
    settings, inputs = client.settings.own(DualAdaptParameters).personalise, client.inputs(client.train)
    use_own_statistics(network, inputs, client)
    own = copy.deepcopy(localised(copy.deepcopy(network), client))
    losses = adapt_network_unless_collapsed(
        own,
        inputs,
        steps=settings.steps,
        batch_size=settings.batch,
        learning_rate=settings.learning_rate,
        threshold=settings.confidence,
        generator=client.generator("personalise"),
        class_shares=predicted_shares(network, inputs) if client.segmentation else None,
    )
    client.keep(PERSONAL, network=own.state_dict())
    return losses


def kept_mixture(client: Client) -> Mixture | None:
    """Return W_T as the client last uploaded it, on the run's device; None where it has uploaded none."""
    uploaded = client.kept(UPLOADED)
    if uploaded is None or "mixture" not in uploaded:
        return None
    return Mixture(**uploaded["mixture"]).to(choose_device(client.settings.device))


def sent_mixture(message: Message) -> Mixture:
    """Return W_S in a message."""
    return Mixture.from_arrays({n: a.numpy() for n, a in message.content.array_records["source_mixture"].items()})


def sent_start(message: Message) -> Weights | None:
    """Return what F_l begins as in the place of F_g, on a client that joined late; None elsewhere."""
    return received(message, START) if START in message.content else None


def _check_privacy(settings: AdaptationSettings) -> None:
    """Refuse noise that would leave a part of the uploads bare, or that nobody could account for."""
    own = settings.privacy
    given = f"privacy.mixture-floor={own.mixture_floor}"
    if settings.private:
        given = f"privacy.noise={own.noise:g}, privacy.mixture-noise={own.mixture_noise:g}"
        if not (own.noise and own.mixture_noise):
            raise SettingsError(
                f"{given}: one of F_l and W_T would leave the clients without noise, and epsilon be infinite; "
                "set both above 0, or both to 0"
            )
        if not is_installed():
            raise SettingsError(
                f"{given}: epsilon is accounted by dp-accounting, which is not installed here; "
                f"pip install -e '.[{EXTRA}]', on the clients too"
            )
    if family(settings.data.name).segmentation:
        raise SettingsError(
            f"{given}: a picture of data.name={settings.data.name} counts as many examples as it has places, so "
            "nothing would be promised of a picture; use data with one class an input"
        )
