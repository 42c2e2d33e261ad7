"""A client of a run with privacy: what leaves it, what that depends on, and what is written down of it."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from fmtda.adaptation.mixture import fit
from fmtda.adaptation.privacy_account import Release, epsilon
from fmtda.clients import adaptation, joining, local_part, privacy
from fmtda.clients.app import app
from fmtda.domains.examples import DataError, Examples
from fmtda.protocol.records import config_record, from_record, to_record

NOISE = {"privacy_noise": 1.0, "mixture_noise": 4.0}


@pytest.fixture
def noised(settings_of):
    """Settings of a run with noise; keyword arguments change keys."""
    return lambda **changes: settings_of(**{**NOISE, **changes})


@pytest.fixture
def simulated_client(client_of):
    return lambda settings, **more: dataclasses.replace(client_of(settings, **more), simulated=True)


def uploaded(message, client):
    content = adaptation.train(message, client).content
    return {f"{r}.{n}": t for r in ("classifier", "mixture") for n, t in from_record(content[r]).items()}


def same_bits(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_uploads_look_as_without_noise_and_tell_epsilon_alone(noised, simulated_client, message_to):
    client = simulated_client(noised())
    content = privacy.withheld(adaptation.train(message_to(client), client), client).content
    assert set(content) == {"client", "metrics", "classifier", "mixture"}
    assert set(content["metrics"]) == {"num-examples", "seconds", "epsilon"}
    assert set(content["mixture"]) == {"weights", "means", "variances", "quantiles"}
    kept = local_part.read(client.folder, local_part.UPLOADED)
    assert torch.equal(kept["classifier.weight"], from_record(content["classifier"])["weight"])


def test_a_simulated_client_sends_the_same_noise_again_and_a_real_one_never(noised, simulated_client, message_to):
    client = simulated_client(noised())
    message = message_to(client)
    assert same_bits(uploaded(message, client), uploaded(message, client))
    real = dataclasses.replace(client, simulated=False)
    first, second = uploaded(message, real), uploaded(message, real)
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])
    assert not torch.equal(first["mixture.means"], second["mixture.means"])


def test_noise_differs_between_rounds_and_between_the_two_mechanisms(noised, simulated_client):
    client = simulated_client(noised())
    later = dataclasses.replace(client, round=2)
    draws = [
        client.secret_uniforms("noise of the classifier")(9),
        client.secret_uniforms("noise of the mixture")(9),
        later.secret_uniforms("noise of the classifier")(9),
    ]
    assert len({tuple(each.tolist()) for each in draws}) == 3


def test_no_examples_features_depend_on_the_others(noised, simulated_client, message_to):
    """With its own BatchNorm statistics they would, and one example could move the gradients of all."""
    client = simulated_client(noised(preset="default"))
    changed = client.train.inputs.clone()
    changed[0] = 255 - changed[0]
    other = dataclasses.replace(client, train=Examples(changed, client.train.labels))
    network = adaptation.received_network(message_to(client), client)
    first, second = privacy._features(network, client), privacy._features(network, other)
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[1:], second[1:])


def test_it_joins_by_the_noised_mixture_that_it_would_upload_if_it_trained(noised, simulated_client, message_to):
    client = simulated_client(noised())
    sent = privacy.withheld(joining.join(message_to(client), client), client).content
    assert set(sent) == {"client", "metrics", "mixture"}
    assert set(sent["metrics"]) == {"num-examples", "seconds", "epsilon"}
    assert sent["metrics"]["epsilon"] == epsilon([Release(0, 1.0, 0.0, 4.0)], 1e-5)
    trained = from_record(adaptation.train(message_to(client), client).content["mixture"])
    assert same_bits(from_record(sent["mixture"]), trained)


def test_every_round_is_counted_and_a_repeated_one_by_real_clients_alone(noised, simulated_client, message_to):
    settings = noised()
    release = Release(settings.client_steps, 8 / 24, 1.0, 4.0)

    def spent(client, server_round):
        client = dataclasses.replace(client, round=server_round)
        return adaptation.train(message_to(client), client).content["metrics"]["epsilon"]

    client = simulated_client(settings)
    rounds = [1, 2, 2, 3]
    expected = [epsilon([release] * count, 1e-5) for count in (1, 2, 2, 3)]
    assert [spent(client, server_round) for server_round in rounds] == pytest.approx(expected)
    assert [entry["round"] for entry in json.loads((client.folder / privacy.RELEASED).read_text())] == [1, 2, 3]
    real = dataclasses.replace(client, simulated=False, folder=client.folder / "real")
    expected = [epsilon([release] * count, 1e-5) for count in (1, 2, 3, 4)]
    assert [spent(real, server_round) for server_round in rounds] == pytest.approx(expected)


def test_a_client_stops_before_it_gives_away_more_than_its_owner_allows(noised, client_of, message_to):
    client = client_of(noised())
    one_round = epsilon([Release(client.settings.client_steps, 8 / 24, 1.0, 4.0)], 1e-5)
    client = dataclasses.replace(client, epsilon_limit=1.01 * one_round)
    adaptation.train(message_to(client), client)
    before = (client.folder / privacy.RELEASED).read_bytes()
    with pytest.raises(DataError, match="pen/0000: epsilon would be .*epsilon-limit="):
        adaptation.train(message_to(client), client)
    assert (client.folder / privacy.RELEASED).read_bytes() == before


def test_a_floor_leaves_components_with_enough_examples_alone(settings_of, client_of, message_to):
    client = client_of(settings_of(components=4, preset="paper"), train=120)
    message = message_to(client)
    free = uploaded(message, client)
    floored = client_of(settings_of(components=4, preset="paper", mixture_floor=30), train=120)
    left = uploaded(message_to(floored), floored)
    fitted = 96
    small = free["mixture.weights"] * fitted < 29
    assert small.any()  # the weights follow the last batches, so they say nearly how many examples there are
    assert len(left["mixture.weights"]) < len(free["mixture.weights"])
    assert left["mixture.weights"].sum().item() == pytest.approx(1)
    assert torch.equal(free["classifier.weight"], left["classifier.weight"])
    joined = from_record(joining.join(message_to(floored), floored).content["mixture"])
    assert torch.equal(joined["means"], left["mixture.means"])


@pytest.mark.parametrize(
    ("changes", "examples", "said"),
    [
        ({"mixture_floor": 20}, 24, "mixture-floor=20 needs as many"),
        (NOISE, 9, "needs at least 10"),
        ({**NOISE, "privacy_delta": 0.05}, 24, "privacy-delta=0.05 must be below 1/24"),
        ({**NOISE, "strategy": "fed-mcd"}, 24, "strategy=fed-mcd uploads what no noise is added to"),
    ],
)
def test_a_client_that_cant_keep_what_is_promised_says_so(changes, examples, said, settings_of, client_of):
    with pytest.raises(DataError, match="pen/0000.*") as caught:
        privacy.check(client_of(settings_of(**changes), train=examples))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("bare", ["privacy_noise", "mixture_noise"])
def test_half_of_the_noise_is_none_and_refused_before_anything_is_sent(bare, noised, client_of, message_to):
    client = client_of(noised(**{bare: 0.0}))
    with pytest.raises(DataError, match="pen/0000: .*set both above 0"):
        adaptation.train(message_to(client), client)
    assert not client.folder.exists()


def test_an_owner_with_a_limit_takes_no_part_in_a_run_without_noise(settings_of, client_of):
    with pytest.raises(DataError, match="epsilon-limit=3 .*this run adds no noise"):
        privacy.check(dataclasses.replace(client_of(settings_of()), epsilon_limit=3))


@pytest.fixture
def ask(tmp_path, settings_of, message_to):
    """Send one message to a real node that holds pen; keyword arguments go into its node config."""

    def send(message_type, changes, **node):
        settings = settings_of(targets="pen", target_limit=40, output=str(tmp_path / "run"), **changes)
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


@pytest.mark.parametrize("message_type", ["train", "evaluate", "train.personalise"])
def test_nothing_undeclared_leaves_a_real_node(message_type, ask):
    metrics = ask(message_type, NOISE)["metrics"]
    assert set(metrics) <= {"num-examples", "seconds", "epsilon"}


def test_evaluation_leaves_where_the_owner_agrees_or_nothing_is_noised(ask):
    agreed = ask("evaluate", NOISE, **{"share-evaluation": True})["metrics"]
    assert "correct-mean" in agreed and "entropy" in agreed
    assert "correct-mean" in ask("evaluate", {})["metrics"]
    assert "correct-mean" not in ask("evaluate", NOISE)["metrics"]
    assert "correct-global" not in ask("evaluate", {**NOISE, "strategy": "source-only"})["metrics"]


@pytest.mark.parametrize("noise", [{}, NOISE], ids=["plain", "noised"])
def test_the_table_of_what_leaves_is_that_of_real_messages(noise, settings_of, client_of, message_to):
    page = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()
    rows = re.findall(r"^\| (train[a-z, ]*) \| `([a-z/]+)` \| ([0-9x ]+) \| ([0-9,]+) \|$", page, re.MULTILINE)
    told = {name: (shape, size, messages) for messages, name, shape, size in rows}
    client = client_of(settings_of(components=10, **noise), train=280)
    ten_components = fit(torch.rand(400, 128, generator=torch.Generator().manual_seed(0)), 10, 0)
    for kind, work in {"train": adaptation.train, "join": joining.join}.items():
        message = message_to(client)
        message.content["source_mixture"] = to_record(ten_components.arrays())
        content = work(message, client).content
        sent = {
            f"{record}/{name}": (" x ".join(map(str, array.shape)), f"{len(array.data):,}")
            for record in set(content) - {"client", "metrics"}
            for name, array in content[record].items()
        }
        assert sent == {name: row[:2] for name, row in told.items() if kind in row[2].split(", ")}
