"""What a run and a client's owner promise: refused where it can't be kept, and nothing undeclared leaves."""

import dataclasses

import pytest
from flwr.app import Context, Message, RecordDict

from fmtda.clients import promises
from fmtda.clients.app import app
from fmtda.domains.examples import DataError
from fmtda.protocol.records import config_record
from fmtda.strategies.registry import algorithm

NOISE = {"privacy.noise": 1.0, "privacy.mixture-noise": 4.0}


@pytest.mark.parametrize(
    ("changes", "examples", "said"),
    [
        ({"privacy.mixture-floor": 20}, 24, "privacy.mixture-floor=20 needs as many"),
        (NOISE, 9, "needs at least 10"),
        ({**NOISE, "privacy.delta": 0.05}, 24, "privacy.delta=0.05 must be below 1/24"),
        ({**NOISE, "strategy": "fed-mcd"}, 24, "strategy=fed-mcd uploads what no noise is added to"),
    ],
)
def test_a_client_that_cant_keep_what_is_promised_says_so(changes, examples, said, settings_of, client_of):
    client = client_of(settings_of(changes), train=examples)
    chosen = algorithm(client.settings.strategy)
    with pytest.raises(DataError, match="pen/0000.*") as caught:
        promises.check(client, chosen)
        chosen.check_client(client)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_owner_with_a_limit_takes_no_part_in_a_run_without_noise(settings_of, client_of):
    with pytest.raises(DataError, match="epsilon-limit=3 .*this run adds no noise"):
        promises.check(dataclasses.replace(client_of(settings_of()), epsilon_limit=3), algorithm("dualadapt"))


def test_nor_in_the_training_of_a_generative_model(generative_settings_of, client_of):
    client = dataclasses.replace(client_of(generative_settings_of()), epsilon_limit=3)
    with pytest.raises(DataError, match="epsilon-limit=3 .*this run adds no noise"):
        promises.check(client, algorithm("fedavg"))


@pytest.fixture
def ask(tmp_path, settings_of, message_to):
    """Send one message to a real node that holds pen; keyword arguments go into its node config."""

    def send(message_type, changes, **node):
        settings = settings_of(
            {"data.targets": "pen", "data.target-limit": 40, "output": str(tmp_path / "run"), **changes}
        )
        records = {"config": config_record(settings, 1)}
        sent = message_to(_Anybody(settings))
        records |= {name: sent.content[name] for name in ("model", "source_mixture") if name in sent.content}
        message = Message(RecordDict(records), dst_node_id=1, message_type=message_type)
        node = {"domain": "pen", "folder": str(tmp_path / "node"), **node}
        return app(message, Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={})).content

    return send


@dataclasses.dataclass
class _Anybody:
    """As much of a client as `message_to` looks at."""

    settings: object
    round: int = 1


@pytest.mark.parametrize("message_type", ["train", "query.join", "evaluate", "evaluate.global", "train.personalise"])
def test_nothing_undeclared_leaves_a_real_node(message_type, ask):
    metrics = ask(message_type, NOISE)["metrics"]
    assert set(metrics) <= {"num-examples", "seconds", "epsilon"}


def test_evaluation_leaves_where_the_owner_agrees_or_nothing_is_noised(ask):
    agreed = ask("evaluate", NOISE, **{"share-evaluation": True})["metrics"]
    assert "correct-mean" in agreed and "entropy" in agreed
    assert "correct-mean" in ask("evaluate", {})["metrics"]
    assert "correct-mean" not in ask("evaluate", NOISE)["metrics"]
    assert "correct-global" not in ask("evaluate.global", NOISE)["metrics"]
    assert "correct-global" in ask("evaluate.global", {})["metrics"]
