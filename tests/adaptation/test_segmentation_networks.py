"""Dense networks: torchvision's own function split into G and F, no dropout, any size of pictures."""

import copy

import pytest
import torch
from torch import nn

from fmtda.adaptation.layers import BatchNorm2d
from fmtda.adaptation.registry import NETWORKS, build
from fmtda.protocol.runtime import repair_torchvision

SHAPE = (3, 64, 96)
CLASSES = 5
FEATURES = {"lraspp": 168, "deeplabv3": 256}


def pictures(height=64, width=96, count=2):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def networks():
    built = {name: build(name, CLASSES, SHAPE, seed=0).eval() for name in FEATURES}
    # Statistics off their initial values, so that epsilon and the order of layers show in the logits.
    generator = torch.Generator().manual_seed(1)
    for network in built.values():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(std=0.1, generator=generator)
                layer.running_var.uniform_(0.5, 2.0, generator=generator)
    return built


def published(name):
    repair_torchvision()
    from torchvision.models import segmentation

    if name == "lraspp":
        model = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    else:
        model = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)
    return model.eval()


def load(module, state):
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing)


@torch.no_grad()
def assert_equal_logits(network, model):
    """In double precision, in which two orders of the same sums agree."""
    images = pictures().double()
    torch.testing.assert_close(copy.deepcopy(network).double()(images), model.double()(images)["out"])


def test_lraspp_is_torchvisions_with_both_last_convolutions_in_one_linear_layer(networks):
    network, model = networks["lraspp"], published("lraspp")
    maps = network.feature_extractor[0][1]
    for part, own in ((model.backbone, maps.backbone), (model.classifier.cbr, maps.late)):
        load(part, own.state_dict())
    load(model.classifier.scale, maps.scale.state_dict())
    early, late = network.classifier.weight.detach().split([40, 128], dim=1)
    load(model.classifier.low_classifier, {"weight": early[..., None, None], "bias": network.classifier.bias.detach()})
    load(model.classifier.high_classifier, {"weight": late[..., None, None], "bias": torch.zeros(CLASSES)})
    assert_equal_logits(network, model)


def test_deeplabv3_is_torchvisions_with_the_last_convolution_as_linear_layer(networks):
    network, model = networks["deeplabv3"], published("deeplabv3")
    maps = network.feature_extractor[0]
    load(model.backbone, maps.backbone.state_dict())
    load(nn.Sequential(*list(model.classifier)[:-1]), maps.head.state_dict())
    last = network.classifier.state_dict()
    load(model.classifier[-1], {"weight": last["weight"][..., None, None], "bias": last["bias"]})
    assert_equal_logits(network, model)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(64, 96, 8, 12), (180, 240, 23, 30), (16, 21, 2, 3)])
def test_features_lie_at_an_eighth_of_the_size_and_logits_at_the_full_one(networks, name, height, width, rows, columns):
    network, images = networks[name], pictures(height, width, count=1)
    with torch.no_grad():
        features = network.feature_extractor(images)
        assert features.shape == (1, rows, columns, FEATURES[name]) and network.feature_size == FEATURES[name]
        assert network.logits(features, images.shape[-2:]).shape == (1, CLASSES, height, width)


def test_epsilon_is_the_published_one_and_the_momentum_the_usual(networks):
    for name, epsilon in (("lraspp", 1e-3), ("deeplabv3", 1e-5)):
        layers = [layer for layer in networks[name].feature_extractor[0].modules() if isinstance(layer, nn.BatchNorm2d)]
        assert {(type(layer), layer.momentum) for layer in layers} == {(BatchNorm2d, 0.1)}
        # LR-ASPP's own layer, outside MobileNetV3, has torch's default.
        assert {layer.eps for layer in layers} == {epsilon, 1e-5}


@pytest.mark.parametrize("name", FEATURES)
def test_training_passes_draw_nothing(name, networks):
    network, before = copy.deepcopy(networks[name]).train(), torch.get_rng_state()
    first, second = network(pictures()), network(pictures())
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", FEATURES)
def test_a_received_state_and_a_functional_call_give_the_same_logits(networks, name):
    network = networks[name]
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in state.values())
    with torch.device("meta"):
        received = NETWORKS[name](CLASSES, SHAPE)
    received.load_state_dict(state, assign=True)
    with torch.no_grad():
        expected = network(pictures())
        assert torch.equal(received.eval()(pictures()), expected)
        zeros = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
        assert torch.equal(torch.func.functional_call(received, zeros, (pictures(),)), torch.zeros_like(expected))


def test_equal_seeds_give_equal_weights():
    first, same, other = (build("lraspp", CLASSES, SHAPE, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


@pytest.mark.parametrize("name", FEATURES)
def test_too_small_pictures_are_refused(name):
    with pytest.raises(ValueError, match="sides 16 at least"):
        build(name, CLASSES, (3, 15, 96), 0)
