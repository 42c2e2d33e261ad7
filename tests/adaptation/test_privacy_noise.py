"""The numbers that noise is made of: their distribution, and who can repeat them."""

import pytest
import torch
from scipy import stats

from fmtda.adaptation.privacy_noise import BITS, normal, seeded_uniforms, system_uniforms


def seeded(seed=0):
    return seeded_uniforms(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("uniforms", [system_uniforms, seeded()], ids=["system", "seeded"])
def test_numbers_are_normal_with_a_standard_deviation_of_one(uniforms):
    drawn = normal((300, 100), uniforms)
    assert drawn.shape == (300, 100) and drawn.dtype == torch.float64
    assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-6
    assert drawn.std().item() == pytest.approx(1, abs=0.025)  # six standard errors


def test_a_seed_gives_the_same_again_and_the_system_never():
    assert torch.equal(normal((5, 2), seeded(1)), normal((5, 2), seeded(1)))
    assert not torch.equal(normal((5, 2), seeded(1)), normal((5, 2), seeded(2)))
    torch.manual_seed(0)
    first = system_uniforms(20)
    torch.manual_seed(0)
    assert not torch.equal(first, system_uniforms(20))


@pytest.mark.parametrize("extreme", [0, 2**BITS - 1])
def test_the_rarest_draws_are_finite(extreme, monkeypatch):
    monkeypatch.setattr("secrets.token_bytes", lambda count: (extreme << (64 - BITS)).to_bytes(8, "little"))
    assert normal((1,), system_uniforms).isfinite().all()
    assert 0 < system_uniforms(1).item() < 1
