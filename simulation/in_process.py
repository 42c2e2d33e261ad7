"""A federation without a network: real messages, the real ClientApp, no process but this one.

For tests, and for programs that measure what the network has no say in, such as clients that send bad uploads.
"""

from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fmtda.clients.app import app

Tamper = Callable[[Message, Message], Message | None]


def belong_to_a_run() -> None:
    """Give this process what Flower's own processes have: a run and a task that its messages belong to."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


class InProcessGrid(Grid):
    """Flower's grid as far as the server uses it; every message is answered by `clients.app.app` at once.

    Parameters
    ----------
    node_configs
        Each node's config by its id.
    tamper
        Gets a message and its honest reply, and returns the reply to deliver, or None for silence.
    reverse
        Deliver the replies in the opposite order.
    """

    def __init__(self, node_configs: dict[int, dict], tamper: Tamper | None = None, reverse: bool = False) -> None:
        self.node_configs, self.tamper, self.reverse = node_configs, tamper, reverse
        self.sent: list[Message] = []
        self._replies: dict[str, Message] = {}

    @classmethod
    def simulated(cls, clients: int, first_node_id: int = 100, **options) -> "InProcessGrid":
        """Nodes numbered as a simulation does, their ids falling from the first partition to the last."""
        node_configs = {
            first_node_id + clients - partition: {"partition-id": partition, "num-partitions": clients}
            for partition in range(clients)
        }
        return cls(node_configs, **options)

    def get_node_ids(self) -> list[int]:
        return list(self.node_configs)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed, messages = [], list(messages)
        if not messages:
            raise ValueError("a SuperLink refuses a push of no messages")
        for message in messages:
            node_id, message_id = message.metadata.dst_node_id, f"message {len(self.sent)}"
            # Many messages share their content, not their metadata: only the SuperLink gives them their ids.
            message.metadata.__dict__["_message_id"] = message_id
            self.sent.append(message)
            context = Context(1, node_id, dict(self.node_configs[node_id]), RecordDict(), {})
            try:
                reply = app(message, context)
            except Exception as error:
                reply = Message(Error(code=2, reason=f"Traceback\n{type(error).__name__}: {error}"), reply_to=message)
            reply = self.tamper(message, reply) if self.tamper else reply
            if reply is not None:
                self._replies[message_id] = reply
            pushed.append(message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        arrived = [self._replies.pop(each) for each in list(self._replies) if each in set(message_ids)]
        return arrived[::-1] if self.reverse else arrived

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError("the server must not block on replies")

    def create_message(self, *arguments, **options):
        raise NotImplementedError("deprecated in Flower")

    def set_run(self, run) -> None:
        raise NotImplementedError("a grid in one process belongs to no run")

    @property
    def run(self):
        raise NotImplementedError("a grid in one process belongs to no run")
