"""Launches a simulation: the one file that knows how Flower is started from Python.

``flwr.simulation.run_simulation`` needs no SuperLink and lets the app's errors through, but it passes no run config
(so the ServerApp is built here around the settings) and does not end on Ctrl-C (so that is done here too).
"""

import logging
import math
import os
import signal
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fmtda.protocol import telemetry
from fmtda.protocol.printable import printable
from fmtda.protocol.settings import RunSettings
from fmtda.server.app import run
from fmtda.server.progress import LONGEST_NOTE, Progress
from fmtda.server.run_directory import FLOWER_LOG, make_folder
from fmtda.simulation.ray_cluster import cluster_address

SECONDS_TO_STOP_RAY = 3.0
FAILED, INTERRUPTED = 1, 130
"""Exit statuses."""


def simulate(settings: RunSettings, progress: Progress, client_cpus: float, client_gpus: float, resume: str) -> None:
    """Run a whole federation on this machine, or on the Ray cluster that RAY_ADDRESS names.

    Parameters
    ----------
    settings
        Checked settings with an absolute ``output``.
    progress
        Who is told what happens.
    client_cpus, client_gpus
        What Ray reserves for one client at a time.
    resume
        The line that continues the run, for people.

    Raises
    ------
    Whatever the ServerApp raises.

    Notes
    -----
    Where Ray can't be started, or is lost, the whole process ends with a line that says why: Flower's thread of the
    ServerApp can't be stopped, and would wait for replies that never come.
    """
    _log_flower_to(Path(settings.output))
    telemetry.switch_off()  # before Ray is imported
    warnings.filterwarnings("ignore", message="Tip: In future versions of Ray", category=FutureWarning)
    from flwr.server.superlink.fleet.vce.backend.backend import BackendConfig
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend
    from flwr.simulation import run_simulation

    from fmtda.clients.app import app as client_app

    server_app = ServerApp()

    app_error: BaseException | None = None

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        nonlocal app_error
        try:
            run(grid, settings, progress)
        except BaseException as error:
            app_error = error
            raise

    _stop_at_once_on_signal(settings, progress, resume)
    backend: BackendConfig = {
        "init_args": {"log_to_driver": False, "logging_level": logging.ERROR},
        "client_resources": {"num_cpus": client_cpus, "num_gpus": client_gpus},
    }
    if not cluster_address():
        # Without "local", Ray would join whatever cluster was last started on this machine.
        backend["init_args"] |= {"address": "local", "num_cpus": cores_for(settings.supernodes, client_cpus)}

    def end_without_ray(error: Exception) -> NoReturn:
        logging.getLogger("flwr").error("Ray failed", exc_info=error)
        reason = str(_first_cause(error)).partition("\n")[0]
        _end_process(settings, progress, resume, f"stopped: Ray failed: {reason} (more in {FLOWER_LOG})", FAILED)

    try:
        RayBackend(backend)  # starts Ray, as Flower would later, and Ray takes SIGTERM for itself
    except Exception as error:  # Ray raises whatever it met, plain Exceptions among them
        end_without_ray(error)
    _stop_at_once_on_signal(settings, progress, resume)
    try:
        run_simulation(
            server_app=server_app,
            client_app=client_app,
            num_supernodes=settings.supernodes,
            backend_config=backend,
        )
    except RuntimeError as error:
        if error is app_error:
            raise
        end_without_ray(error)


def cores_for(clients: int, client_cpus: float) -> int:
    """Count the cores for Ray: Flower fills them with actors, and more than clients would only take time and memory."""
    return max(1, min(os.cpu_count() or 1, math.ceil(clients * client_cpus)))


class _PrintableLines(logging.Formatter):
    """Writes records whose lines are harmless on the terminal of whoever looks into the file."""

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).expandtabs().split("\n")
        return "\n".join(printable(line, LONGEST_NOTE) for line in lines)


def _log_flower_to(folder: Path) -> None:
    """Send Flower's own log, tracebacks of failing clients included, to a file in the run directory."""
    make_folder(folder)
    logger = logging.getLogger("flwr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    to_file = logging.FileHandler(folder / FLOWER_LOG)
    to_file.setFormatter(_PrintableLines("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(to_file)
    logger.propagate = False


def _stop_at_once_on_signal(settings: RunSettings, progress: Progress, resume: str) -> None:
    """End the process within seconds of Ctrl-C or SIGTERM: Flower itself would wait for replies."""

    def stop(number: int, frame: FrameType | None) -> None:
        _end_process(settings, progress, resume, "interrupted", INTERRUPTED)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _end_process(settings: RunSettings, progress: Progress, resume: str, why: str, status: int) -> NoReturn:
    """End at once, whatever other threads are doing, with a line that says how to go on."""
    ray_processes = psutil.Process().children(recursive=True)  # its agents have been seen to outlive it by ten seconds

    def leave() -> NoReturn:
        for process in ray_processes:
            with suppress(psutil.Error):
                process.kill()
        os._exit(status)

    watchdog = threading.Timer(SECONDS_TO_STOP_RAY, leave)
    watchdog.daemon = True
    watchdog.start()
    begun = (Path(settings.output) / "config.toml").exists()
    hint = f"continue with: {resume}" if begun else "nothing was trained yet"
    progress.note(f"{why}; {hint}")
    progress.close()
    import ray

    try:
        ray.shutdown()
    finally:
        leave()


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
