"""A deployment's clients are other people's: bound to their keys, not waited for, left out and taken back, by name."""

import random

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fmtda.protocol.records import BadReply, check_records, config_record
from fmtda.protocol.tables import SettingsError
from fmtda.server import checkpoints
from fmtda.server.app import run
from fmtda.server.conversation import Conversation
from fmtda.server.silent_clients import SilentClients
from fmtda.simulation.in_process import InProcessGrid, Silent
from tests.server.compared import same, without_times

pytestmark = pytest.mark.usefixtures("few_source_examples")

NAMES = ["blend/0000", "pen/0000", "pen/0001"]
BAD = "pen/0001"
BAD_NODE = 3


@pytest.fixture
def settings(small_run):
    return small_run({"rounds": 3, "join-timeout": 0.4, "timeout": 1.5})


@pytest.fixture
def grid(tmp_path):
    """Makes three nodes of a deployment; a function spoils their replies."""

    def make(tamper=None, reverse=False):
        return InProcessGrid.deployed(NAMES, tmp_path / "nodes", tamper=tamper, reverse=reverse)

    return make


@pytest.fixture
def nodes_file(tmp_path):
    """Writes a file of registered nodes and gives its path."""

    def write(nodes):
        file = tmp_path / "nodes.toml"
        file.write_text("[nodes]\n" + "".join(f'"{node_id}" = "{name}"\n' for node_id, name in nodes.items()))
        return str(file)

    return write


def of_bad(spoil, kinds=("query",)):
    """Spoils what the bad node answers to messages of these types."""

    def tamper(sent, honest):
        concerned = sent.metadata.dst_node_id == BAD_NODE and sent.metadata.message_type in kinds
        return spoil(sent, honest) if concerned else honest

    return tamper


def renamed(name):
    def spoil(sent, honest):
        honest.content["client"] = ConfigRecord({"name": name})
        return honest

    return spoil


def told(metrics):
    def spoil(sent, honest):
        honest.content["metrics"] = MetricRecord({**honest.content["metrics"], **metrics})
        return honest

    return spoil


def mute(sent, honest):
    return None


BAD_INTRODUCTIONS = {
    "silence": (mute, "node 3 did not say who it is"),
    "error": (lambda sent, _: Message(Error(2, "a\x1b[31m\nDataError: \x1b[2Jno data"), reply_to=sent), r"\x1b[2Jno"),
    "another's domain": (renamed("street/0000"), "says that it is street/0000, but data.targets=blend,pen"),
    "a path": (renamed("../../x/0000"), "'../../x/0000' is no client's name"),
    "no name": (renamed(""), "the reply names no client"),
    "a taken name": (renamed("pen/0000"), "pen/0000: nodes 2 and 3 say that they are it"),
    "more than there is": (told({"train-examples": 2**62}), "train-examples is a whole number of 63 bits"),
    "no examples": (told({"train-examples": 0}), "train-examples is 0"),
    "undeclared": (told({"more": 1.0}), "metric more is not declared"),
}


@pytest.mark.parametrize("kind", BAD_INTRODUCTIONS)
def test_a_deployment_begins_without_a_bad_client_and_says_so(kind, grid, settings, silence):
    spoil, said = BAD_INTRODUCTIONS[kind]
    conversation = Conversation(grid(of_bad(spoil)), settings, silence, deployed=True)
    conversation.gather()
    (problem,) = conversation.unwritten()
    assert said in problem and problem in silence.notes
    assert "\x1b" not in "".join(silence.notes) + problem
    assert set(conversation.names.values()) == {"blend/0000", *({"pen/0000"} if kind != "a taken name" else ())}
    assert conversation.unwritten() == []


def test_what_was_wrong_at_the_start_stands_in_the_first_line_of_a_run(grid, settings, silence):
    directory = run(grid(of_bad(mute)), settings.changed({"rounds": 1}), silence, deployed=True)
    lines = directory.metrics()
    assert [line["failures"] for line in lines] == [["node 3 did not say who it is"], []]
    assert set(lines[1]["clients"]) == {"blend/0000", "pen/0000"}


def test_a_simulation_is_stopped_by_a_client_that_cant_take_part_with_every_reason(grid_of, settings, silence):
    def spoil(sent, honest):
        return Message(Error(2, f"DataError: no {sent.metadata.dst_node_id}"), reply_to=sent)

    with pytest.raises(SettingsError) as caught:
        run(grid_of.simulated(3, tamper=spoil), settings, silence)
    assert str(caught.value).splitlines() == [f"a client can't take part: DataError: no {n}" for n in (101, 102, 103)]


def test_a_deployment_that_nobody_can_begin_ends_with_every_reason(grid, settings, silence):
    def spoil(sent, honest):
        return Message(Error(2, "DataError: no data"), reply_to=sent)

    with pytest.raises(SettingsError) as caught:
        run(grid(spoil), settings, silence, deployed=True)
    assert str(caught.value).splitlines() == [
        "min-clients=1: only 0 can take part",
        *(f"node {n} can't take part: DataError: no data" for n in (1, 2, 3)),
    ]


def test_a_deployment_begins_with_those_that_are_there_after_the_join_timeout(grid, settings, silence):
    here = grid()
    gone = here.node_configs.pop(BAD_NODE)
    conversation = Conversation(here, settings, silence, deployed=True)
    conversation.gather()
    assert list(conversation.names.values()) == ["blend/0000", "pen/0000"]
    assert any(note.startswith("clients=3, but 2 are there after 0.4 s") for note in silence.notes)
    with pytest.raises(SettingsError, match="clients=3, min-clients=5, but the federation has 2 nodes after 0.4 s"):
        Conversation(here, settings.changed({"min-clients": 5}), silence, deployed=True).gather()
    here.node_configs |= {BAD_NODE: gone, 9: {"domain": "fonts"}}
    more = Conversation(here, settings, silence, deployed=True)
    more.gather()  # a node too many stops nobody
    assert list(more.names.values()) == NAMES


def test_a_client_whose_first_look_takes_longer_is_waited_for_where_nobody_else_is(grid, settings, silence):
    slow = grid()
    del slow.node_configs[1], slow.node_configs[2]
    pulled, pull = [], slow.pull_messages
    slow.pull_messages = lambda ids: pulled.append(1) or (pull(ids) if len(pulled) > 8 else [])
    conversation = Conversation(slow, settings.changed({"clients": 1, "data.targets": "pen"}), silence, deployed=True)
    conversation.gather()
    assert list(conversation.names.values()) == [BAD]


class TestBound:
    def test_an_honest_run_is_the_same_to_the_bit_and_a_stranger_is_not_even_asked(
        self, grid, settings, silence, nodes_file, tmp_path
    ):
        settings = settings.changed({"rounds": 1})
        free = run(grid(), settings, silence, deployed=True)
        bound = settings.changed(
            {"nodes-file": nodes_file(dict(zip((1, 2, 3), NAMES, strict=True))), "output": str(tmp_path / "bound")}
        )
        nodes = grid(reverse=True)
        nodes.node_configs[77] = {"domain": "pen", "share": 1, "shares": 2}
        other = run(nodes, bound, silence, deployed=True)
        results = [
            ([without_times(line) for line in each.metrics()], checkpoints.latest(each.checkpoints).model)
            for each in (free, other)
        ]
        results[1][0][0]["failures"].remove(f"node 77 is not in nodes-file={bound.nodes_file}")
        assert same(*results)
        assert 77 not in {message.metadata.dst_node_id for message in nodes.sent}

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (renamed("pen/0000"), "pen/0001 (node 3) can't take part: says that it is pen/0000"),
            (renamed("../x/0000"), "pen/0001 (node 3) can't take part: '../x/0000' is no client's name"),
            (mute, "pen/0001 (node 3) did not say who it is"),
        ],
    )
    def test_a_node_that_is_not_who_it_says_is_refused_by_its_true_name(
        self, spoil, said, grid, settings, silence, nodes_file
    ):
        file = nodes_file(dict(zip((1, 2, 3), NAMES, strict=True)))
        conversation = Conversation(grid(of_bad(spoil)), settings.changed({"nodes-file": file}), silence, deployed=True)
        conversation.gather()
        assert conversation.names == {1: "blend/0000", 2: "pen/0000"}
        (problem,) = conversation.unwritten()
        assert problem.startswith(said)

    def test_who_is_registered_while_a_run_goes_on_may_come_whatever_its_domain_and_who_is_struck_out_goes(
        self, grid, settings, silence, nodes_file
    ):
        file = nodes_file({1: "blend/0000", 2: "pen/0000"})
        here = grid()
        conversation = Conversation(here, settings.changed({"nodes-file": file}), silence, deployed=True)
        conversation.gather()
        assert list(conversation.names.values()) == ["blend/0000", "pen/0000"]
        here.node_configs[8] = {"domain": "street", "folder": settings.output}
        nodes_file({2: "pen/0000", 3: BAD, 8: "street/0000"})
        assert conversation.introductions(1.0) == [f"node 1 is not in nodes-file={file}"]
        assert list(conversation.names.values()) == ["pen/0000", "pen/0001", "street/0000"]

    def test_a_file_that_is_spoiled_under_way_is_told_and_what_it_said_holds(self, grid, settings, silence, nodes_file):
        file = nodes_file({1: "blend/0000", 2: "pen/0000"})
        conversation = Conversation(grid(), settings.changed({"nodes-file": file}), silence, deployed=True)
        conversation.gather()
        nodes_file({1: "../x"})
        told_of = conversation.introductions(1.0)
        assert len(told_of) == 1 and told_of[0].startswith(f"nodes-file={file}: node 1: '../x' is no client's name")
        assert list(conversation.names.values()) == ["blend/0000", "pen/0000"]

    def test_a_simulation_has_no_registered_nodes(self, grid_of, settings, silence, nodes_file):
        with pytest.raises(SettingsError, match="a simulation has no registered nodes"):
            Conversation(grid_of.simulated(3), settings.changed({"nodes-file": nodes_file({1: BAD})}), silence)


class TestSilence:
    def test_who_is_silent_in_two_rounds_in_a_row_is_left_out_and_comes_back_when_it_answers(
        self, grid, settings, silence
    ):
        silent_in = {1, 2}

        def tamper(sent, honest):
            server_round, kind = sent.content["config"]["server-round"], sent.metadata.message_type
            silent = server_round in silent_in and kind == "train"
            return None if silent and sent.metadata.dst_node_id == BAD_NODE else honest

        directory = run(grid(tamper), settings, silence, deployed=True)
        lines = directory.metrics()
        assert [BAD in line["clients"] for line in lines] == [False, True, True, True]
        assert lines[1]["clients"][BAD]["evaluate"] and not lines[2]["clients"][BAD]["evaluate"]
        assert lines[1]["failures"] == lines[2]["failures"] == [f"{BAD}: no answer within 1.5 s"]
        assert lines[3]["failures"] == []
        notes = "\n".join(silence.notes)
        assert f"{BAD} was silent in 2 rounds in a row: it is left out until it answers again" in notes
        assert f"{BAD} answers again: it takes part again" in notes
        assert lines[3]["clients"][BAD]["train"]

    def test_who_stays_silent_is_named_in_every_round_and_is_not_waited_for(self, grid, settings, silence):
        conversation = Conversation(grid(), settings.changed({"timeout": 0.3}), silence, deployed=True)
        conversation.gather()
        conversation.grid.tamper = of_bad(mute, ["query", "train", "evaluate"])
        failures = []
        for server_round in range(1, 6):
            assert conversation.introductions(0.3) == []
            conversation.hold_back(server_round)
            asked = []
            for kind in ("train", "evaluate"):
                messages = conversation.messages(kind, {}, config_record(settings, server_round))
                asked.append(len(messages))
                conversation.ask(kind, messages, check_records)
            failures.append((asked, conversation.unwritten()))
        left_out = [f"{BAD}: left out, silent in 2 rounds in a row"]
        assert failures == [([3, 3], []), ([3, 2], []), *[([2, 2], left_out)] * 3]
        to_it = [m.metadata.message_type for m in conversation.grid.sent if m.metadata.dst_node_id == BAD_NODE]
        assert to_it == ["query", "train", "evaluate", "train", "query"]  # the last one is waited for by nobody
        again = Conversation(grid(), settings, silence, deployed=True)  # nobody is left out where a run is resumed
        again.gather()
        assert BAD in again.names.values()

    def test_nobody_is_left_out_where_the_key_says_never(self, grid, settings, silence):
        conversation = Conversation(grid(), settings.changed({"silent-rounds": 0, "timeout": 0.1}), silence, True)
        conversation.gather()
        conversation.grid.tamper = lambda sent, honest: None
        for server_round in range(1, 6):
            conversation.hold_back(server_round)
            messages = conversation.messages("evaluate", {}, config_record(settings, server_round))
            assert len(conversation.ask("asked", messages, check_records).failures) == 3
        assert len(conversation.names) == 3

    def test_an_error_is_an_answer(self, grid, settings, silence):
        conversation = Conversation(grid(), settings.changed({"silent-rounds": 1}), silence, True)
        conversation.gather()
        conversation.grid.tamper = lambda sent, honest: Message(Error(2, "no"), reply_to=sent)
        conversation.ask("asked", conversation.messages("evaluate", {}, config_record(settings, 1)), check_records)
        assert len(conversation.names) == 3

    def test_each_time_it_falls_silent_again_it_stays_out_twice_as_long(self):
        clients, out = SilentClients(2), []
        for server_round in range(24):  # it answers whoever asks its name, and no question
            if BAD in clients.left_out and clients.may_come_back(BAD):
                clients.take_back(BAD)
            clients.begin_round()
            if BAD not in clients.left_out:
                clients.asked([], [BAD])
                out.append(server_round)
        assert out == [0, 1, 2, 4, 8, 16]

    def test_a_round_in_which_it_answers_everything_begins_anew(self):
        clients = SilentClients(2)
        for silent in ([BAD], [], [BAD], []):
            clients.begin_round()
            assert clients.asked({BAD} - {*silent}, silent) == []
        clients.begin_round()
        assert clients.asked([], [BAD]) == []
        assert clients.asked([BAD], []) == []  # it answers the second question: the round is silent all the same
        clients.begin_round()
        assert clients.asked([], [BAD]) == [BAD]


def test_an_answer_of_another_type_is_dropped(grid, settings, silence):
    def as_evaluation(sent, honest):
        honest.metadata.__dict__["_message_type"] = "evaluate"
        return honest

    directory = run(grid(of_bad(as_evaluation, ["train"])), settings.changed({"rounds": 1}), silence, deployed=True)
    assert directory.metrics()[1]["failures"] == [f"{BAD}: dropped, answers as evaluate, expected train"]


LIES = {
    "more than it has": (
        "train",
        {"num-examples": 10**6},
        r"but it said that it has \d+ train-examples",
    ),
    "2^53": ("train", {"num-examples": 2**53}, "num-examples is a whole number of 54 bits"),
    "more test examples": ("evaluate", {"num-examples": 10**6}, "num-examples is 1000000, but it said that it has"),
    "no such number": ("train", {"accuracy": 1.0}, "metric accuracy is not declared"),
    "markup": ("train", {"<img src=x>": 1.0}, "'<img src=x>' is no key of a metric"),
    "a histogram of eleven": ("train", {"source-typicality-counts": [1] * 11}, "is 11 numbers, expected a list of 10"),
    "a list for a number": ("train", {"source-typicality": [0.5]}, "source-typicality holds 1 numbers, expected one"),
    "epsilon of nothing": ("train", {"epsilon": 0.0}, "epsilon is 0.0, expected a number from"),
    "a year": ("train", {"seconds": 4e7}, "seconds is 40000000.0, expected a number from 0 to"),
    "all right": ("evaluate", {"correct-mean": 2**40}, "correct-mean is 1099511627776 of"),
    "agreement over one": ("evaluate", {"agreement": 3.0}, "agreement is 3.0"),
}


@pytest.fixture(scope="module")
def admission(settings_of, tmp_path_factory, few_source_examples):
    """What an honest run of a deployment checked: by message type the checks, and the bad client's honest content."""
    folder = tmp_path_factory.mktemp("honest")
    few = {"data.targets": "blend,pen", "clients": 3, "rounds": 1, "data.target-limit": 40, "data.source-limit": 60}
    few |= {"inputs.randomise": False, "inputs.scenery": False, "output": str(folder / "run")}
    seen: dict[str, tuple] = {}
    ask = Conversation.ask

    def asked(self, stage, messages, check):
        messages = list(messages)
        phase = ask(self, stage, messages, check)
        if BAD in phase.replies:
            seen[messages[0].metadata.message_type] = check, phase.replies[BAD].content
        return phase

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Conversation, "ask", asked)
        grid = InProcessGrid.deployed(NAMES, folder / "nodes")
        for config in grid.node_configs.values():
            config["share-examples"] = True
        run(grid, settings_of({**few, "dualadapt.personalise.on": True}), Silent(), deployed=True)
    assert seen.keys() == {"train", "evaluate", "evaluate.global", "train.personalise", "query.illustrate"}
    return seen


@pytest.mark.parametrize("lie", LIES)
def test_a_number_that_was_not_declared_or_cant_be_true_is_refused_with_its_reply(lie, admission):
    kind, metrics, said = LIES[lie]
    check, honest = admission[kind]
    check(honest)
    with pytest.raises(BadReply, match=said) as caught:
        check(RecordDict({**honest, "metrics": MetricRecord({**honest["metrics"], **metrics})}))
    assert "\n" not in str(caught.value)


KEYS = ["num-examples", "seconds", "loss", "entropy", "confusion", "correct-global", "source-typicality-counts"]
KEYS += [
    "epsilon",
    "",
    "A",
    "a" * 65,
    "a\x00b",
    "\x1b[2J",
    "<script>",
    "PLOTLY_FIGURES",
    "a/b",
    "ключ",
    "\u202eevil",
    "a.b",
]
VALUES = [0, 1, -1, 2**53 - 1, 2**53, 2**62, -(2**63), 0.0, -0.0, 5e-324, 1e308, -1e308, float("nan"), float("inf")]
VALUES += [[], [0], [1.5] * 10, [2**62] * 100, [-1] * 10, [0] * 10**5, [float("nan")] * 10, True, "7", None, b"x", {}]
VALUES += [10**5000, [[1]], ["a"], [None] * 10, (1, 2), object()]
"""The last ones can't travel; a check that is called in one process may meet them."""


def test_five_hundred_hostile_drafts_of_metrics_raise_nothing_but_a_bad_reply(admission, caplog):
    draw, kept, refused = random.Random(7), 0, 0
    for _ in range(500):
        check, honest = admission[draw.choice(sorted(admission))]
        metrics = MetricRecord(dict(honest["metrics"]))
        for key in draw.sample(sorted(metrics), draw.randint(0, min(2, len(metrics)))):
            del metrics[key]
        for _ in range(draw.randint(0, 3)):
            dict.__setitem__(raw(metrics), draw.choice(KEYS), draw.choice(VALUES))
        content = RecordDict({**honest, "metrics": metrics})
        if draw.random() < 0.2:
            content[draw.choice(["metrics", "client", "more\x1b", "classifier"])] = draw.choice(
                [ConfigRecord({"name": BAD}), MetricRecord({"a": 1}), ArrayRecord(), ConfigRecord({})]
            )
        try:
            check(content)
            kept += 1
        except BadReply as error:
            refused += 1
            assert len(str(error)) < 3000
    assert kept > 50 and refused > 250
    assert not [each for each in caplog.records if each.name.startswith("fmtda")]


def raw(record):
    """The dictionary in a record of Flower's, which checks the types of what is put in by its front door."""
    return record.__dict__["_data"]


def test_a_check_that_raises_whatever_it_likes_ends_no_run_and_is_logged_with_its_type(grid, settings, silence, caplog):
    conversation = Conversation(grid(), settings, silence, deployed=True)
    conversation.gather()
    for error in (RecursionError("deep"), MemoryError(), TypeError("a\x1b[31m"), OverflowError("large"), KeyError("k")):

        def check(content, error=error):
            raise error

        messages = conversation.messages("query", {}, config_record(settings, 0))
        phase = conversation.ask("asked", messages, check)
        assert len(phase.failures) == 3 and not phase.replies
        assert all(f"dropped, can't be checked: {type(error).__name__}" in failure for failure in phase.failures)
        assert f"a check of a client's reply raised {type(error).__name__}" in caplog.messages[-1]
    assert "\x1b" not in caplog.text
