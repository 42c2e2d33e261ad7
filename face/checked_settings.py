"""Checks the settings of a run before anything starts; bad input ends with a line that names it."""

from pathlib import Path

from fmtda.face.refusals import refuse
from fmtda.protocol.settings import RunSettings, Scalar, SettingsError

COMMANDS = {"adaptation": "simulate", "generative": "generate"}
"""The subcommand that runs, and continues, the workloads of a kind."""


def checked_settings(given: dict[str, Scalar], resume: Path | None, kind: str) -> RunSettings:
    """Refuse everything that can be refused before Flower starts, within seconds.

    Parameters
    ----------
    given
        Run-config keys that the user set.
    resume
        The run directory to continue, or None for a new run.
    kind
        Of workloads that the subcommand which asks runs.

    Returns
    -------
    RunSettings
        Complete, with an absolute `output`.
    """
    from fmtda.domains.examples import DataError
    from fmtda.server import run_directory, run_lock, startup
    from fmtda.server.app import new_output

    try:
        if resume is not None:
            if "output" in given:
                refuse(f"--output {given['output']}: a resumed run stays in its own folder; leave --output out")
            path = resume.expanduser().absolute()
            stored = run_directory.stored_run_config(path)
            for key in ("workload", "strategy"):  # they decide which other settings there are
                if given.get(key, stored[key]) != stored[key]:
                    refuse(f"{key}={given[key]}: the run in {path} has {key}={stored[key]}; leave it out")
            given = {**stored, **given, "output": str(path), "resume": True}
        settings = startup.effective_settings(given)
        if settings.kind != kind:
            refuse(f"workload={settings.workload}: this is run, and continued, with fmtda {COMMANDS[settings.kind]}")
        output = Path(settings.output).expanduser().absolute() if settings.output else new_output(settings)
        settings = settings.changed({"output": str(output)})
        if resume is None:
            run_directory.refuse_unusable_output(output)
        else:
            run_directory.refuse_other_settings(settings)
            run_lock.refuse_owned(output)
        startup.check_source(settings)
        startup.check_simulation(settings)
    except (SettingsError, DataError) as error:
        refuse(error)
    return settings
