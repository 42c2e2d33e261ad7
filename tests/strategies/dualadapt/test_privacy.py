"""A client of a run with privacy: what leaves it, what that depends on, and what is written down of it."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from fmtda.adaptation.mixture import fit
from fmtda.adaptation.privacy_account import Release, epsilon
from fmtda.clients import promises
from fmtda.domains.examples import DataError, Examples
from fmtda.protocol.records import from_record, to_record
from fmtda.strategies.dualadapt import privacy
from fmtda.strategies.dualadapt.client import UPLOADED, DualAdapt
from tests.strategies.uploads import same_bits, upload

NOISE = {"privacy.noise": 1.0, "privacy.mixture-noise": 4.0}


@pytest.fixture
def noised(settings_of):
    """Settings of a run with noise; a dictionary changes some."""
    return lambda changes={}: settings_of({**NOISE, **changes})


@pytest.fixture
def simulated_client(client_of):
    return lambda settings, **more: dataclasses.replace(client_of(settings, **more), simulated=True)


def test_uploads_look_as_without_noise_and_tell_epsilon_alone(noised, simulated_client, message_to):
    client = simulated_client(noised())
    content = promises.withheld(DualAdapt().train(message_to(client), client), client).content
    assert set(content) == {"client", "metrics", "classifier", "mixture"}
    assert set(content["metrics"]) == {"num-examples", "seconds", "epsilon"}
    assert set(content["mixture"]) == {"weights", "means", "variances", "quantiles"}
    kept = client.kept(UPLOADED)
    assert torch.equal(kept["classifier"]["weight"], from_record(content["classifier"])["weight"])


def test_a_simulated_client_sends_the_same_noise_again_and_a_real_one_never(noised, simulated_client, message_to):
    client = simulated_client(noised())
    message = message_to(client)
    assert same_bits(upload(message, client), upload(message, client))
    real = dataclasses.replace(client, simulated=False)
    first, second = upload(message, real), upload(message, real)
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])
    assert not torch.equal(first["mixture.means"], second["mixture.means"])


def test_noise_differs_between_rounds_and_between_the_two_mechanisms(noised, simulated_client):
    client = simulated_client(noised())
    later = dataclasses.replace(client, round=2)
    draws = [
        privacy.secret_uniforms(client, "noise of the classifier")(9),
        privacy.secret_uniforms(client, "noise of the mixture")(9),
        privacy.secret_uniforms(later, "noise of the classifier")(9),
    ]
    assert len({tuple(each.tolist()) for each in draws}) == 3


def test_no_examples_features_depend_on_the_others(noised, simulated_client, message_to):
    """With its own BatchNorm statistics they would, and one example could move the gradients of all."""
    client = simulated_client(noised({"preset": "default"}))
    changed = client.train.inputs.clone()
    changed[0] = 255 - changed[0]
    other = dataclasses.replace(client, train=Examples(changed, client.train.labels))
    network = DualAdapt().received(message_to(client), client)
    first, second = privacy._features(network, client), privacy._features(network, other)
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[1:], second[1:])


def test_it_joins_by_the_noised_mixture_that_it_would_upload_if_it_trained(noised, simulated_client, message_to):
    client = simulated_client(noised())
    sent = promises.withheld(DualAdapt().join(message_to(client), client), client).content
    assert set(sent) == {"client", "metrics", "mixture"}
    assert set(sent["metrics"]) == {"num-examples", "seconds", "epsilon"}
    assert sent["metrics"]["epsilon"] == epsilon([Release(0, 1.0, 0.0, 4.0)], 1e-5)
    trained = from_record(DualAdapt().train(message_to(client), client).content["mixture"])
    assert same_bits(from_record(sent["mixture"]), trained)


def test_every_round_is_counted_and_a_repeated_one_by_real_clients_alone(noised, simulated_client, message_to):
    settings = noised()
    release = Release(settings.algorithm.client_steps, 8 / 24, 1.0, 4.0)

    def spent(client, server_round):
        client = dataclasses.replace(client, round=server_round)
        return DualAdapt().train(message_to(client), client).content["metrics"]["epsilon"]

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
    one_round = epsilon([Release(client.settings.algorithm.client_steps, 8 / 24, 1.0, 4.0)], 1e-5)
    client = dataclasses.replace(client, epsilon_limit=1.01 * one_round)
    DualAdapt().train(message_to(client), client)
    before = (client.folder / privacy.RELEASED).read_bytes()
    with pytest.raises(DataError, match="pen/0000: epsilon would be .*epsilon-limit="):
        DualAdapt().train(message_to(client), client)
    assert (client.folder / privacy.RELEASED).read_bytes() == before


def test_a_floor_leaves_components_with_enough_examples_alone(settings_of, client_of, message_to):
    four = {"dualadapt.components": 4, "preset": "paper"}
    client = client_of(settings_of(four), train=120)
    message = message_to(client)
    free = upload(message, client)
    floored = client_of(settings_of({**four, "privacy.mixture-floor": 30}), train=120)
    left = upload(message_to(floored), floored)
    fitted = 96
    small = free["mixture.weights"] * fitted < 29
    assert small.any()  # the weights follow the last batches, so they say nearly how many examples there are
    assert len(left["mixture.weights"]) < len(free["mixture.weights"])
    assert left["mixture.weights"].sum().item() == pytest.approx(1)
    assert torch.equal(free["classifier.weight"], left["classifier.weight"])
    joined = from_record(DualAdapt().join(message_to(floored), floored).content["mixture"])
    assert torch.equal(joined["means"], left["mixture.means"])


@pytest.mark.parametrize("bare", NOISE)
def test_half_of_the_noise_is_none_and_refused_before_anything_is_sent(bare, noised, client_of, message_to):
    client = client_of(noised({bare: 0.0}))
    with pytest.raises(DataError, match="pen/0000: .*set both above 0"):
        DualAdapt().train(message_to(client), client)
    assert not client.folder.exists()


@pytest.mark.parametrize("noise", [{}, NOISE], ids=["plain", "noised"])
def test_the_table_of_what_leaves_is_that_of_real_messages(noise, settings_of, client_of, message_to):
    page = (Path(__file__).parents[3] / "docs" / "privacy.md").read_text()
    rows = re.findall(r"^\| (train[a-z, ]*) \| `([a-z/]+)` \| ([0-9x ]+) \| ([0-9,]+) \|$", page, re.MULTILINE)
    told = {name: (shape, size, messages) for messages, name, shape, size in rows}
    client = client_of(settings_of({"dualadapt.components": 10, **noise}), train=280)
    ten_components = fit(torch.rand(400, 128, generator=torch.Generator().manual_seed(0)), 10, 0)
    for kind, work in {"train": DualAdapt().train, "join": DualAdapt().join}.items():
        message = message_to(client)
        message.content["source_mixture"] = to_record(ten_components.arrays())
        content = work(message, client).content
        sent = {
            f"{record}/{name}": (" x ".join(map(str, array.shape)), f"{len(array.data):,}")
            for record in set(content) - {"client", "metrics"}
            for name, array in content[record].items()
        }
        assert sent == {name: row[:2] for name, row in told.items() if kind in row[2].split(", ")}
