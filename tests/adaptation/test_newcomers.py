"""Who joins a federation under way: known by its round, heard step by step, started near its like."""

import torch

from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.nearest_domains import blend, nearest
from fmtda.adaptation.newcomers import Newcomers, told

NEW = "street/0000"


def newcomers_with(rounds=2, blended=True) -> Newcomers:
    """Newcomers of a run in which their weight grows over so many rounds."""
    return Newcomers(rounds, blended)


def mixture(place: float) -> Mixture:
    """One Gaussian around a place."""
    return Mixture(torch.ones(1), torch.full((1, 2), place), torch.ones(1, 2), torch.linspace(-9, -1, 33))


MIXTURES = {"blend/0000": mixture(0.0), "pen/0000": mixture(3.0)}
CLASSIFIERS = {"blend/0000": {"weight": torch.ones(2)}, "pen/0000": {"weight": torch.full((2,), 2.0)}}


def test_who_is_there_in_the_first_round_is_no_newcomer():
    newcomers = newcomers_with()
    assert newcomers.arriving(["blend/0000", "pen/0000"]) == set()
    assert newcomers.arriving(["blend/0000", "pen/0000", NEW]) == {NEW}
    assert newcomers.joined == {"blend/0000": 0, "pen/0000": 0}


def test_weights_grow_to_one_over_the_rounds_asked_for():
    newcomers = newcomers_with(rounds=3)
    newcomers.joined = {"pen/0000": 0, NEW: 4}
    assert [newcomers.weight(NEW, server_round) for server_round in range(4, 10)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert {newcomers.weight("pen/0000", server_round) for server_round in range(1, 10)} == {1.0}
    assert newcomers.weights(5) == {NEW: 0.25}


def settled(newcomers: Newcomers) -> dict:
    """A round in which a third client joins, nearer to the first of two."""
    newcomers.arriving(["blend/0000", "pen/0000"])
    return newcomers.settle(2, {**MIXTURES, NEW: mixture(1.0)}, CLASSIFIERS)


def test_a_newcomer_starts_at_the_blend_of_its_nearest():
    newcomers = newcomers_with()
    news = settled(newcomers)
    expected = nearest(mixture(1.0), MIXTURES)
    shares = {name: found.weight for name, found in expected.items()}
    assert list(news) == [NEW] and (news[NEW]["joined"], news[NEW]["weight"]) == (2, 0)
    assert news[NEW]["nearest"] == {name: found._asdict() for name, found in expected.items()}
    assert list(news[NEW]["nearest"]) == ["blend/0000", "pen/0000"]
    start = blend(CLASSIFIERS, shares)
    assert torch.equal(newcomers.starts[NEW]["weight"], start["weight"])


def test_a_newcomer_that_starts_at_the_global_classifier_has_no_start_but_neighbours():
    newcomers = newcomers_with(blended=False)
    assert list(settled(newcomers)[NEW]["nearest"]) == ["blend/0000", "pen/0000"]
    assert newcomers.starts == {}


def test_a_start_ends_where_its_client_has_trained_and_counts_in_full():
    newcomers = newcomers_with(rounds=1)
    settled(newcomers)
    newcomers.settle(3, MIXTURES, CLASSIFIERS)
    assert NEW in newcomers.starts and NEW not in newcomers.trained  # it was not heard
    own = {"weight": torch.full((2,), 5.0)}
    assert newcomers.settle(4, {**MIXTURES, NEW: mixture(1.0)}, {**CLASSIFIERS, NEW: own}) == {}  # it counts in full
    assert newcomers.trained == {NEW} and newcomers.starts == {}


def test_what_is_known_of_clients_comes_back_out_of_a_checkpoint():
    newcomers, again = newcomers_with(), newcomers_with()
    newcomers.joined = {"pen/0000": 0, NEW: 4, "a.b/0001": 5}
    newcomers.trained = {NEW}
    newcomers.starts = {"a.b/0001": {"0.weight": torch.ones(2, 3), "bias": torch.zeros(2)}}
    again.restore({**newcomers.state(), "something.else": torch.ones(1)})
    assert (again.joined, again.trained) == (newcomers.joined, newcomers.trained)
    assert again.starts.keys() == newcomers.starts.keys()
    for name, tensor in newcomers.starts["a.b/0001"].items():
        assert torch.equal(again.starts["a.b/0001"][name], tensor)


def test_a_joining_is_told_with_the_nearest_clients():
    news = settled(newcomers_with())[NEW]
    shares = [f"{name} ({found['weight']:.2f})" for name, found in news["nearest"].items()]
    assert told(NEW, news) == f"{NEW} joins; nearest: {', '.join(shares)}"
    assert told(NEW, {**news, "nearest": {}}) == f"{NEW} joins; nearest: nobody"
