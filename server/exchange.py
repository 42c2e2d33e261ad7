"""Messages out, replies in: with a time limit, with progress, and counted in bytes."""

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from fmtda.protocol.records import payload_bytes
from fmtda.server.progress import Progress

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
"""Seconds between two looks for replies: short at first, longer while nothing comes, so that a SuperLink rests."""


NOT_TAKEN = "Flower did not take the message: the node is gone, or the message is too large"


@dataclass
class Answers:
    """What came back, in order of arrival, and what went out to whom."""

    replies: list[Message] = field(default_factory=list)
    down: dict[int, int] = field(default_factory=dict)
    """Bytes sent, by node id."""
    unanswered: list[int] = field(default_factory=list)
    """Node ids that did not answer in time."""
    refused: list[int] = field(default_factory=list)
    """Node ids whose message Flower did not take."""


@dataclass(frozen=True)
class Exchange:
    """Sends messages through Flower's grid and collects the replies.

    Attributes
    ----------
    grid
        Flower's.
    progress
        Who is told how many replies have come.
    in_flight
        Messages under way at once at most, 0 for no limit. Flower's simulation looks through all waiting messages
        for each of its nodes, again and again: with 400 messages waiting, that alone kept one core busy (measured).
    """

    grid: Grid
    progress: Progress
    in_flight: int

    def send(self, messages: Iterable[Message], timeout: float, stage: str = "") -> Answers:
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
        limit = self.in_flight or len(messages)
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
