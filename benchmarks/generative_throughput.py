"""Measures the generative workloads beside a bare PyTorch loop: the same network, batch and threads, in one process.

    python -m benchmarks.generative_throughput --output benchmarks/results/generative/throughput.json

Ours is what a client does with a message, whole: unpack the model, bring its examples to size, train, pack the model.
The bare loop has its examples ready as tensors and its network built; for pictures the loss is written out by hand.
Both take turns. Seconds are of the process's CPU, so that other work on the machine does not decide; the figure is the
ratio of the medians of examples per second.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from flwr.app import Message, RecordDict
from torch import Tensor
from torch.nn import functional

from fmtda.benchmarking.provenance import provenance
from fmtda.clients.identity import load_share
from fmtda.domains.client import Client
from fmtda.generative.ddpm import DDPM
from fmtda.generative.model import GenerativeModel
from fmtda.generative.ncsn import NCSN
from fmtda.generative.registry import MODELS, build
from fmtda.protocol.records import config_record, to_record
from fmtda.protocol.settings import GenerativeSettings
from fmtda.server.startup import effective_settings
from fmtda.simulation.in_process import belong_to_a_run
from fmtda.strategies.registry import algorithm


def main() -> None:
    arguments = _arguments()
    belong_to_a_run()
    torch.set_num_threads(arguments.threads)
    result = {"command": "python -m benchmarks.generative_throughput", **provenance(), "threads": arguments.threads}
    for name in arguments.models.split(","):
        result[name] = compare(name, arguments.steps, arguments.repeats)
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text)


def compare(name: str, steps_in_a_turn: int | None, repeats: int) -> dict[str, float | int | list[float]]:
    """Measure examples per CPU second of both, in turns after one turn each to warm up."""
    own_steps = {} if steps_in_a_turn is None else {"training.steps": steps_in_a_turn}
    settings = effective_settings({"workload": name, "clients": 1, "output": "/nowhere", **own_steps})
    assert isinstance(settings, GenerativeSettings)
    client_name = f"{settings.target_domains[0]}/0000"
    train, test = load_share(settings, client_name, shares=1)
    client = Client(client_name, settings, 1, Path("/nowhere"), train, test)
    weights = to_record(build(name, settings, seed=0).state_dict())
    message = Message(
        RecordDict({"model": weights, "config": config_record(settings, 1)}), dst_node_id=1, message_type="train"
    )
    examples = MODELS[name].kind.examples(train.inputs, settings)
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(repeats + 1):
        began = time.process_time()
        algorithm(settings.strategy).train(message, client)
        took = {"ours": time.process_time() - began, "bare": loop(name, settings, examples)}
        if turn:
            for who, each in took.items():
                seconds[who].append(each)
    steps, batch = settings.training.steps, settings.training.batch
    rates = {who: [steps * batch / each for each in taken] for who, taken in seconds.items()}
    return {
        "steps": steps,
        "batch": batch,
        "parameters": sum(parameter.numel() for parameter in build(name, settings, 0).parameters()),
        "examples_per_second_ours": statistics.median(rates["ours"]),
        "examples_per_second_bare": statistics.median(rates["bare"]),
        "ratio": statistics.median(rates["ours"]) / statistics.median(rates["bare"]),
        "turns_ours": rates["ours"],
        "turns_bare": rates["bare"],
    }


def loop(name: str, settings: GenerativeSettings, examples: Tensor) -> float:
    """Train without checks, progress and messages; returns the seconds of the steps alone."""
    model = build(name, settings, seed=0)
    parameters = list(model.parameters())
    optimiser = torch.optim.Adam(parameters, lr=settings.training.learning_rate, fused=True)
    values, loss_of = bare_loss(model, examples)
    began = time.process_time()
    for _ in range(settings.training.steps):
        loss = loss_of(values[torch.randint(len(values), (settings.training.batch,))])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.training.gradient_clip)
        optimiser.step()
    return time.process_time() - began


def bare_loss(model: GenerativeModel, examples: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Give the examples as the loop holds them, and the loss of a batch of them."""
    if isinstance(model, DDPM):
        return examples.float() / 127.5 - 1, partial(_noise_prediction, model)
    if isinstance(model, NCSN):
        return (examples.float() + 0.5) / 256, partial(_denoising, model)
    generator = torch.Generator().manual_seed(0)
    return examples, lambda batch: model.loss(batch, generator)


def _noise_prediction(model: DDPM, clean: Tensor) -> Tensor:
    noise = torch.randn_like(clean)
    t = torch.randint(model.schedule.timesteps, (len(clean),))
    signal, spread = (model.schedule.get_buffer(name)[t].view(-1, 1, 1, 1) for name in ("signal", "spread"))
    return functional.mse_loss(model.network(signal * clean + spread * noise, t), noise)


def _denoising(model: NCSN, clean: Tensor) -> Tensor:
    noise = torch.randn_like(clean)
    sigmas = model.get_buffer("sigmas")
    level = torch.randint(len(sigmas), (len(clean),))
    sigma = sigmas[level].view(-1, 1, 1, 1)
    scaled = (clean + sigma * noise - 0.5) / (sigma.square() + 0.25).sqrt()
    return (model.network(scaled, level * (1000 / (len(sigmas) - 1))) + noise).square().mean() / 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="gradient steps in a turn; without: those of a round")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--repeats", type=int, default=5, help="turns of each that count")
    parser.add_argument("--threads", type=int, default=1, help="of torch; a client has one")
    parser.add_argument("--output", type=Path, help="where the JSON result goes too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
