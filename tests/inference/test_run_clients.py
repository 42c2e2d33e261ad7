"""What a run directory has of its clients: who is meant by a name, what is kept of whom, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file

from fmtda.adaptation.registry import empty_network
from fmtda.inference.run_clients import (
    adaptation_settings,
    client_named,
    client_of,
    clients_of,
    differs_by_domain,
    named_clients,
    server_network,
)
from fmtda.protocol.tables import SettingsError
from fmtda.server import checkpoints
from fmtda.server.run_directory import RunDirectory


@pytest.fixture
def run_with(settings_of, tmp_path):
    """A run directory as a simulation over two domains leaves it before any client has kept something."""

    def make(changes=None):
        few = {"data.targets": "pen,blend", "clients": 3, "output": str(tmp_path / "run")}
        return RunDirectory.create(settings_of({**few, **(changes or {})})).path

    return make


def keep(folder, value):
    """What a client's folder holds after it has uploaded."""
    folder.mkdir(parents=True)
    save_file({"classifier.weight": torch.full((2,), value)}, folder / "uploaded.safetensors")


def kept(client):
    """The weight that a client finds in its folders."""
    return client.kept("uploaded.safetensors")["classifier"]["weight"].tolist()


def test_where_nothing_is_kept_the_clients_are_those_that_were_asked_for(run_with):
    run = run_with()
    settings = adaptation_settings(run)
    assert clients_of(run, settings) == ["blend/0000", "pen/0000", "pen/0001"]
    assert named_clients(run, settings, None) == clients_of(run, settings)
    assert named_clients(run, settings, "pen") == ["pen/0000", "pen/0001"]
    assert named_clients(run, settings, "pen/0001") == ["pen/0001"]
    with pytest.raises(SettingsError, match="domain=mars: .*allowed are blend, pen, and .* such as blend/0000"):
        named_clients(run, settings, "mars")


def test_who_uploaded_or_kept_something_is_a_client_of_the_run(run_with):
    run = run_with()
    keep(run / "uploads" / "fonts" / "0000", 1.0)
    keep(run / "clients" / "street" / "0003", 1.0)
    assert clients_of(run, adaptation_settings(run)) == ["fonts/0000", "street/0003"]


def test_a_client_is_meant_by_its_name_its_domain_or_its_folder(run_with, tmp_path):
    run = run_with()
    settings = adaptation_settings(run)
    assert client_named(run, settings, "pen", None) == "pen/0000"
    assert client_named(run, settings, "pen/0001", None) == "pen/0001"
    assert client_named(run, settings, None, tmp_path / "pen" / "0001") == "pen/0001"
    assert client_named(run, settings, None, tmp_path / "clinic") == "clinic/0000"
    assert client_named(run, settings, "street", tmp_path / "pen" / "0001") == "street/0001"
    with pytest.raises(SettingsError, match="no domain named; this run adapted to blend, pen"):
        client_named(run, settings, None, None)


def test_where_all_predict_alike_nobody_has_to_be_named(run_with):
    run = run_with({"strategy": "fed-mcd"})
    settings = adaptation_settings(run)
    assert not differs_by_domain(settings)
    assert client_named(run, settings, None, None) == ""
    assert client_named(run, settings, "pen", None) == "pen/0000"


def test_what_a_client_lacks_in_its_folder_comes_from_what_it_uploaded(run_with, tmp_path):
    run = run_with()
    keep(run / "uploads" / "pen" / "0000", 1.0)
    client = client_of(run, adaptation_settings(run), "pen/0000", tmp_path / "own", None)
    assert kept(client) == [1.0, 1.0]
    client.keep("uploaded.safetensors", classifier={"weight": torch.full((2,), 2.0)})
    assert kept(client) == [2.0, 2.0]
    nobody = client_of(run, adaptation_settings(run), "", tmp_path / "nobody", None)
    assert nobody.kept("uploaded.safetensors") is None


def test_a_client_outside_the_federation_is_one_of_the_next_round_and_its_examples_have_no_labels(run_with, tmp_path):
    run = run_with({"rounds": 4})
    inputs = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    client = client_of(run, adaptation_settings(run), "new/0000", tmp_path, inputs)
    assert client.round == 5
    assert torch.equal(client.train.inputs, inputs) and (client.train.labels == -1).all()
    assert len(client.test) == 0
    assert len(client_of(run, adaptation_settings(run), "new/0000", tmp_path, None).train) == 0


def test_the_servers_network_is_that_of_the_last_whole_round(run_with):
    run = run_with()
    settings = adaptation_settings(run, "cpu")
    with pytest.raises(SettingsError, match=f"no whole checkpoint here yet; .*--resume {run}"):
        server_network(run, settings)
    state = {name: torch.full(value.shape, 0.5) for name, value in empty_network(settings).state_dict().items()}
    checkpoints.write(RunDirectory(run).checkpoints, 1, {**state, "more.than.predicts": torch.ones(1)})
    network = server_network(run, settings)
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    assert all((value == 0.5).all() for value in network.state_dict().values())


def test_a_run_that_draws_classifies_nothing(tmp_path, generative_settings_of):
    RunDirectory.create(generative_settings_of("ddpm", {"output": str(tmp_path / "run")}))
    with pytest.raises(SettingsError, match="workload=ddpm classifies nothing.*fmtda sample"):
        adaptation_settings(tmp_path / "run")
