"""What the tests of scores share: a mixture of Gaussians in the plane, whose score is known."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal


@dataclass(frozen=True)
class PlaneMixture:
    """Two round Gaussians at (-distance, 0) and (distance, 0)."""

    distance: float
    deviation: float
    weights: tuple[float, float]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        right = torch.rand(count, generator=generator) < self.weights[1]
        points = self.deviation * torch.randn(count, 2, generator=generator)
        points[:, 0] += self.distance * torch.where(right, 1.0, -1.0)
        return points

    def score(self, points: Tensor, sigma: float = 0.0) -> Tensor:
        """Of the data with noise sigma added: the gradient of torch's own log-density."""
        means = torch.tensor([[-self.distance, 0.0], [self.distance, 0.0]])
        deviations = torch.full((2, 2), (self.deviation**2 + sigma**2) ** 0.5)
        density = MixtureSameFamily(Categorical(torch.tensor(self.weights)), Independent(Normal(means, deviations), 1))
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            return torch.autograd.grad(density.log_prob(points).sum(), points)[0]


@pytest.fixture
def plane_mixture():
    return PlaneMixture
