"""The front as a real nginx: what SuperNodes send passes to a small upstream, nothing else does."""

import http.server
import re
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from importlib import import_module

import pytest
from real_nodes import NGINX, free_ports, needs_nginx
from typer.testing import CliRunner

from fmtda.face.command_line import cli

pytestmark = needs_nginx


class Upstream(http.server.BaseHTTPRequestHandler):
    """Stands where the SuperLink would: remembers what came, and says how much."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.seen.append(self.path)
        answer = str(len(body)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        return


for method in ("GET", "PUT", "DELETE"):
    setattr(Upstream, f"do_{method}", Upstream.do_POST)


class Front:
    """A front that runs, and its upstream."""

    def __init__(self, folder, upstreams_certificate="superlink/superlink"):
        self.port, superlink_port = free_ports(2)
        words = ["deploy", "init", str(folder), "--server", "127.0.0.1", "--clients", "blend", "--port", str(self.port)]
        assert CliRunner().invoke(cli, [*words, "--superlink-port", str(superlink_port)]).exit_code == 0
        self.authority = folder / "superlink" / "ca.crt"
        self.upstream = http.server.ThreadingHTTPServer(("127.0.0.1", superlink_port), Upstream)
        self.upstream.seen = []
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(folder / f"{upstreams_certificate}.crt", folder / f"{upstreams_certificate}.key")
        self.upstream.socket = tls.wrap_socket(self.upstream.socket, server_side=True)
        threading.Thread(target=self.upstream.serve_forever, daemon=True).start()
        self.folder = folder / "superlink" / "front"
        (self.folder / "run").mkdir()
        self.nginx = subprocess.Popen([NGINX, "-p", ".", "-e", "stderr", "-c", "nginx.conf"], cwd=self.folder)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError("nginx doesn't answer")

    def ask(self, line, body=b"", headers=""):
        """Send a request line as it stands; returns status and body of the answer."""
        context = ssl.create_default_context(cafile=self.authority)
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            head = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(head.encode("latin-1") + body)
            answer = b""
            with suppress(ConnectionResetError, ssl.SSLEOFError):
                while piece := connection.recv(65536):
                    answer += piece
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), rest

    def close(self):
        self.nginx.terminate()
        self.nginx.wait(30)
        self.upstream.shutdown()
        self.upstream.server_close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    started = Front(tmp_path_factory.mktemp("front") / "federation")
    try:
        yield started
    finally:
        started.close()


def test_nginx_finds_no_fault_in_the_file(running):
    words = [NGINX, "-t", "-p", ".", "-e", "stderr", "-c", "nginx.conf"]
    told = subprocess.run(words, cwd=running.folder, capture_output=True, text=True)
    assert told.returncode == 0 and "warn" not in told.stderr, told.stderr


def test_all_that_flower_serves_to_supernodes_passes_and_nothing_else_that_it_serves():
    """The SuperLink's own routes, as the installed Flower has them, against the pattern of the front."""
    from flwr.superlink.main import create_app

    from fmtda.face.deploy.front import PASSES

    paths = {path for path in create_app().openapi()["paths"]}
    passing = {path for path in paths if re.search(PASSES, f"POST {path}")}
    assert passing == {path for path in paths if path.startswith("/v1/fleet/")}
    assert len(passing) == 12 and any(path.startswith("/v1/control/") for path in paths)
    client = import_module("flwr.supernode.fleet_http_client").__file__
    sent = set(re.findall(r'path="([^"]+)"', open(client).read()))
    assert sent == passing


def test_what_supernodes_send_passes_whole(running):
    body = bytes(20_000_000)
    assert running.ask("POST /v1/fleet/push-object", body) == (200, b"20000000")
    assert running.upstream.seen[-1] == "/v1/fleet/push-object"


@pytest.mark.parametrize(
    "line",
    [
        "POST /v1/control/start-run",
        "POST /v1/control/list-runs",
        "POST /v1/runtime/acquire-task",
        "GET /health",
        "GET /docs",
        "GET /openapi.json",
        "POST /",
        "POST //v1/fleet/../control/list-runs",
        "POST /v1/fleet/../control/list-runs",
        "POST /v1/fleet/%2e%2e/control/list-runs",
        "POST /v1/fleet/..%2fcontrol/list-runs",
        "POST /v1/fleet/..%252fcontrol/list-runs",
        "POST /v1/fleet/..\\control/list-runs",
        "POST /v1/fleet/;/../control/list-runs",
        "POST /v1/control/../fleet/pull-messages",
        "POST /v1/fleet//pull-messages",
        "POST /v1/fleet/pull-messages/",
        "POST /v1/fleet/pull-messages?x=/v1/control/list-runs",
        "POST /v1/fleet/pull-messages#x",
        "POST /v1/fleet/",
        "POST /V1/FLEET/pull-messages",
        "POST /v1/%66leet/pull-messages",
        "POST /v1/%63ontrol/list-runs",
        "POST http://x/v1/control/list-runs",
        "POST http://x/v1/fleet/../control/list-runs",
        "POST https://127.0.0.1/v1/control/list-runs",
        "GET /v1/fleet/pull-messages",
        "PUT /v1/fleet/pull-messages",
        "DELETE /v1/fleet/pull-messages",
        "CONNECT 127.0.0.1:8001",
        "POST /v1/fleet/pull-messages\x00",
        "POST /v1/fleet/x\tHTTP",
    ],
)
def test_nothing_else_reaches_the_superlink(line, running):
    before = len(running.upstream.seen)
    status, _ = running.ask(line)
    assert 400 <= status < 500
    assert len(running.upstream.seen) == before


@pytest.mark.parametrize(
    "headers",
    [
        "X-Original-URL: /v1/control/list-runs\r\n",
        "X-HTTP-Method-Override: GET\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    ],
)
def test_no_header_makes_a_second_request_of_one(headers, running):
    inner = b"0\r\n\r\nPOST /v1/control/list-runs HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    before = len(running.upstream.seen)
    running.ask("POST /v1/fleet/pull-messages", inner, headers)
    time.sleep(0.2)
    assert set(running.upstream.seen[before:]) <= {"/v1/fleet/pull-messages"}


def test_a_program_that_took_the_superlinks_port_is_given_nothing(tmp_path):
    other = Front(tmp_path / "federation", upstreams_certificate="superlink/front/server")
    try:
        assert other.ask("POST /v1/fleet/pull-messages")[0] == 502  # a certificate of ours, but not the SuperLink's
        assert other.upstream.seen == []
    finally:
        other.close()
