"""Attacks what a client uploads, with nothing but what passes the server, and tells how far that comes.

**Membership inference**: was this example among a client's training examples? Half of the candidates were, half were
not, drawn at random from the same examples, so that guessing gives an AUC of 0.5. The scores, higher for a member:

- `loss`: how much lower F_l's loss (Eq. 5) is than F_g's (Yeom et al. 2018, with F_g as the reference);
- `entropy`: the same of the entropy of the prediction, which asks for no pseudo-label;
- `gradient`: how well F_l's way from F_g follows the example's own gradient (in the manner of Nasr et al. 2019);
- `mixture`: how much likelier the example is under W_T than under W_S;
- `likelihood ratio`: `loss` of the last round, against its distribution over shadow clients that had the example and
  over those that had not (LiRA, Carlini et al. 2022; one spread for all examples, as they advise for few shadows).

The others are added up over all rounds: the server sees each. The attacker knows the method, the settings and the
domain: it has the candidates, re-estimates BatchNorm statistics on all of them where clients do on theirs, and trains
its shadows on halves of them by the very code of a client, with these same statistics.

**Reconstruction**: how near does a component's mean lie to a training example's features? Distances are in units of the
median distance of a training example to its nearest other one; 1 is what a new example of the domain would have.
"""

import dataclasses
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Message
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor
from torch.func import functional_call, vmap

from fmtda.adaptation.labelled_features import feature_rows
from fmtda.adaptation.losses import local_classifier_loss
from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.network import Network
from fmtda.adaptation.private_classifier import per_example_gradients
from fmtda.domains.client import Client
from fmtda.protocol.client_names import client_name, domain_of
from fmtda.protocol.records import from_record, sender
from fmtda.strategies.algorithm import adaptation
from fmtda.strategies.dualadapt import privacy
from fmtda.strategies.dualadapt.client import DualAdapt, learn, use_own_statistics
from fmtda.strategies.dualadapt.parameters import DualAdaptParameters

FALSE_POSITIVES = 0.01
"""Share of the non-members at which the found members are counted."""

LIKELIHOOD_RATIO = "likelihood ratio"


@dataclass(frozen=True)
class Round:
    """A round of one client's training, as far as it passes the server."""

    model: dict[str, Tensor]
    source_mixture: Mixture
    classifier: dict[str, Tensor]
    mixture: Mixture


@dataclass
class Observer:
    """An observer looks over the server's shoulder: a `fmtda.simulation.in_process.Tamper` that changes nothing.

    Attributes
    ----------
    rounds : dict of str to list of Round
        By client.
    messages : dict of str to dict
        By the kind of message, what the last reply carried: the shape and the bytes of each array, and the names of the
        metrics.
    """

    rounds: dict[str, list[Round]] = field(default_factory=dict)
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, sent: Message, reply: Message) -> Message:
        if reply.has_error():
            return reply
        kind, content = sent.metadata.message_type, reply.content
        if kind == "train":
            seen = Round(
                from_record(sent.content.array_records["model"]),
                _mixture(sent.content.array_records["source_mixture"]),
                from_record(content.array_records["classifier"]),
                _mixture(content.array_records["mixture"]),
            )
            self.rounds.setdefault(sender(content), []).append(seen)
        arrays = {
            f"{record}/{name}": {"shape": list(array.shape), "bytes": len(array.data)}
            for record, held in content.items()
            if isinstance(held, ArrayRecord)
            for name, array in held.items()
        }
        self.messages[kind] = {"arrays": arrays, "metrics": sorted(content["metrics"])}
        return reply


def membership(
    rounds: list[Round], candidates: Client, members: Tensor, shadows: int, generator: torch.Generator
) -> dict[str, dict[str, float]]:
    """Tell how well each score tells members from others.

    Parameters
    ----------
    rounds : list of Round
        Of the attacked client.
    candidates : Client
        The attacked client, its training examples replaced by all candidates.
    members : Tensor, shape (N,), bool
        Who of them was really among its training examples.
    shadows : int
        Shadow clients of the likelihood ratio; fewer than 2 leave it out.
    generator : torch.Generator
        Source of their examples.

    Returns
    -------
    dict
        By score its `auc` in [0, 1] and its `tpr`: the share of the members found at 1 % false positives.
    """
    by_round = [_scores(seen, candidates) for seen in rounds]
    scores = {name: torch.stack([each[name] for each in by_round]).sum(dim=0) for name in by_round[0]}
    if shadows > 1:
        scores[LIKELIHOOD_RATIO] = _likelihood_ratio(
            rounds[-1], candidates, by_round[-1]["loss"], int(members.sum()), shadows, generator
        )
    return {name: _success(values, members) for name, values in scores.items()}


def reconstruction(seen: Round, client: Client, floor: int) -> dict[str, Any]:
    """Tell how near the means of an uploaded mixture lie to the client's training examples.

    Returns
    -------
    dict
        `components`; `below_floor`, how many hold fewer than `floor` of the examples that the mixture was fitted on;
        `nearest` and `median`, of the distances of the means to the nearest example; `source_median`, that of W_S's
        means, which have seen no example of the client.
    """
    features = _features(_network(seen, client), client)
    between = torch.cdist(features, features).fill_diagonal_(torch.inf)
    unit = between.min(dim=1).values.median()
    distances, of_source = (
        torch.cdist(mixture.means, features).min(dim=1).values / unit for mixture in (seen.mixture, seen.source_mixture)
    )
    fitted, _ = client.divided(len(features))
    counts = seen.mixture.responsibilities(features[fitted]).sum(dim=0)
    return {
        "components": len(distances),
        "below_floor": int((counts < floor).sum()),
        "nearest": distances.min().item(),
        "median": distances.median().item(),
        "source_median": of_source.median().item(),
    }


def _scores(seen: Round, candidates: Client) -> dict[str, Tensor]:
    """The scores of all candidates that a single round gives, but the likelihood ratio."""
    discrepancy_weight = candidates.settings.own(DualAdaptParameters).discrepancy_weight
    network = _network(seen, candidates)
    features = _features(network, candidates)
    f_g = network.classifier
    local_logits, global_logits = functional_call(f_g, seen.classifier, (features,)), f_g(features)
    weights = seen.source_mixture.typicality(features)
    gradients = per_example_gradients(f_g, features, global_logits, weights, discrepancy_weight)
    moved = {name: value - seen.classifier[name] for name, value in f_g.named_parameters()}
    along = ((gradients[name] * moved[name]).flatten(1).sum(dim=1) for name in moved)
    entropies = [torch.special.entr(logits.softmax(dim=1)).sum(dim=1) for logits in (global_logits, local_logits)]
    return {
        "loss": _loss_fall(local_logits, global_logits, weights, discrepancy_weight),
        "entropy": entropies[0] - entropies[1],
        "gradient": sum(along, torch.zeros(())),
        "mixture": seen.mixture.log_likelihood(features) - seen.source_mixture.log_likelihood(features),
    }


def _likelihood_ratio(
    seen: Round, candidates: Client, scores: Tensor, members: int, shadows: int, generator: torch.Generator
) -> Tensor:
    """LiRA: the score's log-likelihood over shadows with the candidate, minus that over shadows without it."""
    settings, count = candidates.settings, len(candidates.train)
    network = _network(seen, candidates)
    features = _features(network, candidates)
    weights, global_logits = seen.source_mixture.typicality(features), network.classifier(features)
    discrepancy_weight = settings.own(DualAdaptParameters).discrepancy_weight
    learnt = privacy.learn if settings.private else learn
    taken, found = torch.zeros(shadows, count, dtype=torch.bool), torch.zeros(shadows, count)
    with tempfile.TemporaryDirectory() as folder:
        order = torch.randperm(count, generator=generator)
        for i in range(shadows):
            # one half, then the other: every candidate is in every second shadow
            order = order.roll(members) if i % 2 else torch.randperm(count, generator=generator)
            chosen = order[:members].sort().values
            taken[i, chosen] = True
            shadow = dataclasses.replace(
                candidates,
                name=client_name(domain_of(candidates.name), 9000 + i),
                settings=settings.changed({"dualadapt.batch-norm.on": False}),
                train=candidates.train.select(chosen),
                folder=Path(folder) / str(i),
            )
            classifier, *_ = learnt(network, seen.source_mixture, shadow)
            with torch.no_grad():
                found[i] = _loss_fall(classifier(features), global_logits, weights, discrepancy_weight)
    ratio = torch.zeros(count)
    for sign, where in ((1, taken), (-1, ~taken)):
        mean = (found * where).sum(dim=0) / where.sum(dim=0)
        spread = ((found - mean) * where).square().sum().div(where.sum()).sqrt().clamp(min=1e-12)
        ratio += sign * torch.distributions.Normal(mean, spread).log_prob(scores)
    return ratio


def _network(seen: Round, client: Client) -> Network:
    """G and F_g as sent, with statistics of the client's examples where the uploads were computed on such."""
    network = DualAdapt().network(seen.model, adaptation(client))
    if not client.settings.private:
        use_own_statistics(network, client.inputs(client.train), client)
    return network


def _features(network: Network, client: Client) -> Tensor:
    inputs, places = client.inputs(client.train), client.settings.own(DualAdaptParameters).places
    return feature_rows(network, inputs, places, client.generator("places"))


def _loss_fall(local_logits: Tensor, global_logits: Tensor, weights: Tensor, discrepancy_weight: float) -> Tensor:
    """Eq. 5 of each example under F_g minus that under F_l: (N,)."""

    def loss(logits: Tensor, by_global: Tensor, weight: Tensor) -> Tensor:
        return local_classifier_loss(logits[None], by_global[None], weight[None], discrepancy_weight).total

    under_global, under_local = (vmap(loss)(logits, global_logits, weights) for logits in (global_logits, local_logits))
    return under_global - under_local


def _success(scores: Tensor, members: Tensor) -> dict[str, float]:
    false, true, _ = roc_curve(members.numpy(), scores.numpy())
    return {
        "auc": float(roc_auc_score(members.numpy(), scores.numpy())),
        "tpr": float(true[false <= FALSE_POSITIVES].max()),
    }


def _mixture(record: ArrayRecord) -> Mixture:
    return Mixture.from_arrays({name: array.numpy() for name, array in record.items()})
