"""DualAdapt's client side: Algorithm 1, lines 6-12, the extras that stay on the client, and evaluation.

G and F_g come from the server and stay frozen in training. Only the local classifier F_l and the mixture W_T leave the
client. What the extras add happens before the client predicts, in `localise`, and stays with it. Labels are looked at
in `_counts` alone, which counts how many predictions are right.
"""

import copy
import time

import torch
from flwr.app import Message
from torch import Tensor

from adaptation.augment import prepare
from adaptation.batch_norm import batch_norm_state, reestimate
from adaptation.batches import shuffled_batches
from adaptation.losses import local_classifier_loss
from adaptation.mixture import Mixture, StepwiseEM, hold_out
from adaptation.networks import Network, build
from adaptation.self_training import adapt_head_and_scales, adapt_network
from clients import local_part
from clients.identity import Client
from domains.examples import Examples
from domains.registry import family
from protocol.records import from_record, reply_to, to_record
from protocol.runtime import choose_device
from protocol.seeds import seed_for
from protocol.settings import Settings

FORWARD_BATCH = 256


def train(message: Message, client: Client) -> Message:
    """Fit F_l and W_T to the client's unlabelled examples, and upload these two."""
    began = time.perf_counter()
    settings = client.settings
    network = received_network(message, client)
    source_mixture = Mixture.from_arrays({n: a.numpy() for n, a in message.content["source_mixture"].items()})
    inputs = client_inputs(client, client.train)
    use_own_statistics(network, inputs, settings)
    classifier, mixture, losses = _adapt(client, network, inputs, source_mixture.to(inputs.device))
    mixture_arrays = mixture.arrays()
    local_part.write(
        client.folder,
        local_part.UPLOADED,
        local_part.prefixed("classifier", classifier.state_dict())
        | local_part.prefixed("mixture", {name: torch.from_numpy(array) for name, array in mixture_arrays.items()}),
    )
    metrics = {"num-examples": len(inputs), "seconds": time.perf_counter() - began, **losses}
    return reply_to(
        message,
        client.name,
        metrics,
        classifier=to_record(classifier.state_dict()),
        mixture=to_record(mixture_arrays),
    )


def _adapt(
    client: Client, network: Network, inputs: Tensor, source_mixture: Mixture
) -> tuple[torch.nn.Module, Mixture, dict[str, float]]:
    """Algorithm 1, lines 7-11: R_c mini-batches of Eq. 5 on F_l and of the mixture's stepwise EM."""
    settings = client.settings
    global_classifier = network.classifier
    features = extract(network, inputs)
    classifier = copy.deepcopy(global_classifier).requires_grad_(True)  # F_l <- F_g
    fitted, held_out = (
        torch.from_numpy(part).to(inputs.device)
        for part in hold_out(len(features), seed_for(settings.seed, client.name, "mixture hold-out"))
    )
    expectation_maximisation = StepwiseEM(source_mixture, features[fitted])  # W_T <- W_S
    is_fitted = torch.zeros(len(features), dtype=torch.bool, device=inputs.device).index_fill(0, fitted, True)
    source_weights = source_mixture.typicality(features)  # w_S(x)

    optimiser = torch.optim.Adam(classifier.parameters(), lr=settings.client_learning_rate, fused=True)
    generator = client.generator("mini-batches")
    sums = {"cross-entropy": 0.0, "discrepancy": 0.0}
    for chosen in shuffled_batches(len(features), settings.client_batch, settings.client_steps, generator):
        batch = chosen.to(inputs.device)
        z = features[batch] if settings.cache_features else extract(network, inputs[batch])
        # F_g and F_l see the very same z: while they are equal the L1 is exactly 0, and rounding decides no sign.
        global_logits = global_classifier(z)
        loss = local_classifier_loss(classifier(z), global_logits, source_weights[batch], settings.discrepancy_weight)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        z_fitted = z[is_fitted[batch]]  # the mixture's quantiles come from the others
        if len(z_fitted):
            expectation_maximisation.update(z_fitted)
        sums["cross-entropy"] += loss.cross_entropy.item() / settings.client_steps
        sums["discrepancy"] += loss.discrepancy.item() / settings.client_steps
    mixture = expectation_maximisation.finish(features[held_out])
    return classifier, mixture, {**sums, "source-typicality": source_weights.mean().item()}


def evaluate(message: Message, client: Client) -> Message:
    """Predict the client's test examples by F_g, F_l and their mean, and count what is right.

    F_g predicts on G as it came, with the client's own BatchNorm statistics where that extra is on; F_l on G as
    self-training left it. Strategies other than DualAdapt have F_g alone, and nothing of the client's own.
    """
    began = time.perf_counter()
    network = received_network(message, client)
    inputs = client_inputs(client, client.test)
    if client.settings.strategy != "dualadapt":
        counts = _counts({"global": predict(network, inputs)}, client.test, "global")
        return reply_to(message, client.name, {"seconds": time.perf_counter() - began, **counts})
    use_own_statistics(network, client_inputs(client, client.train), client.settings)
    features = extract(network, inputs)
    metrics: dict[str, float] = {}
    uploaded = local_part.read(client.folder, local_part.UPLOADED)
    if uploaded is not None and len(features):
        mixture = Mixture(**local_part.group("mixture", uploaded)).to(features.device)
        metrics["log-likelihood"] = mixture.log_likelihood(features).mean().item()
    p_g = network.classifier(features).softmax(dim=1)
    p_l = predict(localise(network, client), inputs)
    if len(features):
        metrics["agreement"] = (p_g.argmax(dim=1) == p_l.argmax(dim=1)).float().mean().item()
    probabilities = {"global": p_g, "local": p_l, "mean": (p_g + p_l) / 2}
    metrics |= _counts(probabilities, client.test, client.settings.inference)
    return reply_to(message, client.name, {"seconds": time.perf_counter() - began, **metrics})


def personalise_copy(message: Message, client: Client) -> Message:
    """At the end: train the client's own copy of G and head on its examples, keep it, and report how good it is."""
    began = time.perf_counter()
    settings = client.settings
    network = received_network(message, client)
    use_own_statistics(network, client_inputs(client, client.train), settings)
    own = localise(network, client)
    losses = adapt_network(
        own,
        client.train.inputs.to(choose_device(settings.device)),
        steps=settings.personalise_steps,
        batch_size=settings.personalise_batch,
        learning_rate=settings.personalise_learning_rate,
        threshold=settings.confidence,
        standardise=settings.standardise,
        generator=client.generator("personalise"),
    )
    local_part.write(client.folder, local_part.PERSONAL, own.state_dict())
    probabilities = {"personal": predict(own, client_inputs(client, client.test))}
    metrics = {"seconds": time.perf_counter() - began, **losses, **_counts(probabilities, client.test, "personal")}
    return reply_to(message, client.name, metrics)


def localise(network: Network, client: Client) -> Network:
    """G and F_l as this client predicts with them; what makes them its own is written to its folder.

    F_l is what the client last uploaded; F_g, from which F_l starts, if it has not trained or lost its folder. The
    extra `self-train` goes on from there: F_l and G's BatchNorm scales and shifts learn from confident pseudo-labels.
    `network` shares G with the result, and so its scales and shifts.
    """
    settings = client.settings
    classifier = copy.deepcopy(network.classifier)
    uploaded = local_part.read(client.folder, local_part.UPLOADED)
    if uploaded is not None:
        classifier.load_state_dict(local_part.group("classifier", uploaded))
    local = Network(network.feature_extractor, classifier, network.feature_size)
    if settings.self_train:
        adapt_head_and_scales(
            local,
            client_inputs(client, client.train),
            steps=settings.self_train_steps,
            batch_size=settings.self_train_batch,
            learning_rate=settings.self_train_learning_rate,
            threshold=settings.confidence,
            generator=client.generator("self-training"),
        )
    local_part.write(
        client.folder,
        local_part.LOCALISED,
        local_part.prefixed("classifier", classifier.state_dict())
        | local_part.prefixed("batch-norm", batch_norm_state(network.feature_extractor)),
    )
    return local


def use_own_statistics(network: Network, inputs: Tensor, settings: Settings) -> None:
    """The extra `local-batch-norm`: move G's BatchNorm statistics towards those of the client's inputs, in place.

    The client's weight is ``batch-norm-share`` n / (n + ``batch-norm-prior``): a few examples give noisy statistics.
    """
    examples = len(inputs)
    if settings.local_batch_norm and examples > 1:
        weight = settings.batch_norm_share * examples / (examples + settings.batch_norm_prior)
        reestimate(network.feature_extractor, inputs, weight)


def received_network(message: Message, client: Client) -> Network:
    """G and F_g as the message brought them, frozen, in evaluation mode, on the client's device."""
    data = family(client.settings.data)
    with torch.device("meta"):  # no initial weights are drawn: the message brings them
        network = build(client.settings.network, len(data.classes), data.input_shape, seed=0)
    network.load_state_dict(from_record(message.content["model"]), assign=True)
    return network.to(choose_device(client.settings.device)).requires_grad_(False).eval()


def client_inputs(client: Client, examples: Examples) -> Tensor:
    """Examples as network inputs, float32, on the client's device."""
    return prepare(examples.inputs.to(choose_device(client.settings.device)), client.settings.standardise)


@torch.no_grad()
def extract(network: Network, inputs: Tensor) -> Tensor:
    """Features z (N, D) of inputs (N, 3, H, W)."""
    if len(inputs) == 0:
        return torch.zeros(0, network.feature_size, device=inputs.device)
    return torch.cat([network.feature_extractor(batch) for batch in inputs.split(FORWARD_BATCH)])


@torch.no_grad()
def predict(network: Network, inputs: Tensor) -> Tensor:
    """Class probabilities (N, C)."""
    return network.eval().classifier(extract(network, inputs)).softmax(dim=1)


def _counts(probabilities: dict[str, Tensor], examples: Examples, decisive: str) -> dict[str, int | float | list[int]]:
    """What evaluation may tell: entropy always; where there are labels, how many predictions of each head are right.

    Parameters
    ----------
    probabilities
        (N, C) by head.
    decisive
        The head whose confusion counts (true class by predicted class, row-major) and entropy are reported.
    """
    p = probabilities[decisive]
    known = examples.labels.to(p.device) >= 0
    counts: dict[str, int | float | list[int]] = {"num-examples": int(known.sum()) if examples.labelled else len(p)}
    if len(p):
        counts["entropy"] = torch.special.entr(p).sum(dim=1).mean().item()
    if not examples.labelled:
        return counts
    labels = examples.labels.to(p.device)[known]
    for head, p_head in probabilities.items():
        counts[f"correct-{head}"] = int((p_head[known].argmax(dim=1) == labels).sum())
    classes = p.shape[1]
    cells = labels * classes + p[known].argmax(dim=1)
    counts["confusion"] = torch.bincount(cells, minlength=classes**2).tolist()
    return counts
