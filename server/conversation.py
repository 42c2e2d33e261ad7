"""Talks with the clients: who is there, messages out, replies in, checked and sorted by name.

It knows no algorithm, no workload and no rounds: whoever asks brings the messages and the check of the answers.
"""

import itertools
import logging
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fmtda.protocol.client_names import domain_of
from fmtda.protocol.metrics import INTRODUCTION, NUM_EXAMPLES, BadReply, Metric, check_metrics
from fmtda.protocol.printable import printable
from fmtda.protocol.records import check_records, config_record, payload_bytes, sender
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import RunSettings
from fmtda.protocol.tables import SettingsError
from fmtda.server.progress import Progress
from fmtda.server.registered_nodes import registered_nodes
from fmtda.server.silent_clients import SilentClients

LOG = logging.getLogger(__name__)

QUERY = "query"
"""The type of the message that asks who somebody is."""

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
"""Seconds between two looks for replies: short at first, longer while nothing comes, so that a SuperLink rests."""

NOT_TAKEN = "Flower did not take the message: the node is gone, or the message is too large"

Check = Callable[[RecordDict], None]
"""Raises `BadReply` on content that must not be used."""

Checked = TypeVar("Checked")

LONGEST_REASON = 20_000
"""Characters of a client's error text that are looked through for its last line."""


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
    pending: dict[int, str] = field(default_factory=dict)
    """The messages that no answer has come to, by node id: it may come yet."""
    kinds: dict[int, str] = field(default_factory=dict)
    """The types of the messages, by node id."""


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


class Held(NamedTuple):
    """Holds how many examples a client said it has when it was asked who it is: no later answer may count more."""

    train: int
    test: int


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
    deployed
        Whether the clients are other people's, on machines of their own. Then messages tell them no more than they
        need, and the run begins without a bad or silent one; in a simulation all are the user's own, and one that can't
        take part stops the run at its start.

    Attributes
    ----------
    present : dict of int to str
        Everybody who said a name, those that are held back or left out among them.
    names : dict of int to str
        Who takes part.
    held : dict of str to Held
        By name, the examples that each client said it has.
    showing : dict of int to int
        Nodes that agree to show examples, and how many test examples each has.

    Raises
    ------
    SettingsError
        If `nodes-file` can't be used, or is given in a simulation.
    """

    def __init__(self, grid: Grid, settings: RunSettings, progress: Progress, deployed: bool = False) -> None:
        self.grid, self.settings, self.progress, self.deployed = grid, settings, progress, deployed
        self.present: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.held: dict[str, Held] = {}
        self.showing: dict[int, int] = {}
        if settings.nodes_file and not deployed:
            raise SettingsError(f"nodes-file={settings.nodes_file}: a simulation has no registered nodes; leave it out")
        self._registered = registered_nodes(settings.nodes_file) if settings.nodes_file else None
        self._had: dict[str, int] = {}  # which node had a name last
        self._awaited: dict[int, str] = {}  # "who are you" under way, for which nobody waits, by node
        self._silent = SilentClients(settings.silent_rounds)
        self._told: set[str] = set()
        self._unwritten: list[str] = []

    def gather(self) -> None:
        """Wait for the clients and ask who they are, at the start of a run.

        A deployment begins without those that are not there, are silent or can't take part: a note tells who and why,
        and so does the first line of the run.

        Raises
        ------
        SettingsError
            With every reason: in a simulation if any client can't take part, in a deployment if fewer than
            `min-clients` can.
        """
        settings = self.settings
        self.wait()
        if not self.deployed:
            if problems := self.introductions(settings.timeout):
                raise SettingsError("\n".join(problems))
            return
        least = min(settings.min_clients, settings.clients)
        deadline = time.monotonic() + settings.timeout
        problems = self.introductions(settings.join_timeout)
        while len(self.present) < least and self._awaited and time.monotonic() < deadline:
            time.sleep(LONGEST_PAUSE)  # a client's first look at its data may take longer than `join-timeout`
            problems += self.introductions(settings.join_timeout)
        if len(self.present) < least:
            few = f"min-clients={settings.min_clients}: only {len(self.present)} can take part"
            raise SettingsError("\n".join([few, *problems]))
        for problem in problems:
            self.progress.note(problem)

    def wait(self) -> None:
        """Wait until ``clients`` nodes are there, and in a simulation those that join late.

        Raises
        ------
        SettingsError
            If there are fewer after ``join-timeout`` seconds, in a deployment fewer than ``min-clients``; in a
            simulation also if there are more, though in a resumed run some may have joined late. The message names the
            option that helps.
        """
        settings = self.settings
        wanted = settings.clients if self.deployed else settings.supernodes
        deadline = time.monotonic() + settings.join_timeout
        while (count := len(self._nodes())) < wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.deployed and count < min(settings.min_clients, settings.clients):
            raise SettingsError(
                f"clients={settings.clients}, min-clients={settings.min_clients}, but the federation has {count} nodes "
                f"after {settings.join_timeout:g} s; look at what the SuperNodes print, or set join-timeout higher"
                f"{self._missing()}"
            )
        if self.deployed and count < settings.clients:
            self.progress.note(
                f"clients={settings.clients}, but {count} are there after {settings.join_timeout:g} s: the run begins "
                f"without the others, who may come later{self._missing()}"
            )
        elif not self.deployed and (count < wanted or (count > wanted and not settings.resume)):
            late = f" and {len(settings.late_domains)} that join late" if settings.late_domains else ""
            raise SettingsError(
                f"clients={settings.clients}{late}, but the federation has {count} nodes after "
                f"{settings.join_timeout:g} s; "
                f"pass --federation-config 'num-supernodes={settings.supernodes}' to `flwr run`, "
                f"or set clients={count - len(settings.late_domains)}, or start more SuperNodes"
            )

    def introductions(self, timeout: float) -> list[str]:
        """Ask every node that is new for its client's name, `timeout` seconds long, and forget nodes that are gone.

        A node that does not answer in time is not waited for again. When its answer comes, or that of a client that was
        left out as silent, it takes part from then on.

        Returns
        -------
        list of str
            Who can't take part, and why: no usable data, no answer, a name that is another's. What was said the last
            time is not said again.
        """
        problems = self._read_registrations()
        here = list(self.grid.get_node_ids())
        self._forget_all_but({*here})
        arrived = self._late_answers()
        unknown = [node_id for node_id in here if node_id not in {*self.present, *self._awaited, *arrived}]
        if self._registered is not None:
            strangers = [node_id for node_id in unknown if node_id not in self._registered]
            problems += [f"node {node_id} is not in nodes-file={self.settings.nodes_file}" for node_id in strangers]
            unknown = [node_id for node_id in unknown if node_id not in strangers]
        answers = self.exchange([self._who_are_you(node_id) for node_id in unknown], timeout)
        self._awaited |= answers.pending
        silent = [n for n in here if n in {*self._awaited, *answers.unanswered} and n not in self.present]
        problems += [f"{self._label(node_id)} did not say who it is" for node_id in silent]
        problems += [f"{self._label(node_id)} was not asked who it is, {NOT_TAKEN}" for node_id in answers.refused]
        arrived |= {reply.metadata.src_node_id: reply for reply in answers.replies}
        problems += self._take_in(arrived)
        self.present = dict(sorted(self.present.items(), key=lambda item: item[1]))
        self.names = {n: name for n, name in self.present.items() if name not in self._silent.left_out}
        new = [problem for problem in dict.fromkeys(problems) if problem not in self._told]
        self._told = {*problems}
        self._unwritten += new
        return new

    def unwritten(self) -> list[str]:
        """Return what went wrong outside of the phases since the last line of metrics.jsonl, for the next; once."""
        unwritten, self._unwritten = self._unwritten, []
        return unwritten

    def _take_in(self, arrived: Mapping[int, Message]) -> list[str]:
        """Give names to the nodes that said one, and return what is wrong; no order of arrival decides anything."""
        problems: list[str] = []
        claims: dict[str, dict[int, RecordDict]] = {}
        for node_id, reply in sorted(arrived.items()):
            if reply.has_error():
                if node_id in self.present:
                    self._heard_again(node_id)
                who = self._label(node_id) if self.deployed else "a client"
                problems.append(f"{who} can't take part: {last_line(reply.error.reason)}")
                continue
            try:
                name = guarded(partial(self._name_in, node_id, reply))
            except BadReply as error:
                problems.append(f"{self._label(node_id)} can't take part: {printable(error)}")
                continue
            claims.setdefault(name, {})[node_id] = reply.content
        for name, by_node in claims.items():
            owner = next((node_id for node_id, other in self.present.items() if other == name), None)
            if owner is None:
                owner = next(iter(by_node)) if len(by_node) == 1 else self._had.get(name)
            refused = [node_id for node_id in by_node if node_id != owner]
            if len(refused) == len(by_node) > 1 and name not in self.present.values():
                nodes = " and ".join(str(node_id) for node_id in refused)
                problems.append(
                    f"{name}: nodes {nodes} say that they are it, and nobody can tell which is; give each its own "
                    "domain or share"
                )
            else:
                problems += [f"node {n} can't take part: {name} is node {owner}'s name already" for n in refused]
            if owner in by_node:
                self._settle(name, owner, by_node[owner])
        return problems

    def _settle(self, name: str, node_id: int, content: RecordDict) -> None:
        """A node is the client of this name."""
        metrics = content.metric_records["metrics"]
        self.present[node_id], self._had[name] = name, node_id
        held = self.held[name] = Held(cast(int, metrics["train-examples"]), cast(int, metrics["test-examples"]))
        self.showing.pop(node_id, None)
        if metrics["shares-examples"] == 1:
            self.showing[node_id] = held.test
        if name in self._silent.left_out:
            self._heard_again(node_id)

    def _name_in(self, node_id: int, reply: Message) -> str:
        """The name that a node says it has, if it may have it and says what it should; raises `BadReply`."""
        if reply.metadata.message_type != QUERY:
            raise BadReply(f"answers as {printable(reply.metadata.message_type, 40)}, expected {QUERY}")
        check_records(reply.content)
        name = sender(reply.content)
        known = self._registered[node_id] if self._registered is not None else self.present.get(node_id, name)
        if name != known:
            raise BadReply(f"says that it is {name}")
        if self._registered is None and domain_of(name) not in self.settings.target_domains:
            raise BadReply(f"says that it is {name}, but data.targets={self.settings.data.targets}")
        check_metrics(reply.content.metric_records["metrics"], INTRODUCTION)
        return name

    def _heard_again(self, node_id: int) -> None:
        """A client that was left out answers: it takes part again, at once or when it has stayed out long enough."""
        name = self.present[node_id]
        if self._silent.may_come_back(name):
            self._silent.take_back(name)
            self.progress.note(f"{name} answers again: it takes part again")
        else:
            self._ask_aside([node_id])

    def _who_are_you(self, node_id: int) -> Message:
        content = RecordDict({"config": self.config(0)})
        return Message(content, dst_node_id=node_id, message_type=QUERY)

    def _ask_aside(self, node_ids: Iterable[int]) -> None:
        """Ask nodes who they are, and wait for nothing: `introductions` looks for the answer."""
        if messages := [self._who_are_you(node_id) for node_id in node_ids]:
            taken = {each for each in self.grid.push_messages(messages) if each}
            ids = {message.metadata.dst_node_id: message.metadata.message_id for message in messages}
            self._awaited |= {node_id: message_id for node_id, message_id in ids.items() if message_id in taken}

    def _late_answers(self) -> dict[int, Message]:
        """Answers that nobody waited for, by node; a question that Flower has lost is asked once more."""
        arrived, lost = {}, []
        if self._awaited:
            asked = {message_id: node_id for node_id, message_id in self._awaited.items()}
            for reply in self.grid.pull_messages(list(asked)):
                node_id = asked.get(reply.metadata.reply_to_message_id)
                if node_id is None or self._awaited.pop(node_id, None) is None:
                    continue
                if reply.metadata.src_node_id == node_id:
                    arrived[node_id] = reply
                else:
                    lost.append(node_id)
        unprobed = [n for n, name in self.present.items() if name in self._silent.left_out and n not in self._awaited]
        self._ask_aside([*lost, *(node_id for node_id in unprobed if node_id not in {*arrived, *lost})])
        return arrived

    def _read_registrations(self) -> list[str]:
        """Read `nodes-file` anew; one that was spoiled while the run goes on is told, and what it said before holds."""
        if self._registered is not None:
            try:
                self._registered = registered_nodes(self.settings.nodes_file)
            except SettingsError as error:
                return [str(error)]
        return []

    def _forget_all_but(self, here: set[int]) -> None:
        """Forget nodes that are gone, and those that are registered as another client now, or no more."""
        registered = self._registered
        bound = self.present if registered is None else registered
        self.present = {n: name for n, name in self.present.items() if n in here and bound.get(n) == name}
        self._awaited = {
            n: asked for n, asked in self._awaited.items() if n in here and (registered is None or n in bound)
        }
        self.showing = {n: examples for n, examples in self.showing.items() if n in self.present}

    def _nodes(self) -> list[int]:
        """The nodes that are there; where keys are registered for clients, those of registered ones alone."""
        registered = self._registered
        return [n for n in self.grid.get_node_ids() if registered is None or n in registered]

    def _missing(self) -> str:
        """The registered clients that are not there, for the end of a message."""
        there = {*self._nodes()}
        missing = sorted(name for node_id, name in (self._registered or {}).items() if node_id not in there)
        return f"; not there: {printable(', '.join(missing))}" if missing else ""

    def _label(self, node_id: int) -> str:
        """A node as people know it: by the name of its client, where that is known."""
        known = {node: name for name, node in self._had.items()} | self.present | (self._registered or {})
        return f"{known[node_id]} (node {node_id})" if node_id in known else f"node {node_id}"

    def hold_back(self, server_round: int) -> None:
        """Begin a round: everybody takes part but those of a simulation that are to come later, and who is left out."""
        absent = self.settings.absent_domains(server_round)
        self._silent.begin_round()
        left_out = {name: rounds for name, rounds in self._silent.left_out.items() if name in self.present.values()}
        self._unwritten += [
            f"{name}: left out, silent in {rounds} rounds in a row" for name, rounds in left_out.items()
        ]
        self.names = {
            n: name for n, name in self.present.items() if domain_of(name) not in absent and name not in left_out
        }

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

    def config(self, server_round: int, settings: RunSettings | None = None) -> ConfigRecord:
        """Pack the round and the run's settings, or others in their place, as far as they are the clients' business."""
        told = settings or self.settings
        return config_record(told.disclosed() if self.deployed else told, server_round)

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
        self._leave_out_silent(answers)
        return phase

    def _leave_out_silent(self, answers: Answers) -> None:
        """Take who has been silent for too long out of the run, until it answers again."""
        silent = [self.names[node_id] for node_id in answers.unanswered if node_id in self.names]
        answered = {name for n, name in self.names.items() if n in answers.down and name not in silent}
        newly = self._silent.asked(answered, silent)
        for name in newly:
            rounds = self._silent.left_out[name]
            self.progress.note(f"{name} was silent in {rounds} rounds in a row: it is left out until it answers again")
        self._ask_aside([node_id for node_id, name in self.names.items() if name in newly])
        self.names = {node_id: name for node_id, name in self.names.items() if name not in newly}

    def check_told(
        self, content: RecordDict, declared: Iterable[Metric], part: Literal["train", "test"], each: int = 1
    ) -> None:
        """Refuse metrics that were not declared, and more examples than the client said it has.

        Parameters
        ----------
        content
            Of a reply.
        declared
            What it may tell.
        part
            Which of the client's examples it counts.
        each
            How much one of them counts: its pixels, where labels are maps.

        Raises
        ------
        BadReply
            Naming the metric.
        """
        metrics = content.metric_records["metrics"]
        check_metrics(metrics, declared)
        told, held = metrics.get(NUM_EXAMPLES, 0), self.held.get(sender(content))
        most = None if held is None else getattr(held, part) * each
        if most is not None and cast(int, told) > most:
            raise BadReply(f"{NUM_EXAMPLES} is {told}, but it said that it has {getattr(held, part)} {part}-examples")

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
        answers.kinds = {message.metadata.dst_node_id: message.metadata.message_type for message in messages}
        if stage:
            self.progress.stage(stage, len(messages))
        limit = self.settings.in_flight or len(messages)
        unsent = iter(messages)
        waiting: dict[str, int] = {}
        deadline, pause = time.monotonic() + timeout, FIRST_PAUSE
        while time.monotonic() < deadline:
            if batch := list(itertools.islice(unsent, limit - len(waiting))):  # a SuperLink refuses an empty one
                taken = {each for each in self.grid.push_messages(batch) if each}
                for message in batch:
                    if message.metadata.message_id in taken:
                        waiting[message.metadata.message_id] = message.metadata.dst_node_id
                    else:
                        answers.refused.append(message.metadata.dst_node_id)
            if not waiting:
                if batch:
                    continue  # all of these were refused; others may wait to be sent
                break
            arrived = 0
            for reply in self.grid.pull_messages(set(waiting)):
                node_id = waiting.pop(reply.metadata.reply_to_message_id, None)
                # What the SuperLink says in a node's place is no answer of it.
                if node_id is not None and reply.metadata.src_node_id == node_id:
                    answers.replies.append(reply)
                    arrived += 1
            if stage and arrived:
                self.progress.advance(arrived)
            pause = FIRST_PAUSE if arrived else min(LONGEST_PAUSE, pause * 1.2)
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        answered = {reply.metadata.src_node_id for reply in answers.replies}
        answers.unanswered = [node_id for node_id in answers.down if node_id not in {*answered, *answers.refused}]
        answers.pending = {node_id: message_id for message_id, node_id in waiting.items()}
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
        try:
            phase.up[name] = guarded(partial(payload_bytes, reply.content))
            if (kind := reply.metadata.message_type) != answers.kinds.get(node_id, kind):
                raise BadReply(f"answers as {printable(kind, 40)}, expected {answers.kinds[node_id]}")
            if (said := guarded(partial(sender, reply.content))) != name:
                raise BadReply(f"calls itself {said} now")
            guarded(partial(check, reply.content))
        except BadReply as error:
            phase.failures.append(f"{name}: dropped, {printable(error)}")
            continue
        phase.replies[name] = reply
    return phase


def guarded(check: Callable[[], Checked]) -> Checked:
    """Call what looks at foreign content, and take whatever it raises for a fault of that content.

    A check says what is wrong by `BadReply`. What else it raises was not foreseen: it is logged with its type and
    place, so that a fault of our own is found.

    Raises
    ------
    BadReply
        In the place of anything else.
    """
    try:
        return check()
    except BadReply:
        raise
    except Exception as error:  # MemoryError and RecursionError too: hostile content may raise any of them
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {printable(error, 120)}"
        LOG.error("a check of a client's reply raised %s, at %s:%s", said, place.filename, place.lineno)
        raise BadReply(f"can't be checked: {said}") from None


def account(evaluation: Phase, training: Phase | None = None, before: Iterable[str] = ()) -> dict[str, Any]:
    """Say for a line of metrics.jsonl what two phases cost each client, added up, and what failed then and before."""
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
    return {"clients": clients, "failures": [*before, *training.failures, *evaluation.failures]}


def last_line(text: str | None) -> str:
    """Return the last line of an error's text, made harmless and short: what it says, without the traceback."""
    last = str(text or "")[-LONGEST_REASON:].replace("\\n", "\n")
    lines = [line.strip() for line in last.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else "no reason given"


def first_reason(failures: list[str]) -> str:
    """Return the first failure of a phase without replies."""
    return failures[0] if failures else "no client was asked"
