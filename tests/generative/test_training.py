"""The training loop by a model whose loss is known by hand; the step sizes; the held-out loss."""

import math

import pytest
import torch
from torch import nn

from fmtda.generative.model import GenerativeModel
from fmtda.generative.sampling import SAMPLE_BATCH, draw, steps_to_draw
from fmtda.generative.training import HELD_OUT_DRAWS, LossNotFinite, descend, held_out_loss, step_size, step_sizes


class Mean(GenerativeModel):
    """A number that learns the mean of its examples, by the squared distance plus noise of zero mean."""

    def __init__(self, start=0.0):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(float(start)))

    def loss(self, batch, generator):
        return (self.mean - batch.float()).square().mean() + torch.randn((), generator=generator)

    def sample(self, count, generator, advance=lambda done: None):
        for _ in range(self.sampling_steps):
            advance(1)
        return self.mean.detach() + torch.randn(count, generator=generator)

    @property
    def sampling_steps(self):
        return 3


ONES = torch.ones(4, 1)


def trained(model, sizes, batches=None, **options):
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.SGD(model.parameters(), lr=9.0)
    batches = batches or [torch.arange(4)] * len(sizes)
    return descend(model, optimiser, ONES, batches, sizes, generator, **options)


def test_every_step_has_its_own_size_and_batch():
    model = Mean()
    trained(model, [0.25, 0.5])  # gradient -2, then -1
    assert model.mean.item() == 0.5 + 0.5


def test_the_result_is_the_mean_loss_and_every_step_is_told():
    generator, told = torch.Generator().manual_seed(0), []
    loss = trained(Mean(), [0.0, 0.0], on_step=told.append)
    assert loss == pytest.approx(1 + torch.randn(2, generator=generator).mean().item())
    assert told == [1, 1]


def test_the_proximal_term_pulls_towards_the_start_and_is_not_in_the_loss():
    near, far = Mean(), Mean()
    losses = [trained(model, [0.1] * 100, proximal_mu=mu) for model, mu in ((far, 0.0), (near, 6.0))]
    assert far.mean.item() == pytest.approx(1.0)
    assert near.mean.item() == pytest.approx(0.25)  # argmin (m - 1)^2 + 3 m^2
    assert losses[1] - losses[0] == pytest.approx(0.75**2, abs=0.1)


def test_a_loss_that_is_not_finite_stops_before_it_does_harm():
    class Poisoned(Mean):
        steps = 0

        def loss(self, batch, generator):
            self.steps += 1
            return super().loss(batch, generator) * (math.nan if self.steps == 2 else 1)

    model = Poisoned()
    with pytest.raises(LossNotFinite, match="the loss is nan at step 2; take a smaller training.learning-rate"):
        trained(model, [0.25] * 5)
    assert model.mean.item() == 0.5


def test_long_gradients_are_shortened_to_the_norm_that_is_allowed():
    model = Mean()
    trained(model, [0.25], gradient_clip=0.5)  # instead of -2
    assert model.mean.item() == pytest.approx(0.125)
    trained(model, [0.25], gradient_clip=5.0)  # -1.75 is short enough
    assert model.mean.item() == pytest.approx(0.125 + 0.4375)


def size(step, schedule="constant", warm_up=0):
    return step_size(step, peak=2.0, schedule=schedule, warm_up=warm_up, steps=10)


def test_step_sizes_rise_and_then_stay_or_fall_along_a_cosine():
    assert [size(step, warm_up=4) for step in (0, 1, 3, 4, 9)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert [size(step, "cosine") for step in (0, 5)] == pytest.approx([2.0, 1.0])
    assert size(9, "cosine", warm_up=4) == pytest.approx(2 * (1 + math.cos(math.pi * 5 / 6)) / 2)
    assert size(0, "cosine", warm_up=10) == pytest.approx(0.2)


def test_the_rounds_share_one_schedule(generative_settings_of):
    training = {"steps": 5, "learning-rate": 2.0, "schedule": "cosine", "warm-up-steps": 3}
    settings = generative_settings_of("ddpm", {"rounds": 2, **{f"training.{key}": v for key, v in training.items()}})
    together = step_sizes(settings, 1) + step_sizes(settings, 2)
    assert together == [size(step, "cosine", warm_up=3) for step in range(10)]


def test_the_held_out_loss_is_a_mean_over_many_draws_and_the_same_every_time():
    model = Mean(start=3.0)
    first, again = (held_out_loss(model, ONES, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first == again
    assert first == pytest.approx(4.0, abs=5 / math.sqrt(HELD_OUT_DRAWS / 4))
    assert not model.training


def test_samples_are_drawn_in_batches_and_every_step_is_told():
    told = []
    count = SAMPLE_BATCH + 5
    samples = draw(Mean(), count, torch.Generator().manual_seed(0), told.append)
    assert len(samples) == count
    assert len(set(samples.tolist())) == count
    assert sum(told) == steps_to_draw(Mean(), count) == 6
    assert torch.equal(samples, draw(Mean(), count, torch.Generator().manual_seed(0)))
