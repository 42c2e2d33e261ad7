"""Makes a run directory that goes on from another run's last whole round, with other settings; the old one stays.

A domain joins a simulation that way (`with_joining`): its clients come in the next round.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from fmtda.protocol.settings import AdaptationSettings, RunSettings, names_in
from fmtda.protocol.tables import Affects, Scalar, SettingsError
from fmtda.server import checkpoints
from fmtda.server.run_directory import MAKE_ROOM, PRETRAINED, RunDirectory, config_text, stored_run_config
from fmtda.server.startup import effective_settings
from fmtda.strategies.composition import read_settings
from fmtda.strategies.registry import algorithm, algorithms

CARRIED = ("checkpoints", "clients", "uploads", "tensorboard", PRETRAINED, "metrics.jsonl")
"""What a run needs to go on and to be reported as a whole; summary, report, samples and logs are made anew."""


def with_joining(
    run: Path, domain: str, clients: int, rounds: int, changes: Mapping[str, Scalar] | None = None
) -> RunSettings:
    """Make the settings of a run in which clients of one more domain join after the last whole round.

    Parameters
    ----------
    run
        Its directory, finished or stopped.
    domain
        New to the run.
    clients
        How many of it there are.
    rounds
        That follow the one in which they join.
    changes
        Further settings by dotted key.

    Raises
    ------
    SettingsError, DataError
        If there is no run or no checkpoint, the domain is known, or earlier ones are still to join.
    """
    stored = stored_run_config(run)
    checkpoint = checkpoints.latest(run / "checkpoints")
    known = algorithm(str(stored["strategy"]))
    if known.kind != AdaptationSettings.kind or not known.joins:
        able = " or ".join(each.name for each in algorithms(AdaptationSettings.kind) if each.joins)
        raise SettingsError(
            f"{run}: workload={stored['workload']}, strategy={stored['strategy']}: a domain joins a run of {able} alone"
        )
    if checkpoint is None or checkpoint.round < 1:
        raise SettingsError(f"{run}: no round is whole yet; let it go on, with: fmtda simulate --resume {run}")
    targets = list(names_in(stored["data.targets"]))
    if domain in targets:
        raise SettingsError(f"--domain {domain}: this run has it already, beside {', '.join(targets)}; name another")
    joining = list(names_in(stored["simulation.late"]))
    if joining and checkpoint.round < stored["simulation.late-round"]:
        raise SettingsError(
            f"{run}: {stored['simulation.late']} joins in round {stored['simulation.late-round']} only, and "
            f"{checkpoint.round} are done; let that come first, with: fmtda simulate --resume {run}"
        )
    _refuse_other_changes(read_settings(stored), changes or {})
    joins_in = checkpoint.round + 1
    return effective_settings(
        {
            **stored,
            **(changes or {}),
            "data.targets": ",".join([*targets, domain]),
            "simulation.late": ",".join([*joining, *[domain] * clients]),
            "simulation.late-round": joins_in,
            "rounds": joins_in + rounds,
        }
    )


def _refuse_other_changes(settings: RunSettings, changes: Mapping[str, Scalar]) -> None:
    """Refuse what would change the run for the clients that it has already."""
    allowed = {Affects.NEWCOMERS, Affects.NOTHING}
    fields = [entry for entry in type(settings).fields() if not entry.meaning.place]
    may = [entry.key for entry in fields if entry.meaning.affects in allowed]
    if others := [key for key in changes if key not in may]:
        raise SettingsError(f"{others[0]}: a run goes on with its own settings; allowed here are {', '.join(may)}")


def branch(run: Path, settings: RunSettings) -> None:
    """Make ``settings.output`` a run directory that has all of `run` up to its last whole round.

    It appears as a whole or not at all; `settings` with ``resume`` then continue it.

    Raises
    ------
    SettingsError
        If the system refuses.
    """
    output = Path(settings.output)
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        for name in CARRIED:
            if (run / name).is_dir():
                shutil.copytree(run / name, aside / name)
            elif (run / name).exists():
                shutil.copy(run / name, aside / name)
        (aside / "config.toml").write_text(config_text(settings), encoding="utf-8")
        carried = checkpoints.latest(aside / "checkpoints")
        assert carried is not None, "whoever branches has looked for a checkpoint"
        RunDirectory(aside).cut_back(carried.round)
        if output.exists():
            output.rmdir()  # empty, or it would have been refused
        aside.rename(output)
    except OSError as error:  # shutil's among them, which tells of every file
        raise SettingsError(f"output={output}: the run can't be copied there ({_cause(error)}); {MAKE_ROOM}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _cause(error: OSError) -> str:
    """What the system said; of several refusals the first."""
    if isinstance(error, shutil.Error):
        return error.args[0][0][2]
    return error.strerror or str(error)
