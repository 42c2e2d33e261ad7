"""Machines on one machine: each a network namespace, in which units run as their own accounts, as systemd would."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from real_nodes import APP, NGINX, PROGRAMS

from fmtda.face.deploy.machines import APP as APP_ACCOUNT
from fmtda.face.deploy.machines import FRONT, NODE, SUPERLINK

TOOLS = ("ip", "unshare", "setpriv", "useradd", "userdel", "mount", "ss", "tar")
ACCOUNTS = (NODE, SUPERLINK, FRONT, APP_ACCOUNT)


def why_not() -> str:
    """Why machines can't be made here; empty where they can."""
    if not hasattr(os, "getuid") or os.getuid() != 0:
        return "needs root, to make accounts and network namespaces"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)}"
    if NGINX is None:
        return "needs nginx: apt-get install nginx-light"
    trial = f"fmtda-trial-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", trial], capture_output=True)
    if made.returncode == 0:
        inside = subprocess.run(
            ["ip", "netns", "exec", trial, "unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
        )
        subprocess.run(["ip", "netns", "del", trial], capture_output=True)
        if inside.returncode == 0:
            return ""
    return "no network namespaces here"


def make_accounts() -> list[str]:
    """Make those of the deployment's accounts that aren't there; returns them."""
    known = {line.split(":")[0] for line in Path("/etc/passwd").read_text().splitlines()}
    new = [account for account in ACCOUNTS if account not in known]
    for account in new:
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", account], check=True)
    return new


class Machine:
    """A machine of a deployment: a network namespace, reached from the server's by a pair of virtual cables.

    Parameters
    ----------
    name
        Of its folder.
    number
        Tells machines apart; 0 is the server.
    folder
        Where the machines' folders are unpacked, in place of ``/opt/fmtda``.
    """

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name, self.folder = name, folder / name
        self.opt = folder
        self.space = f"fmtda{os.getpid()}-{number}"
        self.processes: dict[str, subprocess.Popen] = {}
        _do("ip", "netns", "add", self.space)
        self.does("ip", "link", "set", "lo", "up")

    def cable(self, server: "Machine", number: int) -> None:
        """Connect this client's machine with the server's, and it alone."""
        here, there = f"fm{os.getpid() % 100000}c{number}", f"fm{os.getpid() % 100000}s{number}"
        _do("ip", "link", "add", here, "netns", self.space, "type", "veth", "peer", there, "netns", server.space)
        for machine, end, last in ((self, here, 2), (server, there, 1)):
            machine.does("ip", "address", "add", f"10.231.{number}.{last}/24", "dev", end)
            machine.does("ip", "link", "set", end, "up")
        self.does("ip", "route", "add", "default", "via", f"10.231.{number}.1")

    def does(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Carry out a command on this machine, as root."""
        return _do("ip", "netns", "exec", self.space, *words, check=check)

    def shell(self, block: str, check: bool = True, seconds: float = 900) -> subprocess.CompletedProcess[str]:
        """Carry out a block of the page on this machine, as root, where the machine's folder is."""
        words = ["ip", "netns", "exec", self.space, "bash", "-euc", block]
        done = subprocess.run(
            words, cwd=self.opt, env=environment(), capture_output=True, text=True, check=False, timeout=seconds
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def as_account(self, account: str, block: str) -> list[str]:
        """The command that carries out a block on this machine as an account without any rights."""
        drop = f"exec setpriv --reuid={account} --regid={account} --clear-groups --no-new-privs --bounding-set=-all "
        drop += f"--inh-caps=-all bash -euc {shlex.quote(block)}"
        return ["ip", "netns", "exec", self.space, "unshare", "-m", "bash", "-euc", f"{_opened(self.opt)}\n{drop}"]

    def start_unit(self, service: str, changed: tuple[str, str] = ("", "")) -> None:
        """Start a service as its unit says: account, folder, variables, command."""
        unit = (self.folder / f"{service}.service").read_text().replace(*changed)
        unit = unit.replace("/opt/fmtda/venv/bin", str(PROGRAMS)).replace("/usr/sbin/nginx", str(NGINX))
        unit = unit.replace("/opt/fmtda", str(self.opt))
        values = re.findall(r"^(User|WorkingDirectory|ExecStart)=(.*)$", unit, re.MULTILINE)
        told = dict(values)
        variables = " ".join(re.findall(r"^Environment=(.*)$", unit, re.MULTILINE))
        block = f"cd {told['WorkingDirectory']}\nexport PYTHONPATH={os.environ.get('PYTHONPATH', APP)} {variables}\n"
        block += f"umask 0027\nexec {told['ExecStart']}"
        bare = {key: value for key, value in os.environ.items() if key in ("LANG", "OMP_NUM_THREADS", "FMTDA_DATA_DIR")}
        with (self.opt / f"{service}.log").open("ab") as log:
            self.processes[service] = subprocess.Popen(
                self.as_account(told["User"], block),
                env={**bare, "PATH": os.environ["PATH"]},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, service: str) -> str:
        """What a service has said."""
        return (self.opt / f"{service}.log").read_text(errors="replace")

    def stop_all(self) -> None:
        """End every process on this machine, and the machine."""
        pids = _do("ip", "netns", "pids", self.space, check=False).stdout.split()
        for pid in map(int, pids):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        for process in self.processes.values():
            process.wait()
        _do("ip", "netns", "del", self.space, check=False)


def environment() -> dict[str, str]:
    """As the page asks for: an active environment, and FMTDA set."""
    return {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", "FMTDA": str(APP)}


def _do(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{words}: {done.stderr}"
    return done


def _opened(aside: Path) -> str:
    """Mounts, seen by one process alone, by which an account reaches Python where it lies in a home that is closed."""
    commands = []
    for number, needed in enumerate({Path(sys.base_prefix).resolve(), PROGRAMS.parent.resolve()}):
        closed = [parent for parent in needed.parents if not stat.S_IMODE(parent.stat().st_mode) & 0o001]
        if not closed:
            continue
        kept = aside / f".python{number}"
        kept.mkdir(exist_ok=True)
        commands.append(
            f"mount --bind {needed} {kept}; mount -t tmpfs -o mode=755 none {closed[-1]}; "
            f"mkdir -p {needed}; mount --bind {kept} {needed}"
        )
    return "\n".join(commands)
