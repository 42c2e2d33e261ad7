"""Mini-batches: every example in turn, seeded orders, small data sets."""

import torch

from fmtda.adaptation.batches import shuffled_batches


def batches(examples, batch_size, steps, seed=0):
    return list(shuffled_batches(examples, batch_size, steps, torch.Generator().manual_seed(seed)))


def test_one_pass_takes_every_example_once():
    drawn = batches(examples=12, batch_size=4, steps=3)
    assert [len(batch) for batch in drawn] == [4, 4, 4]
    assert sorted(torch.cat(drawn).tolist()) == list(range(12))


def test_a_rest_smaller_than_a_batch_is_left_to_another_pass():
    drawn = batches(examples=10, batch_size=4, steps=5)
    assert [len(batch) for batch in drawn] == [4] * 5
    assert len(set(torch.cat(drawn[:2]).tolist())) == 8


def test_fewer_examples_than_a_batch_are_taken_whole():
    assert [sorted(batch.tolist()) for batch in batches(3, 8, 2)] == [[0, 1, 2]] * 2


def test_orders_depend_on_the_generator_alone():
    first, same, other = (torch.cat(batches(100, 10, 10, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
