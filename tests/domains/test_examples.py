"""Examples: what a selection holds, and that a large one stays on disk."""

import pytest
import torch

from fmtda.domains import examples as module
from fmtda.domains.examples import Examples, Rows


def numbered(count=10):
    return Examples(torch.arange(count * 4, dtype=torch.uint8).reshape(count, 4), torch.arange(count))


def test_a_large_selection_is_read_row_by_row_and_equals_a_copied_one(monkeypatch):
    copied = numbered().select([7, 2, 2]).select([2, 0])
    monkeypatch.setattr(module, "LARGE", 1)
    left = numbered().select([7, 2, 2]).select([2, 0])
    assert isinstance(left.inputs, Rows) and isinstance(copied.inputs, torch.Tensor)
    assert left.inputs.shape == copied.inputs.shape == (2, 4)
    assert torch.equal(left.inputs[:], copied.inputs)
    assert torch.equal(left.inputs[torch.tensor([1])], copied.inputs[[1]])
    assert left.labels[:].tolist() == copied.labels.tolist() == [2, 7]


def test_label_maps_are_labels_too():
    maps = Examples(torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.full((3, 4, 4), -1, dtype=torch.int8))
    assert not maps.labelled
    maps.labels[2, 0, 0] = 5
    assert maps.labelled
    assert not maps.without_labels().labelled
    assert maps.without_labels().labels.shape == (3,)


def test_examples_without_any_label_are_left_out():
    assert numbered().with_known_labels().labels.tolist() == list(range(10))
    some = Examples(numbered().inputs, torch.tensor([0, -1, 2, -1, 4, 5, -1, 7, 8, 9]))
    assert some.with_known_labels().labels.tolist() == [0, 2, 4, 5, 7, 8, 9]
    assert torch.equal(some.with_known_labels().inputs, numbered().inputs[[0, 2, 4, 5, 7, 8, 9]])
    assert len(numbered().without_labels().with_known_labels()) == 0


def test_a_map_with_one_known_pixel_counts_as_labelled(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 1)  # as read from disk
    maps = Examples(torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.full((3, 4, 4), -1, dtype=torch.int8))
    maps.labels[2, 0, 0] = 5
    known = maps.select([1, 2, 0]).with_known_labels()
    assert known.labels[:].tolist() == maps.labels[[2]].tolist()


def test_as_many_labels_as_inputs_are_needed():
    with pytest.raises(ValueError, match="one for each of 3 inputs"):
        Examples(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
