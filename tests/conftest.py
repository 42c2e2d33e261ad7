"""What all rooms' tests share: one cache of prepared data, one thread, and settings that train in a blink."""

from collections.abc import Mapping

import pytest
import torch
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fmtda.adaptation.augment import prepare
from fmtda.adaptation.mixture import fit
from fmtda.adaptation.registry import build
from fmtda.domains.client import Client
from fmtda.domains.examples import Examples
from fmtda.domains.source import WATCHED
from fmtda.protocol.records import config_record, to_record
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import Scalar
from fmtda.server.startup import effective_settings
from fmtda.strategies.composition import resolve
from fmtda.strategies.registry import ALGORITHMS

BLINK: dict[str, Scalar] = {
    "pretraining.steps": 2,
    "pretraining.batch": 8,
    "pretraining.plain-steps": 2,
    "dualadapt.server-steps": 2,
    "dualadapt.server-batch": 8,
    "dualadapt.client-steps": 3,
    "dualadapt.client-batch": 8,
    "dualadapt.components": 2,
    "dualadapt.self-training.steps": 2,
    "dualadapt.self-training.confidence": 0.0,
    "dualadapt.personalise.steps": 2,
    "dualadapt.personalise.batch": 8,
    "dualadapt.personalise.confidence": 0.0,
    "fedavg-self-training.local-steps": 2,
    "fedavg-self-training.local-batch": 8,
    "fedavg-self-training.confidence": 0.0,
    "fed-mcd.local-steps": 2,
    "fed-mcd.local-batch": 8,
    "fed-mcd.server-steps": 2,
    "fed-mcd.server-batch": 8,
    "fed-dann.local-steps": 2,
    "fed-dann.local-batch": 8,
    "fed-dann.server-steps": 2,
    "fed-dann.server-batch": 8,
    "server-threads": 1,
    "device": "cpu",
}
"""A few steps of everything; at confidence 0 every prediction is a pseudo-label, so self-training moves weights."""


def blink(changes: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Settings of few steps with these changes; of `BLINK` what the run's algorithm has."""
    strategy = str(changes.get("strategy", "dualadapt"))
    others = {*ALGORITHMS} - {strategy}
    return {**{key: v for key, v in BLINK.items() if key.partition(".")[0] not in others}, **changes}


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory):
    """The embedded digits are built once for the whole session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMTDA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Equal thread counts are bit-equal, and other processes want a core too."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def flower_identity():
    """Flower's messages ask which run and node they are made in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_task_id", "_run_id", "_node_id"):
            patch.setattr(TaskIdentity, name, 1)
        yield


@pytest.fixture(scope="module")
def few_source_examples():
    """For W_S and the guard, where what is tested does not depend on their number, and the seconds do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fmtda.strategies.dualadapt.server.MIXTURE_EXAMPLES", 60)
        patch.setitem(WATCHED, "digits", 30)
        yield


@pytest.fixture(scope="session")
def settings_of():
    """Settings for the embedded digits with few steps; a dictionary changes some: ``{"dualadapt.guard": False}``."""

    def make(changes: Mapping[str, Scalar] | None = None) -> AdaptationSettings:
        settings = resolve(blink(changes or {}))
        assert isinstance(settings, AdaptationSettings)
        return settings

    return make


@pytest.fixture
def client_of(settings_of, tmp_path):
    """A client with a few random pictures, as `clients.identity.identify` would return it."""

    def make(settings=None, name="pen/0000", train=24, test=12, server_round=1, folder="clients") -> Client:
        pictures = torch.Generator().manual_seed(sum(name.encode()))

        def examples(count: int) -> Examples:
            inputs = torch.randint(0, 256, (count, 3, 32, 32), generator=pictures, dtype=torch.uint8)
            return Examples(inputs, torch.randint(0, 10, (count,), generator=pictures))

        settings = settings or settings_of()
        return Client(name, settings, server_round, tmp_path / folder / name, examples(train), examples(test))

    return make


@pytest.fixture
def message_to():
    """What the server would send to a client: an untrained network, a source mixture, the settings."""

    def make(client: Client, message_type="train", network_seed=0) -> Message:
        settings = client.settings
        network = build(settings.network.name, 10, (3, 32, 32), network_seed)
        pictures = torch.randint(0, 256, (80, 3, 32, 32), generator=torch.Generator().manual_seed(9))
        with torch.no_grad():
            source = network.eval().feature_extractor(prepare(pictures, settings.inputs.standardise))
        records = {
            "model": to_record(network.state_dict()),
            "config": config_record(settings, client.round),
        }
        if message_type == "train" and settings.strategy == "dualadapt":
            records["source_mixture"] = to_record(fit(source, settings.algorithm.components, 0).arrays())
        return Message(RecordDict(records), dst_node_id=5, message_type=message_type)

    return make


TINY: dict[str, Scalar] = {
    "rounds": 2,
    "training.steps": 2,
    "training.batch": 8,
    "samples.count": 4,
    "samples.quality": 0,
    "server-threads": 1,
    "device": "cpu",
}
TINY_MODELS: dict[str, dict[str, Scalar]] = {
    "ddpm": {"width": 8, "image-size": 8, "timesteps": 30, "implicit-steps": 3},
    "ncsn": {"width": 8, "image-size": 8, "noise-levels": 3, "langevin-steps": 1},
}
"""Generative models of a few thousand weights and a few steps."""


@pytest.fixture(scope="session")
def generative_settings_of():
    """Effective settings of a generative workload; a dictionary changes some (``{"ddpm.width": 16}``)."""

    def make(workload="ddpm", changes: Mapping[str, Scalar] | None = None):
        model = {f"{workload}.{key}": value for key, value in TINY_MODELS.get(workload, {}).items()}
        return effective_settings({"workload": workload, **TINY, **model, **(changes or {})})

    return make
