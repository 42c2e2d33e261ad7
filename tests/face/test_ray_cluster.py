"""A simulation over a Ray cluster of two nodes, on one machine: the same result, with an actor on either node."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from real_nodes import free_ports
from real_runs import arrays, command, metrics, simulate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

RAY = Path(sys.executable).with_name("ray")
OPTIONS = ("--targets", "blend,pen", "--rounds", "1")


@pytest.fixture
def cluster():
    """Two nodes of one CPU each, as docs/deploy.md starts them: their address and their processes.

    Ray's own folder is a new one with a short name: in its usual one, other processes on this machine would find the
    cluster and join it. `ray stop` would end theirs too.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    port, client_port = free_ports(2)
    both = ["--num-cpus", "1", "--disable-usage-stats", "--block"]
    head = ["--head", "--port", str(port), "--temp-dir", str(folder), "--include-dashboard", "false"]
    head += ["--ray-client-server-port", str(client_port)]
    nodes = []
    try:
        for words in (head, ["--address", f"127.0.0.1:{port}"]):
            log = (folder / f"node-{len(nodes)}.log").open("w")
            nodes.append(subprocess.Popen([RAY, "start", *words, *both], stdout=log, stderr=subprocess.STDOUT))
            deadline = time.monotonic() + 600
            while "Ray runtime started" not in Path(log.name).read_text():
                assert nodes[-1].poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(0.2)
        yield f"127.0.0.1:{port}", nodes
    finally:
        started = [child for node in nodes for child in psutil.Process(node.pid).children(recursive=True)]
        for process in (*nodes, *started):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for node in nodes:
            node.wait()
        psutil.wait_procs(started, timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def test_two_nodes_give_what_one_machine_gives(cluster, tmp_path):
    address, nodes = cluster
    over = tmp_path / "over-two"
    process = subprocess.Popen(command(*OPTIONS, "--output", over), env={**os.environ, "RAY_ADDRESS": address})
    actors = dict.fromkeys(range(len(nodes)), 0)
    while process.poll() is None:
        for number, node in enumerate(nodes):
            actors[number] = max(actors[number], actors_below(node))
        time.sleep(0.2)
    assert process.returncode == 0
    assert actors == {0: 1, 1: 1}  # a client takes a CPU, and a node has one
    simulate(*OPTIONS, "--output", tmp_path / "one")
    assert metrics(over) == metrics(tmp_path / "one")
    assert arrays(over) == arrays(tmp_path / "one")


def actors_below(node: subprocess.Popen) -> int:
    """How many of Flower's actors a node of the cluster runs now."""
    count = 0
    for process in psutil.Process(node.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            count += "ray::ClientAppActor" in " ".join(process.cmdline())
    return count
