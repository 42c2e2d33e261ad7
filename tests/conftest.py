"""What all rooms' tests share: one cache of prepared data, one thread, and settings that train in a blink."""

import pytest
import torch
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fmtda.adaptation.augment import prepare
from fmtda.adaptation.mixture import fit
from fmtda.adaptation.registry import build
from fmtda.clients.identity import Client
from fmtda.domains.examples import Examples
from fmtda.domains.registry import family
from fmtda.protocol.records import config_record, to_record
from fmtda.protocol.settings import Settings
from fmtda.protocol.workloads import WORKLOADS
from fmtda.server.source import WATCHED
from fmtda.server.startup import effective_settings

BLINK = {
    "pretrain-steps": 2,
    "pretrain-batch": 8,
    "plain-steps": 2,
    "server-steps": 2,
    "server-batch": 8,
    "client-steps": 3,
    "client-batch": 8,
    "self-train-steps": 2,
    "local-steps": 2,
    "local-batch": 8,
    "personalise-steps": 2,
    "personalise-batch": 8,
    "components": 2,
    "confidence": 0.0,
    "server-threads": 1,
    "device": "cpu",
}
"""A few steps of everything; at confidence 0 every prediction is a pseudo-label, so self-training moves weights."""


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
        patch.setattr("fmtda.strategies.dual_adapt.MIXTURE_EXAMPLES", 60)
        patch.setitem(WATCHED, "digits", 30)
        yield


@pytest.fixture(scope="session")
def settings_of():
    """Settings for the embedded digits with few steps; keyword arguments change keys (``client_steps=1``)."""

    def make(**changes) -> Settings:
        given = {key.replace("_", "-"): value for key, value in changes.items()}
        return Settings.from_run_config({**BLINK, **given}, family("digits").defaults())

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
        network = build(settings.network, 10, (3, 32, 32), network_seed)
        pictures = torch.randint(0, 256, (80, 3, 32, 32), generator=torch.Generator().manual_seed(9))
        with torch.no_grad():
            source = network.eval().feature_extractor(prepare(pictures, settings.standardise))
        records = {
            "model": to_record(network.state_dict()),
            "config": config_record(settings, client.round),
        }
        if message_type == "train" and settings.strategy == "dualadapt":
            records["source_mixture"] = to_record(fit(source, settings.components, 0).arrays())
        return Message(RecordDict(records), dst_node_id=5, message_type=message_type)

    return make


TINY = {
    "rounds": 2,
    "local-steps": 2,
    "local-batch": 8,
    "width": 8,
    "image-size": 8,
    "timesteps": 30,
    "implicit-steps": 3,
    "noise-levels": 3,
    "langevin-steps": 1,
    "sample-count": 4,
    "quality-samples": 0,
    "server-threads": 1,
    "device": "cpu",
}
"""Generative models of a few thousand weights and a few steps; each workload takes the keys that it has."""


@pytest.fixture(scope="session")
def generative_settings_of():
    """Effective settings of a generative workload on embedded digits; keyword arguments change keys."""

    def make(workload="ddpm", **changes):
        known = WORKLOADS[workload].by_key()
        tiny = {key: value for key, value in TINY.items() if key in known}
        return effective_settings(
            {"workload": workload, **tiny, **{key.replace("_", "-"): value for key, value in changes.items()}}
        )

    return make
