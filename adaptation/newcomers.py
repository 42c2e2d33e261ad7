"""Clients that join a federation under way: who is new, where each starts, and how much it counts.

The round in which a client joins is its round 0. It gives its mixture while the others train. When their uploads are
there, over features of the same G, the nearest of them are found by the divergence of mixtures, and the blend of their
F_l is where the new client's F_l starts. It is evaluated with that at the end of the round. From the next round on it
trains, and its weight in Eq. 6 grows over some rounds to that of everybody else; so long, its F_l starts at the blend
of its nearest clients' latest F_l.

Our choice: all of it. FMTDA knows no such clients.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.nearest_domains import NEIGHBOURS, nearest, trimmed_blend

JOINED, STARTS = "joined.", "start."
"""How what is known of the clients is named in a checkpoint's state."""


class Newcomers:
    """The clients of a run by when they joined, and where those that are new start.

    Clients that are there in the first round are no newcomers.

    Parameters
    ----------
    rounds : int
        In which the weight of a client that joined grows to that of the others.
    blended : bool
        Whether F_l of a new client starts at a blend of the nearest clients', and not at F_g.
    robust_share : float
        Of the clients that trained in a round, how many may send anything, k in all rounded down. From one on, the
        blend is taken over 2 k + 1 neighbours or more, and leaves out the k largest and smallest values of every
        parameter: a mixture that is near everybody decides nothing alone. Where fewer clients count in full than that,
        there is no blend, and F_l starts at F_g.

    Attributes
    ----------
    joined : dict of str to int
        The round in which each client joined; 0 for those that were there from the start.
    trained : set of str
        Of those that joined late, who has trained since.
    starts : dict of str to dict of str to Tensor
        Where F_l of a new client starts.
    """

    def __init__(self, rounds: int, blended: bool, robust_share: float = 0.0) -> None:
        self.rounds, self.blended, self.robust_share = rounds, blended, robust_share
        self.joined: dict[str, int] = {}
        self.trained: set[str] = set()
        self.starts: dict[str, dict[str, Tensor]] = {}

    def arriving(self, names: Iterable[str]) -> set[str]:
        """Say who of these clients joins in this round, and note who is there from the start."""
        names = list(names)
        if not self.joined:
            self.joined = dict.fromkeys(names, 0)
        return {name for name in names if name not in self.joined}

    def weight(self, name: str, server_round: int) -> float:
        """How much a client counts in Eq. 6: 0 in the round in which it joins, 1 after `rounds` more."""
        joined = self.joined.get(name, 0)
        return min(1.0, (server_round - joined) / (self.rounds + 1)) if joined else 1.0

    def weights(self, server_round: int) -> dict[str, float]:
        """The weights of those clients that count for less than the others."""
        weights = {name: self.weight(name, server_round) for name in self.joined}
        return {name: weight for name, weight in weights.items() if weight < 1}

    @property
    def untrained(self) -> set[str]:
        """Who is new, has a start, and has not trained yet."""
        return self.starts.keys() - self.trained

    def settle(
        self,
        server_round: int,
        mixtures: Mapping[str, Mixture],
        classifiers: Mapping[str, Mapping[str, Tensor]],
    ) -> dict[str, Any]:
        """Take in a round's mixtures and classifiers, and find where the new clients start in the next.

        Parameters
        ----------
        server_round
        mixtures
            W_T of every client that sent one, by name, those that joined in this round among them.
        classifiers
            The weights of F_l of every client that trained.

        Returns
        -------
        dict
            For the round's line, of every new client: the round in which it `joined`, its `weight` in Eq. 6 and,
            nearest first, its neighbours' `divergence` and `weight`. Where there are too few of them for a blend, its
            `start` is ``global``.
        """
        bad = int(self.robust_share * len(classifiers))
        fewest = 2 * bad + 1
        self.trained |= {name for name in classifiers if self.joined.get(name)}
        known = {n: mixtures[n] for n in classifiers if n in self.joined and self.weight(n, server_round) == 1}
        self.joined |= {name: server_round for name in mixtures if name not in self.joined}
        news: dict[str, Any] = {}
        for name, weight in self.weights(server_round).items():
            news[name] = {"joined": self.joined[name], "weight": weight, "nearest": {}}
            if name in mixtures and known:
                neighbours = nearest(mixtures[name], known, max(NEIGHBOURS, fewest))
                news[name]["nearest"] = {other: found._asdict() for other, found in neighbours.items()}
                shares = {other: found.weight for other, found in neighbours.items()}
                if self.blended and len(known) >= fewest:
                    self.starts[name] = trimmed_blend(classifiers, shares, bad)
                elif self.blended:
                    self.starts.pop(name, None)
                    news[name]["start"] = "global"
        ends = {name for name in self.starts if name in self.trained and self.weight(name, server_round + 1) == 1}
        self.starts = {name: start for name, start in self.starts.items() if name not in ends}
        return news

    def state(self) -> dict[str, Tensor]:
        """What a resumed run has to know again, named for a checkpoint."""
        joined = {
            f"{JOINED}{name}": torch.tensor([joined, int(name in self.trained)]) for name, joined in self.joined.items()
        }
        starts = {
            f"{STARTS}{name}.{array}": tensor for name, start in self.starts.items() for array, tensor in start.items()
        }
        return joined | starts

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave; other entries are left alone."""
        known = {key.removeprefix(JOINED): value.tolist() for key, value in state.items() if key.startswith(JOINED)}
        self.joined = {name: joined for name, (joined, _) in known.items()}
        self.trained = {name for name, (_, trained) in known.items() if trained}
        self.starts = {}
        for name in self.joined:
            prefix = f"{STARTS}{name}."
            start = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if start:
                self.starts[name] = start


def told(name: str, news: Mapping[str, Any]) -> str:
    """One line for people on a client that joins: ``svhn/0000 joins; nearest: mnist-m/0000 (0.63), ...``."""
    nearest = ", ".join(f"{other} ({found['weight']:.2f})" for other, found in news["nearest"].items())
    few = "; too few for a blend that bad ones don't decide, so its F_l starts at F_g" if "start" in news else ""
    return f"{name} joins; nearest: {nearest or 'nobody'}{few}"
