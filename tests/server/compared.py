"""How tests compare two runs: what they wrote down, without what the clock or a folder's name decides."""

import torch


def without_times(value):
    """Metrics without seconds, and without bytes sent, in which the length of the run directory's name is."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "seconds" not in k and k != "down"}
    return value


def same(first, second):
    """Whether two pairs of metrics and named tensors are equal, the tensors bit by bit."""
    return first[0] == second[0] and all(torch.equal(first[1][name], second[1][name]) for name in second[1])
