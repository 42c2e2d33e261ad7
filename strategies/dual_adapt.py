"""DualAdapt's server side: Algorithm 1 of Yao et al., "Federated multi-target domain adaptation", WACV 2022.

Pre-training (line 1) has happened before the first round (`server.pretraining`); the clients' side (lines 6-12) is
`clients.adaptation`. One round here, with the algorithm's line numbers::

    configure_train   3  fit W_S on the source's features
                      4  broadcast G, F_g, W_S
    aggregate_train  12  take the uploaded F_l^i and W_T^i
                  14-18  R_s times: mixup, Eq. 6 on G, fine-tuning of G and F_g

Shapes: M clients, B examples of a batch, D features, C classes.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn

from fmtda.adaptation.accuracy import accuracy
from fmtda.adaptation.augment import mixup
from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.losses import alignment_loss
from fmtda.adaptation.mixture import QUANTILES, Mixture, StackedMixtures, fit
from fmtda.adaptation.network import Network
from fmtda.protocol.records import (
    SERVER_ROUND,
    check_arrays,
    check_mixture,
    check_records,
    from_record,
    layout_of,
    sender,
    to_record,
)
from fmtda.protocol.seeds import generator_for, seed_for
from fmtda.protocol.settings import Settings

MIXTURE_EXAMPLES = 2000
"""Source features at most that W_S is fitted on (our choice)."""

MIXTURE_BATCH = 32
"""Source examples in one of the forward passes for that (our choice)."""

GUARD_INTERVAL = 5
"""Alignment steps between two looks of the guard (our choice)."""

GUARD_TOLERANCE = 0.01
"""What the guard forgives, against the round's start: loss of accuracy on the source hold-out, and growth of the
discrepancy, each as a share of its range (our choice)."""


class DualAdapt(FedAvg):
    """FMTDA DualAdapt as a Flower strategy. Of FedAvg it keeps the sampling and the evaluation messages.

    Parameters
    ----------
    settings
        R_s, learning rates and mixture sizes.
    network
        A network of the run's architecture; its weights are overwritten by those of each round.
    source
        The labelled source: `server.source.Source`, or anything with its length, `batch`, `draw` and `held_out`.
    """

    def __init__(self, settings: Settings, network: Network, source) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1, arrayrecord_key="model")
        self.settings = settings
        self.network = network
        self.source = source
        self.client_weights: dict[str, float] = {}
        """How much the clients count in Eq. 6 that count for less than the others: those that have joined lately."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Fit W_S on source features (line 3), and broadcast G, F_g and W_S (line 4)."""
        source_mixture = self.source_mixture(server_round, arrays)
        config[SERVER_ROUND] = server_round
        content = RecordDict({"model": arrays, "source_mixture": to_record(source_mixture.arrays()), "config": config})
        return [
            Message(content, dst_node_id=node_id, message_type=MessageType.TRAIN) for node_id in grid.get_node_ids()
        ]

    def source_mixture(self, server_round: int, arrays: ArrayRecord) -> Mixture:
        """W_S on the features that this model's G gives of the source (line 3)."""
        settings = self.settings
        self.network.load_state_dict(from_record(arrays))
        self.network.eval()
        features = self._source_features(self._generator(server_round, "mixture"))
        return fit(features, settings.components, seed_for(settings.seed, server_round, "fit"))

    @torch.no_grad()
    def _source_features(self, generator: torch.Generator) -> Tensor:
        """Features of different source examples, or places of pictures: (<= `MIXTURE_EXAMPLES`, D)."""
        order = torch.randperm(len(self.source), generator=generator)[:MIXTURE_EXAMPLES]
        rows = torch.zeros(0, self.network.feature_size, device=next(self.network.parameters()).device)
        for chosen in order.split(MIXTURE_BATCH):
            if len(rows) < MIXTURE_EXAMPLES:
                x_s, _ = self.source.batch(chosen, generator)
                rows = torch.cat([rows, self.network.features(x_s, self.settings.places, generator)])
        return rows[:MIXTURE_EXAMPLES]

    def check_reply(self, content: RecordDict) -> None:
        """Refuse an upload that is not one classifier of F_g's shape and one mixture over G's features."""
        check_records(content, "classifier", "mixture")
        check_arrays(content["classifier"], layout_of(to_record(self.network.classifier.state_dict())))
        self._check_mixture(content)

    def check_join(self, content: RecordDict) -> None:
        """Refuse what a client that joins sends, unless it is one mixture over G's features and nothing else."""
        check_records(content, "mixture")
        self._check_mixture(content)

    def _check_mixture(self, content: RecordDict) -> None:
        check_mixture(content["mixture"], self.settings.components, self.network.feature_size, QUANTILES)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take F_l^i and W_T^i of every client (line 12) and optimise G and F_g on the server (lines 14-18).

        The replies come checked and sorted by client name. Without any, nothing changes.
        """
        uploads = [reply.content for reply in replies]
        if not uploads:
            return None, None
        weights = [self.client_weights.get(sender(upload), 1.0) for upload in uploads]
        clients = _Clients.stack(self.network, uploads, self.settings.robust_share, weights)
        metrics = self._optimise(clients, server_round)
        return to_record(self.network.state_dict()), MetricRecord(metrics)

    def _optimise(self, clients: "_Clients", server_round: int) -> dict[str, float]:
        """Lines 14-18, and the guard around them."""
        settings, network = self.settings, self.network
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

            # Line 17: Eq. 6 on G. BatchNorm keeps its statistics, which mixed pictures would shift (our choice).
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
        cls, network: Network, uploads: list[RecordDict], robust_share: float = 0.0, counting: Sequence[float] = ()
    ) -> "_Clients":
        device = next(network.parameters()).device
        classifiers = [from_record(upload["classifier"]) for upload in uploads]
        mixtures = [
            Mixture.from_arrays({name: array.numpy() for name, array in upload["mixture"].items()}).to(device)
            for upload in uploads
        ]
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
        """Eq. 6 on mixed source examples x' (B, ...). The weights w_T^i(x') carry no gradient (our choice)."""
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
        source,
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
        discrepancy = sum(
            len(self.mixed[part]) / len(self.mixed) * self.clients.alignment(self.network, self.mixed[part])
            for part in forward_slices(self.mixed)
        )
        return accuracy(self.network, self.inputs, self.labels), discrepancy.item()

    def _keep(self) -> None:
        self._good = copy.deepcopy([part.state_dict() for part in (self.network, self.align, self.finetune)])

    def _go_back(self) -> None:
        rate = self.align.param_groups[0]["lr"] / 2
        for part, state in zip((self.network, self.align, self.finetune), copy.deepcopy(self._good), strict=True):
            part.load_state_dict(state)
        self.align.param_groups[0]["lr"] = rate
