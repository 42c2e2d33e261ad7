"""A deployment as its units and archives have it: machines of their own network, processes of their own accounts.

Each machine is a network namespace; root, nginx and some minutes are needed.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import pytest
from machines import Machine, make_accounts, why_not
from real_nodes import APP, blocks
from real_runs import overrides, small
from test_faults import rooms

WHY_NOT = why_not()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "possible here"),
]

ADDRESS, PORT, SUPERLINK_PORT = "10.231.0.1", 8000, 8001

CURIOUS = """
import getpass
import os
from pathlib import Path

def _look():
    told = [f"uid {os.getuid()}"]
    for path in PATHS:
        try:
            told.append(f"{path}: {len(Path(path).read_bytes())} bytes")
        except OSError as error:
            told.append(f"{path}: {error.strerror}")
    Path("curious.txt").write_text("\\n".join(told))

_look()
"""
"""What a hostile app would do first, on the server and on every client: read the keys beside it."""


class Federation:
    """The server, two clients, and a third whose key is registered, and who says that it is another."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.opt = folder, folder / "opt"
        self.opt.mkdir()
        self.made = make_accounts()
        self.machines: dict[str, Machine] = {}
        words = ["--server", ADDRESS, "--clients", "blend,pen", "--port", PORT, "--superlink-port", SUPERLINK_PORT]
        self.fmtda("init", folder / "federation", *words)
        self.page = blocks((folder / "federation" / "README.md").read_text())
        self.fmtda("add", folder / "federation", "street")
        self.fmtda("pack", folder / "federation")
        for number, name in enumerate(["superlink", "blend", "pen", "street"]):
            archive = folder / "federation" / "packed" / f"{name}.tar.gz"
            subprocess.run(["tar", "-C", self.opt, "-xpzf", archive], check=True)
            self.machines[name] = machine = Machine(name, number, self.opt)
            if number:
                machine.cable(self.server, number)
        self.server.does("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")

    @property
    def server(self) -> Machine:
        return self.machines["superlink"]

    def fmtda(self, *words: object) -> None:
        subprocess.run([sys.executable, "-m", "fmtda", "deploy", *map(str, words)], check=True)

    def start(self) -> None:
        for part in ("", "-app", "-front"):
            self.server.start_unit(f"fmtda-superlink{part}")
        self.wait_for(lambda: {PORT, SUPERLINK_PORT} <= {port for _, port in self.listening()}, "the server")
        self.server.shell("cd superlink; fmtda deploy register")
        for name in ("blend", "pen", "street"):
            changed = ('domain="street"', 'domain="pen"') if name == "street" else ("", "")
            self.machines[name].start_unit(f"fmtda-{name}", changed)
            self.machines[name].start_unit(f"fmtda-{name}-app")
        self.wait_for(lambda: self.server.log("fmtda-superlink").count("Activated node_id") >= 3, "three SuperNodes")

    def listening(self) -> set[tuple[str, int]]:
        """Address and port of everything that listens on the server's machine."""
        lines = self.server.does("ss", "-Hltn").stdout.splitlines()
        places = [line.split()[3].rsplit(":", 1) for line in lines]
        return {(address, int(port)) for address, port in places}

    def wait_for(self, condition, what: str, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            logs = "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in self.opt.glob("*.log"))
            assert time.monotonic() < deadline, f"waited for {what}\n{logs}"
            time.sleep(0.2)

    def close(self) -> None:
        for machine in self.machines.values():
            machine.stop_all()
        for account in self.made:
            subprocess.run(["userdel", account], check=True, capture_output=True)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def federation():
    folder = Path(tempfile.mkdtemp(prefix="fmtda-"))  # pytest's own folders are closed to other accounts
    folder.chmod(0o755)
    started = Federation(folder)
    try:
        started.start()
        yield started
    finally:
        started.close()


def test_clients_reach_the_front_and_no_control_interface(federation):
    assert {place for place in federation.listening() if not place[0].startswith("127.")} == {("0.0.0.0", PORT)}
    pen = federation.machines["pen"]
    inside = pen.does("curl", "-s", "-m", "5", "-k", f"https://{ADDRESS}:{SUPERLINK_PORT}/health", check=False)
    assert inside.returncode == 7  # refused
    home = federation.folder / "intruder"
    home.mkdir()
    settings = f'[superlink.fmtda]\naddress = "{ADDRESS}:{PORT}"\nroot-certificates = "{pen.folder / "ca.crt"}"\n'
    (home / "config.toml").write_text(settings)
    before = federation.server.log("fmtda-superlink").count("/v1/control/")
    for words in ('run "$FMTDA" fmtda', "ls fmtda", "log 1 fmtda", "stop 1 fmtda", "supernode list fmtda"):
        tried = pen.shell(f'export FLWR_HOME="{home}"\nflwr {words}', check=False)
        assert tried.returncode != 0 and "403" in tried.stdout + tried.stderr, tried.stdout + tried.stderr
    key = pen.folder.parent / "superlink" / "nodes" / "pen.pub"
    tried = pen.shell(f'export FLWR_HOME="{home}"\nflwr supernode register {key} fmtda', check=False)
    assert tried.returncode != 0
    assert federation.server.log("fmtda-superlink").count("/v1/control/") == before
    task = 'curl -s -m 5 -o /dev/null -w "%{http_code}" -H "content-type: application/protobuf" -d ""'
    taken = pen.shell(f"{task} http://127.0.0.1:9095/v1/runtime/acquire-task", check=False)
    assert taken.stdout.startswith("4"), taken  # without the secret a SuperNode gives its tasks to nobody
    checked = pen.shell("fmtda deploy check pen")
    assert "control   closed to this machine" in checked.stdout
    at_home = federation.server.shell("cd superlink; export FLWR_HOME=$PWD/operator\nflwr ls fmtda")
    assert "403" not in at_home.stdout


def test_the_app_cannot_read_keys_a_key_is_one_client_and_the_run_works(federation):
    app = federation.folder / "app"
    for room in rooms():
        shutil.copytree(APP / room, app / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(APP / file, app / file)
    for file, paths in {
        "clients/app.py": ["../node.key", "../superexec.secret", "../state/flwr/source"],
        "server/app.py": ["../superlink.key", "../state/superlink.db", "../front/server.key", "../nodes/nodes.toml"],
    }.items():
        code = (app / file).read_text()
        (app / file).write_text(code + CURIOUS.replace("PATHS", repr(paths)))
    run = federation.opt / "superlink" / "app" / "run"
    (block,) = [block for block in federation.page if "flwr run" in block]
    block = block.rstrip()[:-1] + f' {overrides(small())} rounds=1 output="{run}"\''
    done = federation.server.shell(f"export FMTDA={app}\n{block}")
    printed = done.stdout + done.stderr
    logs = "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in federation.opt.glob("*.log"))
    assert (run / "summary.json").exists(), printed + logs
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["accuracy"]) == {"blend", "pen"}

    looked = {
        name: (federation.opt / name / "app" / "curious.txt").read_text().splitlines()
        for name in ("superlink", "blend", "pen")
    }
    for name in ("blend", "pen"):
        assert "../node.key: Permission denied" in looked[name]
        assert "../state/flwr/source: Permission denied" in looked[name]
        assert "../superexec.secret: 32 bytes" in looked[name]
        assert "uid 0" not in looked[name]
    for path in ("../superlink.key", "../state/superlink.db", "../front/server.key"):
        assert f"{path}: Permission denied" in looked["superlink"]
    assert "uid 0" not in looked["superlink"]

    nodes = tomllib.loads((federation.opt / "superlink" / "nodes" / "nodes.toml").read_text())["nodes"]
    assert set(nodes.values()) == {"blend/0000", "pen/0000", "street/0000"}
    assert any("street/0000" in line and "says that it is pen/0000" in line for line in printed.splitlines()), printed


def test_a_key_stays_the_same_node_when_superlink_and_supernode_start_again(federation):
    file = federation.opt / "superlink" / "nodes" / "nodes.toml"
    before = file.read_text()
    for machine, service in ((federation.server, "fmtda-superlink"), (federation.machines["pen"], "fmtda-pen")):
        machine.processes[service].kill()
        machine.processes[service].wait()
    federation.wait_for(lambda: SUPERLINK_PORT not in {port for _, port in federation.listening()}, "its end")
    activated = federation.server.log("fmtda-superlink").count("Activated node_id")
    federation.server.start_unit("fmtda-superlink")
    federation.wait_for(lambda: SUPERLINK_PORT in {port for _, port in federation.listening()}, "the SuperLink")
    pen = federation.machines["pen"]

    def back() -> bool:
        """A SuperNode that was killed is refused until its last heartbeat is old; its unit starts it again."""
        if pen.processes["fmtda-pen"].poll() is not None:
            pen.start_unit("fmtda-pen")
        return federation.server.log("fmtda-superlink").count("Activated node_id") > activated

    federation.wait_for(back, "the node")
    file.unlink()
    federation.server.shell("cd superlink; fmtda deploy register")
    assert file.read_text() == before
