"""A deployment that runs: the commands of its own page, carried out literally, each process ended by its id."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

APP = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")

PATIENCE = 900
"""Seconds until a machine with much else to do is taken for a failure; on an idle one nothing takes a tenth of it."""


def free_ports(count: int) -> list[int]:
    """Ports in a row that nobody listens on."""
    for first in range(20_000 + os.getpid() % 20_000, 60_000, count):
        listeners = [socket.socket() for _ in range(count)]
        try:
            for offset, listener in enumerate(listeners):
                listener.bind(("127.0.0.1", first + offset))
        except OSError:
            continue
        finally:
            for listener in listeners:
                listener.close()
        return list(range(first, first + count))
    raise RuntimeError("no free ports")


def blocks(page: str) -> list[str]:
    """The shell commands of a page, block by block."""
    return re.findall(r"^```sh\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


class Deployment:
    """A folder that ``fmtda deploy init`` wrote on this machine, and what was started out of it.

    Parameters
    ----------
    folder
        Where to write it.
    clients
        The domains.
    app
        The checkout whose app is run.
    """

    def __init__(self, folder: Path, clients: list[str], app: Path = APP) -> None:
        self.folder, self.clients, self.app = folder, clients, app
        self.port, self.superlink_port, *node_ports = free_ports(len(clients) + 5)
        self.spare_ports = node_ports[-3:]
        words = ["--server", "127.0.0.1", "--clients", ",".join(clients), "--port", str(self.port)]
        words += ["--superlink-port", str(self.superlink_port), "--node-port", str(node_ports[0])]
        subprocess.run([sys.executable, "-m", "fmtda", "deploy", "init", str(folder), *words], check=True)
        self.blocks = blocks((folder / "README.md").read_text())
        self.processes: dict[str, subprocess.Popen] = {}
        self.logs = folder.with_name(f"{folder.name}-logs")
        self.logs.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """As the page asks for: an active environment, FMTDA set; and one Flower home for this test alone."""
        return {
            **os.environ,
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "FMTDA": str(self.app),
            "FLWR_HOME": str(self.folder / "flwr"),
        }

    def block(self, *words: str) -> str:
        """The one block of the page that has all these words."""
        (found,) = [block for block in self.blocks if all(word in block for word in words)]
        return found

    def start(self, name: str, block: str) -> None:
        """Carry out a block that goes on for ever, in the background, in a session of its own as on its own machine."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["bash", "-euc", block],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def carry_out(self, block: str, seconds: float = PATIENCE) -> str:
        """Carry out a block to its end; returns what it printed."""
        done = subprocess.run(
            ["bash", "-euc", block],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.all_logs()
        return done.stdout + done.stderr

    def start_superlink(self) -> None:
        """Step 1, until SuperLink and front answer; the front stays where a SuperLink is started again."""
        self.start("superlink", self.block("flower-superlink"))
        self.start("superlink-app", self.block("flower-superexec", "cd superlink/"))
        if "front" not in self.processes:
            self.start("front", self.block("nginx"))
        for name, port in (("superlink", self.superlink_port), ("front", self.port)):
            self.wait_for(lambda name=name, port=port: self._answers(name, port), f"the {name} to answer")

    def register(self) -> None:
        """Step 2."""
        self.carry_out(self.block("deploy register"))

    def start_supernode(self, client: str) -> None:
        """Step 3 of one client: its SuperNode, and what runs its ClientApps."""
        self.start(client, self.block("flower-supernode", f'domain="{client}"'))
        self.start(f"{client}-app", self.block("flower-superexec", f"cd clients/{client}/"))

    def wait_for_nodes(self, count: int) -> None:
        """Wait until so many SuperNodes have come in since the SuperLink's log began."""
        self.wait_for(lambda: self.log("superlink").count("Activated node_id") >= count, f"{count} nodes")

    def begin_run(self, name: str, run_config: str) -> None:
        """Step 5 in the background."""
        self.start(name, self.run_block(run_config))

    def ended(self, name: str) -> bool:
        """Whether a process in the background has ended."""
        return self.processes[name].poll() is not None

    def running(self, name: str, program: str) -> list[psutil.Process]:
        """The processes of one of Flower's programs below what runs apps of a machine: ``flwr-clientapp``."""
        return [process for process in _family(self.processes[f"{name}-app"]) if program in _command(process)]

    def run_block(self, run_config: str) -> str:
        """Step 5 with further keys in its quotes."""
        block = self.block("flwr run").rstrip()
        assert block.endswith("'")
        return f"{block[:-1]} {run_config}'"

    def kill(self, name: str) -> None:
        """End a process at once, all that it started, and what runs apps for it."""
        for each in (name, f"{name}-app"):
            if process := self.processes.pop(each, None):
                for one in _family(process):
                    with suppress(psutil.NoSuchProcess):
                        one.kill()
                process.wait()

    def log(self, name: str) -> str:
        """What a process in the background has said."""
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def wait_for(self, condition, what: str, seconds: float = PATIENCE) -> None:
        """Wait until something is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}\n{self.all_logs()}"
            time.sleep(0.1)

    def all_logs(self) -> str:
        """The end of every log."""
        return "\n".join(f"== {path.stem}\n{path.read_text(errors='replace')[-3000:]}" for path in self.logs.iterdir())

    def close(self) -> None:
        """End everything that was started."""
        for name in list(self.processes):
            self.kill(name)

    def _answers(self, name: str, port: int) -> bool:
        assert self.processes[name].poll() is None, self.all_logs()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False


def _command(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def _family(process: subprocess.Popen) -> list[psutil.Process]:
    """A process and all its descendants, itself first: it would begin anew what ends below it."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
