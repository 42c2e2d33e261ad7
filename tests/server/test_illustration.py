"""Pictures and features for the report come from those alone that agreed; in simulation that is everybody."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from safetensors import safe_open

from fmtda.clients.app import app as client_app
from fmtda.protocol.illustration import PICTURES, POINTS
from fmtda.protocol.records import config_record, to_record
from fmtda.server.app import run
from fmtda.server.conversation import Conversation
from fmtda.server.illustration import CLIENTS_OF_A_DOMAIN, FILE, read_illustration, who_shows
from fmtda.server.startup import effective_settings
from fmtda.strategies.registry import ADAPTING


@pytest.fixture
def settings_with(settings_of, tmp_path):
    """Settings of two clients with few examples, under a strategy."""

    def make(strategy="dualadapt"):
        few = {"data.targets": "pen,blend", "clients": 2, "rounds": 1, "data.source-limit": 60, "data.target-limit": 30}
        return settings_of({**few, "strategy": strategy, "output": str(tmp_path / "run")})

    return make


@pytest.fixture
def settings(settings_with):
    return settings_with()


def deployed(**pen):
    """Two real clients; keyword arguments go into the node config of the one that holds pen."""
    return {1: {"domain": "pen", **pen}, 2: {"domain": "blend"}}


def in_own_folders(node_configs, tmp_path):
    return {node: {"folder": str(tmp_path / "clients"), **config} for node, config in node_configs.items()}


@pytest.mark.parametrize("strategy", ADAPTING)
def test_a_simulation_shows_features_and_pictures_of_every_domain(strategy, settings_with, grid_of, silence):
    directory = run(grid_of.simulated(2), settings_with(strategy), silence)
    shown = read_illustration(directory.path)
    assert shown.clients == ("blend/0000", "pen/0000")
    assert list(shown.arrays) == ["handwritten", "blend", "pen"]
    assert "pictures" not in shown.arrays["handwritten"]
    for domain in ("blend", "pen"):
        arrays = shown.arrays[domain]
        assert arrays["features-before"].shape == arrays["features-after"].shape
        assert arrays["features-after"].shape[0] == len(arrays["classes"]) > 50
        assert arrays["pictures"].shape == (PICTURES, 3, 32, 32)
        assert arrays["predicted-after"].shape == arrays["labels"].shape == (PICTURES,)
        assert ((arrays["confidence-after"] > 0) & (arrays["confidence-after"] <= 1)).all()
        unchanged = (arrays["features-before"] == arrays["features-after"]).all()
        assert unchanged == (strategy == "source-only")


def test_equal_runs_write_equal_files(settings, grid_of, silence, tmp_path):
    files = [run(grid_of.simulated(2), settings.changed({"output": str(tmp_path / name)}), silence) for name in "ab"]
    first, second = ((directory.path / FILE).read_bytes() for directory in files)
    assert first == second
    with safe_open(files[0].path / FILE, "numpy") as file:
        assert len(file.metadata()) == 1  # the library writes several entries in any order


def test_a_deployment_shows_nothing_of_anybody_by_default(settings, grid_of, silence, tmp_path):
    grid = grid_of(in_own_folders(deployed(), tmp_path))
    directory = run(grid, settings, silence)
    assert not (directory.path / FILE).exists()
    assert not (directory.path / "clients").exists()
    assert {message.metadata.message_type for message in grid.sent} == {"query", "evaluate.global", "train", "evaluate"}
    assert read_illustration(directory.path) is None


def test_a_deployment_shows_the_client_that_agreed_alone(settings, grid_of, silence, tmp_path):
    directory = run(grid_of(in_own_folders(deployed(**{"share-examples": True}), tmp_path)), settings, silence)
    shown = read_illustration(directory.path)
    assert shown.clients == ("pen/0000",)
    assert list(shown.arrays) == ["handwritten", "pen"]


def test_a_client_that_did_not_agree_refuses_whoever_asks(settings, grid_of, tmp_path):
    content = RecordDict({"config": config_record(settings, 1), "model": to_record({}), "pretrained": to_record({})})
    message = Message(content, dst_node_id=1, message_type="query.illustrate")
    context = Context(1, 1, in_own_folders(deployed(), tmp_path)[1], RecordDict(), {})
    with pytest.raises(Exception, match="pen/0000 shares no examples"):
        client_app(message, context)


@pytest.mark.parametrize("answer", ["yes", "true", 1])
def test_agreeing_takes_a_clear_word(answer, settings, grid_of, silence, tmp_path):
    with pytest.raises(Exception, match=f"share-examples={answer}: expected true or false"):
        run(grid_of(in_own_folders(deployed(**{"share-examples": answer}), tmp_path)), settings, silence)


def changed(name, value):
    def tamper(message, honest):
        if message.metadata.message_type == "query.illustrate" and honest.content["client"]["name"] == "pen/0000":
            record = honest.content["illustration"]
            arrays = {
                key: Array(value(array.numpy()) if key == name else array.numpy()) for key, array in record.items()
            }
            honest.content["illustration"] = ArrayRecord(arrays)
        return honest

    return tamper


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features-after", lambda a: np.full_like(a, np.nan)),
        ("features-after", lambda a: a[:, :5]),
        ("classes", lambda a: a + 10),
        ("classes", lambda a: np.concatenate([a, a])),
        ("pictures", lambda a: a[:, :, :4]),
        ("pictures", lambda a: a.astype(np.float32)),
        ("predicted-after", lambda a: a - 20),
        ("confidence-after", lambda a: a + 1),
        ("labels", lambda a: a.reshape(-1, 1)),
    ],
)
def test_a_record_that_is_not_what_was_asked_for_is_dropped(name, value, settings_with, grid_of, silence):
    directory = run(grid_of.simulated(2, tamper=changed(name, value)), settings_with("source-only"), silence)
    assert read_illustration(directory.path).clients == ("blend/0000",)
    assert any("pen/0000: dropped, " in note for note in silence.notes)


def test_labels_of_some_and_none_of_others_stand_side_by_side(grid_of, silence, tmp_path):
    few = {"data.targets": "fog", "clients": 2, "rounds": 1, "data.source-limit": 40, "data.target-limit": 12}
    few |= {"data.name": "streets", "strategy": "source-only", "server-threads": 1}
    few |= {"pretraining.steps": 1, "pretraining.plain-steps": 1}
    settings = effective_settings({**few, "output": str(tmp_path / "run")})

    def without_labels(message, honest):
        if message.metadata.message_type == "query.illustrate" and honest.content["client"]["name"] == "fog/0000":
            record = honest.content["illustration"]
            unknown = Array(np.full(len(record["labels"].numpy()), -1, np.int16))
            honest.content["illustration"] = ArrayRecord({**record, "labels": unknown})
        return honest

    directory = run(grid_of.simulated(2, tamper=without_labels), settings, silence)
    shown = read_illustration(directory.path)
    assert shown.clients == ("fog/0000", "fog/0001")
    labels = shown.arrays["fog"]["labels"]
    assert labels.shape == shown.arrays["fog"]["predicted-after"].shape == (3, 64, 96)
    assert (labels == -1).all()  # the first client's pictures are enough for the domain


def test_of_many_clients_as_many_are_asked_as_a_map_needs(settings, grid_of, silence):
    conversation = Conversation(grid_of({}), settings, silence)
    conversation.names = {node: f"pen/{node:04d}" for node in range(40)}
    conversation.showing = dict.fromkeys(range(1, 40), POINTS // 2)
    assert who_shows(conversation) == [1, 2]
    conversation.showing = dict.fromkeys(range(1, 40), 1)
    assert who_shows(conversation) == list(range(1, 1 + CLIENTS_OF_A_DOMAIN))
