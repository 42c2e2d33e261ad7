"""Says which heads a client predicts with, and which of them counts.

Networks that err differently are averaged, with equal weights: nothing is to be chosen, and the cross-entropy of the
mean is never above the mean of the cross-entropies (Jensen's inequality).
"""

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor

HEADS = ("global", "local", "mean", "personal")
"""F_g, F_l, the mean of these two, and the mean of the client's own copy and of what would count without it."""

OfAHead = TypeVar("OfAHead")


def by_head(probabilities: Mapping[str, Tensor], inference: str) -> dict[str, Tensor]:
    """Make the heads' probabilities of the networks'.

    Parameters
    ----------
    probabilities : mapping of str to Tensor
        (B, C) or (B, C, H, W) of the network ``global`` (G and F_g), and where there are ``local`` (the client's G and
        F_l) and ``personal`` (its own copy, trained at the end).
    inference : {"mean", "local"}
        Which head counts where there is no own copy.

    Returns
    -------
    dict of Tensor
        By each of `HEADS` that these networks make; shapes as given.
    """
    heads = {"global": probabilities["global"]}
    if "local" in probabilities:
        heads["local"] = probabilities["local"]
        heads["mean"] = (heads["global"] + heads["local"]) / 2
    if "personal" in probabilities:
        heads["personal"] = (decisive(heads, inference) + probabilities["personal"]) / 2
    return heads


def decisive(heads: Mapping[str, OfAHead], inference: str) -> OfAHead:
    """Choose, of something that there is by head, what counts: ``personal``, else the inference rule's, else F_g's."""
    return next(heads[head] for head in ("personal", inference, "global") if head in heads)
