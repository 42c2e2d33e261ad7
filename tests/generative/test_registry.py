"""Models by name: seeded, averageable, and refused with what is missing."""

import pytest
import torch

from fmtda.generative.images import Images
from fmtda.generative.registry import MODELS, MissingExtraError, build

SMALL = {
    "ddpm": {"image-size": 8, "width": 8, "timesteps": 30, "implicit-steps": 4},
    "ncsn": {"image-size": 8, "width": 8, "noise-levels": 3, "sigma-max": 1.0, "sigma-min": 0.1, "langevin-steps": 2},
    "graph-nvp": {"adjacency-turns": 1, "adjacency-width": 8, "node-turns": 1, "node-width": 8, "noise": 0.9},
    "mpgvae": {"node-width": 8, "message-width": 4, "latent": 4, "message-rounds": 1, "divergence-weight": 0.1},
}
"""The smallest model of each name that is none of its special cases."""

LACKING = MODELS["ddpm"]._replace(packages=("diffusers", "a_package_nobody_has"))


@pytest.fixture(scope="module")
def settings_for(generative_settings_of):
    """Settings of a run of a small model: colour pictures, or molecules of four atoms."""

    def make(name):
        own = {f"{name}.{key}": value for key, value in SMALL[name].items()}
        pictures = isinstance(MODELS[name].kind, Images)
        data = {f"{name}.colour": "rgb"} if pictures else {"data.input-shape": "4x4", "data.classes": "C,N,O"}
        return generative_settings_of(name, {**own, **data})

    return make


def test_every_model_is_built_here():
    assert set(SMALL) == set(MODELS)


def some_examples(name):
    """Five examples as the model takes them."""
    draws = torch.Generator().manual_seed(0)
    if isinstance(MODELS[name].kind, Images):
        return torch.randint(0, 256, (5, 3, 8, 8), generator=draws, dtype=torch.uint8)
    upper = torch.randint(0, 4, (5, 4, 4), generator=draws, dtype=torch.int8).triu()
    return upper + upper.triu(1).transpose(1, 2)


@pytest.mark.parametrize("name", SMALL)
def test_equal_seeds_give_equal_weights_and_other_seeds_others(name, settings_for):
    settings = settings_for(name)
    first, same, other = (build(name, settings, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", SMALL)
def test_building_leaves_the_global_generator_alone(name, settings_for):
    settings = settings_for(name)
    before = torch.get_rng_state()
    build(name, settings, 1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", SMALL)
def test_the_state_is_the_parameters_as_contiguous_floats(name, settings_for):
    model = build(name, settings_for(name), 0)
    assert set(model.state_dict()) == {key for key, _ in model.named_parameters()}
    for tensor in model.state_dict().values():
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()


@pytest.mark.parametrize("name", SMALL)
def test_examples_go_in_and_come_out(name, settings_for):
    model, draws, batch = build(name, settings_for(name), 0), torch.Generator().manual_seed(0), some_examples(name)
    loss = model.loss(batch, draws)
    assert loss.shape == () and loss.isfinite()
    samples = model.sample(2, draws)
    assert samples.shape == (2, *batch.shape[1:]) and samples.dtype == batch.dtype


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_depends_on_the_given_generator_alone(name, settings_for):
    model, batch = build(name, settings_for(name), 0), some_examples(name)
    losses = []
    for seed in (3, 3, 4):
        torch.rand(7)  # the global generator moves on
        losses.append(model.loss(batch, torch.Generator().manual_seed(seed)))
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


def test_an_unknown_name_is_refused_with_the_allowed_ones():
    with pytest.raises(ValueError, match="model='gan': no such name; allowed are ddpm"):
        build("gan", None, 0)


def test_a_model_without_its_packages_says_which_and_how_to_install_them(settings_for):
    with pytest.raises(
        MissingExtraError, match=r"LACKING needs a_package_nobody_has.*pip install 'fmtda\[generative\]'"
    ):
        build(f"{__name__}:LACKING", settings_for("ddpm"), 0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ddpm.image-size": 10}, "image_size=10 must be a positive multiple of 4"),
        ({"ddpm.width": 12}, "width=12"),
    ],
)
def test_sizes_that_do_not_fit_the_network_are_refused(change, message, settings_for):
    with pytest.raises(ValueError, match=message):
        build("ddpm", settings_for("ddpm").changed(change), 0)
