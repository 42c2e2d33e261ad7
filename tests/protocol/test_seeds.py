"""Seeds: the same everywhere and always, and different for every word."""

import itertools

import torch

from fmtda.protocol.seeds import generator_for, seed_for


def test_a_seed_is_the_same_on_every_machine():
    assert seed_for(0, "svhn/0003", 2, "train") == 3756744184250751214
    assert seed_for(7) == 862974270291697062


def test_a_seed_depends_on_the_root_and_on_every_word_and_their_order():
    words = [(0, "a", 1, "x"), (1, "a", 1, "x"), (0, "b", 1, "x"), (0, "a", 2, "x"), (0, "a", 1, "y"), (0, 1, "a", "x")]
    assert len({seed_for(*each) for each in words}) == len(words)


def test_words_do_not_run_into_each_other():
    assert len({seed_for(0, "ab", "c"), seed_for(0, "a", "bc"), seed_for(0, "abc"), seed_for(0, "ab", "c", "")}) == 4


def test_seeds_fit_torch_and_numpy():
    seeds = [seed_for(root, word) for root, word in itertools.product((0, 2**31 - 1), range(100))]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # all 63 bits are used


def test_a_generator_draws_the_same_for_the_same_words_whatever_the_global_one_did():
    torch.manual_seed(1)
    first = torch.rand(5, generator=generator_for(3, "pen/0000", 1, "mini-batches"))
    torch.manual_seed(2)
    second = torch.rand(5, generator=generator_for(3, "pen/0000", 1, "mini-batches"))
    other = torch.rand(5, generator=generator_for(3, "pen/0000", 2, "mini-batches"))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
