"""DualAdapt's client side: Algorithm 1, lines 6-12, the extras that stay on the client, and evaluation.

G and F_g come from the server and stay frozen in training. Only the local classifier F_l and the mixture W_T leave the
client. What the extras add happens before the client predicts, in `localise`, and stays with it.
"""

import copy
import time
from collections.abc import Mapping

import torch
from flwr.app import Message
from torch import Tensor

from fmtda.adaptation.batch_norm import batch_norm_state, load_batch_norm_state, load_batch_norm_statistics
from fmtda.adaptation.batches import shuffled_batches
from fmtda.adaptation.class_balanced_self_training import adapt_head_and_scales_by_class
from fmtda.adaptation.heads import by_head
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.losses import local_classifier_loss
from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.network import Network
from fmtda.adaptation.self_training import adapt_head_and_scales, adapt_network_unless_collapsed
from fmtda.clients import local_part, privacy
from fmtda.clients.evaluation import count
from fmtda.clients.identity import Client
from fmtda.clients.mixture import FollowingMixture
from fmtda.clients.network import expected_shares, feature_rows, inputs_of, received_network, use_own_statistics
from fmtda.domains.registry import family
from fmtda.protocol.records import from_record, reply_to, to_record
from fmtda.protocol.runtime import choose_device

TYPICALITY_BINS = 10
"""Of the histogram of w_S over [0, 1] that a client reports (our choice)."""


State = Mapping[str, Tensor]
"""A classifier's parameters by name."""


def train(message: Message, client: Client) -> Message:
    """Fit F_l and W_T to the client's unlabelled examples, and upload these two; under noise where the run has any."""
    began = time.perf_counter()
    network = received_network(message, client)
    source_mixture = Mixture.from_arrays({n: a.numpy() for n, a in message.content["source_mixture"].items()})
    learnt = privacy.learn if client.settings.private else learn
    classifier, mixture, told = learnt(network, source_mixture, client, sent_start(message))
    metrics = {"num-examples": len(client.train), "seconds": time.perf_counter() - began, **told}
    return reply_to(
        message,
        client.name,
        metrics,
        classifier=to_record(classifier.state_dict()),
        mixture=to_record(mixture.arrays()),
    )


def learn(
    network: Network, source_mixture: Mixture, client: Client, start: State | None = None
) -> tuple[torch.nn.Module, Mixture, dict[str, float | list[int]]]:
    """Algorithm 1, lines 7-11: F_l and W_T of a client, also written to its folder, and the mean losses.

    `network` is the server's, and takes on the client's BatchNorm statistics where that extra is on. F_l begins as F_g,
    or at `start` in the first rounds of a client that joined late.
    """
    inputs = inputs_of(client, client.train)
    use_own_statistics(network, inputs, client)
    classifier, mixture, losses = _adapt(client, network, inputs, source_mixture.to(inputs.device), start)
    local_part.write_uploaded(client.folder, classifier, mixture)
    return classifier, mixture, losses


def _adapt(
    client: Client, network: Network, inputs: Inputs, source_mixture: Mixture, start: State | None
) -> tuple[torch.nn.Module, Mixture, dict[str, float | list[int]]]:
    """R_c mini-batches of Eq. 5 on F_l and of the mixture's stepwise EM.

    An example is a row of features: for segmentation, one place of a picture's feature map.
    """
    settings = client.settings
    global_classifier = network.classifier
    features = feature_rows(network, inputs, settings, client.generator("places"))
    classifier = copy.deepcopy(global_classifier).requires_grad_(True)  # F_l <- F_g
    if start is not None:
        classifier.load_state_dict(start)
    mixture = FollowingMixture(source_mixture, features, client)  # W_T <- W_S
    source_weights = source_mixture.typicality(features)  # w_S(x)

    optimiser = torch.optim.Adam(classifier.parameters(), lr=settings.client_learning_rate, fused=True)
    generator = client.generator("mini-batches")
    sums = {"cross-entropy": 0.0, "discrepancy": 0.0}
    for chosen in shuffled_batches(len(features), settings.client_batch, settings.client_steps, generator):
        batch = chosen.to(inputs.device)
        z = features[batch] if settings.cache_features else network.features(inputs[chosen])
        # F_g and F_l see the very same z: while they are equal the L1 is exactly 0, and rounding decides no sign.
        global_logits = global_classifier(z)
        loss = local_classifier_loss(classifier(z), global_logits, source_weights[batch], settings.discrepancy_weight)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        mixture.update(batch, z)
        sums["cross-entropy"] += loss.cross_entropy.item() / settings.client_steps
        sums["discrepancy"] += loss.discrepancy.item() / settings.client_steps
    counts = torch.histc(source_weights.cpu(), TYPICALITY_BINS, 0, 1).int().tolist()
    return (
        classifier,
        mixture.finish(),
        {**sums, "source-typicality": source_weights.mean().item(), "source-typicality-counts": counts},
    )


def sent_start(message: Message) -> State | None:
    """Where the server wants F_l to begin in the place of F_g: it knows clients like this one that joined late."""
    return from_record(message.content["start"]) if "start" in message.content else None


def evaluate(message: Message, client: Client) -> Message:
    """Predict the client's test examples by F_g, F_l and their mean, and count what is right.

    F_g predicts on G as it came, with the client's own BatchNorm statistics where that extra is on; F_l on G as
    self-training left it. A client that joined and has not trained yet is sent the F_l that it predicts with.
    """
    began = time.perf_counter()
    network = received_network(message, client)
    start = sent_start(message)
    local = predictors(network, client, start)
    uploaded = local_part.read(client.folder, local_part.UPLOADED) if start is None else None
    mixture = None
    if uploaded is not None:
        mixture = Mixture(**local_part.group("mixture", uploaded)).to(choose_device(client.settings.device))
    log_likelihoods: list[Tensor] = []

    def predict(inputs: Tensor) -> dict[str, Tensor]:
        features = network.feature_extractor(inputs)
        if mixture is not None:
            log_likelihoods.append(mixture.log_likelihood(features.flatten(0, -2)))
        p_g = network.logits(features, inputs.shape[-2:]).softmax(dim=1)
        p_l = local(inputs).softmax(dim=1)
        return by_head({"global": p_g, "local": p_l}, client.settings.inference)

    metrics = count(client, predict, client.settings.inference)
    if log_likelihoods:
        metrics["log-likelihood"] = torch.cat(log_likelihoods).mean().item()
    return reply_to(message, client.name, {"seconds": time.perf_counter() - began, **metrics})


def predictors(network: Network, client: Client, start: State | None = None) -> Network:
    """What a client predicts with beside F_g: a copy of `network` as `localise` leaves it.

    `network` itself, the server's, takes on the client's BatchNorm statistics where that extra is on; F_g predicts
    on it.
    """
    use_own_statistics(network, inputs_of(client, client.train), client)
    return localise(copy.deepcopy(network), client, start)


def personalise_copy(message: Message, client: Client) -> Message:
    """At the end: train the client's own copy of G and head on its examples, keep it, and report what it brings."""
    began = time.perf_counter()
    networks, losses = personalise(received_network(message, client), client)

    def predict(inputs: Tensor) -> dict[str, Tensor]:
        heads = by_head(
            {name: network(inputs).softmax(dim=1) for name, network in networks.items()}, client.settings.inference
        )
        return {"personal": heads["personal"]}  # the others were reported when the round was evaluated

    counts = count(client, predict, "personal")
    return reply_to(message, client.name, {"seconds": time.perf_counter() - began, **losses, **counts})


def personalise(network: Network, client: Client) -> tuple[dict[str, Network], dict[str, float]]:
    """Train the client's own copy of G and head, and write it to its folder.

    Returns
    -------
    dict of Network
        What the client predicts with by the names of `adaptation.heads.by_head`; ``global`` is `network`, with the
        client's BatchNorm statistics where that extra is on.
    dict of float
        The training's losses.
    """
    settings = client.settings
    local, inputs = predictors(network, client), inputs_of(client, client.train)
    own = copy.deepcopy(local)
    losses = adapt_network_unless_collapsed(
        own,
        inputs,
        steps=settings.personalise_steps,
        batch_size=settings.personalise_batch,
        learning_rate=settings.personalise_learning_rate,
        threshold=settings.confidence,
        generator=client.generator("personalise"),
        class_shares=expected_shares(network, inputs, client),
    )
    local_part.write(client.folder, local_part.PERSONAL, own.state_dict())
    return {"global": network, "local": local, "personal": own}, losses


def predicting_networks(message: Message, client: Client) -> dict[str, Network]:
    """What this client predicts with at the end of a run, by the names of `adaptation.heads.by_head`.

    G and F_g with the client's statistics, and G and F_l, both as it last evaluated them; last its own copy where it
    was personalised.
    """
    network = received_network(message, client)
    local = copy.deepcopy(network)
    personal = local_part.read(client.folder, local_part.PERSONAL) if client.settings.personalise else None
    own = {}
    if personal is not None:
        own["personal"] = copy.deepcopy(network)
        own["personal"].load_state_dict(personal)
    localised = local_part.read(client.folder, local_part.LOCALISED)
    if localised is not None:
        local.classifier.load_state_dict(local_part.group("classifier", localised))
        batch_norm = local_part.group("batch-norm", localised)
        load_batch_norm_state(local.feature_extractor, batch_norm)
        load_batch_norm_statistics(network.feature_extractor, batch_norm)
    else:
        use_own_statistics(network, inputs_of(client, client.train), client)
    return {"global": network, "local": local, **own}


def localise(network: Network, client: Client, start: State | None = None) -> Network:
    """G and F_l as this client predicts with them; what makes them its own is written to its folder.

    F_l is `start` where one came; else what the client last uploaded; F_g if it has not trained or lost its folder. The
    extra `self-train` goes on from there: F_l and G's BatchNorm scales and shifts learn from confident pseudo-labels,
    those of scenes class by class. `network` shares G with the result, and so its scales and shifts.
    """
    settings = client.settings
    classifier = copy.deepcopy(network.classifier)
    uploaded = local_part.read(client.folder, local_part.UPLOADED)
    if start is not None:
        classifier.load_state_dict(start)
    elif uploaded is not None:
        classifier.load_state_dict(local_part.group("classifier", uploaded))
    local = Network(network.feature_extractor, classifier, network.feature_size)
    if settings.self_train:
        how = {
            "steps": settings.self_train_steps,
            "batch_size": settings.self_train_batch,
            "learning_rate": settings.self_train_learning_rate,
            "generator": client.generator("self-training"),
        }
        inputs = inputs_of(client, client.train)
        if family(settings.data).segmentation:
            adapt_head_and_scales_by_class(local, inputs, **how)
        else:
            adapt_head_and_scales(local, inputs, threshold=settings.confidence, **how)
    local_part.write(
        client.folder,
        local_part.LOCALISED,
        local_part.prefixed("classifier", classifier.state_dict())
        | local_part.prefixed("batch-norm", batch_norm_state(network.feature_extractor)),
    )
    return local
