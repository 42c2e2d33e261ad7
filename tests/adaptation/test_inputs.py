"""Inputs prepared all at once or as they are asked for, and the slices of a forward pass."""

import pytest
import torch

from fmtda.adaptation import inputs as module
from fmtda.adaptation.augment import prepare
from fmtda.adaptation.augment_digits import DigitAugmentation
from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.inputs import Inputs
from fmtda.domains.examples import Rows


def pictures(count=10):
    return torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def inputs_of(stored):
    return Inputs(stored, DigitAugmentation(), True, torch.device("cpu"))


@pytest.mark.parametrize("chosen", [slice(2, 5), torch.tensor([7, 0, 7])], ids=["slice", "indices"])
def test_large_inputs_are_prepared_on_demand_and_equal_those_prepared_at_once(chosen, monkeypatch):
    at_once = inputs_of(pictures())
    monkeypatch.setattr(module, "SMALL", 0)
    on_demand = inputs_of(Rows(torch.cat([pictures(), pictures()]), torch.arange(10, 20)))
    torch.testing.assert_close(at_once[chosen], prepare(pictures()[chosen], standardise=True))
    torch.testing.assert_close(on_demand[chosen], at_once[chosen])
    assert len(on_demand) == len(at_once) == 10
    assert on_demand.example_shape == at_once.example_shape == (3, 8, 8)


def test_a_view_is_drawn_from_the_generator_and_prepared():
    inputs, chosen = inputs_of(pictures()), torch.tensor([1, 4])
    views = [inputs.view(chosen, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    torch.testing.assert_close(views[0].mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 255, 257, 1000])
@pytest.mark.parametrize("side", [1, 32, 96, 1000])
def test_forward_slices_cover_everything_in_order_and_leave_no_example_alone(count, side):
    meta = torch.empty(count, 3, side, side, device="meta")
    slices = forward_slices(meta)
    assert [i for part in slices for i in range(part.start, part.stop)] == list(range(count))
    sizes = [part.stop - part.start for part in slices]
    assert all(size >= min(2, count) for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert all(size <= 256 and size * 3 * side**2 <= max(256 * 3 * 32**2, 3 * 3 * side**2) for size in sizes)
