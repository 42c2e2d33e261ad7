"""ResNets: torchvision's own function, seeded, and fit for what clients do with a network."""

import copy

import pytest
import torch
from torch import nn

from fmtda.adaptation.layers import BatchNorm2d
from fmtda.adaptation.registry import NETWORKS, build
from fmtda.protocol.runtime import repair_torchvision

SHAPE = (3, 64, 64)


def pictures(count=4):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    return build("resnet18", classes=7, input_shape=SHAPE, seed=0).eval()


@pytest.mark.parametrize(("name", "features"), [("resnet18", 512), ("resnet50", 2048)])
def test_it_is_torchvisions_network_with_the_same_weights(name, features):
    repair_torchvision()
    from torchvision import models

    network = build(name, classes=7, input_shape=SHAPE, seed=0)
    published = models.get_model(name, weights=None, num_classes=7)
    body = network.feature_extractor[1].state_dict()
    head = {f"fc.{key}": tensor for key, tensor in network.classifier.state_dict().items()}
    missing, unexpected = published.load_state_dict(body | head, strict=False)
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing)
    assert network.feature_size == features
    for mode in (False, True):  # evaluation, then batch statistics and the running ones that they leave
        own, expected = network.train(mode)(pictures()), published.train(mode)(pictures())
        torch.testing.assert_close(own, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.feature_extractor[1].bn1.running_mean, published.bn1.running_mean)


def test_features_are_rows_and_any_picture_of_32_pixels_or_more_fits(network):
    assert network.feature_extractor(pictures()).shape == (4, 512)
    assert network(torch.zeros(1, 3, 32, 45)).shape == (1, 7)


def test_the_state_holds_contiguous_floats_without_counters(network):
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(layers) == 20 and all(type(layer) is BatchNorm2d for layer in layers)
    for tensor in network.state_dict().values():
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()


def test_equal_seeds_give_equal_weights_and_the_global_generator_is_left_alone(network):
    before = torch.get_rng_state()
    same, other = (build("resnet18", 7, SHAPE, seed).state_dict() for seed in (0, 1))
    assert torch.equal(before, torch.get_rng_state())
    state = network.state_dict()
    assert all(torch.equal(state[name], same[name]) for name in state)
    assert not torch.equal(state["classifier.weight"], other["classifier.weight"])


def test_a_received_state_a_copy_and_a_functional_call_give_the_same_logits(network):
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.device("meta"):
        received = NETWORKS["resnet18"](7, SHAPE)
    received.load_state_dict(state, assign=True)
    expected = network(pictures())
    assert torch.equal(received.eval()(pictures()), expected)
    assert torch.equal(copy.deepcopy(network)(pictures()), expected)
    other = build("resnet18", 7, SHAPE, 1).eval()
    assert torch.equal(torch.func.functional_call(other, state, (pictures(),)), expected)


@pytest.mark.parametrize(("shape", "reason"), [((3, 31, 96), "sides 32 at least"), ((1, 96, 96), "colour pictures")])
def test_other_pictures_are_refused(shape, reason):
    with pytest.raises(ValueError, match=reason):
        build("resnet18", 7, shape, 0)
