"""A federation in this process: a whole run from settings, and a grid that behaves as Flower's as far as it goes."""

import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fmtda.domains.examples import DataError
from fmtda.protocol.records import config_record
from fmtda.protocol.tables import SettingsError
from fmtda.server.run_directory import read_metrics
from fmtda.simulation.in_process import InProcessGrid, run_in_process
from tests.server.compared import without_times

pytestmark = pytest.mark.usefixtures("few_source_examples")


@pytest.fixture
def settings(settings_of, tmp_path):
    """Two clients of one domain with few examples."""
    few = {"data.target-limit": 40, "data.source-limit": 60, "inputs.randomise": False, "inputs.scenery": False}
    return settings_of({"data.targets": "pen", "clients": 2, "rounds": 1, "output": str(tmp_path / "run"), **few})


@pytest.fixture
def question(settings):
    """A message that asks a node who it is."""

    def to(node_id: int) -> Message:
        return Message(RecordDict({"config": config_record(settings, 0)}), dst_node_id=node_id, message_type="query")

    return to


def test_a_run_from_settings_leaves_a_run_directory_and_says_nothing(settings, capsys):
    directory = run_in_process(settings)
    assert str(directory.path) == settings.output
    assert [line["round"] for line in directory.metrics()] == [0, 1]
    assert (directory.path / "summary.json").exists()
    assert capsys.readouterr().out == ""


def test_a_run_goes_on_where_it_ended_as_if_it_had_been_that_long(settings, tmp_path):
    run_in_process(settings)
    longer = run_in_process(settings.changed({"rounds": 2, "resume": True}))
    unbroken = run_in_process(settings.changed({"rounds": 2, "output": str(tmp_path / "unbroken")}))
    assert [*map(without_times, longer.metrics())] == [*map(without_times, unbroken.metrics())]


def test_progress_is_told_and_a_run_without_an_output_gets_a_folder(settings, tmp_path, monkeypatch):
    class Told:
        def __init__(self):
            self.rounds = []

        def stage(self, name, total): ...

        def advance(self, done): ...

        def round_done(self, server_round, rounds, reached):
            self.rounds.append((server_round, rounds, list(reached)))

        def note(self, text): ...

        def close(self): ...

    monkeypatch.chdir(tmp_path)
    told = Told()
    directory = run_in_process(settings.changed({"output": ""}), told)
    assert told.rounds == [(0, 1, ["pen"]), (1, 1, ["pen"])]
    assert directory.path.parent == tmp_path / "runs"
    assert read_metrics(directory.path)


def test_what_is_no_federation_or_cant_be_split_is_refused(settings, generative_settings_of):
    with pytest.raises(SettingsError, match="strategy=pooled-data: that is no federation"):
        run_in_process(generative_settings_of("ddpm", {"strategy": "pooled-data"}))
    with pytest.raises(DataError, match="take fewer clients"):
        run_in_process(settings.changed({"clients": 41}))


def test_every_message_is_answered_once(question):
    grid = InProcessGrid.simulated(2)
    first, second = grid.push_messages([question(node_id) for node_id in grid.get_node_ids()])
    (reply,) = grid.pull_messages([second])
    assert reply.metadata.reply_to_message_id == second and not reply.has_error()
    assert [each.metadata.reply_to_message_id for each in grid.pull_messages([first, second])] == [first]
    assert grid.pull_messages([first, second]) == []


def test_a_client_that_fails_answers_with_its_error(question):
    grid = InProcessGrid({1: {"partition-id": 7, "num-partitions": 2}})
    (reply,) = grid.pull_messages(grid.push_messages([question(1)]))
    assert reply.has_error() and "Error: " in reply.error.reason


def test_replies_can_be_dropped_and_turned_round(question):
    def silence_of_101(message, reply):
        return None if message.metadata.dst_node_id == 101 else reply

    grid = InProcessGrid.simulated(3, tamper=silence_of_101, reverse=True)
    asked = grid.push_messages([question(node_id) for node_id in grid.get_node_ids()])
    assert [reply.metadata.src_node_id for reply in grid.pull_messages(asked)] == [102, 103]


def test_a_message_to_nobody_is_not_taken(question):
    grid = InProcessGrid.simulated(1)
    assert grid.push_messages([question(5)]) == [""]
    assert grid.sent == []


def test_what_a_grid_in_one_process_cant_do_is_refused_in_words(question):
    grid = InProcessGrid.simulated(1)
    with pytest.raises(ValueError, match="no messages to push"):
        grid.push_messages([])
    with pytest.raises(NotImplementedError, match="use push_messages and then pull_messages"):
        grid.send_and_receive([question(101)])
    with pytest.raises(NotImplementedError, match="make a flwr.app.Message instead"):
        grid.create_message(RecordDict(), "train", 101, "")
    with pytest.raises(NotImplementedError, match="no run of a SuperLink"):
        grid.set_run(1)
    with pytest.raises(NotImplementedError, match="no run of a SuperLink"):
        _ = grid.run


def test_a_process_gets_a_run_and_a_task_where_it_has_none_and_keeps_what_it_has(monkeypatch):
    monkeypatch.setattr(TaskIdentity, "_run_id", None)
    monkeypatch.setattr(TaskIdentity, "_task_id", 7)
    InProcessGrid.simulated(1)
    assert (TaskIdentity.run_id, TaskIdentity.task_id) == (1, 7)
