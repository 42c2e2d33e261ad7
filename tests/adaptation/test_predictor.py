"""What a client predicts with: its heads against plain torch, the G that two share, and the mixture beside them."""

import copy

import pytest
import torch

from fmtda.adaptation.mixture import fit
from fmtda.adaptation.network import Network
from fmtda.adaptation.predictor import MIXTURE_FIELDS, Predictor
from fmtda.adaptation.registry import build

SIZE, CLASSES = 5, 3


def network(seed: int) -> Network:
    return build("mlp", CLASSES, (SIZE,), seed).eval()


def with_head_of(network: Network, other: Network) -> Network:
    """A copy of a network with another's F."""
    return Network(copy.deepcopy(network.feature_extractor), copy.deepcopy(other.classifier), network.feature_size)


@pytest.fixture
def networks():
    """G and F_g, the same G with F_l, and an own copy."""
    return {"global": network(0), "local": with_head_of(network(0), network(1)), "personal": network(2)}


@pytest.fixture
def inputs():
    return torch.randn(7, SIZE, generator=torch.Generator().manual_seed(0))


def probabilities(network: Network, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(inputs).softmax(dim=1)


@pytest.mark.parametrize(
    ("given", "inference", "heads", "counts"),
    [
        (["global"], "mean", ("global",), "global"),
        (["global"], "local", ("global",), "global"),
        (["global", "local"], "mean", ("global", "local", "mean"), "mean"),
        (["global", "local"], "local", ("global", "local", "mean"), "local"),
        (["global", "local", "personal"], "mean", ("global", "local", "mean", "personal"), "personal"),
        (["global", "personal"], "mean", ("global", "personal"), "personal"),
    ],
)
def test_heads_follow_from_the_networks_and_the_one_that_counts_is_the_prediction(
    given, inference, heads, counts, networks, inputs
):
    predictor = Predictor({name: networks[name] for name in given}, inference)
    assert predictor.heads == tuple(predictor.by_head(inputs)) == heads
    assert predictor.head == counts
    assert torch.equal(predictor(inputs), predictor.by_head(inputs)[counts])
    assert list(predictor.networks) == given


def test_every_heads_probabilities_are_those_of_plain_torch(networks, inputs):
    p = {name: probabilities(each, inputs) for name, each in networks.items()}
    predictor = Predictor(networks)
    found = predictor.by_head(inputs)
    mean = (p["global"] + p["local"]) / 2
    expected = {"global": p["global"], "local": p["local"], "mean": mean, "personal": (mean + p["personal"]) / 2}
    for head, tensor in expected.items():
        torch.testing.assert_close(found[head], tensor)
    assert not torch.equal(found["global"], found["local"])


def test_the_features_that_come_along_are_those_of_the_global_g(networks, inputs):
    with torch.no_grad():
        expected = networks["global"].feature_extractor(inputs)
    _, features = Predictor(networks).with_features(inputs)
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("different", [False, True])
def test_an_equal_g_is_computed_once_and_another_one_for_itself(different, networks, inputs):
    calls = []
    if different:
        with torch.no_grad():
            networks["local"].feature_extractor[0].running_mean.add_(1.0)
    expected = probabilities(networks["local"], inputs)
    for name in ("global", "local"):
        networks[name].feature_extractor.register_forward_hook(lambda *_, name=name: calls.append(name))
    predictor = Predictor({name: networks[name] for name in ("global", "local")})
    torch.testing.assert_close(predictor.by_head(inputs)["local"], expected)
    assert calls == (["global", "local"] if different else ["global"])


def test_networks_in_training_predict_as_in_evaluation_and_take_no_gradients(networks, inputs):
    expected = Predictor(copy.deepcopy(networks))(inputs)
    for each in networks.values():
        each.train().requires_grad_(True)
    predictor = Predictor(networks)
    assert torch.equal(predictor(inputs), expected)
    assert not predictor(inputs).requires_grad
    assert not any(parameter.requires_grad for parameter in predictor.parameters())


def test_the_mixture_is_a_part_of_the_state(networks, inputs):
    features = torch.randn(60, networks["global"].feature_size, generator=torch.Generator().manual_seed(1))
    mixture = fit(features, 2, seed=0)
    predictor = Predictor({"global": networks["global"]}, mixture=mixture)
    assert predictor.has_mixture
    assert torch.equal(predictor.mixture.log_likelihood(features), mixture.log_likelihood(features))
    assert {f"mixture_{field}" for field in MIXTURE_FIELDS} <= set(predictor.state_dict())
    other = fit(features + 1, 2, seed=0)
    again = Predictor({"global": network(3)}, mixture=other)
    again.load_state_dict(predictor.state_dict())
    assert torch.equal(again(inputs), predictor(inputs))
    assert torch.equal(again.mixture.log_likelihood(features), mixture.log_likelihood(features))


def test_without_a_mixture_there_is_none(networks):
    predictor = Predictor(networks)
    assert predictor.mixture is None and not predictor.has_mixture
    assert not [name for name in predictor.state_dict() if name.startswith("mixture")]


def test_it_says_what_it_was_made_of(networks):
    assert Predictor({"global": networks["global"]}).parts == "the global model"
    assert Predictor(networks, parts="F_g and F_l").parts == "F_g and F_l"


def test_of_a_dense_network_every_pixel_has_probabilities():
    networks = {
        name: build("lraspp", CLASSES, (3, 32, 48), seed).eval() for name, seed in {"global": 0, "local": 1}.items()
    }
    pictures = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    predictor = Predictor(networks)
    expected = sum(probabilities(each, pictures) for each in networks.values()) / 2
    assert predictor(pictures).shape == (2, CLASSES, 32, 48)
    torch.testing.assert_close(predictor(pictures), expected)
    by_head, features = predictor.with_features(pictures)
    assert features.ndim == 4 and features.shape[-1] == networks["global"].feature_size
    torch.testing.assert_close(by_head["global"], probabilities(networks["global"], pictures))
