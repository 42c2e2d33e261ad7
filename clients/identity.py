"""Finds out who a client is: its name, its data and its folder, the same in simulation and in deployment."""

import functools
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from flwr.app import Context, Message

from fmtda.domains.client import Client
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import DataSpec, Part
from fmtda.domains.partition import held_out_share, limited_split, split_labels
from fmtda.domains.registry import family, spec_of
from fmtda.protocol.client_names import client_name, domain_of
from fmtda.protocol.records import read_config
from fmtda.protocol.settings import RunSettings
from fmtda.strategies.composition import settings_in


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
    text, server_round = read_config(message.content.config_records["config"])
    settings = settings_in(text)
    node = context.node_config
    if "domain" in node:
        name = client_name(str(node["domain"]), int(node.get("share", 0)))
        shares = int(node.get("shares", 1))
        if not 0 <= int(node.get("share", 0)) < shares:
            raise DataError(f"share={node['share']}: this node's config allows 0 to {shares - 1} (shares={shares})")
        data_dir = str(node.get("data-dir", ""))
        folder = Path(str(node.get("folder", Path.home() / ".fmtda" / "client"))) / run_folder(settings.output) / name
        own: dict[str, Any] = {
            "shares_examples": _agreed(node, "share-examples"),
            "shares_evaluation": _agreed(node, "share-evaluation"),
            "epsilon_limit": _epsilon_limit(node),
        }
    elif "partition-id" in node:
        names = settings.simulated_names(int(node["num-partitions"]))
        name = names[int(node["partition-id"])]
        shares = sum(domain_of(other) == domain_of(name) for other in names)
        data_dir = settings.data.dir
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
    """Name the folder in which a deployed client keeps what belongs to a run, so that no run finds another's.

    It comes from the word in the place of `output` (`RunSettings.disclosed`), which a resumed run has too, unlike
    Flower's number of the run. Whatever that word is, it is a plain name.
    """
    return f"run-{hashlib.sha256(output.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def load_share(settings: RunSettings, name: str, shares: int, data_dir: str = "") -> tuple[Examples, Examples]:
    """Load a client's training and test examples: its share of its domain's two parts.

    The labels of the training examples are taken away here; those of the test examples serve evaluation.

    Raises
    ------
    DataError
        If the domain can't be loaded or the share is smaller than `data.min-examples`.
    """
    domain, share = domain_of(name), int(name.rsplit("/", 1)[1])
    data, spec = settings.data, spec_of(settings, data_dir)
    how = Split(data.target_limit, shares, data.partition, data.alpha, settings.seed, data.min_examples)
    train = _load_domain(data.name, domain, "train", spec)
    mine = train.select(_split(data.name, domain, spec, how)[share])
    test = _load_domain(data.name, domain, "test", spec)
    return mine.without_labels(), held_out_share(test, share, shares)


class Split(NamedTuple):
    """Says how a domain's training examples are divided between its clients, see `domains.partition.limited_split`."""

    limit: int
    shares: int
    partition: Literal["iid", "dirichlet", "scaffold"]
    alpha: float
    seed: int
    minimum: int


@functools.lru_cache(maxsize=32)
def _load_domain(data: str, domain: str, part: Part, spec: DataSpec) -> Examples:
    return family(data).load(domain, part, spec)


@functools.lru_cache(maxsize=32)
def _split(data: str, domain: str, spec: DataSpec, how: Split) -> list[np.ndarray]:
    labels = split_labels(_load_domain(data, domain, "train", spec))
    return limited_split(labels, how.limit, how.shares, how.partition, how.alpha, how.seed, how.minimum, domain)
