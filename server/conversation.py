"""Talks with the clients: who is there, messages out, replies in, checked and sorted by name.

It knows no algorithm, no workload and no rounds: whoever asks brings the messages and the check of the answers.
"""

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fmtda.protocol.client_names import domain_of
from fmtda.protocol.records import BadReply, check_records, config_record, payload_bytes, sender
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import RunSettings
from fmtda.protocol.tables import SettingsError
from fmtda.server.progress import Progress

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
"""Seconds between two looks for replies: short at first, longer while nothing comes, so that a SuperLink rests."""

NOT_TAKEN = "Flower did not take the message: the node is gone, or the message is too large"

Check = Callable[[RecordDict], None]
"""Raises `BadReply` on content that must not be used."""


@dataclass
class Answers:
    """Holds what came back, in order of arrival, and what went out to whom."""

    replies: list[Message] = field(default_factory=list)
    down: dict[int, int] = field(default_factory=dict)
    """Bytes sent, by node id."""
    unanswered: list[int] = field(default_factory=list)
    """Node ids that did not answer in time."""
    refused: list[int] = field(default_factory=list)
    """Node ids whose message Flower did not take."""


@dataclass
class Phase:
    """Holds one exchange with the clients, looked through: usable replies by name, and what went wrong."""

    replies: dict[str, Message] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    down: dict[str, int] = field(default_factory=dict)
    up: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, dict[str, Any]]:
        """The metrics in every usable reply, by the client's name."""
        return {name: self.metrics(name) for name in self.replies}

    def metrics(self, name: str) -> dict[str, Any]:
        """Return the metrics in a client's reply, empty without one."""
        return dict(self.replies[name].content.metric_records["metrics"]) if name in self.replies else {}


class Cohort:
    """Stands for the nodes of one phase, given to a strategy in place of the grid: it takes all it finds here.

    Attributes
    ----------
    names : dict of int to str
        The clients' names by node id, in the order of the names.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = dict(names)

    def get_node_ids(self) -> list[int]:
        """Return the node ids, in the order of the clients' names."""
        return list(self.names)


def as_grid(cohort: Cohort) -> Grid:
    """Call a cohort a grid: a strategy asks it for node ids alone."""
    return cast(Grid, cohort)


class Conversation:
    """Knows the clients of a run, their names and Flower's node ids in the order of the names, and asks them.

    Flower's node ids are random and differ from run to run. Everything that must not depend on them (order, sampling,
    seeds) goes by the names in here.

    Parameters
    ----------
    grid
        Flower's.
    settings
        The run's. `in_flight` limits the messages under way at once, 0 for no limit: Flower's simulation looks through
        all waiting messages for each of its nodes, again and again; with 400 messages waiting, that alone kept one core
        busy (measured).
    progress
        Who is told what is asked, and how many replies have come.

    Attributes
    ----------
    present : dict of int to str
        Everybody who said a name, those that are held back among them.
    names : dict of int to str
        Who takes part.
    showing : dict of int to int
        Nodes that agree to show examples, and how many test examples each has.
    """

    def __init__(self, grid: Grid, settings: RunSettings, progress: Progress) -> None:
        self.grid, self.settings, self.progress = grid, settings, progress
        self.present: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.showing: dict[int, int] = {}

    def wait(self) -> None:
        """Wait until ``clients`` nodes are there, and in a simulation those that join late.

        Raises
        ------
        SettingsError
            If there are fewer after ``join-timeout`` seconds, or more, though in a resumed run some may have joined
            late; the message names the option that helps.
        """
        settings = self.settings
        deadline = time.monotonic() + settings.join_timeout
        while (count := len(list(self.grid.get_node_ids()))) < settings.supernodes and time.monotonic() < deadline:
            time.sleep(0.05)
        if count < settings.supernodes or (count > settings.supernodes and not settings.resume):
            late = f" and {len(settings.late_domains)} that join late" if settings.late_domains else ""
            raise SettingsError(
                f"clients={settings.clients}{late}, but the federation has {count} nodes after "
                f"{settings.join_timeout:g} s; "
                f"pass --federation-config 'num-supernodes={settings.supernodes}' to `flwr run`, "
                f"or set clients={count - len(settings.late_domains)}, or start more SuperNodes"
            )

    def introductions(self, timeout: float) -> list[str]:
        """Ask every node that is new for its client's name, `timeout` seconds long, and forget nodes that are gone.

        Returns
        -------
        list of str
            Who can't take part, and why: no usable data, no answer, a name that another node has.
        """
        present = list(self.grid.get_node_ids())
        names = {node_id: name for node_id, name in self.present.items() if node_id in present}
        content = RecordDict({"config": config_record(self.settings, 0)})
        unknown = [node_id for node_id in present if node_id not in names]
        answers = self.exchange((Message(content, dst_node_id=n, message_type="query") for n in unknown), timeout)
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
            metrics = reply.content.metric_records["metrics"]
            examples = metrics.get("test-examples")
            if metrics.get("shares-examples") == 1 and isinstance(examples, int):
                self.showing[reply.metadata.src_node_id] = examples
        self.present = dict(sorted(names.items(), key=lambda item: item[1]))
        self.names = dict(self.present)
        return problems

    def hold_back(self, server_round: int) -> None:
        """Let everybody take part in a round but those of a simulation that are to come later."""
        absent = self.settings.absent_domains(server_round)
        self.names = {node_id: name for node_id, name in self.present.items() if domain_of(name) not in absent}

    def everybody(self) -> Cohort:
        """Return all that take part."""
        return Cohort(self.names)

    def cohort(self, server_round: int, arriving: Collection[str] = ()) -> Cohort:
        """Return who trains in a round: all, or the share ``fraction`` drawn from the seed by name; and who arrives."""
        settings = self.settings
        drawn = [node_id for node_id, name in self.names.items() if name not in arriving]
        if settings.fraction < 1 and drawn:
            draw = np.random.default_rng(seed_for(settings.seed, server_round, "cohort"))
            count = max(1, round(settings.fraction * len(drawn)))
            drawn = [drawn[i] for i in sorted(draw.choice(len(drawn), count, replace=False))]
        return Cohort({n: name for n, name in self.names.items() if n in drawn or name in arriving})

    def messages(self, kind: str, records: Mapping[str, Any], config: ConfigRecord) -> list[Message]:
        """Make a message of a kind with these records for everybody that takes part."""
        content = RecordDict({**records, "config": config})
        return [Message(content, dst_node_id=node_id, message_type=kind) for node_id in self.names]

    def ask(self, stage: str, messages: Iterable[Message], check: Check) -> Phase:
        """Send, receive, and look through what came back; what went wrong is told.

        Parameters
        ----------
        stage
            What the progress display says meanwhile.
        messages
            One a node; they may share their content.
        check
            Of every answer.
        """
        messages = list(messages)
        if not messages:
            return Phase()
        answers = self.exchange(messages, self.settings.timeout, stage)
        phase = admit(answers, self.names, check, self.settings.timeout)
        for failure in phase.failures:
            self.progress.note(f"{stage}: {failure}")
        return phase

    def exchange(self, messages: Iterable[Message], timeout: float, stage: str = "") -> Answers:
        """Send messages and wait for their replies, `timeout` seconds at most.

        Parameters
        ----------
        messages
            One a node; they may share their content.
        timeout
            Seconds.
        stage
            What the progress display says meanwhile; empty for a stage too short to name.
        """
        messages = list(messages)
        sizes = {id(message.content): payload_bytes(message.content) for message in messages}
        answers = Answers(down={message.metadata.dst_node_id: sizes[id(message.content)] for message in messages})
        if stage:
            self.progress.stage(stage, len(messages))
        limit = self.settings.in_flight or len(messages)
        unsent = iter(messages)
        waiting: set[str] = set()
        answered: set[int] = set()
        deadline, pause = time.monotonic() + timeout, FIRST_PAUSE
        while time.monotonic() < deadline:
            if batch := list(itertools.islice(unsent, limit - len(waiting))):  # a SuperLink refuses an empty one
                taken = {each for each in self.grid.push_messages(batch) if each}
                waiting |= taken
                answers.refused += [m.metadata.dst_node_id for m in batch if m.metadata.message_id not in taken]
            if not waiting:
                if batch:
                    continue  # all of these were refused; others may wait to be sent
                break
            arrived = list(self.grid.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            answered |= {reply.metadata.src_node_id for reply in arrived}
            answers.replies += arrived
            if stage and arrived:
                self.progress.advance(len(arrived))
            pause = FIRST_PAUSE if arrived else min(LONGEST_PAUSE, pause * 1.2)
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        answers.unanswered = [node_id for node_id in answers.down if node_id not in {*answered, *answers.refused}]
        return answers


def admit(answers: Answers, names: Mapping[int, str], check: Check, timeout: float) -> Phase:
    """Check replies and sort them by the client's name; a bad one is dropped and named.

    Parameters
    ----------
    answers
        What came back.
    names
        The client's name by node id, in the order of the names.
    check
        Of every answer that is no error.
    timeout
        Seconds that were waited.
    """
    phase = Phase(down={names[node_id]: size for node_id, size in answers.down.items()})
    by_node = {reply.metadata.src_node_id: reply for reply in answers.replies}
    for node_id, name in names.items():
        if node_id in answers.unanswered:
            phase.failures.append(f"{name}: no answer within {timeout:g} s")
        if node_id in answers.refused:
            phase.failures.append(f"{name}: not asked, {NOT_TAKEN}")
        if node_id not in by_node:
            continue
        reply = by_node[node_id]
        if reply.has_error():
            phase.failures.append(f"{name}: {last_line(reply.error.reason)}")
            continue
        phase.up[name] = payload_bytes(reply.content)
        try:
            if sender(reply.content) != name:
                raise BadReply(f"calls itself {sender(reply.content)} now")
            check(reply.content)
        except BadReply as error:
            phase.failures.append(f"{name}: dropped, {error}")
            continue
        phase.replies[name] = reply
    return phase


def account(evaluation: Phase, training: Phase | None = None) -> dict[str, Any]:
    """Say for a line of metrics.jsonl what two phases cost each client, added up, and what failed."""
    training = training or Phase()
    clients = {}
    for name in sorted({*training.down, *evaluation.down}):
        trained, evaluated = training.metrics(name), evaluation.metrics(name)
        clients[name] = {
            "up": training.up.get(name, 0) + evaluation.up.get(name, 0),
            "up_training": training.up.get(name, 0),
            "down": training.down.get(name, 0) + evaluation.down.get(name, 0),
            "seconds": trained.pop("seconds", 0.0) + evaluated.pop("seconds", 0.0),
            "train": trained,
            "evaluate": {key: value for key, value in evaluated.items() if not key.startswith("confusion")},
        }
    return {"clients": clients, "failures": training.failures + evaluation.failures}


def last_line(text: str | None) -> str:
    """Return the last line of an error's text: what it says, without the traceback."""
    lines = [line.strip() for line in (text or "").replace("\\n", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def first_reason(failures: list[str]) -> str:
    """Return the first failure of a phase without replies."""
    return failures[0] if failures else "no client was asked"
