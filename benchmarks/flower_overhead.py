"""Measures a federation of many clients beside Flower itself: the same messages with clients that do nothing.

    python -m benchmarks.flower_overhead --clients 400 --rounds 3 --output benchmarks/results/flower_overhead.json

Two simulations, each in a process of its own, start-up included in both:

- fmtda, preset `paper`, embedded digits; pre-training is subtracted (the run's own measurement of it);
- an empty ClientApp that answers every message at once with an upload of the same size, and a ServerApp that sends
  as many messages of the same content.

Also recorded: the process's resident memory at the end of every round, which must not grow.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil


def main() -> None:
    arguments = _arguments()
    if arguments.part == "fmtda":
        print(json.dumps(_fmtda(arguments)))
        return
    if arguments.part == "empty":
        print(json.dumps(_empty(arguments)))
        return
    ours = _in_a_process(arguments, "fmtda")
    empty = _in_a_process(arguments, "empty", **{key: ours[key] for key in ("down_values", "up_values")})
    from fmtda.server.run_directory import versions

    result = {
        "command": f"python -m benchmarks.flower_overhead --clients {arguments.clients} --rounds {arguments.rounds}",
        "cores": os.cpu_count(),
        "versions": versions(),
        "fmtda": ours,
        "empty": empty,
        "ratio": ours["seconds"] / empty["seconds"],
    }
    print(json.dumps(result, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="where the JSON result goes too")
    parser.add_argument("--part", choices=["fmtda", "empty"], help="run one part alone, in this process")
    parser.add_argument("--down-values", type=int, default=0, help="float32 values sent to a client (part empty)")
    parser.add_argument("--up-values", type=int, default=0, help="float32 values sent back (part empty)")
    return parser.parse_args()


def _in_a_process(arguments: argparse.Namespace, part: str, **options: int) -> dict:
    command = [sys.executable, "-m", "benchmarks.flower_overhead", "--part", part]
    command += ["--clients", str(arguments.clients), "--rounds", str(arguments.rounds)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    wall = time.perf_counter() - began
    result = json.loads(done.stdout.splitlines()[-1])
    return {"wall_seconds": wall, **result, "seconds": wall - result["pretraining_seconds"]}


def _fmtda(arguments: argparse.Namespace) -> dict:
    from fmtda.server.progress import Lines
    from fmtda.server.startup import effective_settings
    from fmtda.simulation.flower_engine import simulate

    class Quiet(Lines):
        """Notes the memory after every round."""

        def note(self, text: str) -> None:
            print(text, file=sys.stderr, flush=True)

        def round_done(self, server_round: int, rounds: int, reached: Mapping[str, float] | None) -> None:
            memory.append(_megabytes())
            super().round_done(server_round, rounds, reached)

    memory: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        config = {"preset": "paper", "clients": arguments.clients, "rounds": arguments.rounds}
        config |= {"output": f"{folder}/run"}
        simulate(effective_settings(config), Quiet(), client_cpus=1, client_gpus=0, resume="")
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if line["round"] > 0]
    one = next(iter(rounds[0]["clients"].values()))
    return {
        "pretraining_seconds": lines[0]["pretraining_seconds"],
        "server_seconds": [line["server_seconds"] for line in rounds],
        "mean_client_seconds": float(np.mean([c["seconds"] for line in rounds for c in line["clients"].values()])),
        "megabytes_after_round": memory,
        # A round has one training and one evaluation message.
        "down_values": one["down"] // 2 // 4,
        "up_values": one["up"] // 4,
        "failures": sum(len(line["failures"]) for line in lines),
        "average_accuracy": float(np.mean([heads["mean"] for heads in rounds[-1]["accuracy"].values()])),
    }


def _empty(arguments: argparse.Namespace) -> dict:
    import logging

    from flwr.app import ConfigRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from fmtda.protocol.records import to_record

    logging.getLogger("flwr").setLevel(logging.ERROR)
    up = arguments.up_values
    client_app, server_app = ClientApp(), ServerApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"model": to_record({"w": np.zeros(up, np.float32)})}), reply_to=message)

    @client_app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"config": ConfigRecord({"answer": 1})}), reply_to=message)

    memory: list[float] = []

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        while len(list(grid.get_node_ids())) < arguments.clients:
            time.sleep(0.05)
        content = RecordDict({"model": to_record({"w": np.zeros(arguments.down_values, np.float32)})})
        # fmtda's roll call and its evaluation before round 1 have no counterpart here; they count against fmtda.
        for _ in range(arguments.rounds):
            for kind in ("train", "evaluate"):
                messages = [Message(content, dst_node_id=node, message_type=kind) for node in grid.get_node_ids()]
                replies = list(grid.send_and_receive(messages, timeout=3600))
                assert len(replies) == arguments.clients
                assert not any(reply.has_error() for reply in replies)
            memory.append(_megabytes())

    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=arguments.clients,
        backend_config={
            "init_args": {"log_to_driver": False, "num_cpus": os.cpu_count() or 1},
            "client_resources": {"num_cpus": 1},
        },
    )
    return {"pretraining_seconds": 0.0, "megabytes_after_round": memory}


def _megabytes() -> float:
    """Resident memory of this process and of all that it started."""
    process = psutil.Process()
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True))) / 1e6


if __name__ == "__main__":
    main()
