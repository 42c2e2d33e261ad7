"""Clients that join a federation under way: who is new, where each starts, and how much it counts.

The round in which a client joins is its round 0. It is asked for its mixture while the others train. When their uploads
are there, over features of the same G, the nearest of them are found by the divergence of mixtures, and the blend of
their F_l is where the new client's F_l starts. It is evaluated with that at the end of the round. From the next round
on it trains, and its weight in Eq. 6 grows over ``join-rounds`` rounds to that of everybody else; so long, its F_l
starts at the blend of its nearest clients' latest F_l. All of it is our choice: FMTDA knows no such clients.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from flwr.app import Message, RecordDict
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fmtda.adaptation.heads import decisive
from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.nearest_domains import blend, nearest
from fmtda.protocol.records import from_record, to_record
from fmtda.protocol.seeds import domain_of
from fmtda.protocol.settings import RunSettings

JOIN = "query.join"
JOINED, START = "joined.", "start."
"""How what is known of the clients is named in a checkpoint's state."""


class Newcomers:
    """The clients of a run by when they joined, and where those that are new start.

    Clients that are there in the first round are no newcomers, nor is anybody in a run whose strategy knows none (it
    has no `check_join` and `client_weights`, as DualAdapt has): there, who comes late takes part at once.

    Attributes
    ----------
    joined : dict of str to int
        The round in which each client joined; 0 for those that were there from the start.
    trained : set of str
        Of those that joined late, who has trained since.
    starts : dict of str to dict of str to Tensor
        Where F_l of a new client starts.
    """

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.joined: dict[str, int] = {}
        self.trained: set[str] = set()
        self.starts: dict[str, dict[str, Tensor]] = {}

    def too_early(self, names: Iterable[str], server_round: int) -> set[str]:
        """Of these clients, who is to join in a later round, as the settings say."""
        settings = self.settings
        if not settings.late_domains or server_round >= settings.join_round:
            return set()
        return {name for name in names if domain_of(name) in settings.late_domains and name not in self.joined}

    def arriving(self, names: Iterable[str], strategy: Strategy) -> set[str]:
        """Of these clients, who joins in this round; notes who is there from the start."""
        if not hasattr(strategy, "check_join"):
            return set()
        names = list(names)
        if not self.joined:
            self.joined = {name: 0 for name in names if domain_of(name) not in self.settings.late_domains}
        return {name for name in names if name not in self.joined}

    def weight(self, name: str, server_round: int) -> float:
        """How much a client counts in Eq. 6: 0 in the round in which it joins, 1 after `join-rounds` more."""
        joined = self.joined.get(name, 0)
        return min(1.0, (server_round - joined) / (self.settings.join_rounds + 1)) if joined else 1.0

    def weights(self, server_round: int) -> dict[str, float]:
        """Of those that count for less than the others."""
        weights = {name: self.weight(name, server_round) for name in self.joined}
        return {name: weight for name, weight in weights.items() if weight < 1}

    def training_messages(
        self, messages: Iterable[Message], names: Mapping[int, str], arriving: Collection[str]
    ) -> list[Message]:
        """The strategy's; but who joins is asked for its mixture alone, and who is new is sent where to start."""
        addressed = []
        for message in self._with_starts(messages, names, self.starts):
            if names[message.metadata.dst_node_id] in arriving:
                message = Message(message.content, dst_node_id=message.metadata.dst_node_id, message_type=JOIN)
            addressed.append(message)
        return addressed

    def evaluation_messages(self, messages: Iterable[Message], names: Mapping[int, str]) -> list[Message]:
        """The strategy's; but who is new and has not trained yet is sent what to predict with."""
        return self._with_starts(messages, names, self.starts.keys() - self.trained)

    def settle(self, server_round: int, replies: Mapping[str, Message]) -> dict[str, Any]:
        """Take in a round's mixtures and classifiers, and find where the new clients start in the next.

        Parameters
        ----------
        server_round
        replies
            The usable ones by client: of training, or of joining where a client was not known before.

        Returns
        -------
        dict
            For the round's line, of every new client: the round in which it `joined`, its `weight` in Eq. 6 and,
            nearest first, its neighbours' `divergence` and `weight`.
        """
        if not self.joined:  # a strategy that knows no newcomers
            return {}
        uploads = {name: reply.content for name, reply in replies.items() if name in self.joined}
        self.trained |= {name for name in uploads if self.joined[name]}
        self.joined |= {name: server_round for name in replies if name not in self.joined}
        known = {name: content for name, content in uploads.items() if self.weight(name, server_round) == 1}
        mixtures = {name: _mixture(content) for name, content in known.items()}
        news: dict[str, Any] = {}
        for name, weight in self.weights(server_round).items():
            news[name] = {"joined": self.joined[name], "weight": weight, "nearest": {}}
            if name in replies and known:
                neighbours = nearest(_mixture(replies[name].content), mixtures)
                news[name]["nearest"] = {other: found._asdict() for other, found in neighbours.items()}
                shares = {other: found.weight for other, found in neighbours.items()}
                if self.settings.join_start == "nearest":
                    classifiers = {other: from_record(known[other]["classifier"]) for other in shares}
                    self.starts[name] = blend(classifiers, shares)
        ends = {name for name in self.starts if name in self.trained and self.weight(name, server_round + 1) == 1}
        self.starts = {name: start for name, start in self.starts.items() if name not in ends}
        return news

    def state(self) -> dict[str, Tensor]:
        """What a resumed run has to know again, named for a checkpoint."""
        joined = {
            f"{JOINED}{name}": torch.tensor([joined, int(name in self.trained)]) for name, joined in self.joined.items()
        }
        starts = {
            f"{START}{name}.{array}": tensor for name, start in self.starts.items() for array, tensor in start.items()
        }
        return joined | starts

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave; other entries are left alone."""
        known = {key.removeprefix(JOINED): value.tolist() for key, value in state.items() if key.startswith(JOINED)}
        self.joined = {name: joined for name, (joined, _) in known.items()}
        self.trained = {name for name, (_, trained) in known.items() if trained}
        self.starts = {}
        for name in self.joined:
            prefix = f"{START}{name}."
            start = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if start:
                self.starts[name] = start

    def _with_starts(
        self, messages: Iterable[Message], names: Mapping[int, str], whose: Collection[str]
    ) -> list[Message]:
        """The messages, those to these clients with the record `start`."""
        addressed = []
        for message in messages:
            name = names[message.metadata.dst_node_id]
            if name in whose:
                content = RecordDict({**message.content, "start": to_record(self.starts[name])})
                kind = message.metadata.message_type
                message = Message(content, dst_node_id=message.metadata.dst_node_id, message_type=kind)
            addressed.append(message)
        return addressed


def newcomers_of(lines: Iterable[Mapping[str, Any]], inference: str) -> dict[str, Any]:
    """What summary.json says of the clients that joined late, out of the lines of metrics.jsonl.

    Returns
    -------
    dict
        By client: the round in which it `joined`, its neighbours `nearest` then, and by the number of rounds since the
        accuracy of its domain in percent, `accuracy_after`; empty where nobody has labels.
    """
    found: dict[str, Any] = {}
    for line in lines:
        for name, news in line.get("newcomers", {}).items():
            found.setdefault(name, {"joined": news["joined"], "nearest": news["nearest"], "accuracy_after": {}})
        for name, newcomer in found.items():
            heads = line["accuracy"].get(domain_of(name))
            if heads and line.get("evaluated", True) and line["phase"] == "round":
                after = str(line["round"] - newcomer["joined"])
                newcomer["accuracy_after"][after] = decisive(heads, inference)
    return found


def told(name: str, news: Mapping[str, Any]) -> str:
    """One line for people on a client that joins: ``svhn/0000 joins; nearest: mnist-m/0000 (0.63), ...``."""
    nearest = ", ".join(f"{other} ({found['weight']:.2f})" for other, found in news["nearest"].items())
    return f"{name} joins; nearest: {nearest or 'nobody'}"


def _mixture(content: RecordDict) -> Mixture:
    return Mixture.from_arrays({name: array.numpy() for name, array in content["mixture"].items()})
