"""One step down a gradient: which parameters move, by how much, and what is left behind."""

import torch
from torch import nn

from fmtda.adaptation.gradient_step import descend


def test_a_step_of_plain_descent_is_the_one_computed_by_hand():
    x, y = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(2.0))
    descend(x**2 * y, torch.optim.SGD([x], lr=0.1))  # d/dx = 2 x y = 12
    assert x.item() == torch.tensor(3.0 - 1.2).item()
    assert y.item() == 2
    assert x.grad is None and y.grad is None


def test_two_optimisers_move_by_gradients_of_the_same_point():
    x, y = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.tensor(2.0))
    descend(x**2 * y, torch.optim.SGD([x], lr=0.1), torch.optim.SGD([y], lr=0.1))  # d/dy = x^2 = 9 at the old x
    torch.testing.assert_close(torch.stack([x, y]).detach(), torch.tensor([1.8, 1.1]))
