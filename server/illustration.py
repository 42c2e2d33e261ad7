"""Gathers what a report shows beside numbers: features before and after adaptation, pictures with predictions.

Clients that agreed to it are asked once, at the end of a run (`clients.illustration`); the source's features come from
the server itself. Where nobody agreed, nobody is asked and nothing is written, of the source neither. The file,
``illustration.safetensors`` in the run directory, holds the arrays of `protocol.illustration` by domain, as
``svhn/pictures``; in its metadata stand the domains and the clients that showed something.

Our choice: how many clients of a domain are asked.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.labelled_features import labelled_rows
from fmtda.adaptation.network import Network
from fmtda.domains.reading_rights import check_readable
from fmtda.domains.registry import family
from fmtda.domains.source import Source
from fmtda.protocol.client_names import domain_of
from fmtda.protocol.illustration import PICTURES, PICTURES_WITH_MAPS, POINTS, check_illustration
from fmtda.protocol.metrics import NUM_EXAMPLES, count
from fmtda.protocol.records import check_records, from_record, to_record
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import AdaptationSettings
from fmtda.server.conversation import Conversation
from fmtda.server.run_directory import RunDirectory, writing

FILE = "illustration.safetensors"

CLIENTS_OF_A_DOMAIN = 8
"""Who are asked at most, until their examples suffice."""


@dataclass(frozen=True)
class Illustration:
    """Holds what was shown.

    Attributes
    ----------
    arrays : dict of str to dict
        By domain, the source first; arrays as `protocol.illustration` lists them, without pictures of the source.
    clients : tuple of str
        Whose examples they are.
    """

    arrays: dict[str, dict[str, np.ndarray]]
    clients: tuple[str, ...]


def read_illustration(run: Path) -> Illustration | None:
    """Read what the run directory holds; None where nobody agreed to show anything.

    Raises
    ------
    Unreadable
        If it is there, and this account may not read it.
    """
    try:
        check_readable(run / FILE)
        with safe_open(run / FILE, "numpy") as file:
            about = json.loads(file.metadata()["illustration"])
            arrays: dict[str, dict[str, np.ndarray]] = {domain: {} for domain in about["domains"]}
            for key in file.keys():
                domain, name = key.rsplit("/", 1)
                arrays[domain][name] = file.get_tensor(key)
            return Illustration(arrays, tuple(about["clients"]))
    except (OSError, SafetensorError, KeyError, TypeError):
        return None


def illustrate(
    conversation: Conversation,
    run: RunDirectory,
    source: Source,
    before: Mapping[str, Tensor],
    arrays: ArrayRecord,
    network: Network,
) -> None:
    """Ask those that agreed, and write the file; without an answer, write none.

    Parameters
    ----------
    conversation
        Whose clients are asked.
    run
        Where the file goes.
    source
        For the features of its hold-out.
    before
        The pre-trained model.
    arrays
        The final model as clients predict with it.
    network
        Of the run's architecture; its weights are overwritten.
    """
    settings, file = cast(AdaptationSettings, conversation.settings), run.path / FILE
    file.unlink(missing_ok=True)
    asked = who_shows(conversation)
    if not asked:
        return
    config = conversation.config(settings.rounds)
    content = RecordDict({"model": arrays, "pretrained": to_record(before), "config": config})
    messages = [Message(content, dst_node_id=node_id, message_type="query.illustrate") for node_id in asked]
    phase = conversation.ask("clients show examples", messages, partial(_check, conversation, network.feature_size))
    if not phase.replies:
        return
    shown: dict[str, dict[str, list[np.ndarray]]] = {settings.data.source: {}}
    for name in phase.replies:
        record = phase.replies[name].content.array_records["illustration"]
        of_domain = shown.setdefault(domain_of(name), {})
        for key, array in record.items():
            of_domain.setdefault(key, []).append(array.numpy())
    final = {name: value for name, value in from_record(arrays).items() if name in network.state_dict()}
    shown[settings.data.source] = _of_source(settings, source, network, {"before": before, "after": final})
    for of_domain in shown.values():
        of_domain |= {"labels": _alike(of_domain["labels"])} if "labels" in of_domain else {}
    most = PICTURES_WITH_MAPS if family(settings.data.name).segmentation else PICTURES
    save = {
        f"{domain}/{key}": np.ascontiguousarray(np.concatenate(parts)[: POINTS if key in ROWS else most])
        for domain, of_domain in shown.items()
        for key, parts in of_domain.items()
    }
    about = {"domains": list(shown), "clients": list(phase.replies)}
    aside = file.with_name(f".{FILE}.writing")
    with writing("the illustration", file):
        # One entry of metadata: of several, the library shuffles the order.
        save_file(save, aside, {"illustration": json.dumps(about)})
        aside.rename(file)


def _alike(labels: list[np.ndarray]) -> list[np.ndarray]:
    """Labels of a domain's clients in one shape: beside maps, -1 for a whole picture becomes a map of it."""
    maps = [part.shape[1:] for part in labels if part.ndim > 1]
    if not maps:
        return labels
    return [part if part.ndim > 1 else np.full((len(part), *maps[0]), -1, part.dtype) for part in labels]


ROWS = ("features-before", "features-after", "classes")
"""Arrays with a row a point of the map; the others have one a picture."""


def who_shows(conversation: Conversation) -> list[int]:
    """Choose among the nodes that agreed, of each domain in the order of the names, as many as a map of it needs."""
    chosen: dict[str, list[int]] = {}
    examples: dict[str, int] = {}
    for node_id, name in conversation.names.items():
        domain = domain_of(name)
        enough = examples.get(domain, 0) >= POINTS or len(chosen.get(domain, [])) >= CLIENTS_OF_A_DOMAIN
        if node_id in conversation.showing and not enough:
            chosen.setdefault(domain, []).append(node_id)
            examples[domain] = examples.get(domain, 0) + conversation.showing[node_id]
    return [node_id for nodes in chosen.values() for node_id in nodes]


def _check(conversation: Conversation, features: int, content: RecordDict) -> None:
    settings = cast(AdaptationSettings, conversation.settings)
    check_records(content, "illustration")
    conversation.check_told(content, (count(NUM_EXAMPLES, most=POINTS, required=True),), "test")
    segmentation = family(settings.data.name).segmentation
    check_illustration(
        content.array_records["illustration"], len(settings.class_names), features, settings.shape, segmentation
    )


def _of_source(
    settings: AdaptationSettings, source: Source, network: Network, states: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, list[np.ndarray]]:
    """Features of the hold-out, not randomised, under each state of the network."""
    generator = generator_for(settings.seed, "server", "illustration")
    chosen = torch.randperm(len(source.watched), generator=generator)[:POINTS]
    examples = source.watched.select(chosen)
    inputs = Inputs(examples.inputs, source.augmentation, source.standardise, source.device)
    rows: dict[str, list[np.ndarray]] = {}
    for name, state in states.items():
        network.load_state_dict(state)
        places = generator_for(settings.seed, "server", "places of a map")
        features, classes = labelled_rows(network.eval(), inputs, examples.labels[:], POINTS, places)
        rows |= {f"features-{name}": [features.numpy()], "classes": [classes.short().numpy()]}
    return rows
