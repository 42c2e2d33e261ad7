"""What messages tell: a client on a machine of its own learns nothing of others, and trains the same for that."""

import json

import numpy as np
import pytest

from fmtda.clients.identity import run_folder
from fmtda.protocol.settings import UNDISCLOSED
from fmtda.server import checkpoints
from fmtda.server.app import run
from fmtda.server.startup import effective_settings
from fmtda.strategies.composition import settings_in, workloads
from fmtda.strategies.registry import algorithms

SECRETS = ("pen", "street", "handwritten", "secret-place", "1234")
"""Domains, a folder and a number that are nobody's business but the server's; each client's own domain apart."""


def every_kind() -> list[tuple[str, str]]:
    kinds = {"adaptation": "adaptation", **{name: "generative" for name in workloads() if name != "adaptation"}}
    return [(name, each.name) for name, kind in kinds.items() for each in algorithms(kind)]


@pytest.mark.parametrize(("workload", "strategy"), every_kind())
def test_every_runs_settings_have_a_form_for_clients(workload, strategy):
    settings = effective_settings(
        {
            "workload": workload,
            "strategy": strategy,
            "clients": 1234,
            "output": "/secret-place/run",
            **({"data.targets": "pen,street"} if workload in ("adaptation", "ddpm", "ncsn") else {}),
        }
    )
    told = settings.disclosed()
    text = json.dumps(told.nested())
    assert not [secret for secret in SECRETS if secret in text]
    assert settings_in(text) == told


def test_a_run_is_known_by_a_word_that_no_other_run_has(settings_of):
    outputs = ["/runs/a", "/runs/b", "/runs/a"]
    words = [settings_of({"output": output}).disclosed().output for output in outputs]
    assert words[0] == words[2] != words[1]
    assert all(word.startswith("run-") and word[4:].isalnum() for word in words)


@pytest.mark.parametrize("strategy", ["dualadapt", "fed-dann"])
def test_messages_tell_a_deployed_client_what_it_needs_and_the_result_is_the_same(
    grid_of, settings_of, silence, tmp_path, strategy
):
    results = {}
    for deployed in (False, True):
        output = tmp_path / f"secret-place-{deployed}"
        grid = grid_of(
            {
                7: {"domain": "blend", "folder": str(tmp_path / f"one-{deployed}"), "share-examples": True},
                9: {"domain": "pen", "folder": str(tmp_path / f"two-{deployed}")},
            }
        )
        settings = settings_of({"strategy": strategy, "data.targets": "blend,pen", "rounds": 2, "output": str(output)})
        directory = run(grid, settings, silence, deployed=deployed)
        texts = {str(message.content.config_records["config"]["fmtda"]) for message in grid.sent}
        told = any("secret-place" in text and "handwritten" in text and "pen" in text for text in texts)
        assert told is not deployed
        if deployed:
            assert not [secret for secret in SECRETS for text in texts if secret in text]
            assert all(json.loads(text)["data"]["targets"] == UNDISCLOSED for text in texts)
        results[deployed] = checkpoints.latest(directory.checkpoints)
    assert results[True].model.keys() == results[False].model.keys()
    for name, value in results[True].model.items():
        np.testing.assert_array_equal(value.numpy(), results[False].model[name].numpy())


def test_a_folder_of_a_client_is_a_plain_name_whatever_the_server_says():
    for output in ("../../x", "/etc", "a/b", "\0", "x" * 10_000, "\ud800"):
        assert run_folder(output).replace("run-", "").isalnum()
