"""Trains G and F_g on the labelled source, before round 1 (Algorithm 1, line 1).

Our choice: the optimiser, the schedule's form and all numbers, as the paper's notes say cross-entropy alone; and how
many examples stand for a source where networks are kept.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from fmtda.adaptation.accuracy import accuracy
from fmtda.adaptation.batches import shuffled_batches
from fmtda.adaptation.network import Network
from fmtda.domains.source import Source
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import Affects, compared
from fmtda.server.progress import Progress
from fmtda.server.run_directory import writing

DECIDED_APART = ("inputs.", "pretraining.steps", "pretraining.plain-steps")
"""Settings that decide too, but of which a stage may use others than the run's: the stage's own are taken."""

DIGESTED = 64
"""Examples that stand for a source where networks are kept."""


class Batches(Protocol):
    """Gives what is trained on: `Source`, or anything else with its `batch`."""

    def __len__(self) -> int: ...

    def batch(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...


def pretrained(
    network: Network, source: Source, settings: AdaptationSettings, steps: int, stage: str, progress: Progress
) -> dict[str, float]:
    """Pre-train a network in place as the settings say, or read it where an equal one was trained before.

    Returns
    -------
    dict
        What `pretrain` returns, and `hold_out_accuracy` in percent.

    Raises
    ------
    WriteError
        If `pretraining.base-dir` can't be written to.
    """
    kept = _kept_in(settings, source, steps, stage)
    if kept is not None:
        if (report := _read(kept, network)) is not None:
            progress.note(f"{stage}: taken from {kept}")
            network.eval()
            return report
        with writing("the pre-trained network", kept.parent):  # before the work rather than after it
            kept.parent.mkdir(parents=True, exist_ok=True)
            aside = kept.with_suffix(f".{os.getpid()}")
            aside.touch()
            aside.unlink()
    progress.stage(stage, steps)
    report = pretrain(
        network,
        source,
        steps=steps,
        batch_size=settings.pretraining.batch,
        learning_rate=settings.pretraining.learning_rate,
        weight_decay=settings.pretraining.weight_decay,
        generator=generator_for(settings.seed, "server", 0, stage),
        on_step=lambda step, total: progress.advance(1),
    )
    held_out = source.held_out(generator_for(settings.seed, "server", 0, "hold-out"))
    report["hold_out_accuracy"] = 100 * accuracy(network, *held_out)
    if kept is not None:
        with writing("the pre-trained network", kept.parent):
            state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
            save_file(state, aside, {"report": json.dumps(report)})
            aside.rename(kept)
    return report


def _read(kept: Path, network: Network) -> dict[str, float] | None:
    """Load a kept network and return its report; None where there is none, or one that a full disk cut short."""
    device = str(next(network.parameters()).device)
    try:
        with safe_open(kept, framework="pt", device=device) as file:
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
            return json.loads(file.metadata()["report"])
    except (OSError, SafetensorError):
        return None


def _kept_in(settings: AdaptationSettings, source: Source, steps: int, stage: str) -> Path | None:
    """The file that an equally pre-trained network is kept in; None without `pretraining.base-dir`."""
    if not settings.pretraining.base_dir:
        return None
    deciding: dict[str, Any] = {
        key: value
        for key, value in compared(settings, {Affects.PRETRAINING}).items()
        if not key.startswith(DECIDED_APART)
    }
    deciding |= {
        "extras": [source.standardise, source.randomise, source.backgrounds is not None],
        "steps": steps,
        "stage": stage,
        "first batch": _digest(source),
        "torch": torch.__version__,
    }
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]", "-", f"{settings.network.name}-{settings.data.source}-seed-{settings.seed}-{digest}")
    return Path(settings.pretraining.base_dir) / f"{name}.safetensors"


def _digest(source: Source) -> str:
    """What tells sources apart that share name and settings: how many examples, and what a batch of them looks like.

    So other files, another recipe of embedded data and another randomisation are noticed.
    """
    inputs, labels = source.batch(torch.arange(min(DIGESTED, len(source))), torch.Generator().manual_seed(0))
    content = inputs.cpu().numpy().tobytes() + labels.cpu().numpy().tobytes()
    return hashlib.sha256(str(len(source)).encode() + content).hexdigest()[:16]


def pretrain(
    network: Network,
    source: Batches,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    generator: torch.Generator,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Minimise cross-entropy on labelled examples, in place, with AdamW, BatchNorm in training mode.

    Parameters
    ----------
    network : Network
        On the source's device.
    source : Batches
        Its batches come randomised and prepared. Labels of -1 don't count.
    steps : int
        Mini-batches; 0 leaves the network as it is.
    batch_size : int
        Examples a mini-batch; a smaller source is taken whole.
    learning_rate : float
        Peak of the schedule, see `one_cycle`.
    weight_decay : float
    generator : torch.Generator
        Source of the batches and of the randomisation.
    on_step : callable, optional
        Called with (steps done, steps) after every step.

    Returns
    -------
    dict
        `loss` and `accuracy` (in percent) on the last tenth of the mini-batches; empty for 0 steps.

    Raises
    ------
    ValueError
        If there are no examples.
    """
    if len(source) == 0:
        raise ValueError("no examples to train on")
    if steps == 0:
        return {}
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    annealing = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: one_cycle(step, steps))
    losses, hits = [], []
    network.train()
    for step, chosen in enumerate(shuffled_batches(len(source), batch_size, steps, generator), start=1):
        inputs, labels = source.batch(chosen, generator)
        logits = network(inputs)
        loss = functional.cross_entropy(logits, labels, ignore_index=-1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        annealing.step()
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(dim=1) == labels)[labels >= 0].float().mean())
        if on_step is not None:
            on_step(step, steps)
    network.eval()
    last = max(1, steps // 10)
    return {
        "loss": torch.stack(losses[-last:]).mean().item(),
        "accuracy": 100 * torch.stack(hits[-last:]).mean().item(),
    }


def one_cycle(step: int, steps: int) -> float:
    """Compute the share of the peak rate in step 0 .. steps - 1: up over a quarter, then along a cosine to zero.

    After Smith and Topin 2018, without their cycle of the momentum.
    """
    done = (step + 0.5) / steps
    warm_up = 0.25
    if done < warm_up:
        return done / warm_up
    return (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2
