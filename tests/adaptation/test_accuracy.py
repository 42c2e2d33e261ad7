import pytest
import torch
from sklearn.metrics import accuracy_score

from fmtda.adaptation.accuracy import accuracy
from fmtda.adaptation.batches import FORWARD_EXAMPLES
from fmtda.adaptation.registry import build


@pytest.mark.parametrize("examples", [3, FORWARD_EXAMPLES + 1])
def test_it_is_scikit_learns_over_the_known_labels(examples):
    torch.manual_seed(0)
    network = build("mlp", 4, (5,), seed=0).eval()
    inputs, labels = torch.randn(examples, 5), torch.randint(-1, 4, (examples,))
    labels[0], labels[1] = 2, -1
    known = labels >= 0
    predicted = network(inputs).argmax(dim=1)
    assert accuracy(network, inputs, labels) == pytest.approx(accuracy_score(labels[known], predicted[known]))


def test_of_a_dense_network_every_known_pixel_counts():
    torch.manual_seed(0)
    network = build("lraspp", 3, (3, 32, 48), seed=0).eval()
    inputs = torch.rand(2, 3, 32, 48)
    labels = network(inputs).argmax(dim=1)
    labels[0, :16] = -1
    wrong = labels[1, :8]
    wrong[...] = (wrong + 1) % 3
    known = 16 * 48 + 32 * 48
    assert accuracy(network, inputs, labels) == pytest.approx((known - 8 * 48) / known)
