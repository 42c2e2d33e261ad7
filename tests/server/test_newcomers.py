"""Runs that clients join under way: asked for a mixture alone, started near their like, heard step by step."""

import json

import pytest
import torch

from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.nearest_domains import blend, nearest
from fmtda.protocol.records import from_record, sender
from fmtda.server import checkpoints
from fmtda.server.app import run
from fmtda.strategies.dualadapt.server import JOIN
from tests.server.compared import same, without_times

pytestmark = pytest.mark.usefixtures("few_source_examples")

NEW = "street/0000"


@pytest.fixture
def late_run(small_run):
    """Settings of a run that a third client joins in its second round; a dictionary changes some."""

    def make(changes=None):
        late = {"simulation.late": "street", "simulation.late-round": 2}
        return small_run({"data.targets": "blend,pen,street", "clients": 2, "rounds": 5, **late, **(changes or {})})

    return make


@pytest.fixture
def settings(late_run):
    return late_run({"dualadapt.joining.rounds": 2})


def result(directory):
    checkpoint = checkpoints.latest(directory.checkpoints)
    return [without_times(line) for line in directory.metrics()], {**checkpoint.model, **checkpoint.state}


class Watched:
    """Everything that went to and fro, by round and kind."""

    def __init__(self, kill_after=None):
        self.seen, self.kill_after = [], kill_after

    def __call__(self, sent, honest):
        if self.kill_after is not None and len(self.seen) >= self.kill_after:
            raise Killed
        if not honest.has_error():
            server_round, kind = sent.content["config"]["server-round"], sent.metadata.message_type
            self.seen.append((server_round, kind, sender(honest.content), sent.content, honest.content))
        return honest

    def of(self, name, kind=None):
        return [each for each in self.seen if each[2] == name and kind in (None, each[1])]


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_a_client_joins_by_its_mixture_alone_and_starts_at_the_blend_of_its_nearest(settings, grid_of, silence):
    watched = Watched()
    directory = run(grid_of.simulated(settings.supernodes, tamper=watched), settings, silence)
    lines = directory.metrics()

    # before its round it is asked for nothing but its name
    assert [kind for server_round, kind, *_ in watched.of(NEW) if server_round < 2] == ["query"]
    assert all(NEW not in line["clients"] for line in lines[:2])
    (join,) = watched.of(NEW, JOIN)
    assert join[0] == 2
    assert set(join[3]) == {"model", "source_mixture", "config"}
    assert set(join[4]) == {"client", "metrics", "mixture"}

    # the start is the blend of what the known clients uploaded in the same round
    uploads = {name: watched.of(name, "train")[1][4] for name in ("blend/0000", "pen/0000")}
    mixtures = {
        name: Mixture.from_arrays({key: array.numpy() for key, array in content["mixture"].items()})
        for name, content in {**uploads, NEW: join[4]}.items()
    }
    own = mixtures.pop(NEW)
    shares = {name: found.weight for name, found in nearest(own, mixtures).items()}
    expected = blend({name: from_record(uploads[name]["classifier"]) for name in shares}, shares)
    first_evaluation, first_training = watched.of(NEW, "evaluate")[0], watched.of(NEW, "train")[0]
    for content in (first_evaluation[3], first_training[3]):
        assert all(torch.equal(from_record(content["start"])[name], expected[name]) for name in expected)
    assert (first_evaluation[0], first_training[0]) == (2, 3)

    # it is new for as long as it counts for less, and predicts with its own F_l once it has trained
    trainings = {server_round: content for server_round, _, _, content, _ in watched.of(NEW, "train")}
    assert {server_round: "start" in content for server_round, content in trainings.items()} == {
        3: True,
        4: True,
        5: False,
    }
    assert ["start" in content for _, _, _, content, _ in watched.of(NEW, "evaluate")] == [True, False, False, False]
    news = [line.get("newcomers", {}) for line in lines]
    assert news[:2] == [{}, {}] and news[5] == {}
    assert [news[r][NEW]["weight"] for r in (2, 3, 4)] == pytest.approx([0, 1 / 3, 2 / 3])
    assert {name: found["weight"] for name, found in news[2][NEW]["nearest"].items()} == pytest.approx(shares)

    # members are sent what they always were
    for name in ("blend/0000", "pen/0000"):
        assert all("start" not in content for _, _, _, content, _ in watched.of(name))

    summary = json.loads((directory.path / "summary.json").read_text())["newcomers"][NEW]
    assert summary["joined"] == 2
    assert set(summary["accuracy_after"]) == {"0", "1", "2", "3"}
    assert set(summary["nearest"]) == {"blend/0000", "pen/0000"}
    assert any(note.startswith(f"round 2: {NEW} joins; nearest: ") for note in silence.notes)


def test_until_it_joins_and_trains_the_others_are_untouched_to_the_bit(settings, grid_of, silence, tmp_path):
    settings = settings.changed({"rounds": 2})
    joined = run(grid_of.simulated(3), settings, silence)
    alone = settings.changed({"data.targets": "blend,pen", "simulation.late": "", "output": str(tmp_path / "alone")})
    without = run(grid_of.simulated(2), alone, silence)
    models = [checkpoints.latest(directory.checkpoints).model for directory in (joined, without)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[1])
    for with_it, without_it in zip(joined.metrics(), without.metrics(), strict=True):
        for domain in ("blend", "pen"):
            assert with_it["accuracy"][domain] == without_it["accuracy"][domain]


def test_a_run_that_is_killed_around_a_joining_and_resumed_equals_an_unbroken_one(settings, grid_of, silence, tmp_path):
    settings = settings.changed({"rounds": 4})
    unbroken = run(grid_of.simulated(3), settings.changed({"output": str(tmp_path / "unbroken")}), silence)
    for messages in (14, 12, 5):  # in the round of the joining, and twice in that of the first training
        with pytest.raises(Killed):
            run(grid_of.simulated(3, tamper=Watched(messages)), settings, silence)
        settings = settings.changed({"resume": True})
    resumed = run(grid_of.simulated(3, 900), settings, silence)
    assert same(result(unbroken), result(resumed))


def test_a_late_node_of_a_deployment_joins_whose_domain_no_run_config_names_and_a_resumed_run_knows_it(
    small_run, grid_of, silence, tmp_path
):
    registered = tmp_path / "nodes.toml"
    registered.write_text('[nodes]\n"1" = "blend/0000"\n"2" = "pen/0000"\n')
    settings = small_run({"clients": 2, "rounds": 3, "nodes-file": str(registered)})
    node = {"folder": str(tmp_path / "own")}
    grid = grid_of({1: {"domain": "blend", **node}, 2: {"domain": "pen", **node}})

    def late(sent, honest):
        if sent.content["config"]["server-round"] == 1:
            grid.node_configs[7] = {"domain": "street", **node}
            registered.write_text('[nodes]\n"1" = "blend/0000"\n"2" = "pen/0000"\n"7" = "street/0000"\n')
        return honest

    grid.tamper = late
    directory = run(grid, settings, silence, deployed=True)
    lines = directory.metrics()
    assert [sorted(line.get("newcomers", {})) for line in lines] == [[], [], [NEW], [NEW]]
    assert NEW in lines[3]["clients"]
    longer = settings.changed({"rounds": 4, "resume": True})
    resumed = run(grid, longer, silence, deployed=True)  # three nodes, though clients=2
    assert resumed.metrics()[-1]["newcomers"][NEW]["joined"] == 2


def test_starting_at_the_global_classifier_sends_no_start(settings, grid_of, silence):
    watched = Watched()
    run(
        grid_of.simulated(3, tamper=watched),
        settings.changed({"dualadapt.joining.start": "global", "rounds": 3}),
        silence,
    )
    assert watched.of(NEW, "train")
    assert all("start" not in content for _, _, _, content, _ in watched.of(NEW))


def test_a_client_whose_mixture_is_refused_is_asked_again_in_the_next_round(settings, grid_of, silence):
    def spoil(sent, honest):
        if sent.metadata.message_type == JOIN and sent.content["config"]["server-round"] == 2:
            del honest.content["mixture"]
        return honest

    directory = run(grid_of.simulated(3, tamper=spoil), settings.changed({"rounds": 3}), silence)
    lines = directory.metrics()
    assert lines[2]["failures"][0].startswith(f"{NEW}: dropped, holds the records")
    assert "newcomers" not in lines[2]
    assert lines[3]["newcomers"][NEW]["joined"] == 3


def test_a_strategy_that_knows_no_newcomers_takes_late_clients_at_once(late_run, grid_of, silence):
    settings = late_run({"strategy": "fedavg-self-training", "rounds": 3})
    lines = run(grid_of.simulated(3), settings, silence).metrics()
    assert [NEW in line["clients"] for line in lines[1:]] == [False, True, True]
    assert lines[2]["clients"][NEW]["up_training"] > 0
    assert all("newcomers" not in line for line in lines)
