"""Who takes part: nodes found by the names their clients give, and drawn for a round by name."""

import time
from collections.abc import Collection

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fmtda.protocol.records import BadReply, check_records, config_record, sender
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import RunSettings, SettingsError
from fmtda.server.exchange import NOT_TAKEN, Exchange


class Roster:
    """The clients of a run: their names and Flower's node ids, in the order of the names.

    Flower's node ids are random and differ from run to run. Everything that must not depend on them (order, sampling,
    seeds) goes by the names in here.
    """

    def __init__(self) -> None:
        self.present: dict[int, str] = {}
        """Everybody who said a name, those that are held back among them."""
        self.names: dict[int, str] = {}
        """Who takes part."""
        self.showing: dict[int, int] = {}
        """Nodes that agree to show examples, and how many test examples each has."""

    def wait(self, grid: Grid, settings: RunSettings) -> None:
        """Wait until ``clients`` nodes are there, and in a simulation those that join late.

        Raises
        ------
        SettingsError
            If there are fewer after ``join-timeout`` seconds, or more, though in a resumed run some may have joined
            late; the message names the option that helps.
        """
        deadline = time.monotonic() + settings.join_timeout
        while (count := len(list(grid.get_node_ids()))) < settings.supernodes and time.monotonic() < deadline:
            time.sleep(0.05)
        if count < settings.supernodes or (count > settings.supernodes and not settings.resume):
            late = f" and {len(settings.late_domains)} that join late" if settings.late_domains else ""
            raise SettingsError(
                f"clients={settings.clients}{late}, but the federation has {count} nodes after "
                f"{settings.join_timeout:g} s; "
                f"pass --federation-config 'num-supernodes={settings.supernodes}' to `flwr run`, "
                f"or set clients={count - len(settings.late_domains)}, or start more SuperNodes"
            )

    def call(self, exchange: Exchange, grid: Grid, settings: RunSettings, timeout: float) -> list[str]:
        """Ask every node that is new for its client's name, `timeout` seconds long, and forget nodes that are gone.

        Returns
        -------
        list of str
            Who can't take part, and why: no usable data, no answer, a name that another node has.
        """
        present = list(grid.get_node_ids())
        names = {node_id: name for node_id, name in self.present.items() if node_id in present}
        content = RecordDict({"config": config_record(settings, 0)})
        unknown = [node_id for node_id in present if node_id not in names]
        answers = exchange.send((Message(content, dst_node_id=n, message_type="query") for n in unknown), timeout)
        problems = [f"node {node_id} did not say who it is" for node_id in answers.unanswered]
        problems += [f"node {node_id} was not asked who it is, {NOT_TAKEN}" for node_id in answers.refused]
        for reply in answers.replies:
            if reply.has_error():
                problems.append(f"a client can't take part: {last_line(reply.error.reason)}")
                continue
            try:
                check_records(reply.content)
                name = sender(reply.content)
            except BadReply as error:
                problems.append(f"node {reply.metadata.src_node_id} can't take part: {error}")
                continue
            if name in names.values():
                problems.append(f"two nodes say that they are {name}; give each its own domain or share")
                continue
            names[reply.metadata.src_node_id] = name
            metrics = reply.content["metrics"]
            if metrics.get("shares-examples") == 1 and isinstance(metrics.get("test-examples"), int):
                self.showing[reply.metadata.src_node_id] = metrics["test-examples"]
        self.present = dict(sorted(names.items(), key=lambda item: item[1]))
        self.hold_back(())
        return problems

    def hold_back(self, names: Collection[str]) -> None:
        """Let everybody take part but these, until the next call."""
        self.names = {node_id: name for node_id, name in self.present.items() if name not in names}

    def cohort(self, settings: RunSettings, server_round: int, joining: Collection[str] = ()) -> "Cohort":
        """The clients of a round: all, or the share ``fraction`` drawn from the seed by name, and those that join."""
        drawn = [node_id for node_id, name in self.names.items() if name not in joining]
        if settings.fraction < 1 and drawn:
            draw = np.random.default_rng(seed_for(settings.seed, server_round, "cohort"))
            count = max(1, round(settings.fraction * len(drawn)))
            drawn = [drawn[i] for i in sorted(draw.choice(len(drawn), count, replace=False))]
        return Cohort([node_id for node_id, name in self.names.items() if node_id in drawn or name in joining])


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
