"""Who a client is: in simulation and in deployment the same name and the same share of the data."""

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from fmtda.clients.identity import identify, load_share
from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec
from fmtda.domains.registry import family
from fmtda.protocol.client_names import client_name
from fmtda.protocol.records import config_record
from fmtda.strategies.dualadapt.privacy import secret_uniforms


@pytest.fixture
def settings(settings_of, tmp_path):
    return settings_of(
        {"data.targets": "blend,pen", "clients": 5, "data.target-limit": 100, "output": str(tmp_path / "run")}
    )


def found(settings, **node_config):
    node_config = {key.replace("_", "-"): value for key, value in node_config.items()}
    message = Message(RecordDict({"config": config_record(settings, 3)}), dst_node_id=1, message_type="query")
    return identify(message, Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config={}))


def simulated(settings, partition):
    return found(settings, partition_id=partition, num_partitions=settings.clients)


def same_examples(first, second):
    return torch.equal(first.inputs, second.inputs) and torch.equal(first.labels, second.labels)


@pytest.mark.parametrize(
    ("partition", "node_config"),
    [
        (0, {"domain": "blend", "share": 0, "shares": 3}),
        (2, {"domain": "blend", "share": 1, "shares": 3}),
        (3, {"domain": "pen", "share": 1, "shares": 2}),
    ],
)
def test_simulation_and_deployment_give_a_client_the_same_name_and_data(settings, tmp_path, partition, node_config):
    first = simulated(settings, partition)
    second = found(settings, **node_config, folder=str(tmp_path / "node"))
    assert first.name == second.name == client_name(node_config["domain"], node_config["share"])
    assert same_examples(first.train, second.train)
    assert same_examples(first.test, second.test)
    assert torch.equal(
        torch.rand(3, generator=first.generator("any")), torch.rand(3, generator=second.generator("any"))
    )


def test_a_simulated_client_keeps_its_part_in_the_run_directory(settings, tmp_path):
    assert simulated(settings, 3).folder == tmp_path / "run" / "clients" / "pen" / "0001"


def test_a_deployed_client_keeps_its_part_of_each_run_in_the_folder_of_its_node(settings, tmp_path):
    outputs = ["/server/runs/first", "/server/runs/second", "/elsewhere/first"]
    clients = [found(settings.changed({"output": o}), domain="pen", folder=str(tmp_path / "node")) for o in outputs]
    assert all(client.folder.is_relative_to(tmp_path / "node") for client in clients)
    assert len({client.folder for client in clients}) == 3
    assert clients[0].folder.parts[-2:] == ("pen", "0000")
    assert clients[0].folder.parts[-3].startswith("run-")
    resumed = settings.changed({"output": outputs[0], "resume": True})
    assert found(resumed, domain="pen", folder=str(tmp_path / "node")).folder == clients[0].folder


def test_a_deployed_client_that_names_no_share_holds_its_whole_domain(settings, tmp_path):
    client = found(settings.changed({"data.target-limit": 0}), domain="pen", folder=str(tmp_path))
    whole = family("digits").load("pen", "train", DataSpec())
    assert len(client.train) == len(whole)
    assert torch.equal(client.train.inputs, whole.inputs)


def test_a_clients_training_examples_carry_no_labels_and_its_test_examples_do(settings):
    client = simulated(settings, 0)
    assert (client.train.labels == -1).all()
    assert (client.test.labels >= 0).all()


def test_settings_and_round_come_out_of_the_message(settings):
    client = simulated(settings, 0)
    assert client.settings == settings
    assert client.round == 3


@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_the_shares_of_a_domain_do_not_overlap_and_together_are_all_of_it(settings_of, partition):
    settings = settings_of({"data.partition": partition, "data.target-limit": 0, "data.alpha": 1.0})
    shares = [load_share(settings, client_name("blend", share), 3) for share in range(3)]
    for part, examples in (("train", [train for train, _ in shares]), ("test", [test for _, test in shares])):
        whole = family("digits").load("blend", part, DataSpec())
        pictures = [inputs.numpy().tobytes() for each in examples for inputs in each.inputs]
        assert sorted(pictures) == sorted(inputs.numpy().tobytes() for inputs in whole.inputs)
        assert min(len(each) for each in examples) > 0


def test_a_limit_takes_examples_before_they_are_shared_out(settings_of):
    settings = settings_of({"data.target-limit": 30})
    sizes = [len(load_share(settings, client_name("pen", share), 4)[0]) for share in range(4)]
    assert sum(sizes) == 30
    assert max(sizes) - min(sizes) <= 1


def test_another_seed_shares_out_differently(settings_of):
    first, second = (load_share(settings_of({"seed": seed}), "pen/0000", 4)[0] for seed in (0, 1))
    assert not torch.equal(first.inputs, second.inputs)


def test_a_node_that_names_neither_domain_nor_partition_is_told_what_to_write(settings):
    with pytest.raises(DataError, match="--node-config 'domain=") as caught:
        found(settings)
    assert "\n" not in str(caught.value)


def test_a_node_with_an_unknown_domain_is_told_which_there_are(settings):
    with pytest.raises(DataError, match="nowhere.*handwritten, blend, fonts, street, pen"):
        found(settings, domain="nowhere")


@pytest.mark.parametrize("share", [2, -1])
def test_a_share_beyond_the_shares_is_refused(settings, share):
    with pytest.raises(DataError, match=f"share={share}.* 0 to 1"):
        found(settings, domain="pen", share=share, shares=2)


def test_a_client_below_the_minimum_is_refused_by_name(settings):
    with pytest.raises(DataError, match="'pen' would have .* below the minimum of 60"):
        simulated(settings.changed({"data.min-examples": 60}), 1)


def test_more_clients_than_examples_are_refused(settings):
    with pytest.raises(DataError, match="too few for 101 clients"):
        found(settings, domain="pen", share=0, shares=101)


def test_noise_can_be_computed_again_in_a_simulation_and_never_on_a_real_node(settings, tmp_path):
    node = {"domain": "blend", "share": 0, "shares": 3, "folder": str(tmp_path / "node")}
    in_simulation, deployed = simulated(settings, 0), found(settings, **node)
    assert in_simulation.simulated and not deployed.simulated
    assert torch.equal(*(secret_uniforms(in_simulation, "noise")(20) for _ in range(2)))
    assert not torch.equal(*(secret_uniforms(deployed, "noise")(20) for _ in range(2)))
    assert not torch.equal(secret_uniforms(in_simulation, "noise")(20), secret_uniforms(deployed, "noise")(20))


def test_an_owner_agrees_to_nothing_unasked(settings, tmp_path):
    client = found(settings, domain="pen", folder=str(tmp_path))
    assert (client.shares_examples, client.shares_evaluation, client.epsilon_limit) == (False, False, None)
    said = {"share_examples": True, "share_evaluation": True, "epsilon_limit": 3}
    client = found(settings, domain="pen", folder=str(tmp_path), **said)
    assert (client.shares_examples, client.shares_evaluation, client.epsilon_limit) == (True, True, 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [("share-examples", "true"), ("share-evaluation", 1), ("epsilon-limit", "3"), ("epsilon-limit", 0.0)],
)
def test_what_an_owner_says_must_be_clear(settings, tmp_path, key, value):
    with pytest.raises(DataError, match=f"{key}={value}: expected"):
        found(settings, domain="pen", folder=str(tmp_path), **{key: value})
