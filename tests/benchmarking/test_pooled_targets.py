"""The pool: which examples are in it, and what a batch of it holds."""

import pytest
import torch

from fmtda.benchmarking.pooled_targets import PooledTargets
from fmtda.clients.identity import load_share
from fmtda.domains.examples import Examples
from fmtda.protocol.client_names import client_names

CPU = torch.device("cpu")


@pytest.fixture
def settings(settings_of):
    return settings_of({"data.targets": "blend,pen", "clients": 4, "data.target-limit": 40})


def test_the_pool_holds_what_the_clients_of_a_federated_run_hold_together(settings):
    pool = PooledTargets.load(settings, CPU)
    shares = {name: load_share(settings, name, 2) for name in client_names(["blend", "pen"], 4)}
    assert len(pool) == 80
    for number, domain in enumerate(("blend", "pen")):
        of_domain = [parts for name, parts in shares.items() if name.startswith(domain)]
        for own, part in ((pool.trained[number], 0), (pool.tested[number], 1)):
            theirs = torch.cat([parts[part].inputs for parts in of_domain])
            assert {row.numpy().tobytes() for row in own.inputs} == {row.numpy().tobytes() for row in theirs}
            assert len(own) == len(theirs)


def test_the_pool_with_known_labels_leaves_the_others_out(settings):
    pool = PooledTargets.load(settings, CPU)
    pool.trained[0].labels[:10] = -1
    known = pool.with_known_labels()
    assert len(known) == 70
    assert all(bool((examples.labels >= 0).all()) for examples in known.trained)
    assert torch.equal(known[torch.tensor([0, 69])], pool[torch.tensor([10, 79])])


def test_a_batch_holds_the_examples_at_its_places_with_their_labels(settings):
    pool = PooledTargets.load(settings, CPU)
    places = torch.tensor([70, 3, 40, 0, 39])
    expected = torch.cat([pool.inputs[0][torch.tensor([3, 0, 39])], pool.inputs[1][torch.tensor([30, 0])]])
    assert torch.equal(pool[places], expected)
    views, labels = pool.batch(places, torch.Generator().manual_seed(0))
    assert views.shape == expected.shape
    known = [*pool.trained[0].labels[[3, 0, 39]], *pool.trained[1].labels[[30, 0]]]
    assert labels.tolist() == known
    again, _ = pool.batch(places, torch.Generator().manual_seed(0))
    assert torch.equal(views, again)


def test_a_batch_of_one_domain_alone_is_possible(settings):
    pool = PooledTargets.load(settings, CPU)
    assert torch.equal(pool[torch.tensor([41])], pool.inputs[1][torch.tensor([1])])


def test_the_watched_examples_are_few_of_every_domain_and_the_same_for_a_seed(settings):
    pool = PooledTargets.load(settings, CPU)
    first, again, other = (pool.watched(7, seed) for seed in (0, 0, 1))
    assert [len(each) for each in first] == [7, 7]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_pool_is_labelled_if_every_domain_is(settings):
    pool = PooledTargets.load(settings, CPU)
    assert pool.labelled
    without = pool.trained[1].without_labels()
    assert isinstance(without, Examples)
    assert not PooledTargets(pool.domains, (pool.trained[0], without), pool.tested, pool.inputs).labelled
