"""Who joins a federation under way: known by its round, heard step by step, started near its like."""

import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.nearest_domains import blend, nearest
from fmtda.adaptation.newcomers import JOIN, START, Newcomers, told
from fmtda.protocol.records import from_record, to_record

NEW = "street/0000"


@pytest.fixture
def newcomers_with(settings_of):
    """Newcomers of a run in which their weight grows over so many rounds."""

    def make(rounds=2, start="nearest") -> Newcomers:
        changes = {"dualadapt.joining.rounds": rounds, "dualadapt.joining.start": start}
        return Newcomers(settings_of(changes).algorithm.joining)

    return make


def mixture(place: float) -> Mixture:
    """One Gaussian around a place."""
    return Mixture(torch.ones(1), torch.full((1, 2), place), torch.ones(1, 2), torch.linspace(-9, -1, 33))


def upload(place: float, weight: float | None = None) -> RecordDict:
    """What a client sends whose features lie around a place: its mixture, and its classifier if it trained."""
    content = RecordDict({"metrics": MetricRecord({}), "mixture": to_record(mixture(place).arrays())})
    if weight is not None:
        content["classifier"] = to_record({"weight": torch.full((2,), weight)})
    return content


def test_who_is_there_in_the_first_round_is_no_newcomer(newcomers_with):
    newcomers = newcomers_with()
    assert newcomers.arriving(["blend/0000", "pen/0000"]) == set()
    assert newcomers.arriving(["blend/0000", "pen/0000", NEW]) == {NEW}
    assert newcomers.joined == {"blend/0000": 0, "pen/0000": 0}


def test_weights_grow_to_one_over_the_rounds_asked_for(newcomers_with):
    newcomers = newcomers_with(rounds=3)
    newcomers.joined = {"pen/0000": 0, NEW: 4}
    assert [newcomers.weight(NEW, server_round) for server_round in range(4, 10)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert {newcomers.weight("pen/0000", server_round) for server_round in range(1, 10)} == {1.0}
    assert newcomers.weights(5) == {NEW: 0.25}


def settled(newcomers: Newcomers) -> dict:
    """A round in which a third client joins, nearer to the first of two."""
    newcomers.arriving(["blend/0000", "pen/0000"])
    replies = {"blend/0000": upload(0.0, 1.0), "pen/0000": upload(3.0, 2.0), NEW: upload(1.0)}
    return newcomers.settle(2, replies)


def test_a_newcomer_starts_at_the_blend_of_its_nearest(newcomers_with):
    newcomers = newcomers_with()
    news = settled(newcomers)
    expected = nearest(mixture(1.0), {"blend/0000": mixture(0.0), "pen/0000": mixture(3.0)})
    shares = {name: found.weight for name, found in expected.items()}
    assert list(news) == [NEW] and (news[NEW]["joined"], news[NEW]["weight"]) == (2, 0)
    assert news[NEW]["nearest"] == {name: found._asdict() for name, found in expected.items()}
    assert list(news[NEW]["nearest"]) == ["blend/0000", "pen/0000"]
    start = blend({"blend/0000": {"weight": torch.ones(2)}, "pen/0000": {"weight": torch.full((2,), 2.0)}}, shares)
    assert torch.equal(newcomers.starts[NEW]["weight"], start["weight"])


def test_a_newcomer_that_starts_at_the_global_classifier_has_no_start_but_neighbours(newcomers_with):
    newcomers = newcomers_with(start="global")
    assert list(settled(newcomers)[NEW]["nearest"]) == ["blend/0000", "pen/0000"]
    assert newcomers.starts == {}


def test_a_start_ends_where_its_client_has_trained_and_counts_in_full(newcomers_with):
    newcomers = newcomers_with(rounds=1)
    settled(newcomers)
    replies = {"blend/0000": upload(0.0, 1.0), "pen/0000": upload(3.0, 2.0)}
    newcomers.settle(3, replies)
    assert NEW in newcomers.starts and NEW not in newcomers.trained  # it was not heard
    assert newcomers.settle(4, {**replies, NEW: upload(1.0, 5.0)}) == {}  # it counts in full
    assert newcomers.trained == {NEW} and newcomers.starts == {}


def test_members_are_sent_what_was_meant_for_all_and_newcomers_a_start_or_a_question(newcomers_with):
    newcomers, names = newcomers_with(), {1: "blend/0000", 2: "street/0001", 3: NEW}
    newcomers.joined = {"blend/0000": 0, "street/0001": 2}
    newcomers.starts = {"street/0001": {"weight": torch.ones(2)}}
    content = RecordDict({"config": ConfigRecord({"server-round": 3})})
    messages = [Message(content, dst_node_id=node_id, message_type="train") for node_id in names]
    sent = newcomers.training_messages(messages, names, {NEW})
    assert [message.metadata.dst_node_id for message in sent] == [1, 2, 3]
    assert [message.metadata.message_type for message in sent] == ["train", "train", JOIN]
    assert [START in message.content for message in sent] == [False, True, False]
    assert sent[0].content is content  # what is shared stays shared
    assert torch.equal(from_record(sent[1].content[START])["weight"], torch.ones(2))
    for trained in (set(), {"street/0001"}):
        newcomers.trained = trained
        evaluated = newcomers.evaluation_messages(messages, names)
        assert [START in message.content for message in evaluated] == [False, not trained, False]


def test_what_is_known_of_clients_comes_back_out_of_a_checkpoint(newcomers_with):
    newcomers, again = newcomers_with(), newcomers_with()
    newcomers.joined = {"pen/0000": 0, NEW: 4, "a.b/0001": 5}
    newcomers.trained = {NEW}
    newcomers.starts = {"a.b/0001": {"0.weight": torch.ones(2, 3), "bias": torch.zeros(2)}}
    again.restore({**newcomers.state(), "something.else": torch.ones(1)})
    assert (again.joined, again.trained) == (newcomers.joined, newcomers.trained)
    assert again.starts.keys() == newcomers.starts.keys()
    for name, tensor in newcomers.starts["a.b/0001"].items():
        assert torch.equal(again.starts["a.b/0001"][name], tensor)


def test_a_joining_is_told_with_the_nearest_clients(newcomers_with):
    news = settled(newcomers_with())[NEW]
    shares = [f"{name} ({found['weight']:.2f})" for name, found in news["nearest"].items()]
    assert told(NEW, news) == f"{NEW} joins; nearest: {', '.join(shares)}"
    assert told(NEW, {**news, "nearest": {}}) == f"{NEW} joins; nearest: nobody"
