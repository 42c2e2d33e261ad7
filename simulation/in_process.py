"""Runs a federation in this process: real messages, the real ClientApp, neither Flower's nor Ray's processes.

For notebooks, for tests, and for programs that measure what the network has no say in, such as clients that send bad
uploads. `run_in_process` runs a whole federation; `InProcessGrid` is what it runs on.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn, Self

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fmtda.clients.app import app
from fmtda.protocol.client_names import domain_of
from fmtda.protocol.settings import RunSettings
from fmtda.server.app import new_output, run
from fmtda.server.progress import Progress
from fmtda.server.run_directory import RunDirectory
from fmtda.server.startup import check_simulation, check_source

Tamper = Callable[[Message, Message], Message | None]
"""A function of a message and its honest reply, which returns the reply to deliver, or None for silence."""


class Silent:
    """Watches a run, and shows nothing."""

    def stage(self, name: str, total: int) -> None: ...

    def advance(self, done: int) -> None: ...

    def round_done(self, server_round: int, rounds: int, reached: Mapping[str, float] | None) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def run_in_process(settings: RunSettings, progress: Progress | None = None) -> RunDirectory:
    """Run a whole federation in this process, one client after the other, or continue one.

    Parameters
    ----------
    settings : RunSettings
        As `fmtda.server.startup.effective_settings` makes them. Without an ``output``, a new folder below ``./runs``
        becomes the run directory.
    progress : Progress, optional
        A display that is told what happens, such as `fmtda.server.progress.Lines`; nobody by default.

    Returns
    -------
    RunDirectory
        What the run left: its metrics, its summary, its checkpoints.

    Raises
    ------
    SettingsError, DataError
        If the federation or the data don't fit the settings, or the settings ask for no federation.
    RunStopped, WriteError
        If the run can't go on; what was reached stays in the run directory.

    Notes
    -----
    Clients compute with one torch thread, and so does all else in this process from the first message on: equal seeds
    give what `fmtda simulate` gives with ``server-threads=1``.

    Examples
    --------
    >>> from fmtda.server.startup import effective_settings
    >>> settings = effective_settings({"data.targets": "blend,pen", "rounds": 1, "output": "runs/small"})
    >>> directory = run_in_process(settings)
    >>> directory.metrics()[-1]["accuracy"]["pen"]["mean"]
    """
    check_source(settings)
    check_simulation(settings)
    output = Path(settings.output).expanduser().absolute() if settings.output else new_output(settings)
    grid = InProcessGrid.simulated(settings.supernodes)
    return run(grid, settings.changed({"output": str(output)}), progress or Silent())


class InProcessGrid(Grid):
    """Does what the server uses of Flower's grid; every message is answered by fmtda's ClientApp at once.

    Parameters
    ----------
    node_configs : dict of int to dict
        Each node's config by its id. A node that is taken out has left, one that is put in has come.
    tamper : Tamper, optional
        A function that changes or drops replies.
    reverse : bool
        Whether to deliver the replies in the opposite order.

    Attributes
    ----------
    sent : list of Message
        Every message that a node has got, in order.

    Notes
    -----
    Flower's messages belong to a run and a task: where this process has none, the first grid says that it has.

    Examples
    --------
    A run in which the second of two clients never answers:

    >>> from fmtda.server.app import run
    >>> def tamper(message, reply):
    ...     return None if message.metadata.dst_node_id == 101 else reply
    >>> directory = run(InProcessGrid.simulated(2, tamper=tamper), settings, progress)
    """

    def __init__(
        self, node_configs: dict[int, UserConfig], tamper: Tamper | None = None, reverse: bool = False
    ) -> None:
        belong_to_a_run()
        self.node_configs, self.tamper, self.reverse = node_configs, tamper, reverse
        self.sent: list[Message] = []
        self._replies: dict[str, Message] = {}

    @classmethod
    def simulated(
        cls, clients: int, first_node_id: int = 100, *, tamper: Tamper | None = None, reverse: bool = False
    ) -> Self:
        """Number nodes as a simulation does; their ids fall from the first client to the last, down to the first id."""
        node_configs: dict[int, UserConfig] = {
            first_node_id + clients - partition: {"partition-id": partition, "num-partitions": clients}
            for partition in range(clients)
        }
        return cls(node_configs, tamper=tamper, reverse=reverse)

    @classmethod
    def deployed(
        cls,
        names: Iterable[str],
        folder: Path,
        data_dir: str = "",
        first_node_id: int = 1,
        *,
        tamper: Tamper | None = None,
        reverse: bool = False,
    ) -> Self:
        """Make nodes as a deployment has them: each knows its domain and share by its own config, and has a folder.

        Parameters
        ----------
        names
            The clients', one a node, in the order of the node ids.
        folder
            Below which each client keeps what is its own.
        data_dir
            Where their data lie.
        first_node_id
            The others follow.
        tamper, reverse
            See the class.

        Examples
        --------
        >>> grid = InProcessGrid.deployed(["blend/0000", "pen/0000"], folder)
        >>> directory = run(grid, settings, progress, deployed=True)
        """
        names = list(names)
        domains = [domain_of(name) for name in names]
        node_configs: dict[int, UserConfig] = {
            first_node_id + place: {
                "domain": domain,
                "share": int(name.rpartition("/")[2]),
                "shares": max(int(other.rpartition("/")[2]) + 1 for other in names if domain_of(other) == domain),
                "folder": str(folder / str(first_node_id + place)),
                "data-dir": data_dir,
            }
            for place, (name, domain) in enumerate(zip(names, domains, strict=True))
        }
        return cls(node_configs, tamper=tamper, reverse=reverse)

    def get_node_ids(self) -> list[int]:
        """Tell the ids of the nodes that are there."""
        return list(self.node_configs)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have each message answered, and keep the replies for `pull_messages`.

        Returns
        -------
        list of str
            The messages' ids; empty for one to a node that isn't there, as a SuperLink's is.

        Raises
        ------
        ValueError
            If there is no message.
        """
        messages = list(messages)
        if not messages:
            raise ValueError("no messages to push: a SuperLink refuses that, so the grid in one process does too")
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Hand out the replies to these messages, each once."""
        asked = set(message_ids)
        arrived = [self._replies.pop(each) for each in list(self._replies) if each in asked]
        return arrived[::-1] if self.reverse else arrived

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> NoReturn:
        """Refuse: fmtda's server never blocks on replies."""
        raise NotImplementedError(
            "a grid in one process has no send_and_receive, as fmtda's server never blocks on replies; "
            "use push_messages and then pull_messages"
        )

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> NoReturn:
        """Refuse: Flower has deprecated it."""
        raise NotImplementedError("Flower has deprecated Grid.create_message; make a flwr.app.Message instead")

    def set_run(self, run: object) -> NoReturn:
        """Refuse: there is no SuperLink that knows of runs."""
        raise NotImplementedError("a grid in one process belongs to no run of a SuperLink; leave set_run out")

    @property
    def run(self) -> NoReturn:
        """Refuse: there is no SuperLink that knows of runs."""
        raise NotImplementedError("a grid in one process belongs to no run of a SuperLink, so it can't tell which")

    def _push(self, message: Message) -> str:
        node_id, message_id = message.metadata.dst_node_id, f"message {len(self.sent)}"
        if node_id not in self.node_configs:
            return ""
        # Many messages share their content, not their metadata: only the SuperLink gives them their ids.
        message.metadata.__dict__["_message_id"] = message_id
        self.sent.append(message)
        honest = self._answer(message)
        reply = self.tamper(message, honest) if self.tamper else honest
        if reply is not None:
            self._replies[message_id] = reply
        return message_id

    def _answer(self, message: Message) -> Message:
        """The ClientApp's reply, or as Flower reports an error of it."""
        node_id = message.metadata.dst_node_id
        context = Context(TaskIdentity.run_id, node_id, dict(self.node_configs[node_id]), RecordDict(), {})
        try:
            return app(message, context)
        except Exception as error:
            return Message(Error(code=2, reason=f"Traceback\n{type(error).__name__}: {error}"), reply_to=message)


def belong_to_a_run() -> None:
    """Give this process what Flower's own processes have, where it has none: a run and a task for its messages."""
    for name in ("run_id", "node_id", "task_id"):
        try:
            getattr(TaskIdentity, name)
        except RuntimeError:  # not set
            setattr(TaskIdentity, name, 1)
