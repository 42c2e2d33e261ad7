"""Measures what caching a client's features is worth: one training message with the cache on and off.

    python -m benchmarks.client_round --examples 400 --steps 200 --output benchmarks/results/client_round.json

Preset `paper`, default network, one thread, as in a simulated or real client: the ClientApp's own train function gets
a real message. Both variants take turns; the medians are compared.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from flwr.app import Context, Message, RecordDict

from fmtda.adaptation.mixture import fit
from fmtda.benchmarking.settings import adaptation_settings
from fmtda.clients import app
from fmtda.protocol.records import config_record, to_record
from fmtda.protocol.settings import AdaptationSettings
from fmtda.server.adaptation import new_network
from fmtda.server.run_directory import versions
from fmtda.simulation.in_process import belong_to_a_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--steps", type=int, default=200, help="R_c")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"cached": [], "recomputed": []}
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "preset": "paper",
            "data.targets": "fonts",
            "clients": 1,
            "data.target-limit": arguments.examples,
            "dualadapt.client-steps": arguments.steps,
            "output": folder,
        }
        settings = adaptation_settings(config)
        message(settings)  # loads the data and warms up
        for _ in range(arguments.repeats):
            seconds["cached"].append(message(settings))
            seconds["recomputed"].append(message(settings.changed({"dualadapt.cache-features": False})))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "command": f"python -m benchmarks.client_round --examples {arguments.examples} --steps {arguments.steps}",
        "versions": versions(),
        "median_seconds": medians,
        "seconds": seconds,
        "ratio": medians["cached"] / medians["recomputed"],
    }
    print(json.dumps(result, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")


def message(settings: AdaptationSettings) -> float:
    """Measure the seconds that the client's train function takes for one message."""
    belong_to_a_run()
    network = new_network(settings, torch.device("cpu"))
    source_mixture = fit(torch.rand(2000, network.feature_size, generator=torch.Generator().manual_seed(0)), 10, seed=0)
    content = RecordDict(
        {
            "model": to_record(network.state_dict()),
            "source_mixture": to_record(source_mixture.arrays()),
            "config": config_record(settings, 1),
        }
    )
    context = Context(
        run_id=1, node_id=1, node_config={"partition-id": 0, "num-partitions": 1}, state=RecordDict(), run_config={}
    )
    began = time.perf_counter()
    reply = app.train(Message(content, dst_node_id=1, message_type="train"), context)
    seconds = time.perf_counter() - began
    assert reply.content["metrics"]["num-examples"] == settings.data.target_limit
    return seconds


if __name__ == "__main__":
    main()
