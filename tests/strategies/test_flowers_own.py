"""Flower's FedProx, and its clipping modifier on a client, through the real server and the real ClientApp."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fmtda.simulation.in_process import run_in_process
from fmtda.strategies.composition import resolve
from tests.strategies.flowers_own import STEP

FEW = {
    "data.targets": "blend,pen",
    "data.target-limit": 40,
    "data.source-limit": 60,
    "inputs.randomise": False,
    "inputs.scenery": False,
    "pretraining.steps": 2,
    "pretraining.batch": 8,
    "pretraining.plain-steps": 2,
    "rounds": 2,
    "server-threads": 1,
    "device": "cpu",
}


def weights(run) -> dict[int, dict[str, torch.Tensor]]:
    """The floating-point arrays of the checkpoints of the last two rounds."""
    return {
        server_round: {
            name: array
            for name, array in load_file(run.checkpoints / f"round-{server_round:06d}" / "model.safetensors").items()
            if array.is_floating_point()
        }
        for server_round in (1, 2)
    }


def played(name: str, strength: float, folder):
    strategy = f"tests.strategies.flowers_own:{name}"
    table = {f"{name.lower()}.strength": strength}
    return run_in_process(resolve({**FEW, "strategy": strategy, **table, "output": str(folder)}))


@pytest.mark.parametrize("mu", [1.0, 3.0])
def test_flowers_fedprox_tells_clients_its_weight(mu, tmp_path):
    run = played("Proximal", mu, tmp_path / "run")
    before, after = weights(run).values()
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before])
    assert torch.allclose(moved, torch.full_like(moved, STEP / (1 + mu)), atol=1e-5)
    assert all(not line["failures"] for line in run.metrics())


def test_flowers_modifier_clips_what_a_client_uploads(tmp_path):
    largest = 2.0
    run = played("Clipped", largest, tmp_path / "run")
    before, after = weights(run).values()
    length = np.sqrt(sum(float((after[name] - before[name]).double().square().sum()) for name in before))
    free = STEP * np.sqrt(sum(array.numel() for array in before.values()))
    assert free > 100 * largest  # without the modifier it would be that long
    assert length == pytest.approx(largest, rel=1e-2)
    assert all(not line["failures"] for line in run.metrics())
