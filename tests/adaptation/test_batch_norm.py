"""BatchNorm as a client's own part: exact statistics, shrinkage, the state that stays there."""

import copy

import pytest
import torch

from fmtda.adaptation.batch_norm import batch_norm_state, load_batch_norm_state, load_batch_norm_statistics, reestimate
from fmtda.adaptation.registry import build


def example_inputs(count=64):
    return 2 + 3 * torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def feature_extractor():
    return build("small-cnn", 10, (3, 32, 32), 0).eval().feature_extractor


def test_at_weight_one_a_batch_gives_each_layer_its_own_statistics():
    network = feature_extractor()
    reestimate(network, example_inputs(), client_weight=1)
    values = example_inputs()
    checked = 0
    with torch.no_grad():
        for layer in network:
            if hasattr(layer, "running_mean"):
                dims = [dim for dim in range(values.dim()) if dim != 1]
                torch.testing.assert_close(layer.running_mean, values.mean(dims), atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(layer.running_var, values.var(dims), atol=1e-5, rtol=1e-4)
                # the layer's output within this very batch is what the next layer must have seen
                layer.train()
                values = layer(values)
                checked += 1
            else:
                values = layer(values)
    assert checked == 4


def test_several_batches_are_averaged_by_size(monkeypatch):
    monkeypatch.setattr("fmtda.adaptation.batches.FORWARD_EXAMPLES", 20)
    first_layer_inputs = example_inputs(50)
    network = feature_extractor()
    reestimate(network, first_layer_inputs, client_weight=1)
    with torch.no_grad():
        values = network[1](first_layer_inputs)
    torch.testing.assert_close(network[2].running_mean, values.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-4)


def test_the_weight_mixes_the_clients_statistics_with_the_servers():
    alone, shrunk = feature_extractor(), feature_extractor()
    server = batch_norm_state(alone)
    inputs = example_inputs(30)
    reestimate(alone, inputs, client_weight=1)
    reestimate(shrunk, inputs, client_weight=0.25)
    client = batch_norm_state(alone)
    for name, value in batch_norm_state(shrunk).items():
        torch.testing.assert_close(value, 0.25 * client[name] + 0.75 * server[name])


def test_parameters_modes_and_momentum_stay():
    network = feature_extractor()
    before = copy.deepcopy(network)
    reestimate(network, example_inputs(), client_weight=0.3)
    for old, new in zip(before.parameters(), network.parameters(), strict=True):
        assert torch.equal(old, new)
    assert not any(module.training for module in network.modules())
    assert network[2].momentum == before[2].momentum
    assert not torch.equal(network[2].running_mean, before[2].running_mean)


@pytest.mark.parametrize(
    ("count", "weight", "message"), [(1, 0.5, "need two"), (4, -1, "in .0, 1."), (4, 1.5, "in .0, 1.")]
)
def test_too_few_inputs_and_a_weight_out_of_range_are_refused(count, weight, message):
    with pytest.raises(ValueError, match=message):
        reestimate(feature_extractor(), example_inputs(count), client_weight=weight)


def test_the_state_brings_a_fresh_network_to_the_same_outputs():
    network = build("small-cnn", 10, (3, 32, 32), 0).eval()
    fresh = copy.deepcopy(network)
    reestimate(network.feature_extractor, example_inputs(), client_weight=1)
    with torch.no_grad():
        network.feature_extractor[2].weight.mul_(1.5)
    state = batch_norm_state(network)
    assert len(state) == 4 * 4
    inputs = example_inputs(8)
    assert not torch.allclose(fresh(inputs), network(inputs))
    load_batch_norm_state(fresh, state)
    assert torch.equal(fresh(inputs), network(inputs))


def test_the_statistics_alone_leave_scales_and_shifts():
    network = feature_extractor()
    own = {name: value + 1 for name, value in batch_norm_state(network).items()}
    before = batch_norm_state(network)
    load_batch_norm_statistics(network, own)
    after = batch_norm_state(network)
    for name, value in after.items():
        assert torch.equal(value, (own if "running" in name else before)[name])


def test_the_state_is_a_copy():
    network = feature_extractor()
    state = batch_norm_state(network)
    reestimate(network, example_inputs(), client_weight=1)
    assert not torch.equal(state["2.running_mean"], network[2].running_mean)


def test_a_state_of_another_network_is_refused_and_changes_nothing():
    network = feature_extractor()
    state = batch_norm_state(network)
    before = batch_norm_state(network)
    with pytest.raises(ValueError, match=r"2\.bias"):
        load_batch_norm_state(network, {name: value for name, value in state.items() if name != "2.bias"})
    state = {name: value + 1 for name, value in state.items()}
    state["6.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"6\.bias has shape \(3,\), not \(64,\)"):
        load_batch_norm_state(network, state)
    assert all(torch.equal(before[name], value) for name, value in batch_norm_state(network).items())
