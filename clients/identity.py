"""Who a client is: its name, its data and its folder, the same in simulation and in deployment."""

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message

from fmtda.adaptation.privacy_noise import Uniforms, seeded_uniforms, system_uniforms
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import DataSpec
from fmtda.domains.partition import held_out_share, limited_split, split_labels
from fmtda.domains.registry import family, spec_of
from fmtda.protocol.records import read_config
from fmtda.protocol.seeds import client_name, domain_of, generator_for
from fmtda.protocol.settings import RunSettings


@dataclass(frozen=True)
class Client:
    """One client as a message finds it: what it is called, what it holds, where it keeps its local part.

    Attributes
    ----------
    name
        ``domain/share``; seeds and order derive from it.
    settings
        The run's settings, out of the message.
    round
        The round the message belongs to, 0 before the first.
    folder
        Where what stays with the client is written.
    train, test
        The client's own examples. Labels serve evaluation only.
    shares_examples
        Whether its owner agreed to show a few test examples in the report of the run.
    shares_evaluation
        Whether its owner lets the numbers of its evaluation leave in a run with privacy.
    epsilon_limit
        What its owner lets the uploads of a run give away at most, None for no limit.
    simulated
        Whether all its data lies on the machine of whoever runs the federation.
    """

    name: str
    settings: RunSettings
    round: int
    folder: Path
    train: Examples
    test: Examples
    shares_examples: bool = False
    shares_evaluation: bool = False
    epsilon_limit: float | None = None
    simulated: bool = False

    def generator(self, purpose: str) -> torch.Generator:
        """The client's own random numbers for this round and purpose; whoever knows the run's seed knows them too."""
        return generator_for(self.settings.seed, self.name, self.round, purpose)

    def secret_uniforms(self, purpose: str) -> Uniforms:
        """What noise is made of: nobody can compute it on a real client; a simulation with equal seeds is the same."""
        return seeded_uniforms(self.generator(purpose)) if self.simulated else system_uniforms


def identify(message: Message, context: Context) -> Client:
    """Find out from a message and the node's config who this client is, and load its examples.

    In deployment the node config says what the node holds: ``domain``, ``data-dir``, ``folder`` and, where a
    domain is split by hand, ``share`` and ``shares``. In simulation Flower's partition number stands for that.
    ``share-examples=true`` in the node config lets the report of the run show a few test examples, and
    ``share-evaluation=true`` lets a run with privacy have the numbers of the evaluation; in simulation, where all data
    is on one machine, both always may. ``epsilon-limit`` is what the uploads of a run may give away at most.

    Raises
    ------
    DataError
        If the node config fits neither, or the data is missing or too small.
    """
    settings, server_round = read_config(message.content["config"])
    node = context.node_config
    if "domain" in node:
        name = client_name(str(node["domain"]), int(node.get("share", 0)))
        shares = int(node.get("shares", 1))
        if not 0 <= int(node.get("share", 0)) < shares:
            raise DataError(f"share={node['share']}: this node's config allows 0 to {shares - 1} (shares={shares})")
        data_dir = str(node.get("data-dir", ""))
        folder = Path(str(node.get("folder", Path.home() / ".fmtda" / "client"))) / run_folder(settings.output) / name
        own = {
            "shares_examples": _agreed(node, "share-examples"),
            "shares_evaluation": _agreed(node, "share-evaluation"),
            "epsilon_limit": _epsilon_limit(node),
        }
    elif "partition-id" in node:
        names = settings.simulated_names(int(node["num-partitions"]))
        name = names[int(node["partition-id"])]
        shares = sum(domain_of(other) == domain_of(name) for other in names)
        data_dir = settings.data_dir
        folder = Path(settings.output) / "clients" / name
        own = {"shares_examples": True, "shares_evaluation": True, "simulated": True}
    else:
        raise DataError(
            'this node doesn\'t know its data: start it with --node-config \'domain="svhn" data-dir="/data"\''
        )
    train, test = load_share(settings, name, shares, data_dir)
    return Client(name, settings, server_round, folder, train, test, **own)


def _agreed(node: Mapping[str, Any], key: str) -> bool:
    """What the owner says in the node config to something that nobody may take for granted."""
    agreed = node.get(key, False)
    if not isinstance(agreed, bool):
        raise DataError(f"{key}={agreed}: expected true or false, without quotes")
    return agreed


def _epsilon_limit(node: Mapping[str, Any]) -> float | None:
    limit = node.get("epsilon-limit")
    if limit is not None and (isinstance(limit, bool | str) or not 0 < limit < math.inf):
        raise DataError(f"epsilon-limit={limit}: expected a number above 0, without quotes")
    return limit


def run_folder(output: str) -> str:
    """The name under which a deployed client keeps what belongs to a run, so that no run finds another's.

    It comes from the run directory on the server, which a resumed run has too, unlike Flower's number of the run.
    """
    return f"{Path(output).name}-{hashlib.sha256(output.encode()).hexdigest()[:8]}"


def load_share(settings: RunSettings, name: str, shares: int, data_dir: str = "") -> tuple[Examples, Examples]:
    """A client's training and test examples: its share of its domain's two parts.

    The labels of the training examples are taken away here; those of the test examples serve evaluation.

    Raises
    ------
    DataError
        If the domain can't be loaded or the share is smaller than ``min-examples``.
    """
    domain, share = domain_of(name), int(name.rsplit("/", 1)[1])
    key = (settings.target_limit, shares, settings.partition, settings.alpha, settings.seed, settings.min_examples)
    spec = spec_of(settings, data_dir)
    train = _load_domain(settings.data, domain, "train", spec)
    mine = train.select(_split(settings.data, domain, spec, *key)[share])
    test = _load_domain(settings.data, domain, "test", spec)
    return mine.without_labels(), held_out_share(test, share, shares)


@functools.lru_cache(maxsize=32)
def _load_domain(data: str, domain: str, part: str, spec: DataSpec) -> Examples:
    return family(data).load(domain, part, spec)


@functools.lru_cache(maxsize=32)
def _split(data: str, domain: str, spec: DataSpec, *how: int | float | str) -> list[np.ndarray]:
    limit, shares, partition, alpha, seed, minimum = how
    labels = split_labels(_load_domain(data, domain, "train", spec))
    return limited_split(labels, limit, shares, partition, alpha, seed, minimum, domain)
