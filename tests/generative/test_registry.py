"""Models by name: seeded, averageable, and refused with what is missing."""

from types import SimpleNamespace

import pytest
import torch

from fmtda.generative import registry
from fmtda.generative.images import Images
from fmtda.generative.registry import MODELS, MissingExtraError, build

SETTINGS = SimpleNamespace(
    channels=3,
    image_size=8,
    width=8,
    timesteps=30,
    schedule="cosine",
    variance="posterior",
    implicit_steps=4,
    implicit_eta=1.0,
    noise_levels=3,
    sigma_max=1.0,
    sigma_min=0.1,
    langevin_steps=2,
    step_size=0.0,
    objective="noise-conditional",
    denoise=True,
    shape=(4, 4),
    class_names=("C", "N", "O"),
    nodes=4,
    atom_kinds=4,
    coupling="affine",
    adjacency_turns=1,
    adjacency_width=8,
    node_turns=1,
    node_width=8,
    noise=0.9,
    temperature=0.7,
    precision="float32",
    message_width=4,
    latent=4,
    message_rounds=1,
    divergence_weight=0.1,
    numbering="canonical",
    categories="likeliest",
)


def some_examples(name):
    """Five examples as the model takes them."""
    draws = torch.Generator().manual_seed(0)
    if isinstance(MODELS[name].kind, Images):
        return torch.randint(0, 256, (5, 3, 8, 8), generator=draws, dtype=torch.uint8)
    upper = torch.randint(0, 4, (5, 4, 4), generator=draws, dtype=torch.int8).triu()
    return upper + upper.triu(1).transpose(1, 2)


@pytest.mark.parametrize("name", MODELS)
def test_equal_seeds_give_equal_weights_and_other_seeds_others(name):
    first, same, other = (build(name, SETTINGS, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", MODELS)
def test_building_leaves_the_global_generator_alone(name):
    before = torch.get_rng_state()
    build(name, SETTINGS, 1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", MODELS)
def test_the_state_is_the_parameters_as_contiguous_floats(name):
    model = build(name, SETTINGS, 0)
    assert set(model.state_dict()) == {key for key, _ in model.named_parameters()}
    for tensor in model.state_dict().values():
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()


@pytest.mark.parametrize("name", MODELS)
def test_examples_go_in_and_come_out(name):
    model, draws, batch = build(name, SETTINGS, 0), torch.Generator().manual_seed(0), some_examples(name)
    loss = model.loss(batch, draws)
    assert loss.shape == () and loss.isfinite()
    samples = model.sample(2, draws)
    assert samples.shape == (2, *batch.shape[1:]) and samples.dtype == batch.dtype


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_depends_on_the_given_generator_alone(name):
    model, batch = build(name, SETTINGS, 0), some_examples(name)
    losses = []
    for seed in (3, 3, 4):
        torch.rand(7)  # the global generator moves on
        losses.append(model.loss(batch, torch.Generator().manual_seed(seed)))
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


def test_an_unknown_name_is_refused_with_the_allowed_ones():
    with pytest.raises(ValueError, match="model='gan' is unknown; allowed are ddpm"):
        build("gan", SETTINGS, 0)


def test_a_model_without_its_packages_says_which_and_how_to_install_them(monkeypatch):
    entry = MODELS["ddpm"]._replace(packages=("diffusers", "a_package_nobody_has"))
    monkeypatch.setitem(registry.MODELS, "ddpm", entry)
    with pytest.raises(MissingExtraError, match=r"ddpm needs a_package_nobody_has.*pip install 'fmtda\[generative\]'"):
        build("ddpm", SETTINGS, 0)


@pytest.mark.parametrize(
    "change, message",
    [({"image_size": 10}, "image_size=10 must be a positive multiple of 4"), ({"width": 12}, "width=12")],
)
def test_sizes_that_do_not_fit_the_network_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build("ddpm", SimpleNamespace(**{**vars(SETTINGS), **change}), 0)
