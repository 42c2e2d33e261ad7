"""What the heads make of the networks' probabilities, by hand."""

import pytest
import torch

from fmtda.adaptation.heads import HEADS, by_head, decisive

OF_NETWORKS = {
    "global": torch.tensor([[0.8, 0.2]]),
    "local": torch.tensor([[0.4, 0.6]]),
    "personal": torch.tensor([[0.0, 1.0]]),
}


def test_own_copy_and_what_would_count_without_it_have_equal_say():
    heads = by_head(OF_NETWORKS, "mean")
    assert tuple(heads) == HEADS
    assert torch.allclose(heads["mean"], torch.tensor([[0.6, 0.4]]))
    assert torch.allclose(heads["personal"], torch.tensor([[0.3, 0.7]]))
    assert torch.allclose(by_head(OF_NETWORKS, "local")["personal"], torch.tensor([[0.2, 0.8]]))


def test_an_own_copy_stands_beside_f_g_where_there_is_no_f_l():
    heads = by_head({name: OF_NETWORKS[name] for name in ("global", "personal")}, "mean")
    assert list(heads) == ["global", "personal"]
    assert torch.allclose(heads["personal"], torch.tensor([[0.4, 0.6]]))


@pytest.mark.parametrize("alone", ["global", "local"])
def test_without_an_own_copy_nothing_is_personal(alone):
    heads = by_head({name: OF_NETWORKS[name] for name in ("global", alone)}, "mean")
    assert "personal" not in heads
    assert ("mean" in heads) == (alone == "local")


def test_the_personal_head_decides_then_the_inference_rule_then_f_g():
    heads = {"global": 1, "local": 2, "mean": 3}
    assert decisive(heads | {"personal": 4}, "mean") == 4
    assert decisive(heads, "mean") == 3
    assert decisive(heads, "local") == 2
    assert decisive({"global": 1}, "local") == 1
