"""What the workload costs beside a bare PyTorch loop: the same network, batch and threads, in one process.

    python -m benchmarks.generative_throughput --output benchmarks/results/generative/throughput.json

Ours is what a client does with a message, whole: unpack the model, bring its pictures to size, train, pack the model.
The bare loop has its pictures ready as float tensors and its network built. Both take turns. Seconds are of the
process's CPU, so that other work on the machine does not decide; the figure is the ratio of the medians of pictures per
second.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch.nn import functional

from benchmarks.provenance import provenance
from clients import generative
from clients.identity import Client, load_share
from fmtda.generate import MODELS as NAMES
from generative.ddpm import DDPM
from generative.ncsn import NCSN
from generative.registry import MODELS, build
from protocol.generative_settings import ImageModelSettings
from protocol.records import config_record, to_record
from server.startup import effective_settings


def main() -> None:
    arguments = _arguments()
    for name in ("_task_id", "_run_id", "_node_id"):  # Flower's messages ask in which run they are made
        setattr(TaskIdentity, name, 1)
    torch.set_num_threads(arguments.threads)
    result = {"command": "python -m benchmarks.generative_throughput", **provenance(), "threads": arguments.threads}
    for name in NAMES:
        result[name] = compare(name, arguments.steps, arguments.repeats)
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text)


def compare(name: str, steps: int, repeats: int) -> dict[str, float | int | list[float]]:
    """Pictures per CPU second of both, measured in turns after one turn each to warm up."""
    settings = effective_settings({"workload": name, "local-steps": steps, "clients": 1, "output": "/nowhere"})
    train, test = load_share(settings, "handwritten/0000", shares=1)
    client = Client("handwritten/0000", settings, 1, Path("/nowhere"), train, test)
    weights = to_record(build(name, settings, seed=0).state_dict())
    message = Message(
        RecordDict({"model": weights, "config": config_record(settings, 1)}), dst_node_id=1, message_type="train"
    )
    pictures = MODELS[name].kind.examples(train.inputs, settings)
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(repeats + 1):
        began = time.process_time()
        generative.train(message, client)
        took = {"ours": time.process_time() - began, "bare": loop(name, settings, pictures)}
        if turn:
            for who, each in took.items():
                seconds[who].append(each)
    rates = {who: [steps * settings.local_batch / each for each in taken] for who, taken in seconds.items()}
    return {
        "steps": steps,
        "batch": settings.local_batch,
        "parameters": sum(parameter.numel() for parameter in build(name, settings, 0).parameters()),
        "pictures_per_second_ours": statistics.median(rates["ours"]),
        "pictures_per_second_bare": statistics.median(rates["bare"]),
        "ratio": statistics.median(rates["ours"]) / statistics.median(rates["bare"]),
        "turns_ours": rates["ours"],
        "turns_bare": rates["bare"],
    }


def loop(name: str, settings: ImageModelSettings, pictures: torch.Tensor) -> float:
    """The loss written out by hand, without a generator, checks or progress; returns the seconds of the steps alone."""
    model = build(name, settings, seed=0)
    network = model.network
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.local_learning_rate, fused=True)
    values = pictures.float() / 127.5 - 1 if isinstance(model, DDPM) else (pictures.float() + 0.5) / 256
    began = time.process_time()
    for _ in range(settings.local_steps):
        clean = values[torch.randint(len(values), (settings.local_batch,))]
        noise = torch.randn_like(clean)
        if isinstance(model, DDPM):
            t = torch.randint(settings.timesteps, (len(clean),))
            signal, spread = model.schedule.signal[t].view(-1, 1, 1, 1), model.schedule.spread[t].view(-1, 1, 1, 1)
            loss = functional.mse_loss(network(signal * clean + spread * noise, t), noise)
        else:
            loss = _denoising(model, network, clean, noise)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
        optimiser.step()
    return time.process_time() - began


def _denoising(model: NCSN, network: torch.nn.Module, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    level = torch.randint(len(model.sigmas), (len(clean),))
    sigma = model.sigmas[level].view(-1, 1, 1, 1)
    scaled = (clean + sigma * noise - 0.5) / (sigma.square() + 0.25).sqrt()
    return (network(scaled, level * (1000 / (len(model.sigmas) - 1))) + noise).square().mean() / 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="gradient steps in a turn, as in a round")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each that count")
    parser.add_argument("--threads", type=int, default=1, help="of torch; a client has one")
    parser.add_argument("--output", type=Path, help="where the JSON result goes too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
