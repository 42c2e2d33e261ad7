"""Measures what bad clients can do to the others, with and without a robust Eq. 6.

    python -m benchmarks.bad_clients --output benchmarks/results/bad_clients.json

Embedded digits, default preset, the whole run driver with real messages in one process. One of 5 and two of 10 clients
send, in every round, instead of what they learned:

- `random`: a classifier of random weights, as large as F_g's;
- `sign-flipped`: F_g with every sign changed, which prefers what F_g finds least likely;
- `constant`: a classifier that is certain of one class, whatever it is given.

Each passes every check of an upload, and comes with a mixture that claims every example as typical for the client's
domain, so that its weight in Eq. 6 is 1 everywhere. What is reported is the accuracy by domain over the honest
clients alone, against a run in which the same clients are honest. The file is written after every row, and rows that it
holds are not measured again, so that seeds can be added over several sittings.
"""

import itertools
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from torch import Tensor

from fmtda.adaptation.scores import accuracy_by_domain
from fmtda.benchmarking.cells import write_whole
from fmtda.benchmarking.command_line import command_line, refusals
from fmtda.benchmarking.provenance import provenance
from fmtda.benchmarking.settings import adaptation_settings
from fmtda.protocol.client_names import client_names
from fmtda.protocol.records import from_record, read_config, sender, to_record
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import SettingsError
from fmtda.server.app import run
from fmtda.server.metrics import mean
from fmtda.server.progress import Lines
from fmtda.simulation.in_process import InProcessGrid, Tamper

FEDERATIONS = {5: 1, 10: 2}
"""How many of how many clients are bad: the last ones, which share their domains with honest ones."""

SHARES = (0.0, 0.2)
"""Values of `dualadapt.robust-share`: the paper's plain mean, and the default preset's."""

HONEST = "none"
"""In place of an attack: the bad clients send what they learned."""

CERTAIN = 50.0
"""Logit of the constant classifier's one class."""

EVERYTHING_IS_TYPICAL = np.float32(-1e30)
"""Log-likelihood that every example exceeds."""

Classifier = dict[str, Tensor]


def random_classifier(model: Classifier, generator: torch.Generator) -> Classifier:
    """Draw random weights of each array's own size."""
    return {name: value.std() * torch.randn(value.shape, generator=generator) for name, value in model.items()}


def sign_flipped_classifier(model: Classifier, generator: torch.Generator) -> Classifier:
    """Change the sign of every logit of F_g."""
    return {name: -value for name, value in model.items()}


def constant_classifier(model: Classifier, generator: torch.Generator) -> Classifier:
    """Make a classifier that is certain of class 0."""
    constant = {name: torch.zeros_like(value) for name, value in model.items()}
    bias = next(value for value in constant.values() if value.ndim == 1)
    bias[0] = CERTAIN
    return constant


ATTACKS: dict[str, Callable[[Classifier, torch.Generator], Classifier]] = {
    "random": random_classifier,
    "sign-flipped": sign_flipped_classifier,
    "constant": constant_classifier,
}


def bad_uploads(attack: str, bad: set[str], settings: AdaptationSettings) -> Tamper:
    """Replace what the bad clients send in training; the arrays of F_g come out of the message that they answer."""

    def tamper(sent: Message, honest: Message) -> Message:
        if sent.metadata.message_type != "train" or honest.has_error() or sender(honest.content) not in bad:
            return honest
        received = from_record(sent.content.array_records["model"])
        classifier = {name: received[f"classifier.{name}"] for name in honest.content["classifier"]}
        _, server_round = read_config(sent.content.config_records["config"])
        generator = generator_for(settings.seed, sender(honest.content), server_round)
        honest.content["classifier"] = to_record(ATTACKS[attack](classifier, generator))
        mixture = {name: array.numpy() for name, array in honest.content.array_records["mixture"].items()}
        mixture["quantiles"] = np.full_like(mixture["quantiles"], EVERYTHING_IS_TYPICAL)
        honest.content["mixture"] = to_record(mixture)
        return honest

    return tamper


def measured(settings: AdaptationSettings, attack: str | None, bad: set[str]) -> dict[str, Any]:
    """Measure one run; accuracy by domain over the clients that are not among the bad ones, honest or not."""
    tamper = bad_uploads(attack, bad, settings) if attack else None
    with tempfile.TemporaryDirectory() as folder:
        settings = settings.changed({"output": f"{folder}/run"})
        directory = run(InProcessGrid.simulated(settings.clients, tamper=tamper), settings, Lines())
        lines = directory.metrics()
    others = {name: client["evaluate"] for name, client in lines[-1]["clients"].items() if name not in bad}
    accuracy = {domain: heads["mean"] for domain, heads in accuracy_by_domain(others).items()}
    return {
        "accuracy": accuracy,
        "average": mean(accuracy.values()),
        "guard_undone": sum(line["train"].get("guard-undone", 0) for line in lines[1:]),
        "failures": sum(len(line["failures"]) for line in lines),
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of each row")
    parser.add_argument(
        "--clients",
        type=int,
        nargs="+",
        choices=tuple(FEDERATIONS),
        default=tuple(FEDERATIONS),
        help="federations of so many",
    )
    parser.add_argument("--base-dir", type=Path, help="folder of pre-trained networks; default: one for this run")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; one that is there is gone on with")
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(f"--seeds {given.seeds}: at least 1 is needed")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    config = {"rounds": given.rounds, "evaluate-every": given.rounds, **given.config}  # evaluating takes longest
    with tempfile.TemporaryDirectory() as folder, refusals():
        rows = _rows(given.output, config)
        place = {"pretraining.base-dir": str(given.base_dir or folder)}
        for seed, clients, share in itertools.product(range(given.seeds), given.clients, SHARES):
            cell = {"seed": seed, "clients": clients, "dualadapt.robust-share": share}
            settings = adaptation_settings({**config, **place, **cell})
            bad = set(client_names(settings.target_domains, clients)[-FEDERATIONS[clients] :])
            for attack in (HONEST, *ATTACKS):
                row = {"seed": seed, "clients": clients, "bad": len(bad), "robust_share": share, "attack": attack}
                if any(row.items() <= done.items() for done in rows):
                    continue
                rows.append({**row, **measured(settings, None if attack == HONEST else attack, bad)})
                print(json.dumps(rows[-1]), flush=True)
                report = {"command": "python -m benchmarks.bad_clients", "config": config, "results": rows}
                write_whole(given.output, json.dumps({**report, **provenance()}, indent=1) + "\n")
    print(table(rows))


def _rows(output: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured before with the same run config."""
    if not output.exists():
        return []
    report = json.loads(output.read_text())
    if report["config"] != config:
        raise SettingsError(
            f"{output} was measured with {report['config']}, not with {config}; take these settings or another --output"
        )
    return report["results"]


def table(rows: list[dict[str, Any]]) -> str:
    """Write what was measured as Markdown: means over the seeds, and how far a domain fell below the run unharmed."""
    domains = list(rows[0]["accuracy"])
    lines = [f"| bad | robust-share | attack | seeds | {' | '.join(domains)} | average | largest fall | of one seed |"]
    lines.append("|---" * 3 + "|---:" * (len(domains) + 4) + "|")
    kinds = dict.fromkeys((row["clients"], row["robust_share"], row["attack"]) for row in rows)
    for clients, share, attack in sorted(kinds, key=lambda kind: kind[:2]):
        same = [row for row in rows if (row["clients"], row["robust_share"], row["attack"]) == (clients, share, attack)]
        falls = [falls_of(row, rows) for row in same]
        means = [mean(row["accuracy"][domain] for row in same) for domain in domains]
        largest = max(statistics.fmean(fall[domain] for fall in falls) for domain in domains)
        worst = max(max(fall.values()) for fall in falls)
        figures = [*means, mean(row["average"] for row in same), largest, worst]
        shown = " | ".join(f"{figure:.1f}" for figure in figures)
        lines.append(f"| {same[0]['bad']} of {clients} | {share} | {attack} | {len(same)} | {shown} |")
    return "\n".join(lines)


def falls_of(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, float]:
    """Tell by domain how many points a row is below that of the same seed in which everybody is honest."""
    alike = {key: row[key] for key in ("seed", "clients", "robust_share")} | {"attack": HONEST}
    unharmed = next(other for other in rows if alike.items() <= other.items())
    return {domain: unharmed["accuracy"][domain] - value for domain, value in row["accuracy"].items()}


if __name__ == "__main__":
    main()
