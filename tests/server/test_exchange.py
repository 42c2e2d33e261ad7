"""Messages out and replies in: counted, limited in number and in time."""

import pytest
from flwr.app import Message, RecordDict

from fmtda.protocol.records import config_record, payload_bytes
from fmtda.server.exchange import Exchange


@pytest.fixture
def question(settings_of, tmp_path):
    return RecordDict({"config": config_record(settings_of({"data.targets": "blend,pen", "output": str(tmp_path)}), 0)})


def to(node_ids, content):
    return [Message(content, dst_node_id=node_id, message_type="query") for node_id in node_ids]


def test_every_reply_and_the_bytes_sent_come_back(grid_of, silence, question):
    answers = Exchange(grid_of.simulated(4), silence, in_flight=0).send(to([101, 102, 103, 104], question), timeout=10)
    assert sorted(reply.metadata.src_node_id for reply in answers.replies) == [101, 102, 103, 104]
    assert answers.down == dict.fromkeys([101, 102, 103, 104], payload_bytes(question))
    assert answers.unanswered == []


def test_silent_nodes_are_named_after_the_timeout(grid_of, silence, question):
    grid = grid_of.simulated(4, tamper=lambda sent, reply: reply if sent.metadata.dst_node_id % 2 else None)
    answers = Exchange(grid, silence, in_flight=0).send(to([101, 102, 103, 104], question), timeout=0.2)
    assert answers.unanswered == [102, 104]
    assert len(answers.replies) == 2


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_messages_than_the_limit_are_under_way(grid_of, silence, question, limit):
    grid = grid_of.simulated(8)
    waiting = []
    pull = grid.pull_messages

    def one_at_a_time(message_ids):
        waiting.append(len(message_ids))
        return pull(sorted(message_ids)[:1])

    grid.pull_messages = one_at_a_time
    answers = Exchange(grid, silence, limit).send(to(grid.get_node_ids(), question), timeout=30)
    assert max(waiting) == limit
    assert len(answers.replies) == 8


@pytest.mark.parametrize("limit", [1, 0])
@pytest.mark.parametrize("in_their_place", [[None], []], ids=["none", "left out"])
def test_what_flower_does_not_take_is_told_apart_from_silence(grid_of, silence, question, limit, in_their_place):
    grid = grid_of.simulated(3)
    push = grid.push_messages

    def push_all_but_one(messages):
        taken = [message for message in messages if message.metadata.dst_node_id != 102]
        return [*(push(taken) if taken else []), *(in_their_place if len(taken) < len(messages) else [])]

    grid.push_messages = push_all_but_one
    answers = Exchange(grid, silence, limit).send(to([101, 102, 103], question), timeout=30)
    assert sorted(reply.metadata.src_node_id for reply in answers.replies) == [101, 103]
    assert (answers.refused, answers.unanswered) == ([102], [])


def test_no_message_needs_no_reply(grid_of, silence):
    answers = Exchange(grid_of.simulated(1), silence, in_flight=0).send([], timeout=10)
    assert (answers.replies, answers.unanswered, answers.down) == ([], [], {})
