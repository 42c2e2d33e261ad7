"""The conversation with the clients: who takes part, messages out, replies in, checked and sorted by name."""

import re

import pytest
import torch
from flwr.app import Error, Message, RecordDict

from fmtda.protocol.records import BadReply, check_records, config_record, payload_bytes, reply_to, to_record
from fmtda.protocol.tables import SettingsError
from fmtda.server.conversation import Answers, Conversation, admit, last_line


@pytest.fixture
def settings(settings_of, tmp_path):
    return settings_of(
        {"data.targets": "blend,pen", "clients": 4, "join-timeout": 0.1, "timeout": 0.2, "output": str(tmp_path)}
    )


def asked(grid, settings, silence) -> tuple[Conversation, list[str]]:
    """A conversation after the introductions, and the problems that these brought up."""
    conversation = Conversation(grid, settings, silence)
    return conversation, conversation.introductions(settings.timeout)


def introduced(grid, settings, silence) -> Conversation:
    """A conversation after introductions without problems."""
    conversation, problems = asked(grid, settings, silence)
    assert not problems
    return conversation


def test_nodes_are_known_by_their_clients_names_in_order(grid_of, settings, silence):
    conversation = introduced(grid_of.simulated(4), settings, silence)
    assert list(conversation.names.values()) == ["blend/0000", "blend/0001", "pen/0000", "pen/0001"]
    assert conversation.names == {104: "blend/0000", 103: "pen/0000", 102: "blend/0001", 101: "pen/0001"}


def test_a_cohort_is_drawn_by_name_and_not_by_node_id(grid_of, settings, silence):
    settings = settings.changed({"clients": 8, "fraction": 0.5})
    drawn = []
    for first_node_id in (100, 900):
        conversation = introduced(grid_of.simulated(8, first_node_id), settings, silence)
        rounds = [conversation.cohort(server_round) for server_round in range(1, 6)]
        assert all(cohort.get_node_ids() == list(cohort.names) for cohort in rounds)
        drawn.append([[conversation.names[node_id] for node_id in cohort.get_node_ids()] for cohort in rounds])
    assert drawn[0] == drawn[1]
    assert all(len(names) == 4 and names == sorted(names) for names in drawn[0])
    assert len({tuple(names) for names in drawn[0]}) > 1


def test_a_cohort_has_one_client_at_least_and_all_at_fraction_one(grid_of, settings, silence):
    few = introduced(grid_of.simulated(4), settings.changed({"fraction": 0.01}), silence)
    assert len(few.cohort(1).get_node_ids()) == 1
    conversation = introduced(grid_of.simulated(4), settings, silence)
    assert conversation.cohort(1).names == conversation.names


def test_another_seed_draws_another_cohort(grid_of, settings, silence):
    drawn = []
    for seed in (0, 1):
        halves = settings.changed({"seed": seed, "fraction": 0.5})
        conversation = introduced(grid_of.simulated(4), halves, silence)
        drawn.append([tuple(conversation.cohort(server_round).get_node_ids()) for server_round in range(8)])
    assert drawn[0] != drawn[1]


def test_who_arrives_is_asked_whatever_is_drawn_from_the_others(grid_of, settings, silence):
    conversation = introduced(grid_of.simulated(4), settings.changed({"fraction": 0.01}), silence)
    for server_round in range(1, 6):
        names = list(conversation.cohort(server_round, {"pen/0001"}).names.values())
        assert len(names) == 2 and names[-1] == "pen/0001"
    everybody = conversation.cohort(1, set(conversation.names.values()))
    assert everybody.names == conversation.names


def test_simulated_clients_that_come_late_are_held_back_until_their_round(grid_of, settings_of, silence, tmp_path):
    late = {"simulation.late": "pen", "simulation.late-round": 2, "data.targets": "blend,pen", "clients": 1}
    conversation = introduced(grid_of.simulated(2), settings_of({**late, "output": str(tmp_path)}), silence)
    taking_part = []
    for server_round in (1, 2, 3):
        conversation.hold_back(server_round)
        taking_part.append(list(conversation.everybody().names.values()))
        assert conversation.cohort(server_round).names == conversation.names
        messages = conversation.messages("evaluate", {}, config_record(conversation.settings, server_round))
        assert [message.metadata.dst_node_id for message in messages] == list(conversation.names)
    assert taking_part == [["blend/0000"], ["blend/0000", "pen/0000"], ["blend/0000", "pen/0000"]]
    assert list(conversation.present.values()) == ["blend/0000", "pen/0000"]


@pytest.mark.parametrize("reverse", [False, True])
def test_of_two_new_nodes_of_one_name_neither_takes_part_whoever_answers_first(grid_of, settings, silence, reverse):
    node = {"domain": "pen", "folder": settings.output}
    conversation, problems = asked(grid_of({1: node, 2: node}, reverse=reverse), settings, silence)
    assert problems == [
        "pen/0000: nodes 1 and 2 say that they are it, and nobody can tell which is; give each its own domain or share"
    ]
    assert conversation.names == {}


@pytest.mark.parametrize("reverse", [False, True])
def test_a_name_stays_with_the_node_that_had_it(grid_of, settings, silence, reverse):
    node = {"domain": "pen", "folder": settings.output}
    grid = grid_of({5: node}, reverse=reverse)
    conversation = introduced(grid, settings, silence)
    grid.node_configs[2] = node
    assert conversation.introductions(1.0) == ["node 2 can't take part: pen/0000 is node 5's name already"]
    assert conversation.names == {5: "pen/0000"}
    assert conversation.introductions(1.0) == []  # told once, though it is asked again
    del grid.node_configs[5], grid.node_configs[2]
    conversation.introductions(1.0)
    grid.node_configs |= {2: node, 5: node}  # both come at once
    assert conversation.introductions(1.0) == ["node 2 can't take part: pen/0000 is node 5's name already"]
    assert conversation.names == {5: "pen/0000"}


def test_a_late_node_is_asked_alone(grid_of, settings, silence):
    grid = grid_of.simulated(4)
    conversation = introduced(grid, settings, silence)
    grid.node_configs[7] = {"domain": "pen", "share": 2, "shares": 3, "folder": settings.output}
    assert conversation.introductions(settings.timeout) == []
    assert [message.metadata.dst_node_id for message in grid.sent[4:]] == [7]
    assert list(conversation.names.values()) == ["blend/0000", "blend/0001", "pen/0000", "pen/0001", "pen/0002"]


def test_a_node_that_left_takes_part_no_more(grid_of, settings, silence):
    grid = grid_of.simulated(4)
    conversation = introduced(grid, settings, silence)
    del grid.node_configs[103]
    assert conversation.introductions(settings.timeout) == []
    assert list(conversation.names.values()) == ["blend/0000", "blend/0001", "pen/0001"]
    assert len(grid.sent) == 4


@pytest.mark.parametrize("nodes", [0, 2, 6])
def test_a_wrong_number_of_nodes_is_refused_with_the_option_that_helps(grid_of, settings, silence, nodes):
    with pytest.raises(SettingsError) as caught:
        Conversation(grid_of.simulated(nodes), settings, silence).wait()
    message = str(caught.value)
    assert message.startswith(f"clients=4, but the federation has {nodes} nodes")
    assert "--federation-config 'num-supernodes=4'" in message
    assert "\n" not in message


def test_the_right_number_of_nodes_is_waited_for(grid_of, settings, silence):
    grid = grid_of.simulated(4)
    late = grid.node_configs.popitem()
    looks = []

    def get_node_ids():
        looks.append(1)
        if len(looks) == 3:
            grid.node_configs[late[0]] = late[1]
        return list(grid.node_configs)

    grid.get_node_ids = get_node_ids
    Conversation(grid, settings.changed({"join-timeout": 30.0}), silence).wait()
    assert len(looks) == 3


def test_a_client_without_usable_data_is_named_with_its_reason(grid_of, settings, silence):
    conversation, (problem,) = asked(grid_of({1: {"domain": "nowhere"}}), settings, silence)
    assert re.fullmatch("a client can't take part: DataError: .*nowhere.*", problem)
    assert not conversation.names


def test_a_node_that_is_silent_is_refused(grid_of, settings, silence):
    grid = grid_of.simulated(4, tamper=lambda sent, reply: None if sent.metadata.dst_node_id == 101 else reply)
    conversation, problems = asked(grid, settings.changed({"timeout": 0.5}), silence)
    assert problems == ["node 101 did not say who it is"]
    assert len(conversation.names) == 3


def test_a_node_that_says_something_else_is_refused(grid_of, settings, silence):
    tampers = {
        "'metrics'": lambda sent, _: Message(RecordDict(), reply_to=sent),
        "names no client": lambda sent, _: reply_to(sent, "", {}),
        "out of memory": lambda sent, _: Message(Error(1, "out of memory"), reply_to=sent),
    }
    for reason, tamper in tampers.items():
        conversation, (problem,) = asked(grid_of.simulated(1, tamper=tamper), settings, silence)
        assert "can't take part" in problem
        assert reason in problem
        assert not conversation.names


def test_a_node_that_restarted_takes_its_name_again(grid_of, settings, silence):
    grid = grid_of({1: {"domain": "pen", "folder": settings.output}})
    conversation = introduced(grid, settings, silence)
    grid.node_configs[2] = grid.node_configs.pop(1)
    assert conversation.introductions(settings.timeout) == []
    assert conversation.names == {2: "pen/0000"}


@pytest.mark.parametrize(
    ("text", "line"),
    [("Traceback\n  File\nValueError: x\n\n", "ValueError: x"), ("a\\nb", "b"), ("", "no reason given")],
)
def test_the_last_line_is_what_an_error_says(text, line):
    assert last_line(text) == line


@pytest.fixture
def question(settings_of, tmp_path):
    return RecordDict({"config": config_record(settings_of({"data.targets": "blend,pen", "output": str(tmp_path)}), 0)})


def to(node_ids, content):
    return [Message(content, dst_node_id=node_id, message_type="query") for node_id in node_ids]


@pytest.fixture
def exchange(settings, silence):
    """Messages and their replies over a grid, with a limit of messages under way; 0 for none."""

    def exchanged(grid, messages, timeout, limit=0) -> Answers:
        return Conversation(grid, settings.changed({"in-flight": limit}), silence).exchange(messages, timeout)

    return exchanged


def test_every_reply_and_the_bytes_sent_come_back(grid_of, exchange, question):
    answers = exchange(grid_of.simulated(4), to([101, 102, 103, 104], question), timeout=10)
    assert sorted(reply.metadata.src_node_id for reply in answers.replies) == [101, 102, 103, 104]
    assert answers.down == dict.fromkeys([101, 102, 103, 104], payload_bytes(question))
    assert answers.unanswered == []


def test_silent_nodes_are_named_after_the_timeout(grid_of, exchange, question):
    grid = grid_of.simulated(4, tamper=lambda sent, reply: reply if sent.metadata.dst_node_id % 2 else None)
    answers = exchange(grid, to([101, 102, 103, 104], question), timeout=0.2)
    assert answers.unanswered == [102, 104]
    assert len(answers.replies) == 2


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_messages_than_the_limit_are_under_way(grid_of, exchange, question, limit):
    grid = grid_of.simulated(8)
    waiting = []
    pull = grid.pull_messages

    def one_at_a_time(message_ids):
        waiting.append(len(message_ids))
        return pull(sorted(message_ids)[:1])

    grid.pull_messages = one_at_a_time
    answers = exchange(grid, to(grid.get_node_ids(), question), timeout=30, limit=limit)
    assert max(waiting) == limit
    assert len(answers.replies) == 8


@pytest.mark.parametrize("limit", [1, 0])
@pytest.mark.parametrize("in_their_place", [[None], []], ids=["none", "left out"])
def test_what_flower_does_not_take_is_told_apart_from_silence(grid_of, exchange, question, limit, in_their_place):
    grid = grid_of.simulated(3)
    push = grid.push_messages

    def push_all_but_one(messages):
        taken = [message for message in messages if message.metadata.dst_node_id != 102]
        return [*(push(taken) if taken else []), *(in_their_place if len(taken) < len(messages) else [])]

    grid.push_messages = push_all_but_one
    answers = exchange(grid, to([101, 102, 103], question), timeout=30, limit=limit)
    assert sorted(reply.metadata.src_node_id for reply in answers.replies) == [101, 103]
    assert (answers.refused, answers.unanswered) == ([102], [])


def test_no_message_needs_no_reply(grid_of, exchange):
    answers = exchange(grid_of.simulated(1), [], timeout=10)
    assert (answers.replies, answers.unanswered, answers.down) == ([], [], {})


def test_what_goes_wrong_in_a_question_to_all_is_told_with_its_stage(grid_of, settings, silence):
    grid = grid_of.simulated(2)
    conversation = introduced(grid, settings, silence)
    grid.tamper = lambda sent, _: Message(Error(1, "out of memory"), reply_to=sent)
    messages = conversation.messages("query", {}, config_record(settings, 0))
    phase = conversation.ask("clients are asked", messages, check_records)
    assert phase.replies == {}
    assert silence.notes == [f"clients are asked: {failure}" for failure in phase.failures]
    assert phase.failures == ["blend/0000: out of memory", "pen/0000: out of memory"]
    assert conversation.ask("nobody is asked", [], check_records).failures == []


NAMES = {9: "blend/0000", 5: "pen/0000", 7: "pen/0001"}


def reply(node_id, name, **records):
    asked = Message(RecordDict(), dst_node_id=node_id, message_type="train")
    return reply_to(asked, name, {"seconds": 1.0}, **records)


def failed(node_id, reason):
    return Message(Error(1, reason), reply_to=Message(RecordDict(), dst_node_id=node_id, message_type="train"))


def admitted(replies, unanswered=(), check=check_records):
    return admit(Answers(replies, dict.fromkeys(NAMES, 1000), list(unanswered)), NAMES, check, timeout=5.0)


@pytest.mark.parametrize("order", [(9, 5, 7), (7, 5, 9), (5, 9, 7)])
def test_replies_are_sorted_by_name_whatever_order_they_came_in(order):
    phase = admitted([reply(node_id, NAMES[node_id]) for node_id in order])
    assert list(phase.replies) == ["blend/0000", "pen/0000", "pen/0001"]
    assert phase.failures == []
    assert phase.down == dict.fromkeys(NAMES.values(), 1000)
    assert phase.up.keys() == set(NAMES.values())


def test_an_error_is_named_by_its_last_line():
    phase = admitted([failed(5, "Traceback\n  in train\nValueError: no disk"), reply(9, "blend/0000")])
    assert phase.failures == ["pen/0000: ValueError: no disk"]
    assert list(phase.replies) == ["blend/0000"]


def test_a_silent_client_is_named_with_the_seconds_waited():
    phase = admitted([reply(9, "blend/0000"), reply(5, "pen/0000")], unanswered=[7])
    assert phase.failures == ["pen/0001: no answer within 5 s"]
    assert "pen/0001" not in phase.replies


def test_a_client_under_anothers_name_is_dropped():
    phase = admitted([reply(9, "blend/0000"), reply(5, "pen/0001"), reply(7, "pen/0001")])
    assert phase.failures == ["pen/0000: dropped, calls itself pen/0001 now"]
    assert list(phase.replies) == ["blend/0000", "pen/0001"]
    assert phase.replies["pen/0001"].metadata.src_node_id == 7


def test_a_reply_that_fails_its_check_is_dropped_and_its_bytes_still_count():
    junk = reply(5, "pen/0000", extra=to_record({"weight": torch.zeros(100)}))
    phase = admitted([junk, reply(9, "blend/0000")])
    assert phase.failures[0].startswith("pen/0000: dropped, holds the records")
    assert phase.up["pen/0000"] > 400
    assert list(phase.replies) == ["blend/0000"]


def test_every_failure_is_listed_in_order_of_the_names():
    def refuse(content):
        raise BadReply("no good")

    phase = admitted([reply(7, "pen/0001"), failed(5, "gone")], unanswered=[9], check=refuse)
    assert phase.failures == [
        "blend/0000: no answer within 5 s",
        "pen/0000: gone",
        "pen/0001: dropped, no good",
    ]
    assert phase.replies == {}
