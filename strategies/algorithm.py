"""Says what a federated algorithm is: both of its sides, its parameters, what it predicts with, what it can do.

One file or folder of this room each, and a line in `strategies.registry`, or an entry point of another package. Nothing
else in the product names an algorithm: who has to know something of it reads an attribute of these classes.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.network import Network
from fmtda.adaptation.predictor import Predictor
from fmtda.adaptation.registry import empty_network, filled
from fmtda.adaptation.scores import Tally
from fmtda.domains.client import Client
from fmtda.protocol.metrics import WORK, Metric
from fmtda.protocol.records import SERVER_ROUND, from_record, reply_to
from fmtda.protocol.settings import AdaptationSettings, Parameters
from fmtda.protocol.tables import Scalar


@dataclass(frozen=True)
class BenchmarkRow:
    """This is a row of ``fmtda benchmark``'s table: an algorithm with some of its settings.

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
    """Gives the labelled source as an algorithm's server side sees it: `domains.source.Source`, or anything like it."""

    def __len__(self) -> int: ...

    def batch(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the examples at these places as inputs, float32 (B, ...), and labels, int64."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a random mini-batch (x_s, y_s)."""

    def held_out(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return examples that nothing is trained on."""


MODEL, CONFIG = "model", "config"
"""What the records of the global model and of the settings are called in every message."""


class FederatedStrategy(Strategy):
    """This is a Flower strategy that the round loop can drive, check, and continue after a kill.

    The grid that `configure_train` and `configure_evaluate` get is a `Cohort` (`server.conversation`): its nodes are
    those that are asked, and its `names` tells whose clients they are. Replies come checked, without errors, and sorted
    by their client's name.

    Attributes
    ----------
    keeps_uploads : bool
        Whether what a client uploads is its own part, which the run directory keeps by client, and no whole model.
    """

    keeps_uploads: bool = False

    def initial(self, arrays: ArrayRecord) -> ArrayRecord:
        """Add to the pre-trained model what travels with it; called once, before the first round."""
        return arrays

    def arriving(self, names: Collection[str]) -> set[str]:
        """Say who of the clients that are there joins in this round: these are asked whatever `fraction` draws."""
        return set()

    @abstractmethod
    def check_upload(self, content: RecordDict) -> None:
        """Refuse what a client sent in training, by raising `protocol.records.BadReply`."""

    def told(self) -> tuple[dict[str, Any], list[str]]:
        """Say what the last round's line of metrics.jsonl holds beside the common fields, and lines for people."""
        return {}, []

    def state(self) -> dict[str, Tensor]:
        """Name what lives from round to round beside the global model; a checkpoint holds it."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave; entries of others are left alone."""

    def closing(self, rounds: int, arrays: ArrayRecord) -> dict[str, dict[str, Tensor]]:
        """Give what the run directory keeps beside the uploads once the run has ended, by file name."""
        return {}

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to everybody."""
        return to_all(MessageType.EVALUATE, server_round, {MODEL: arrays, CONFIG: config}, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Leave the evaluation to the workload, which adds it up by domain."""
        return None

    def summary(self) -> None:
        """Log nothing: config.toml has the settings."""


def to_all(kind: str, server_round: int, records: Mapping[str, Any], grid: Grid) -> list[Message]:
    """Make a message with these records for every node of a cohort; they share the content."""
    records[CONFIG][SERVER_ROUND] = server_round
    content = RecordDict(dict(records))
    return [Message(content, dst_node_id=node_id, message_type=kind) for node_id in grid.get_node_ids()]


class FederatedAlgorithm(ABC):
    """Says what the algorithms of all workloads share. Objects of it hold no state.

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
    usual : mapping of str to scalar
        What `auto` is under this algorithm, by dotted key, where the data don't say.
    mods : tuple of callable
        Flower's modifiers around `train` on the client, the outermost first.
    private : bool
        Whether nothing leaves a client without noise in a run with privacy.
    federated : bool
        Whether there is a federation at all; False for a reference that trains in one place.
    answers : mapping of str to tuple of Metric
        The metrics that its clients answer with beside those that every algorithm's do, by what they are asked:
        `train`, `join`, `personalise`, `evaluate`. A reply with any other is dropped.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[Literal["adaptation", "generative"]]
    parameters: ClassVar[type[Parameters]] = Parameters
    rows: ClassVar[tuple[BenchmarkRow, ...]] = ()
    usual: ClassVar[Mapping[str, Scalar]] = {}
    mods: ClassVar[tuple[Callable[..., Message], ...]] = ()
    private: ClassVar[bool] = False
    federated: ClassVar[bool] = True
    answers: ClassVar[Mapping[str, tuple[Metric, ...]]] = {}

    def declared(self, asked: str, common: Iterable[Metric] = WORK) -> tuple[Metric, ...]:
        """List the metrics that an answer may hold.

        Parameters
        ----------
        asked
            A key of `answers`.
        common
            What every algorithm's clients tell then.
        """
        return (*common, *self.answers.get(asked, ()))

    def check_client(self, client: Client) -> None:
        """Refuse a client that can't do its part, by raising `DataError`; here, none."""
        return None

    @abstractmethod
    def train(self, message: Message, client: Client) -> Message:
        """Train on the client, and answer with what it uploads."""

    @abstractmethod
    def evaluate(self, message: Message, client: Client) -> Message:
        """Answer with how good the model is on the client's test examples, as far as that can be told."""


class Algorithm(FederatedAlgorithm):
    """This is a federated algorithm of domain adaptation.

    Attributes
    ----------
    joins : bool
        Whether clients that come late are introduced (`join`); otherwise they take part at once.
    keeps_local_part : bool
        Whether a client predicts with something of its own, so that domains have models of their own.
    personalises : bool
        Whether `personalise` can train a client's own copy at the end.
    closing_records : frozenset of str
        Of what the server's side keeps at the end of a run (`closing`), the names that `adapt_outside` needs.
    adapts_outside : bool
        Whether `adapt_outside` can adapt to a domain that was in no round.
    """

    kind = "adaptation"
    joins: ClassVar[bool] = False
    keeps_local_part: ClassVar[bool] = False
    personalises: ClassVar[bool] = False
    adapts_outside: ClassVar[bool] = False
    closing_records: ClassVar[frozenset[str]] = frozenset()

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
        return filled(built, state, settings.device).requires_grad_(False).eval()

    def received(self, message: Message, client: Client) -> Network:
        """Make the network that predicts out of what a message brought."""
        return self.network(received(message), adaptation(client))

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


def received(message: Message, record: str = MODEL) -> dict[str, Tensor]:
    """Unpack the named tensors of one of a message's records."""
    return from_record(message.content.array_records[record])


def adaptation(client: Client) -> AdaptationSettings:
    """Return a client's settings, which are a run's of domain adaptation."""
    return cast(AdaptationSettings, client.settings)


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
    tally = Tally(predictor.head, len(settings.class_names), client.segmentation)
    inputs = client.inputs(client.test)
    for part in forward_slices(inputs):
        probabilities, features = predictor.with_features(inputs[part])
        likelihoods = None if mixture is None else mixture.log_likelihood(features.flatten(0, -2))
        counted = {head: p for head, p in probabilities.items() if not heads or head in heads}
        tally.add(counted, client.test.labels[part].to(inputs.device).long(), likelihoods)
    return tally.counts()
