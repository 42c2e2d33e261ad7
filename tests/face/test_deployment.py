"""Real clients: the page that ``fmtda deploy init`` writes, followed literally. SuperLink, SuperNodes, TLS, keys."""

import json

import pytest
from real_nodes import Deployment, needs_nginx
from real_runs import arrays, metrics, overrides, simulate, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000), needs_nginx]

OVERRIDES = overrides(small())


@pytest.fixture
def deployed(tmp_path):
    """Two clients on this machine, started as their page says."""
    deployment = Deployment(tmp_path / "federation", ["blend", "pen"])
    try:
        yield deployment
    finally:
        deployment.close()


def test_the_page_leads_to_a_run_that_equals_a_simulation(deployed, tmp_path):
    deployed.start_superlink()
    deployed.register()
    for client in deployed.clients:
        deployed.start_supernode(client)
    deployed.wait_for_nodes(2)
    assert deployed.carry_out(deployed.block("supernode list")).count("online") == 2
    run = tmp_path / "run"
    printed = deployed.carry_out(deployed.run_block(f'{OVERRIDES} rounds=1 output="{run}"'))
    assert (run / "summary.json").exists(), printed + deployed.all_logs()
    simulated = tmp_path / "simulated"
    simulate("--rounds", 1, "--targets", "blend,pen", "--output", simulated)
    summaries = [json.loads((path / "summary.json").read_text()) for path in (run, simulated)]
    assert summaries[0]["accuracy"] == summaries[1]["accuracy"]
    assert metrics(run) == metrics(simulated)
    assert arrays(run) == {name: array for name, array in arrays(simulated).items() if name.startswith("checkpoints")}
    for client in deployed.clients:
        kept = list((deployed.folder / "clients" / client / "app" / "local").rglob("uploaded.safetensors"))
        assert [path.parent.parent.name for path in kept] == [client]
