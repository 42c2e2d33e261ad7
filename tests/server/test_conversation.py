"""Who takes part: by name, whatever node ids Flower draws."""

import re

import pytest
from flwr.app import Error, Message, RecordDict

from fmtda.protocol.records import reply_to
from fmtda.protocol.settings import SettingsError
from fmtda.server.exchange import Exchange
from fmtda.server.roster import Roster, last_line


@pytest.fixture
def settings(settings_of, tmp_path):
    return settings_of(
        {"data.targets": "blend,pen", "clients": 4, "join-timeout": 0.1, "timeout": 0.2, "output": str(tmp_path)}
    )


def asked(grid, settings, silence) -> tuple[Roster, list[str]]:
    """A roster after its call, and the problems it reported."""
    roster = Roster()
    return roster, roster.call(Exchange(grid, silence, in_flight=0), grid, settings, settings.timeout)


def called(grid, settings, silence) -> Roster:
    """A roster after a call without problems."""
    roster, problems = asked(grid, settings, silence)
    assert not problems
    return roster


def test_nodes_are_known_by_their_clients_names_in_order(grid_of, settings, silence):
    roster = called(grid_of.simulated(4), settings, silence)
    assert list(roster.names.values()) == ["blend/0000", "blend/0001", "pen/0000", "pen/0001"]
    assert roster.names == {104: "blend/0000", 103: "pen/0000", 102: "blend/0001", 101: "pen/0001"}


def test_a_cohort_is_drawn_by_name_and_not_by_node_id(grid_of, settings, silence):
    settings = settings.changed({"clients": 8, "fraction": 0.5})
    drawn = []
    for first_node_id in (100, 900):
        roster = called(grid_of.simulated(8, first_node_id), settings, silence)
        rounds = [roster.cohort(settings, server_round).get_node_ids() for server_round in range(1, 6)]
        drawn.append([[roster.names[node_id] for node_id in node_ids] for node_ids in rounds])
    assert drawn[0] == drawn[1]
    assert all(len(names) == 4 and names == sorted(names) for names in drawn[0])
    assert len({tuple(names) for names in drawn[0]}) > 1


def test_a_cohort_has_one_client_at_least_and_all_at_fraction_one(grid_of, settings, silence):
    roster = called(grid_of.simulated(4), settings, silence)
    assert len(roster.cohort(settings.changed({"fraction": 0.01}), 1).get_node_ids()) == 1
    assert roster.cohort(settings, 1).get_node_ids() == list(roster.names)


def test_another_seed_draws_another_cohort(grid_of, settings, silence):
    roster = called(grid_of.simulated(4), settings, silence)
    drawn = [
        [tuple(roster.cohort(settings.changed({"seed": s, "fraction": 0.5}), r).get_node_ids()) for r in range(8)]
        for s in (0, 1)
    ]
    assert drawn[0] != drawn[1]


def test_two_nodes_of_one_name_are_refused(grid_of, settings, silence):
    node = {"domain": "pen", "folder": settings.output}
    roster, problems = asked(grid_of({1: node, 2: node}), settings, silence)
    assert problems == ["two nodes say that they are pen/0000; give each its own domain or share"]
    assert list(roster.names.values()) == ["pen/0000"]


def test_a_late_node_is_asked_alone(grid_of, settings, silence):
    grid = grid_of.simulated(4)
    roster = called(grid, settings, silence)
    grid.node_configs[7] = {"domain": "street", "folder": settings.output}
    roster.call(Exchange(grid, silence, in_flight=0), grid, settings, settings.timeout)
    assert [message.metadata.dst_node_id for message in grid.sent[4:]] == [7]
    assert list(roster.names.values()) == ["blend/0000", "blend/0001", "pen/0000", "pen/0001", "street/0000"]


@pytest.mark.parametrize("nodes", [0, 2, 6])
def test_a_wrong_number_of_nodes_is_refused_with_the_option_that_helps(grid_of, settings, nodes):
    with pytest.raises(SettingsError) as caught:
        Roster().wait(grid_of.simulated(nodes), settings)
    message = str(caught.value)
    assert message.startswith(f"clients=4, but the federation has {nodes} nodes")
    assert "--federation-config 'num-supernodes=4'" in message
    assert "\n" not in message


def test_the_right_number_of_nodes_is_waited_for(grid_of, settings):
    grid = grid_of.simulated(4)
    late = grid.node_configs.popitem()
    looks = []

    def get_node_ids():
        looks.append(1)
        if len(looks) == 3:
            grid.node_configs[late[0]] = late[1]
        return list(grid.node_configs)

    grid.get_node_ids = get_node_ids
    Roster().wait(grid, settings.changed({"join-timeout": 30.0}))
    assert len(looks) == 3


def test_a_client_without_usable_data_is_named_with_its_reason(grid_of, settings, silence):
    roster, (problem,) = asked(grid_of({1: {"domain": "nowhere"}}), settings, silence)
    assert re.fullmatch("a client can't take part: DataError: .*nowhere.*", problem)
    assert not roster.names


def test_a_node_that_is_silent_is_refused(grid_of, settings, silence):
    grid = grid_of.simulated(4, tamper=lambda sent, reply: None if sent.metadata.dst_node_id == 101 else reply)
    roster, problems = asked(grid, settings.changed({"timeout": 0.5}), silence)
    assert problems == ["node 101 did not say who it is"]
    assert len(roster.names) == 3


def test_a_node_that_says_something_else_is_refused(grid_of, settings, silence):
    tampers = {
        "'metrics'": lambda sent, _: Message(RecordDict(), reply_to=sent),
        "names no client": lambda sent, _: reply_to(sent, "", {}),
        "out of memory": lambda sent, _: Message(Error(1, "out of memory"), reply_to=sent),
    }
    for reason, tamper in tampers.items():
        roster, (problem,) = asked(grid_of.simulated(1, tamper=tamper), settings, silence)
        assert "can't take part" in problem
        assert reason in problem
        assert not roster.names


def test_a_node_that_restarted_takes_its_name_again(grid_of, settings, silence):
    grid = grid_of({1: {"domain": "pen", "folder": settings.output}})
    roster = called(grid, settings, silence)
    grid.node_configs[2] = grid.node_configs.pop(1)
    assert roster.call(Exchange(grid, silence, in_flight=0), grid, settings, settings.timeout) == []
    assert roster.names == {2: "pen/0000"}


@pytest.mark.parametrize(
    ("text", "line"),
    [("Traceback\n  File\nValueError: x\n\n", "ValueError: x"), ("a\\nb", "b"), ("", "no reason given")],
)
def test_the_last_line_is_what_an_error_says(text, line):
    assert last_line(text) == line
