"""Who joins a federation under way: known by its round, heard step by step, started near its like."""

import random

import pytest
import torch

from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.nearest_domains import NEIGHBOURS, blend, nearest, trimmed_blend
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


def federation(clients: int, generator: torch.Generator) -> tuple[dict, dict]:
    """Mixtures and classifiers of so many clients, around several places."""
    names = [f"pen/{number:04d}" for number in range(clients)]
    mixtures = {name: mixture(float(place)) for name, place in zip(names, torch.rand(clients).tolist(), strict=True)}
    classifiers = {n: {"weight": torch.randn(4, 3, generator=generator), "bias": torch.randn(4)} for n in names}
    return mixtures, classifiers


WIDE = Mixture(torch.ones(1), torch.zeros(1, 2), torch.full((1, 2), 1e4), torch.linspace(-9, -1, 33))
"""Near everybody."""


@pytest.mark.parametrize(("clients", "share"), [(5, 0.2), (9, 0.34), (12, 0.49), (30, 0.2)])
def test_whatever_the_bad_ones_send_each_number_lies_within_those_of_honest_neighbours(clients, share):
    draw, generator = random.Random(clients), torch.Generator().manual_seed(clients)
    bad = int(share * clients)
    for _ in range(20):
        mixtures, classifiers = federation(clients, generator)
        new = mixture(0.3)
        liars = draw.sample(sorted(mixtures), bad)
        for name in liars:
            mixtures[name] = draw.choice([new, WIDE, mixture(0.3 + 1e-6)])  # as near as can be, or near everybody
            size = draw.choice([0.0, 1e6, -1e6, 0.5])
            classifiers[name] = {key: torch.full_like(value, size) for key, value in classifiers[name].items()}
        honest = {*mixtures} - {*liars}
        newcomers = Newcomers(2, True, share)
        newcomers.arriving(mixtures)
        news = newcomers.settle(2, {**mixtures, NEW: new}, classifiers)
        near = [name for name in news[NEW]["nearest"] if name in honest]
        assert len(news[NEW]["nearest"]) == max(NEIGHBOURS, 2 * bad + 1)
        for key, value in newcomers.starts[NEW].items():
            sent = torch.stack([classifiers[name][key] for name in near])
            assert (value >= sent.amin(dim=0)).all() and (value <= sent.amax(dim=0)).all()


def test_without_bad_ones_the_blend_is_what_it_was_to_the_bit():
    generator = torch.Generator().manual_seed(1)
    for clients in (1, 2, 4, 9):
        mixtures, classifiers = federation(clients, generator)
        newcomers = Newcomers(2, True, robust_share=0.1)  # of nine none, rounded down
        newcomers.arriving(mixtures)
        newcomers.settle(2, {**mixtures, NEW: mixture(0.3)}, classifiers)
        shares = {name: found.weight for name, found in nearest(mixture(0.3), mixtures).items()}
        expected = blend(classifiers, shares)
        assert all(torch.equal(newcomers.starts[NEW][key], expected[key]) for key in expected)


def test_the_middle_of_three_is_the_blend_where_one_may_be_bad():
    classifiers = {n: {"w": torch.tensor(v)} for n, v in {"a": [1.0, 9.0], "b": [2.0, 0.0], "c": [1e6, 5.0]}.items()}
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    assert trimmed_blend(classifiers, shares, 1)["w"].tolist() == [2.0, 5.0]
    assert trimmed_blend(classifiers, {"a": 1.0, "b": 0.0, "c": 0.0}, 1)["w"].tolist() == [2.0, 5.0]
    with pytest.raises(ValueError, match="3 classifiers, expected 5 or more where 2 may be bad"):
        trimmed_blend(classifiers, shares, 2)
    five = {**classifiers, "d": {"w": torch.tensor([3.0, 1.0])}, "e": {"w": torch.tensor([0.0, 2.0])}}
    weights = {"a": 0.4, "b": 0.1, "c": 0.2, "d": 0.2, "e": 0.1}
    first = (0.4 * 1 + 0.1 * 2 + 0.2 * 3) / 0.7  # without 0 and a million
    assert trimmed_blend(five, weights, 1)["w"].tolist() == pytest.approx([first, (0.2 * 1 + 0.1 * 2 + 0.2 * 5) / 0.5])


def test_with_too_few_that_count_in_full_a_newcomer_starts_at_the_global_classifier_and_it_is_said():
    mixtures, classifiers = federation(5, torch.Generator().manual_seed(2))
    newcomers = Newcomers(2, True, robust_share=0.2)
    newcomers.joined = dict.fromkeys(sorted(mixtures)[:2], 0) | dict.fromkeys(sorted(mixtures)[2:], 3)
    newcomers.starts = {NEW: {"weight": torch.zeros(4, 3), "bias": torch.zeros(4)}}
    news = newcomers.settle(4, {**mixtures, NEW: mixture(0.3)}, classifiers)
    assert news[NEW]["start"] == "global" and NEW not in newcomers.starts
    assert told(NEW, news[NEW]).endswith("; too few for a blend that bad ones don't decide, so its F_l starts at F_g")
