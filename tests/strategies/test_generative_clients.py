"""A generative client: its upload depends on message, data and seed alone; what can't be used is an error."""

import math

import pytest
import torch
from flwr.app import Message, RecordDict

from fmtda.domains.client import Client
from fmtda.domains.examples import Examples
from fmtda.domains.family import DataSpec
from fmtda.domains.registry import family
from fmtda.generative.molecule_graphs import MoleculeGraphs
from fmtda.generative.registry import MODELS, build
from fmtda.protocol.moments import initial_moments, parted
from fmtda.protocol.records import check_arrays, config_record, from_record, layout_of, to_record
from fmtda.server.conversation import Cohort
from fmtda.strategies.registry import algorithm


@pytest.fixture
def client_of(tmp_path):
    def make(settings, name="handwritten/0001", train=20, test=6, server_round=1, pictures_seed=3) -> Client:
        draws = torch.Generator().manual_seed(pictures_seed)

        def examples(count):
            if isinstance(MODELS[settings.workload].kind, MoleculeGraphs):
                molecules = family("fragments").load("fragments", "test", DataSpec())
                return molecules.select(torch.randperm(len(molecules), generator=draws)[:count]).without_labels()
            pictures = torch.randint(0, 256, (count, 3, 32, 32), generator=draws, dtype=torch.uint8)
            return Examples(pictures, torch.full((count,), -1))

        return Client(name, settings, server_round, tmp_path / name, examples(train), examples(test))

    return make


def message_to(client, weights=None, message_type="train"):
    weights = weights or build(client.settings.workload, client.settings, seed=1).state_dict()
    content = RecordDict({"model": to_record(weights), "config": config_record(client.settings, client.round)})
    return Message(content, dst_node_id=5, message_type=message_type)


def train(message, client):
    return algorithm(client.settings.strategy).train(message, client)


def evaluated(message, client):
    return algorithm(client.settings.strategy).evaluate(message, client).content["metrics"]


def uploaded(client, **options):
    return from_record(train(message_to(client, **options), client).content["model"])


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("workload", list(MODELS))
def test_a_client_trains_and_uploads_the_whole_model(workload, generative_settings_of, client_of):
    client = client_of(generative_settings_of(workload))
    message = message_to(client)
    reply = train(message, client).content
    check_arrays(reply["model"], layout_of(message.content["model"]))
    assert not equal(from_record(reply["model"]), from_record(message.content["model"]))
    assert reply["client"]["name"] == client.name
    assert reply["metrics"]["num-examples"] == 20
    assert math.isfinite(reply["metrics"]["loss"])


def test_the_upload_depends_on_message_data_and_seed_alone(generative_settings_of, client_of):
    settings = generative_settings_of()
    first = uploaded(client_of(settings))
    torch.manual_seed(99)
    assert equal(first, uploaded(client_of(settings)))
    assert not equal(first, uploaded(client_of(settings.changed({"seed": 1}))))
    assert not equal(first, uploaded(client_of(settings, server_round=2)))
    assert not equal(first, uploaded(client_of(settings, name="handwritten/0002")))
    assert not equal(first, uploaded(client_of(settings, pictures_seed=4)))


def test_an_adam_that_the_message_brings_goes_on_and_comes_back(generative_settings_of, client_of):
    settings = generative_settings_of("ddpm", {"training.warm-up-steps": 0})
    client = client_of(settings)
    model = build("ddpm", settings, seed=1)
    fresh = uploaded(client)
    shared = uploaded(client, weights=model.state_dict() | initial_moments(model))
    weights, moments = parted(shared)
    assert set(weights) == set(fresh)
    assert {value.item() for name, value in moments.items() if name.endswith(".step")} == {
        float(settings.training.steps)
    }
    assert equal(fresh, weights)  # an Adam without a past is a fresh one
    again, later = parted(uploaded(client, weights=shared))
    assert not equal(again, uploaded(client, weights=weights))
    steps = {value.item() for name, value in later.items() if name.endswith(".step")}
    assert steps == {2.0 * settings.training.steps}


def test_fedprox_stays_nearer_to_the_global_model_than_fedavg(generative_settings_of, client_of):
    few = {"training.steps": 8, "training.warm-up-steps": 0, "training.learning-rate": 0.01}
    start = build("ddpm", generative_settings_of(), seed=1).state_dict()

    def distance(strategy, own):
        client = client_of(generative_settings_of("ddpm", {**few, "strategy": strategy, **own}))
        flower = algorithm(strategy).server(client.settings, build("ddpm", client.settings, seed=1))
        sent = flower.configure_train(1, to_record(start), config_record(client.settings, 1), Cohort({5: client.name}))
        weights, _ = parted(from_record(train(next(iter(sent)), client).content["model"]))
        return sum((weights[name] - start[name]).square().sum() for name in start)

    assert distance("fedprox", {"fedprox.mu": 100}) < 0.7 * distance("fedavg", {})


def test_the_held_out_loss_has_the_same_noise_in_every_round(generative_settings_of, client_of):
    settings = generative_settings_of()
    weights = build("ddpm", settings, seed=1).state_dict()

    def loss(server_round, weights=weights):
        client = client_of(settings, server_round=server_round)
        return (
            algorithm(client.settings.strategy)
            .evaluate(message_to(client, weights, "evaluate"), client)
            .content["metrics"]["loss"]
        )

    assert loss(1) == loss(2)
    assert loss(1) != loss(1, uploaded(client_of(settings)))


def test_a_client_without_test_examples_reports_no_loss(generative_settings_of, client_of):
    client = client_of(generative_settings_of(), test=0)
    metrics = (
        algorithm(client.settings.strategy)
        .evaluate(message_to(client, message_type="evaluate"), client)
        .content["metrics"]
    )
    assert metrics["num-examples"] == 0
    assert "loss" not in metrics


def test_a_poisoned_model_ends_in_an_error_and_no_upload(generative_settings_of, client_of):
    client = client_of(generative_settings_of())
    weights = {
        name: torch.full_like(value, math.nan) for name, value in build("ddpm", client.settings, 0).state_dict().items()
    }
    with pytest.raises(ArithmeticError, match="the loss is nan at step 1"):
        train(message_to(client, weights), client)
