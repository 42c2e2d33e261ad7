"""Who takes part: nodes found by the names their clients give, and drawn for a round by name."""

import time

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from protocol.records import BadReply, check_records, config_record, sender
from protocol.seeds import domain_of, seed_for
from protocol.settings import Settings, SettingsError
from server.exchange import Exchange


class Roster:
    """The clients of a run: their names and Flower's node ids, in the order of the names.

    Flower's node ids are random and differ from run to run. Everything that must not depend on them (order, sampling,
    seeds) goes by the names in here.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.empty: list[str] = []

    @property
    def domains(self) -> list[str]:
        """The domains that have clients, sorted."""
        return sorted({domain_of(name) for name in self.names.values()})

    def wait(self, grid: Grid, settings: Settings) -> None:
        """Wait until ``clients`` nodes are there.

        Raises
        ------
        SettingsError
            If there are fewer after ``join-timeout`` seconds, or more; the message names the option that helps.
        """
        deadline = time.monotonic() + settings.join_timeout
        while (count := len(list(grid.get_node_ids()))) < settings.clients and time.monotonic() < deadline:
            time.sleep(0.05)
        if count != settings.clients:
            raise SettingsError(
                f"clients={settings.clients}, but the federation has {count} nodes after {settings.join_timeout:g} s; "
                f"pass --federation-config 'num-supernodes={settings.clients}' to `flwr run`, "
                f"or set clients={count}, or start more SuperNodes"
            )

    def call(self, exchange: Exchange, grid: Grid, settings: Settings) -> None:
        """Ask every node for its client's name.

        Raises
        ------
        SettingsError
            If a client has no usable data, or two claim one name.
        """
        content = RecordDict({"config": config_record(settings, 0)})
        node_ids = [node_id for node_id in grid.get_node_ids() if node_id not in self.names]
        messages = [Message(content, dst_node_id=node_id, message_type="query") for node_id in node_ids]
        names: dict[int, str] = {}
        for reply in exchange.send(messages, settings.timeout).replies:
            if reply.has_error():
                raise SettingsError(f"a client can't take part: {last_line(reply.error.reason)}")
            try:
                check_records(reply.content)
                name = sender(reply.content)
            except BadReply as error:
                raise SettingsError(f"node {reply.metadata.src_node_id} can't take part: {error}") from None
            if name in (*names.values(), *self.names.values()):
                raise SettingsError(f"two nodes say that they are {name}; give each its own domain or share")
            names[reply.metadata.src_node_id] = name
        if len(names) < len(node_ids):
            raise SettingsError(f"{len(node_ids) - len(names)} of {len(node_ids)} nodes did not say who they are")
        self.names = dict(sorted({**self.names, **names}.items(), key=lambda item: item[1]))

    def cohort(self, settings: Settings, server_round: int) -> "Cohort":
        """The clients of a round: all, or the share ``fraction`` drawn from the seed by name."""
        node_ids = list(self.names)
        if settings.fraction < 1:
            draw = np.random.default_rng(seed_for(settings.seed, server_round, "cohort"))
            count = max(1, round(settings.fraction * len(node_ids)))
            node_ids = [node_ids[i] for i in sorted(draw.choice(len(node_ids), count, replace=False))]
        return Cohort(node_ids)


class Cohort:
    """The nodes of one round, given to a strategy in place of the grid: it takes all it finds here."""

    def __init__(self, node_ids: list[int]) -> None:
        self._node_ids = node_ids

    def get_node_ids(self) -> list[int]:
        """The node ids, in the order of the clients' names."""
        return self._node_ids


def last_line(text: str) -> str:
    """The last line of an error's text: what it says, without the traceback."""
    lines = [line.strip() for line in str(text).replace("\\n", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
