"""Trains the references that break privacy: every client's examples are moved to the server, and trained on there.

    python -m fmtda.benchmarking.centralised mcd --output DIR
    python -m fmtda.benchmarking.centralised dann --output DIR -c data.name=digit-five -c data.dir=DIR
    python -m fmtda.benchmarking.centralised target-supervised --output DIR -c seed=1

`mcd` (Saito et al. 2018) and `dann` (Ganin et al. 2016) adapt the pre-trained network to the pooled, unlabelled target
examples, with the parameters of their federated forms, `fed-mcd` and `fed-dann`: `rounds` x `fed-mcd.local-steps` x
`clients` steps, as many as the clients of a federated run make together, each on `fed-mcd.local-batch` source and as
many target examples.
`target-supervised` is trained from scratch with the targets' labels, `pretraining.steps` steps. Nothing here uses
Flower. The settings are those of `fmtda simulate -c`; config.toml, metrics.jsonl (a line a tenth of the steps in place
of a round) and summary.json have the form of a federated run's.

Our choice: the collapse guard looks at a training ten times, at `WATCHED` examples of each target.
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from fmtda.adaptation.batches import shuffled_batches
from fmtda.adaptation.collapse import collapsed, health
from fmtda.adaptation.dann import DANN, Discriminated, reversal_weight
from fmtda.adaptation.mcd import MCD, TwoHeads
from fmtda.adaptation.network import Network
from fmtda.adaptation.predictor import Predictor
from fmtda.adaptation.scores import accuracy_by_domain, confusion_by_domain
from fmtda.benchmarking.command_line import command_line, refusals
from fmtda.benchmarking.methods import METHODS, REFERENCES
from fmtda.benchmarking.pooled_targets import PooledTargets
from fmtda.benchmarking.settings import adaptation_settings
from fmtda.domains.client import Client
from fmtda.domains.examples import DataError
from fmtda.domains.source import Source
from fmtda.protocol.client_names import client_name
from fmtda.protocol.records import to_record
from fmtda.protocol.runtime import choose_device, prepare_to_compute
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import AdaptationSettings
from fmtda.server.adaptation import EXTRAS_OFF, new_network
from fmtda.server.metrics import METRIC_NAMES, summarise
from fmtda.server.pretraining import pretrain, pretrained
from fmtda.server.progress import Lines, Progress
from fmtda.server.run_directory import RunDirectory
from fmtda.server.startup import check_simulation, check_source
from fmtda.server.workload_kinds import metric_of
from fmtda.strategies.algorithm import count
from fmtda.strategies.fed_dann import FedDANNServer
from fmtda.strategies.fed_mcd import FedMCDServer
from fmtda.strategies.fine_tuned_average import FineTunedParameters

LOOKS = 10
"""How often a training is evaluated and, in an adaptation, looked at by the guard."""

WATCHED = 256
"""Examples of each target that the collapse guard looks at, at most: no more than of the source."""

Step = Callable[[tuple[Tensor, Tensor], Tensor, float], object]
"""One step on a labelled source batch and a target batch, at this share of all steps."""


class Reference:
    """A run of a reference, from its data to its summary.

    Parameters
    ----------
    method
        The name of one of `benchmarking.methods.REFERENCES`.
    settings
        Checked.
    directory
        The run directory, new.
    progress
        Who is told what happens.
    """

    def __init__(self, method: str, settings: AdaptationSettings, directory: RunDirectory, progress: Progress) -> None:
        self.method, self.settings, self.directory, self.progress = method, settings, directory, progress
        device = choose_device(settings.device)
        self.source = Source.load(settings, device)
        self.targets = PooledTargets.load(settings, device)
        self.network = new_network(settings, device)

    def run(self) -> dict[str, Any]:
        """Run it from the pre-training to summary.json, and return what that holds.

        Raises
        ------
        DataError
            If `target-supervised` has no labels to train on.
        """
        began = time.perf_counter()
        if self.method == "target-supervised" and not self.targets.labelled:
            raise DataError("target-supervised: not every target's training part has labels; leave this method out")
        self._start()
        outcome = self._supervise() if self.method == "target-supervised" else self._adapt()
        seconds = time.perf_counter() - began
        summary = summarise(self.settings, "global", metric_of(self.settings), self.directory.metrics(), seconds)
        summary |= {"strategy": self.method, "breaks_privacy": True, **outcome}
        self.directory.write_summary(summary)
        return summary

    def _start(self) -> None:
        """Pre-train as a federated run does, and write down where it starts from."""
        settings, progress = self.settings, self.progress
        self._since = time.perf_counter()
        plain_settings = settings.changed(EXTRAS_OFF)
        plain = None
        if plain_settings != settings:
            plain_network = copy.deepcopy(self.network)
            pretrained(
                plain_network,
                self.source.plain(),
                settings,
                settings.pretraining.plain_steps,
                "plain reference",
                progress,
            )
            plain = _global_accuracy(self._evaluate(plain_network, plain_settings)["accuracy"])
        report = pretrained(self.network, self.source, settings, settings.pretraining.steps, "pre-training", progress)
        source_only = _global_accuracy(self._evaluate(self.network, settings)["accuracy"])
        start = {"pretraining": report, "source_only": source_only, "plain_source_only": plain or source_only}
        self._look(0, self.network, start)

    def _adapt(self) -> dict[str, Any]:
        """Adapt the network to the pooled targets; a collapse ends it at the last good state.

        Returns
        -------
        dict
            `steps` that were made; `collapse`, None or when it was seen and why it counts as one.
        """
        settings, method, own = self.settings, self.method, self.settings.own(FineTunedParameters)
        total = settings.rounds * own.local_steps * settings.clients
        generator = generator_for(settings.seed, "centralised", method)
        network, step = ADAPTATIONS[method](settings, self.network, self.source)
        held_out = self.source.held_out(generator_for(settings.seed, "centralised", "held out"))
        targets = self.targets.watched(min(WATCHED, self.source.look), settings.seed)
        start, good = health(network, held_out, targets), copy.deepcopy(network.state_dict())
        batches = shuffled_batches(len(self.targets), own.local_batch, total, generator)
        looks = _looks(total)
        self.progress.stage(method, total)
        network.train()
        for done, chosen in enumerate(batches, start=1):
            step(self.source.draw(own.local_batch, generator), self.targets[chosen], (done - 1) / total)
            self.progress.advance(1)
            if done not in looks:
                continue
            reason = collapsed(health(network, held_out, targets), start)
            if reason is not None:
                network.load_state_dict(good)
                self.progress.note(f"{method} collapsed by step {done}: {reason}; back to the last good state")
            good = copy.deepcopy(network.state_dict())
            self._look(looks.index(done) + 1, network, {"step": done, "collapse": reason})
            if reason is not None:
                return {"steps": done, "collapse": {"step": done, "reason": reason}}
        return {"steps": total, "collapse": None}

    def _supervise(self) -> dict[str, Any]:
        """Train a fresh network on the targets with their labels."""
        settings = self.settings
        network = new_network(settings, self.source.device)
        looks = _looks(settings.pretraining.steps)

        def on_step(done: int, total: int) -> None:
            self.progress.advance(1)
            if done in looks:
                self._look(looks.index(done) + 1, network, {"step": done})

        self.progress.stage(self.method, settings.pretraining.steps)
        pretrain(
            network,
            self.targets.with_known_labels(),
            steps=settings.pretraining.steps,
            batch_size=settings.pretraining.batch,
            learning_rate=settings.pretraining.learning_rate,
            weight_decay=settings.pretraining.weight_decay,
            generator=generator_for(settings.seed, "centralised", self.method),
            on_step=on_step,
        )
        return {"steps": settings.pretraining.steps, "collapse": None}

    def _look(self, tenth: int, network: Network, facts: dict[str, Any]) -> None:
        """Evaluate, and add a line to metrics.jsonl; a tenth stands where a federated run has a round."""
        seconds = time.perf_counter() - self._since
        line = {"round": tenth, "phase": "round", **self._evaluate(network, self.settings), **facts}
        self.directory.append_metrics({**line, "server_seconds": seconds, "clients": {}, "failures": []})
        self.progress.round_done(tenth, LOOKS, _global_accuracy(line["accuracy"]))
        self._since = time.perf_counter()

    def _evaluate(self, network: Network, settings: AdaptationSettings) -> dict[str, Any]:
        """`accuracy` and `confusion` by domain on the test parts, counted as a client counts; the mode is kept."""
        counts = {}
        predictor = Predictor({"global": copy.deepcopy(network)})
        for domain, trained, tested in zip(
            self.targets.domains, self.targets.trained, self.targets.tested, strict=True
        ):
            name = client_name(domain, 0)
            client = Client(name, settings, 0, self.directory.path / "clients" / name, trained, tested)
            counts[name] = count(client, predictor)
        return {"accuracy": accuracy_by_domain(counts), "confusion": confusion_by_domain(counts)}


def mcd(settings: AdaptationSettings, network: Network, source: Source) -> tuple[Network, Step]:
    """Prepare MCD, with a second classifier that starts as in `fed-mcd`."""
    strategy = FedMCDServer(settings, network, source)
    strategy.initial(to_record(network.state_dict()))
    two_heads = strategy.network
    assert isinstance(two_heads, TwoHeads)
    own = settings.own(FineTunedParameters)
    game = MCD(two_heads, own.local_learning_rate, own.weight_decay)
    return two_heads, lambda source_batch, target, done: game.step(source_batch, target)


def dann(settings: AdaptationSettings, network: Network, source: Source) -> tuple[Network, Step]:
    """Prepare DANN, with the discriminator of `fed-dann`."""
    discriminated = FedDANNServer(settings, network, source).network
    assert isinstance(discriminated, Discriminated)
    own = settings.own(FineTunedParameters)
    game = DANN(discriminated, own.local_learning_rate, own.weight_decay)
    return discriminated, lambda source_batch, target, done: game.step(source_batch, target, reversal_weight(done))


ADAPTATIONS = {"mcd": mcd, "dann": dann}


def main(arguments: list[str] | None = None) -> None:
    """Run a reference, as the command line says."""
    parser = command_line(__doc__, "python -m fmtda.benchmarking.centralised")
    parser.add_argument("method", choices=[each.name for each in REFERENCES])
    parser.add_argument("--output", type=Path, required=True, help="folder of the run, new or empty")
    given = parser.parse_args(arguments)
    with refusals():
        output = str(given.output.expanduser().absolute())
        settings = adaptation_settings({**METHODS[given.method].changes, **given.config, "output": output})
        check_source(settings)
        check_simulation(settings)
        prepare_to_compute(settings.server_threads)
        with RunDirectory.at_work(settings) as directory:
            summary = Reference(given.method, settings, directory, Lines(metric_of(settings))).run()
    reached, metric = summary["average_accuracy"], METRIC_NAMES[summary["metric"]]
    average = "no labels" if reached is None else f"average {metric} {reached:.1f} %"
    print(f"{given.method}: {average}, in {settings.output}")


def _global_accuracy(accuracy: dict[str, dict[str, float]]) -> dict[str, float]:
    return {domain: heads["global"] for domain, heads in accuracy.items()}


def _looks(steps: int) -> list[int]:
    """After which steps the tenths end, each once."""
    return sorted({steps * tenth // LOOKS for tenth in range(1, LOOKS + 1)} - {0})


if __name__ == "__main__":
    main()
