"""The models' own settings: ways to sample, and what follows from a setting."""

import pytest

from fmtda.generative.ddpm import DDPMSettings
from fmtda.protocol.tables import SettingsError
from fmtda.strategies.composition import resolve


def own(workload="ddpm", **changes):
    return resolve({"workload": workload, **{f"{workload}.{key}": value for key, value in changes.items()}}).model


def test_colour_is_a_number_of_channels():
    assert [own(colour=colour).channels for colour in ("grey", "rgb")] == [1, 3]


def test_ddpm_samples_by_either_sampler():
    settings = own()
    assert isinstance(settings, DDPMSettings)
    assert settings.sampled_by(None, None) == {}
    assert settings.sampled_by("ddim", None) == {"implicit-steps": 50}
    assert settings.sampled_by("ddim", 20) == {"implicit-steps": 20}
    assert settings.sampled_by("ddpm", None) == {"implicit-steps": 0}


@pytest.mark.parametrize(
    ("workload", "sampler", "steps", "said"),
    [
        ("ddpm", "euler", None, "--sampler euler: no such sampler; allowed are ddpm, ddim"),
        ("ddpm", None, 20, "--steps 20: only --sampler ddim"),
        ("ddpm", "ddpm", 20, "--steps 20: only --sampler ddim"),
        ("ncsn", "ddim", None, "--sampler ddim: this model has one way to sample"),
        ("ncsn", None, 20, "--steps 20: this model has one way to sample"),
        ("graph-nvp", "ddim", None, "--sampler ddim: this model has one way to sample"),
    ],
)
def test_a_sampler_that_the_model_has_not_is_refused(workload, sampler, steps, said):
    with pytest.raises(SettingsError, match=said):
        own(workload).sampled_by(sampler, steps)
