"""Networks by name: shapes, seeds, the state that federated averaging sees."""

import pytest
import torch

from fmtda.adaptation.registry import NETWORKS, build

SHAPE = (3, 32, 32)
DIGIT_NETWORKS = ("small-cnn", "mcd-digits", "m3sda-digits")
TESTED_BESIDE = ("mlp", "resnet18", "resnet50", "lraspp", "deeplabv3")


@pytest.mark.parametrize(("name", "features"), [("small-cnn", 128), ("mcd-digits", 3072), ("m3sda-digits", 2048)])
def test_features_and_logits_have_the_declared_sizes(name, features):
    network = build(name, classes=7, input_shape=SHAPE, seed=0).eval()
    images = torch.zeros(2, *SHAPE)
    assert network.feature_size == features
    assert network.feature_extractor(images).shape == (2, features)
    assert network(images).shape == (2, 7)


def test_every_network_of_the_registry_is_tested():
    assert set(NETWORKS) == {*DIGIT_NETWORKS, *TESTED_BESIDE}


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 28, 28), (3, 35, 50)])
@pytest.mark.parametrize("name", DIGIT_NETWORKS)
def test_any_input_shape_that_survives_the_pooling_fits(name, shape):
    assert build(name, 10, shape, 0).eval()(torch.zeros(1, *shape)).shape == (1, 10)


def test_the_forward_pass_is_the_classifier_on_the_features():
    network = build("small-cnn", 10, SHAPE, 0).eval()
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(images), network.classifier(network.feature_extractor(images)))


def test_equal_seeds_give_equal_weights_and_other_seeds_others():
    first, same, other = (build("small-cnn", 10, SHAPE, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    build("small-cnn", 10, SHAPE, 1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", DIGIT_NETWORKS)
def test_the_state_holds_contiguous_floats_alone(name):
    for tensor in build(name, 10, SHAPE, 0).state_dict().values():
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()  # safetensors refuses others


def test_a_plain_dictionary_of_arrays_loads_strictly():
    # off the wire a state dict has lost torch's version metadata
    state = {name: tensor.clone() for name, tensor in build("small-cnn", 10, SHAPE, 1).state_dict().items()}
    network = build("small-cnn", 10, SHAPE, 2)
    network.load_state_dict(state)
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


def test_running_statistics_move_by_the_usual_momentum():
    network = build("small-cnn", 10, SHAPE, 0).train()
    layer = network.feature_extractor[2]
    values = 3 + torch.randn(64, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    layer(values)
    torch.testing.assert_close(layer.running_mean, 0.1 * values.mean(dim=(0, 2, 3)))


def test_the_mlp_takes_feature_vectors_and_brings_them_to_one_scale():
    network = build("mlp", classes=7, input_shape=(9,), seed=0).train()
    vectors = torch.randn(64, 9, generator=torch.Generator().manual_seed(0))
    scales = torch.logspace(-1, 3, 9)
    features = network.feature_extractor(vectors)
    assert features.shape == (64, network.feature_size) == (64, 128) and network(vectors).shape == (64, 7)
    torch.testing.assert_close(network.feature_extractor(vectors * scales + 5), features, atol=5e-3, rtol=0)
    assert all(tensor.dtype == torch.float32 for tensor in network.state_dict().values())


def test_the_mlp_refuses_pictures():
    with pytest.raises(ValueError, match=r"input_shape=\(3, 32, 32\) must be \(D,\)"):
        build("mlp", 10, SHAPE, 0)


@pytest.mark.parametrize("place", ["math:pi", "os:system", "builtins:int", "builtins:max"])
def test_a_place_without_a_network_is_refused(place):
    with pytest.raises(ValueError, match=f"network.name={place}: "):
        build(place, 10, (3, 8, 8), 0)


def test_an_unknown_name_is_refused_with_the_allowed_ones():
    with pytest.raises(ValueError, match="network.name=resnet-9: no such name.*small-cnn, mcd-digits, m3sda-digits"):
        build("resnet-9", 10, SHAPE, 0)


def test_pictures_too_small_for_the_pooling_are_refused():
    with pytest.raises(ValueError, match="sides 8 at least"):
        build("small-cnn", 10, (3, 7, 32), 0)


@pytest.mark.parametrize("name", ["small-cnn", "lraspp"])
def test_in_bfloat16_g_computes_under_autocast_and_gives_float32(name):
    network, same = build(name, 5, SHAPE, 0, torch.bfloat16).eval(), build(name, 5, SHAPE, 0).eval()
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    features = network.feature_extractor(images)
    with torch.autocast("cpu", torch.bfloat16):
        expected = same.feature_extractor(images).float()
    assert features.dtype == torch.float32 and torch.equal(features, expected)
    exact = same.feature_extractor(images)
    assert not torch.equal(features, exact)
    torch.testing.assert_close(features, exact, atol=0.05 * exact.abs().max().item(), rtol=0)


def test_weights_and_their_gradients_stay_float32_in_bfloat16():
    network = build("small-cnn", 5, SHAPE, 0, torch.bfloat16).train()
    network(torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    assert all(weight.dtype == weight.grad.dtype == torch.float32 for weight in network.parameters())
    assert all(weight.grad.abs().sum() > 0 for weight in network.feature_extractor.parameters())


def test_an_exported_program_computes_in_float32():
    network = build("small-cnn", 5, SHAPE, 0, torch.bfloat16).eval()
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        program = torch.export.export(network, (images,)).module()
        exact = build("small-cnn", 5, SHAPE, 0).eval()(images)
        torch.testing.assert_close(program(images), exact, atol=1e-5, rtol=1e-5)
