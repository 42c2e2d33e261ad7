"""What a federated algorithm is: both of its sides, its parameters, what it predicts with, and what it can do.

One file or folder of this room each, and a line in `strategies.registry`, or an entry point of another package. Nothing
else in the product names an algorithm: who has to know something of it reads an attribute of these classes.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from flwr.app import Message
from torch import Tensor

from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.networks import Network
from fmtda.adaptation.predictor import Predictor
from fmtda.adaptation.scores import Tally
from fmtda.domains.client import Client
from fmtda.domains.registry import family
from fmtda.protocol.records import reply_to
from fmtda.protocol.settings import AdaptationSettings, Parameters
from fmtda.protocol.tables import Scalar
from fmtda.strategies.federated import FederatedStrategy
from fmtda.strategies.local_network import adaptation_settings, empty_network, filled, inputs_of, received_state


@dataclass(frozen=True)
class BenchmarkRow:
    """A row of ``fmtda benchmark``'s table: an algorithm with some of its settings.

    Attributes
    ----------
    name : str
        As on the command line.
    description : str
        One line for people.
    group : str
        ``federated``; ``variant``, another form of an algorithm; ``ablation``, an extra alone or left out.
    changes : mapping
        Settings by dotted key that make the row, beside `strategy`.
    needs : tuple of str
        Keys of switches without which it would be the same as another row; data that know no such thing leave it out.
    against : bool
        Whether an ablation's rows are read against it.
    """

    name: str
    description: str
    group: Literal["federated", "reference", "variant", "ablation"] = "federated"
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    against: bool = False


class LabelledSource(Protocol):
    """The labelled source as an algorithm's server side sees it: `server.source.Source`, or anything like it."""

    def __len__(self) -> int: ...

    def batch(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the examples at these places as inputs, float32 (B, ...), and labels, int64."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a random mini-batch (x_s, y_s)."""

    def held_out(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return examples that nothing is trained on."""


class FederatedAlgorithm(ABC):
    """What the algorithms of all workloads share. Objects of it hold no state.

    Attributes
    ----------
    name : str
        Under which it is chosen (`strategy`), and that of its table of settings.
    title : str
        What it is, in one line.
    kind : str
        The kind of workloads that it serves.
    parameters : type
        Its table of settings: documented, with ranges and sources.
    rows : tuple of BenchmarkRow
        Its rows in the benchmark's table.
    mods : tuple of callable
        Flower's modifiers around `train` on the client, the outermost first.
    federated : bool
        Whether there is a federation at all; False for a reference that trains in one place.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[Literal["adaptation", "generative"]]
    parameters: ClassVar[type[Parameters]] = Parameters
    rows: ClassVar[tuple[BenchmarkRow, ...]] = ()
    mods: ClassVar[tuple[Callable[..., Message], ...]] = ()
    federated: ClassVar[bool] = True

    @abstractmethod
    def train(self, message: Message, client: Client) -> Message:
        """Train on the client, and answer with what it uploads."""

    @abstractmethod
    def evaluate(self, message: Message, client: Client) -> Message:
        """Answer with how good the model is on the client's test examples, as far as that can be told."""


class Algorithm(FederatedAlgorithm):
    """A federated algorithm of domain adaptation.

    Attributes
    ----------
    joins : bool
        Whether clients that come late are introduced (`join`); otherwise they take part at once.
    keeps_local_part : bool
        Whether a client predicts with something of its own, so that domains have models of their own.
    private : bool
        Whether nothing leaves a client without noise in a run with privacy.
    personalises : bool
        Whether `personalise` can train a client's own copy at the end.
    adapts_outside : bool
        Whether `adapt_outside` can adapt to a domain that was in no round.
    """

    kind = "adaptation"
    joins: ClassVar[bool] = False
    keeps_local_part: ClassVar[bool] = False
    private: ClassVar[bool] = False
    personalises: ClassVar[bool] = False
    adapts_outside: ClassVar[bool] = False

    @abstractmethod
    def server(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> FederatedStrategy:
        """Make the server's side.

        Parameters
        ----------
        settings
            The run's; `settings.algorithm` is the table of `parameters`.
        network
            A network of the run's architecture; its weights may be overwritten.
        source
            The labelled source.
        """

    def check(self, settings: AdaptationSettings) -> None:
        """Refuse settings that don't go together, before anything starts, by raising `SettingsError`."""

    def check_client(self, client: Client) -> None:
        """Refuse a client that can't do its part, by raising `DataError`."""

    def inference(self, settings: AdaptationSettings) -> str:
        """Say which head counts on a client that has several, see `adaptation.heads`."""
        return "mean"

    def personalises_in(self, settings: AdaptationSettings) -> bool:
        """Say whether this run ends with `personalise`."""
        return False

    def architecture(self, network: Network) -> Network:
        """Extend G and F by what else predicts."""
        return network

    def network(self, state: Mapping[str, Tensor], settings: AdaptationSettings) -> Network:
        """Make the network that predicts out of the global model's arrays, frozen, in evaluation mode."""
        built = self.architecture(empty_network(settings))
        return filled(built, state, settings).requires_grad_(False).eval()

    def received(self, message: Message, client: Client) -> Network:
        """Make the network that predicts out of what a message brought."""
        return self.network(received_state(message), adaptation_settings(client))

    def train(self, message: Message, client: Client) -> Message:
        """Train on the client; an algorithm whose server sends no training messages needs none."""
        raise RuntimeError(f"{self.name}: clients don't train in this algorithm")

    def adapt(self, message: Message, client: Client) -> Predictor:
        """Make what the client predicts with now, out of a message, and keep in its folder what `predictor` needs."""
        return self.predictor(self.received(message, client), client)

    def predictor(self, network: Network, client: Client) -> Predictor:
        """Make what the client predicts with out of the global model and what the client keeps.

        Parameters
        ----------
        network
            As `network` makes it; it may be changed.
        client
            Whose folder is looked into. It may hold no examples.
        """
        return Predictor({"global": network}, parts=f"the global model; {self.name} keeps nothing on a client")

    def evaluate(self, message: Message, client: Client) -> Message:
        """Adapt, predict the client's test examples by every head, and count what is right."""
        began = time.perf_counter()
        return self.counted(message, client, self.adapt(message, client), began)

    def counted(self, message: Message, client: Client, predictor: Predictor, began: float, **more: float) -> Message:
        """Answer with a predictor's counts on the client's test examples; `began` is the clock when the work did."""
        counts = count(client, predictor)
        return reply_to(message, client.name, {"seconds": time.perf_counter() - began, **more, **counts})

    def join(self, message: Message, client: Client) -> Message:
        """Answer with what introduces a client that joins a run under way."""
        raise RuntimeError(f"{self.name}: clients don't join in this algorithm, they take part at once")

    def personalise(self, message: Message, client: Client) -> Message:
        """Train and keep the client's own copy at the end of a run."""
        raise RuntimeError(f"{self.name}: clients have no copy of their own in this algorithm")

    def adapt_outside(
        self,
        network: Callable[[], Network],
        closing: Mapping[str, Mapping[str, Tensor]],
        client: Client,
        personalise: bool,
    ) -> None:
        """Learn on a client that is in no federation; `predictor` then gives its model.

        Parameters
        ----------
        network
            Makes the final global model's network.
        closing
            What the server kept at the end of the run (`FederatedStrategy.closing`), by file name.
        client
            With unlabelled examples.
        personalise
            Whether to train the client's own copy too.
        """
        raise RuntimeError(f"{self.name} adapts to nothing outside its federation")


@torch.no_grad()
def count(client: Client, predictor: Predictor, heads: tuple[str, ...] = ()) -> dict[str, Any]:
    """Predict the client's test examples batch by batch, and count what is right; see `Tally.counts`.

    Labels are looked at here alone, and nothing but counts leaves the client.

    Parameters
    ----------
    client
        Whose test examples.
    predictor
        What predicts.
    heads
        The heads that are counted; all of them where none is named.
    """
    settings = client.settings
    mixture = predictor.mixture if not heads else None
    tally = Tally(predictor.head, len(settings.class_names), family(settings.data.name).segmentation)
    inputs = inputs_of(client, client.test)
    for part in forward_slices(inputs):
        probabilities, features = predictor.with_features(inputs[part])
        likelihoods = None if mixture is None else mixture.log_likelihood(features.flatten(0, -2))
        counted = {head: p for head, p in probabilities.items() if not heads or head in heads}
        tally.add(counted, client.test.labels[part].to(inputs.device).long(), likelihoods)
    return tally.counts()
