"""Holds DualAdapt's server side: lines 3-4 and 13-18 of Algorithm 1. The clients' side is `client`.

One round here, with the algorithm's line numbers::

    configure_train   3  fit W_S on the source's features
                      4  broadcast G, F_g, W_S
    aggregate_train  12  take the uploaded F_l^i and W_T^i
                  14-18  R_s times: mixup, Eq. 6 on G, fine-tuning of G and F_g

Shapes: M clients, B examples of a batch, D features, C classes.

Our choice: how many source features W_S is fitted on, that BatchNorm keeps its statistics in Eq. 6, that the weights
w_T carry no gradient, and the guard with its interval and tolerance.
"""

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor, nn

from fmtda.adaptation.accuracy import accuracy
from fmtda.adaptation.augment import mixup
from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.losses import alignment_loss
from fmtda.adaptation.mixture import QUANTILES, Mixture, StackedMixtures, fit
from fmtda.adaptation.network import Network
from fmtda.adaptation.newcomers import Newcomers, told
from fmtda.protocol.records import (
    check_arrays,
    check_mixture,
    check_records,
    from_record,
    layout_of,
    sender,
    to_record,
)
from fmtda.protocol.seeds import generator_for, seed_for
from fmtda.protocol.settings import AdaptationSettings
from fmtda.strategies.algorithm import CONFIG, MODEL, FederatedStrategy, LabelledSource, to_all
from fmtda.strategies.dualadapt.parameters import DualAdaptParameters

SOURCE_MIXTURE = "source_mixture"
"""W_S over the features of G: the record of a broadcast, and what is kept at the end of a run."""

JOIN = "query.join"
"""The message that asks who joins for its mixture alone."""

START = "start"
"""The record that says where F_l of a client begins that joined late."""

MIXTURE_EXAMPLES = 2000
"""Source features at most that W_S is fitted on."""

MIXTURE_BATCH = 32
"""Source examples in one of the forward passes for that."""

GUARD_INTERVAL = 5
"""Alignment steps between two looks of the guard."""

GUARD_TOLERANCE = 0.01
"""What the guard forgives, against the round's start: loss of accuracy on the source hold-out, and growth of the
discrepancy, each as a share of its range."""


class DualAdaptServer(FederatedStrategy):
    """This is the server's side of DualAdapt, a Flower strategy.

    Parameters
    ----------
    settings
        The run's.
    network
        A network of the run's architecture; its weights are overwritten by those of each round.
    source
        The labelled source.
    """

    keeps_uploads = True

    def __init__(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> None:
        self.settings, self.parameters = settings, settings.own(DualAdaptParameters)
        self.network = network
        self.source = source
        joining = self.parameters.joining
        self.newcomers = Newcomers(joining.rounds, joining.start == "nearest", self.parameters.robust_share)
        self._arriving: set[str] = set()
        self._news: dict[str, Any] = {}

    def arriving(self, names: Collection[str]) -> set[str]:
        """Say who joins: they are asked for their mixture while the others train."""
        self._arriving = self.newcomers.arriving(names)
        return self._arriving

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Fit W_S on source features (line 3), and broadcast G, F_g and W_S (line 4)."""
        source_mixture = to_record(self.source_mixture(server_round, arrays).arrays())
        records = {MODEL: arrays, SOURCE_MIXTURE: source_mixture, CONFIG: config}
        messages = to_all(MessageType.TRAIN, server_round, records, grid)
        return self._to_newcomers(messages, names_of(grid), self.newcomers.starts)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send G and F_g to everybody, and to who is new what to predict with."""
        messages = super().configure_evaluate(server_round, arrays, config, grid)
        return self._to_newcomers(messages, names_of(grid), self.newcomers.untrained)

    def _to_newcomers(
        self, messages: Iterable[Message], names: Mapping[int, str], starting: Collection[str]
    ) -> Iterator[Message]:
        """The messages; but who is new is sent where F_l starts, and who joins is asked for its mixture alone."""
        for message in messages:
            node_id, kind, content = message.metadata.dst_node_id, message.metadata.message_type, message.content
            name = names[node_id]
            if name in starting:
                content = RecordDict({**content, START: to_record(self.newcomers.starts[name])})
            if name in self._arriving and kind == MessageType.TRAIN:
                kind = JOIN
            same = content is message.content and kind == message.metadata.message_type
            yield message if same else Message(content, dst_node_id=node_id, message_type=kind)

    def source_mixture(self, server_round: int, arrays: ArrayRecord) -> Mixture:
        """Fit W_S on the features that this model's G gives of the source (line 3)."""
        self.network.load_state_dict(from_record(arrays))
        self.network.eval()
        features = self._source_features(self._generator(server_round, "mixture"))
        return fit(features, self.parameters.components, seed_for(self.settings.seed, server_round, "fit"))

    @torch.no_grad()
    def _source_features(self, generator: torch.Generator) -> Tensor:
        """Features of different source examples, or places of pictures: (<= `MIXTURE_EXAMPLES`, D)."""
        order = torch.randperm(len(self.source), generator=generator)[:MIXTURE_EXAMPLES]
        rows = torch.zeros(0, self.network.feature_size, device=next(self.network.parameters()).device)
        for chosen in order.split(MIXTURE_BATCH):
            if len(rows) < MIXTURE_EXAMPLES:
                x_s, _ = self.source.batch(chosen, generator)
                rows = torch.cat([rows, self.network.features(x_s, self.parameters.places, generator)])
        return rows[:MIXTURE_EXAMPLES]

    def check_upload(self, content: RecordDict) -> None:
        """Refuse an upload that is not one classifier of F_g's shape and one mixture over G's features.

        Of a client that joins, one mixture and nothing else is expected.
        """
        joins = sender(content) in self._arriving
        check_records(content, *(("mixture",) if joins else ("classifier", "mixture")))
        if not joins:
            layout = layout_of(to_record(self.network.classifier.state_dict()))
            check_arrays(content.array_records["classifier"], layout)
        mixture = content.array_records["mixture"]
        check_mixture(mixture, self.parameters.components, self.network.feature_size, QUANTILES)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take F_l^i and W_T^i of every client (line 12) and optimise G and F_g on the server (lines 14-18).

        Then take in who joined. Without an upload of a client that trained, G and F_g stay.
        """
        by_name = {sender(reply.content): reply.content for reply in replies}
        uploads = {name: content for name, content in by_name.items() if name not in self._arriving}
        mixtures = {name: _mixture(content) for name, content in by_name.items()}
        classifiers = {name: from_record(content.array_records["classifier"]) for name, content in uploads.items()}
        arrays, metrics = None, None
        if uploads:
            late = self.newcomers.weights(server_round)
            weights = [late.get(name, 1.0) for name in uploads]
            trained = [(classifiers[name], mixtures[name]) for name in uploads]
            clients = _Clients.stack(self.network, trained, self.parameters.robust_share, weights)
            metrics = MetricRecord({**self._optimise(clients, server_round)})
            arrays = to_record(self.network.state_dict())
        self._news = self.newcomers.settle(server_round, mixtures, classifiers)
        return arrays, metrics

    def told(self) -> tuple[dict[str, Any], list[str]]:
        """Tell of the clients that are new: for the round's line, and of those that joined in it a line for people."""
        joined = sorted(self._news.keys() & self._arriving)
        return ({"newcomers": self._news} if self._news else {}), [told(name, self._news[name]) for name in joined]

    def state(self) -> dict[str, Tensor]:
        return self.newcomers.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.newcomers.restore(state)

    def closing(self, rounds: int, arrays: ArrayRecord) -> dict[str, dict[str, Tensor]]:
        """Give W_S over the features of the final G, as a client of one more round would get it."""
        return {SOURCE_MIXTURE: self.source_mixture(rounds + 1, arrays).tensors()}

    def _optimise(self, clients: "_Clients", server_round: int) -> dict[str, float]:
        """Lines 14-18, and the guard around them."""
        settings, network = self.parameters, self.network
        generator = self._generator(server_round, "server optimisation")
        align = torch.optim.Adam(network.feature_extractor.parameters(), lr=settings.align_learning_rate)
        finetune = torch.optim.AdamW(
            network.parameters(), lr=settings.finetune_learning_rate, weight_decay=settings.weight_decay
        )
        guard = None
        if settings.guard:
            guard = _Guard(network, clients, align, finetune, self.source, self._generator(server_round, "guard"))
        alignment = cross_entropy = 0.0
        for step in range(1, settings.server_steps + 1):
            # Lines 15-16: mixup of two source draws.
            x_a, _ = self.source.draw(settings.server_batch, generator)
            x_b, _ = self.source.draw(settings.server_batch, generator)
            x_mixed = mixup(x_a, x_b)

            # Line 17: Eq. 6 on G. BatchNorm keeps its statistics, which mixed pictures would shift.
            network.eval()
            loss = clients.alignment(network, x_mixed)
            align.zero_grad()
            loss.backward()
            align.step()
            alignment += loss.item() / settings.server_steps

            # Line 18: fine-tune G and F_g.
            x_s, y_s = self.source.draw(settings.server_batch, generator)
            network.train()
            loss = nn.functional.cross_entropy(network(x_s), y_s, ignore_index=-1)
            finetune.zero_grad()
            loss.backward()
            finetune.step()
            cross_entropy += loss.item() / settings.server_steps

            if guard is not None and (step % GUARD_INTERVAL == 0 or step == settings.server_steps):
                guard.look()
        network.eval()
        metrics = {"alignment-loss": alignment, "fine-tuning-loss": cross_entropy}
        return {**metrics, **guard.metrics()} if guard is not None else metrics

    def _generator(self, server_round: int, purpose: str) -> torch.Generator:
        return generator_for(self.settings.seed, "server", server_round, purpose)


def names_of(grid: Grid) -> Mapping[int, str]:
    """Return the clients' names by node id, which a cohort knows (`server.conversation`)."""
    return grid.names  # type: ignore[attr-defined]


def _mixture(upload: RecordDict) -> Mixture:
    """W_T^i out of an upload."""
    return Mixture.from_arrays({name: array.numpy() for name, array in upload.array_records["mixture"].items()})


@dataclass(frozen=True)
class _Clients:
    """All clients' uploads stacked, so that M clients cost one batched call and not M iterations.

    Attributes
    ----------
    classifier
        A classifier of the common architecture; its weights are not used.
    weights
        The F_l^i: every parameter and buffer with a leading axis M.
    mixtures
        The W_T^i.
    robust_share
        Of the clients, how many may send anything without deciding Eq. 6.
    client_weights
        How much each counts in it: (M,). None: all the same.
    """

    classifier: nn.Module
    weights: dict[str, Tensor]
    mixtures: StackedMixtures
    robust_share: float = 0.0
    client_weights: Tensor | None = None

    @classmethod
    def stack(
        cls,
        network: Network,
        trained: Sequence[tuple[Mapping[str, Tensor], Mixture]],
        robust_share: float = 0.0,
        counting: Sequence[float] = (),
    ) -> "_Clients":
        device = next(network.parameters()).device
        classifiers, mixtures = [weights for weights, _ in trained], [mixture.to(device) for _, mixture in trained]
        classifier = copy.deepcopy(network.classifier).requires_grad_(False).eval()
        weights = {name: torch.stack([c[name] for c in classifiers]).to(device) for name in classifiers[0]}
        # None, so that nothing changes by a bit where nobody counts for less.
        client_weights = torch.tensor(counting, device=device) if any(weight != 1 for weight in counting) else None
        return cls(classifier, weights, StackedMixtures.from_mixtures(mixtures), robust_share, client_weights)

    def probabilities(self, features: Tensor) -> Tensor:
        """p_l^i of every client: features (B, D) to (M, B, C)."""

        def one(weights: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(self.classifier, weights, (features,))

        return torch.vmap(one)(self.weights).softmax(dim=-1)

    def alignment(self, network: Network, x_mixed: Tensor) -> Tensor:
        """Eq. 6 on mixed source examples x' (B, ...). The weights w_T^i(x') carry no gradient."""
        features = network.features(x_mixed)
        p_g = network.classifier(features).softmax(dim=-1)
        weights = self.mixtures.typicality(features.detach())
        return alignment_loss(p_g, self.probabilities(features), weights, self.robust_share, self.client_weights)


class _Guard:
    """Watches the source hold-out and the mean discrepancy, and undoes alignment steps that harm either.

    A bare Eq. 6 can collapse (MCD from MNIST to SVHN ends at chance). Every few steps the guard compares the
    network with the round's start; if accuracy on the hold-out is lower, or the clients disagree more with F_g, both by
    more than a tolerance, network and optimisers go back to the last good state and alignment goes on with half its
    step size.
    """

    def __init__(
        self,
        network: Network,
        clients: _Clients,
        align: torch.optim.Optimizer,
        finetune: torch.optim.Optimizer,
        source: LabelledSource,
        generator: torch.Generator,
    ) -> None:
        self.network, self.clients = network, clients
        self.align, self.finetune = align, finetune
        self.inputs, self.labels = source.held_out(generator)
        self.mixed = mixup(self.inputs, self.inputs[torch.randperm(len(self.inputs), generator=generator)])
        self.undone = self.looks = 0
        with torch.no_grad():
            classes = network(self.inputs[:2]).shape[1]
        self.forgiven_discrepancy = GUARD_TOLERANCE * 2 / classes  # a mean over C classes is 2 / C at most
        self.first_accuracy, self.first_discrepancy = self.accuracy, self.discrepancy = self._measure()
        self._keep()

    def look(self) -> None:
        """Keep what was reached, or go back to the last good state."""
        self.looks += 1
        self.network.eval()
        reached, discrepancy = self._measure()
        harmless = reached >= self.first_accuracy - GUARD_TOLERANCE
        if harmless and discrepancy <= self.first_discrepancy + self.forgiven_discrepancy:
            self.accuracy, self.discrepancy = reached, discrepancy
            self._keep()
        else:
            self.undone += 1
            self._go_back()

    def metrics(self) -> dict[str, float]:
        """What the guard saw and did, for the round's metrics."""
        return {
            "guard-looks": self.looks,
            "guard-undone": self.undone,
            "hold-out-accuracy-before": 100 * self.first_accuracy,
            "hold-out-accuracy": 100 * self.accuracy,
            "discrepancy-before": self.first_discrepancy,
            "discrepancy": self.discrepancy,
        }

    @torch.no_grad()
    def _measure(self) -> tuple[float, float]:
        """Accuracy on the hold-out in [0, 1], and Eq. 6 on mixed hold-out examples."""
        discrepancy = torch.zeros((), device=self.inputs.device)
        for part in forward_slices(self.mixed):
            share = len(self.mixed[part]) / len(self.mixed)
            discrepancy = discrepancy + share * self.clients.alignment(self.network, self.mixed[part])
        return accuracy(self.network, self.inputs, self.labels), discrepancy.item()

    def _keep(self) -> None:
        self._good = [copy.deepcopy(part.state_dict()) for part in self._parts]

    @property
    def _parts(self) -> tuple[Any, ...]:
        return self.network, self.align, self.finetune

    def _go_back(self) -> None:
        rate = self.align.param_groups[0]["lr"] / 2
        for part, state in zip(self._parts, copy.deepcopy(self._good), strict=True):
            part.load_state_dict(state)
        self.align.param_groups[0]["lr"] = rate
