"""Loads what the clients of a simulation hold, in one process, as a generative model takes it."""

import torch
from torch import Tensor

from fmtda.domains.partition import held_out_share, limited_split, split_labels
from fmtda.domains.registry import family, spec_of
from fmtda.generative.registry import MODELS
from fmtda.protocol.client_names import client_names, domain_of
from fmtda.protocol.settings import GenerativeSettings


def pooled_examples(settings: GenerativeSettings) -> tuple[Tensor, Tensor]:
    """Load the training examples of all clients, one target after the other, and their labels.

    Labels, int64 (N,), are -1 where they are unknown; no training sees them.
    """
    data, kind = family(settings.data.name), MODELS[settings.workload].kind
    pooled, labels = [], []
    for domain in settings.target_domains:
        examples = data.load(domain, "train", spec_of(settings))
        known = split_labels(examples)
        given = settings.data
        (kept,) = limited_split(known, given.target_limit, 1, "iid", given.alpha, settings.seed, 1, domain)
        pooled.append(kind.examples(examples.select(kept).inputs, settings))
        labels.append(torch.from_numpy(known[kept]))
    return torch.cat(pooled), torch.cat(labels)


def held_out_by_client(settings: GenerativeSettings) -> dict[str, Tensor]:
    """Load the test examples of every client by its name."""
    data, kind = family(settings.data.name), MODELS[settings.workload].kind
    names = client_names(settings.target_domains, settings.clients)
    held_out = {}
    for domain in settings.target_domains:
        examples = data.load(domain, "test", spec_of(settings))
        of_domain = [name for name in names if domain_of(name) == domain]
        for share, name in enumerate(of_domain):
            held_out[name] = kind.examples(held_out_share(examples, share, len(of_domain)).inputs, settings)
    return held_out
