"""Makes Flower's own strategies (FedAvg, FedProx, wrappers for privacy, ...) the server side of an algorithm.

`FlowerStrategy` checks what such a strategy gets, holds what it remembers, and changes nothing in what it does.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fmtda.protocol.moments import is_second_moment
from fmtda.protocol.records import BadReply, Layout, check_arrays, check_records, layout_of
from fmtda.strategies.algorithm import CONFIG, MODEL, FederatedStrategy

ANY_SIZE: dict[str, Any] = {
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
    "arrayrecord_key": MODEL,
    "configrecord_key": CONFIG,
}
"""What Flower's FedAvg and its children are told, for federations of any size and with our record names."""


class FlowerStrategy(FederatedStrategy):
    """Wraps one of Flower's own strategies, which averages whole models.

    Parameters
    ----------
    flower : Strategy
        Made with `ANY_SIZE`.
    """

    def __init__(self, flower: Strategy) -> None:
        self.flower = flower
        self._layout: Layout = {}
        self._at_first = copy.deepcopy(dict(_remembered(flower)))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let Flower's strategy say whom it asks, and note what was sent: uploads must look like it."""
        messages = list(self.flower.configure_train(server_round, arrays, config, grid))
        if messages:
            self._layout = layout_of(messages[0].content.array_records[MODEL])
        return messages

    def check_upload(self, content: RecordDict) -> None:
        """Refuse an upload that doesn't look like the model that was sent, or has no weight in an average."""
        check_records(content, MODEL)
        check_arrays(content.array_records[MODEL], self._layout)
        for name in filter(is_second_moment, self._layout):
            if (content.array_records[MODEL][name].numpy() < 0).any():
                raise BadReply(f"{name} has negative values: the second moment of an Adam has none")
        examples = content.metric_records["metrics"].get("num-examples")
        if not isinstance(examples, int) or examples < 1:
            raise BadReply(f"num-examples is {examples}, expected a whole number from 1: the average's weight")
        for name, value in content.metric_records["metrics"].items():
            if isinstance(value, list):
                raise BadReply(f"metric {name} holds {len(value)} numbers, expected one")

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let Flower's strategy aggregate."""
        return self.flower.aggregate_train(server_round, _with_common_metrics(list(replies)))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let Flower's strategy say whom it asks."""
        return self.flower.configure_evaluate(server_round, arrays, config, grid)

    def state(self) -> dict[str, Tensor]:
        """Name what Flower's strategy has come to remember: momentum, moments, a clipping norm.

        Flower's classes keep it in attributes and forget it when a run ends; with it in the checkpoint a resumed run
        equals an unbroken one. Every attribute counts that holds numbers or arrays and is another one than at first.
        """
        state: dict[str, Tensor] = {}
        for place, value in _remembered(self.flower):
            if not _same(value, self._at_first.get(place)):
                named = (
                    value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
                )
                state |= {f"{MEMORY}{place}:{key}": torch.from_numpy(np.asarray(each)) for key, each in named}
                if not isinstance(value, dict | list):
                    state[f"{MEMORY}{place}"] = torch.from_numpy(np.asarray(value))
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Give a fresh strategy its memory back."""
        whole: dict[str, Any] = {}
        for key, tensor in state.items():
            if not key.startswith(MEMORY):
                continue
            place, colon, entry = key.removeprefix(MEMORY).partition(":")
            array = tensor.numpy()
            if colon:
                whole.setdefault(place, {})[entry] = array
            else:
                whole[place] = array.item() if array.ndim == 0 else array
        for place, value in whole.items():
            *path, attribute = place.split(".")
            owner: Any = self.flower
            for word in path:
                owner = getattr(owner, word)
            if isinstance(value, dict) and all(key.isdecimal() for key in value):
                value = [value[key] for key in sorted(value, key=int)]
            setattr(owner, attribute, value)


MEMORY = "strategy."
"""How the names of what a Flower strategy remembers begin in a checkpoint."""

SENT = "current_arrays"
"""Where Flower's strategies keep the model that they sent last: they are given it again in every round."""


def _remembered(flower: Strategy, path: str = "") -> Iterable[tuple[str, Any]]:
    """The attributes of a strategy, and of one that it wraps, that hold numbers or arrays, by their place."""
    for name, value in vars(flower).items():
        if isinstance(value, Strategy):
            yield from _remembered(value, f"{path}{name}.")
        elif name == SENT or isinstance(value, bool):
            continue
        elif isinstance(value, int | float | np.ndarray | np.number):
            yield f"{path}{name}", value
        elif isinstance(value, dict | list) and value:
            entries = list(value.values()) if isinstance(value, dict) else value
            if all(isinstance(entry, np.ndarray | np.number) for entry in entries):
                yield f"{path}{name}", value


def _same(value: Any, other: Any) -> bool:
    """Whether a number is what it was; arrays, which may be changed where they lie, count as others."""
    return bool(isinstance(value, int | float | np.number) and value == other)


def _with_common_metrics(replies: list[Message]) -> list[Message]:
    """The replies without metrics that not all have: Flower's average of them would end the run."""
    common = (
        set.intersection(*(set(reply.content.metric_records["metrics"]) for reply in replies)) if replies else set()
    )
    cut = []
    for reply in replies:
        metrics = {name: value for name, value in reply.content.metric_records["metrics"].items() if name in common}
        cut.append(copy.copy(reply))  # the line of metrics.jsonl keeps what the client said
        cut[-1].content = RecordDict({**reply.content, "metrics": MetricRecord(metrics)})
    return cut
