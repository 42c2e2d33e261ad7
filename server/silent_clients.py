"""Knows which clients have been silent too long to be waited for, and when one that answers again is let back in.

Our choice: that a round counts as silent in which a client leaves one question unanswered, and how long one that falls
silent again stays out: 1, 2, 4, ... rounds after it was heard of.
"""

from collections.abc import Iterable


class SilentClients:
    """Counts, by client, the rounds in a row in which it left a question unanswered.

    Nobody is left out at the start of a run, of a resumed one neither.

    Parameters
    ----------
    limit : int
        Rounds in a row after which a client is left out; 0 for never.

    Attributes
    ----------
    left_out : dict of str to int
        Who is left out, and for how many rounds in a row it had been silent.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left_out: dict[str, int] = {}
        self._in_a_row: dict[str, int] = {}
        self._silent: set[str] = set()
        self._heard: set[str] = set()
        self._round = 0
        self._times: dict[str, int] = {}
        self._earliest: dict[str, int] = {}

    def begin_round(self) -> None:
        """Close a round: who answered all that it was asked in it begins anew."""
        for name in self._heard - self._silent:
            self._in_a_row.pop(name, None)
        self._silent, self._heard, self._round = set(), set(), self._round + 1

    def asked(self, answered: Iterable[str], silent: Iterable[str]) -> list[str]:
        """Take in who answered a question and who did not.

        Returns
        -------
        list of str
            Who is left out from now on.
        """
        self._heard |= {*answered}
        newly = []
        for name in silent:
            if name not in self._silent:
                self._silent.add(name)
                self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
                if self.limit and self._in_a_row[name] >= self.limit:
                    newly.append(name)
                    self.left_out[name] = self._in_a_row[name]
                    self._times[name] = self._times.get(name, 0) + 1
                    self._earliest[name] = self._round + 2 ** (self._times[name] - 1)
        return newly

    def may_come_back(self, name: str) -> bool:
        """Say whether a client that was left out and answers now has stayed out long enough."""
        return self._round + 1 >= self._earliest.get(name, 0)

    def take_back(self, name: str) -> None:
        """Let a client take part again; the next round in which it is silent leaves it out at once."""
        self.left_out.pop(name, None)
        self._in_a_row[name] = max(0, self.limit - 1)
