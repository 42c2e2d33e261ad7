"""The day after: a new client, certificates that end, archives for the machines, and a client that looks at itself."""

import datetime
import http.server
import os
import ssl
import stat
import subprocess
import tarfile
import threading
import time
import tomllib

import pytest
from test_deploy_init import KEYS, contents, handshake, init
from typer.testing import CliRunner

from fmtda.face.command_line import cli
from fmtda.face.deploy import certificates, checkup
from fmtda.face.deploy.certificates import Signed, end_of, server_certificate
from fmtda.face.deploy.deployment import Deployment
from fmtda.face.deploy.deployment_file import CLIENT_FILE, read_client, read_deployment
from fmtda.face.deploy.front import nginx


def deploy(*words):
    return CliRunner().invoke(cli, ["deploy", *map(str, words)])


@pytest.fixture
def folder(tmp_path):
    assert init(tmp_path / "federation", "--superlink-port", "8005").exit_code == 0
    return tmp_path / "federation"


def test_the_folder_knows_what_it_was_set_up_with(folder):
    assert read_deployment(folder) == Deployment(
        "fed.example.org", ("svhn", "usps"), "digit-five", "/data", superlink_port=8005
    )


@pytest.mark.parametrize("command", [("add", "mnist-m"), ("renew",), ("pack",)])
@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "can't be read"), (b"port = ", "deployment.toml: "), (b'server = "x"', "is missing"), (b"\xff", "codec")],
)
def test_a_folder_that_is_none_or_was_spoiled_is_refused_in_one_line(command, content, said, folder):
    (folder / "deployment.toml").unlink()
    if content is not None:
        (folder / "deployment.toml").write_bytes(content)
    before = contents(folder)
    refused = deploy(command[0], folder, *command[1:])
    assert refused.exit_code == 2, refused.output
    assert said in refused.stderr and refused.stderr.count("\n") == 1
    assert contents(folder) == before


def test_a_new_client_changes_nothing_of_the_others(folder):
    before = contents(folder)
    added = deploy("add", folder, "mnist-m")
    assert added.exit_code == 0, added.output
    after = contents(folder)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"README.md", "deployment.toml"}
    new = after.keys() - before.keys()
    assert "superlink/nodes/mnist-m.pub" in new and "clients/mnist-m/node.key" in new
    assert all("mnist-m" in name for name in new)
    assert stat.S_IMODE((folder / "clients/mnist-m/node.key").stat().st_mode) == 0o600
    assert after["clients/mnist-m/ca.crt"] == before["superlink/ca.crt"]
    assert after["clients/mnist-m/node.key"] != after["clients/svhn/node.key"]
    page = after["README.md"].decode()
    assert 'data.targets="svhn,usps,mnist-m" clients=3' in page and "--port 9096" in page
    assert read_deployment(folder).clients == ("svhn", "usps", "mnist-m")


@pytest.mark.parametrize(
    ("clients", "said"),
    [
        ("svhn", "svhn: is a client of"),
        ("mnist", "the server's labelled source"),
        ("blend", "digit-five has no such domain"),
        ("", "names no client"),
        ("fonts,fonts", "named twice"),
    ],
)
def test_a_client_that_cannot_be_added_is_refused_and_nothing_is_written(clients, said, folder):
    before = contents(folder)
    refused = deploy("add", folder, clients)
    assert refused.exit_code == 2 and said in refused.stderr, refused.output
    assert contents(folder) == before


def test_what_lies_in_a_new_clients_place_is_not_overwritten(folder):
    (folder / "clients/mnist-m").mkdir()
    (folder / "clients/mnist-m/node.key").write_text("precious")
    refused = deploy("add", folder, "mnist-m")
    assert refused.exit_code == 2 and "would be overwritten" in refused.stderr
    assert (folder / "clients/mnist-m/node.key").read_text() == "precious"
    assert not (folder / "superlink/nodes/mnist-m.pub").exists()


def test_certificates_with_time_left_stay_and_their_ends_are_told(folder):
    before = contents(folder)
    told = deploy("renew", folder)
    assert told.exit_code == 0, told.output
    assert contents(folder) == before
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=825)
    assert f"server.crt holds until {until:%Y-%m-%d}\n" in told.stdout and "renewed" not in told.stdout


@pytest.mark.parametrize("days", [59, 61])
def test_a_certificate_near_its_end_is_renewed_and_clients_keep_theirs(days, folder, monkeypatch):
    authority = Signed(*((folder / "authority" / name).read_bytes() for name in ("ca.crt", "ca.key")))
    monkeypatch.setattr(certificates, "SERVER_DAYS", days)
    old = server_certificate(("fed.example.org",), authority)
    monkeypatch.undo()
    (folder / "superlink/front/server.crt").write_bytes(old.certificate)
    (folder / "superlink/front/server.key").write_bytes(old.key)
    before = contents(folder)
    told = deploy("renew", folder)
    after = contents(folder)
    changed = {name for name in before if before[name] != after[name]}
    if days == 61:
        assert not changed
        return
    assert changed == {f"superlink/{name}.{end}" for name in ("front/server", "superlink") for end in ("crt", "key")}
    assert end_of(after["superlink/front/server.crt"]) > end_of(old.certificate)
    assert "(renewed)" in told.stdout
    assert stat.S_IMODE((folder / "superlink/front/server.key").stat().st_mode) == 0o600
    assert handshake(folder / "superlink/front/server", folder / "clients/svhn/ca.crt", "fed.example.org") == "TLSv1.3"
    assert handshake(folder / "superlink/superlink", folder / "clients/svhn/ca.crt", "localhost") == "TLSv1.3"


def test_certificates_are_renewed_on_demand(folder):
    before = contents(folder)
    assert deploy("renew", folder, "--now").exit_code == 0
    assert contents(folder)["superlink/front/server.key"] != before["superlink/front/server.key"]


def test_no_certificate_outlives_the_authority_that_signed_it(monkeypatch):
    monkeypatch.setattr(certificates, "AUTHORITY_DAYS", 100)
    authority = certificates.new_authority("fed.example.org")
    assert end_of(server_certificate(("x",), authority).certificate) == end_of(authority.certificate)


@pytest.mark.parametrize("spoil", ["missing", "another", "junk"])
def test_without_the_right_authority_nothing_is_renewed(spoil, folder):
    key = folder / "authority/ca.key"
    if spoil == "missing":
        key.unlink()
    else:
        key.write_bytes(certificates.new_authority("x").key if spoil == "another" else b"junk")
    before = contents(folder)
    refused = deploy("renew", folder, "--now")
    assert refused.exit_code == 2 and refused.stderr.startswith("fmtda: error: "), refused.output
    assert contents(folder) == before


def members(path):
    with tarfile.open(path) as archive:
        return {
            entry.name: (entry.uname, entry.gname, oct(entry.mode), archive.extractfile(entry).read())
            if entry.isfile()
            else (entry.uname, entry.gname, oct(entry.mode), None)
            for entry in archive
        }


def test_an_archive_has_what_its_machine_needs_with_owners_and_nothing_of_another(folder):
    (folder / "superlink" / "superlink.db").write_text("what lies about")
    (folder / "clients/svhn/other.txt").write_text("what lies about")
    packed = deploy("pack", folder)
    assert packed.exit_code == 0, packed.output
    archives = {path.name: members(path) for path in (folder / "packed").iterdir()}
    assert archives.keys() == {"superlink.tar.gz", "svhn.tar.gz", "usps.tar.gz"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (folder / "packed").iterdir())
    secrets = {name: (folder / name).read_bytes() for name in KEYS}
    for name, archive in archives.items():
        machine = name.removesuffix(".tar.gz")
        own = folder / ("superlink" if machine == "superlink" else f"clients/{machine}")
        written = {f"{machine}/{path}": content for path, content in contents(own).items()}
        held = {path: entry[3] for path, entry in archive.items() if entry[3] is not None}
        assert held == {path: content for path, content in written.items() if content != b"what lies about"}
        foreign = [key for path, key in secrets.items() if not (folder / path).is_relative_to(own)]
        assert not [path for path, content in held.items() if content in foreign]
    assert archives["svhn.tar.gz"]["svhn/node.key"][:3] == ("fmtda-node", "fmtda-node", "0o600")
    assert archives["svhn.tar.gz"]["svhn/superexec.secret"][:3] == ("fmtda-node", "fmtda-app", "0o640")
    assert archives["svhn.tar.gz"]["svhn/app"][:3] == ("fmtda-app", "fmtda-app", "0o700")
    assert archives["svhn.tar.gz"]["svhn"][:3] == ("root", "root", "0o755")
    assert archives["superlink.tar.gz"]["superlink/superlink.key"][0] == "fmtda-superlink"
    assert archives["superlink.tar.gz"]["superlink/front/server.key"][0] == "fmtda-front"
    assert archives["superlink.tar.gz"]["superlink/state"][:3] == ("fmtda-superlink", "fmtda-superlink", "0o700")
    assert archives["superlink.tar.gz"]["superlink/front/nginx.conf"][0] == "root"


def test_archives_are_not_overwritten_and_a_clients_own_key_may_be_missing(folder, tmp_path):
    (folder / "clients/svhn/node.key").unlink()
    assert deploy("pack", folder, "--output", tmp_path / "out").exit_code == 0
    assert "svhn/node.key" not in members(tmp_path / "out" / "svhn.tar.gz")
    before = contents(tmp_path / "out")
    refused = deploy("pack", folder, "--output", tmp_path / "out")
    assert refused.exit_code == 2 and "--force" in refused.stderr
    assert contents(tmp_path / "out") == before
    assert deploy("pack", folder, "--output", tmp_path / "out", "--force").exit_code == 0
    (folder / "superlink/superlink.key").unlink()
    refused = deploy("pack", folder, "--output", tmp_path / "new")
    assert refused.exit_code == 2 and "superlink.key: is missing" in refused.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root unpacks with owners")
def test_unpacked_by_root_where_an_account_is_unknown_its_files_are_roots(folder, tmp_path):
    deploy("pack", folder)
    unpacked = tmp_path / "opt"
    unpacked.mkdir()
    subprocess.run(["tar", "-C", unpacked, "-xpzf", folder / "packed/svhn.tar.gz"], check=True)
    for path in ("node.key", "superexec.secret", "app"):
        assert not stat.S_IMODE((unpacked / "svhn" / path).stat().st_mode) & 0o007


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as a front does, with the clock and the openness that the test wants."""

    def do_POST(self):
        self.send_response_only(self.server.status)
        self.send_header("Date", self.date_time_string(time.time() + self.server.ahead))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        return


@pytest.fixture
def deployed(tmp_path):
    """A client's folder, and a server that it finds."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.status, server.ahead = 403, 0.0
    folder = tmp_path / "federation"
    assert init(folder, "--port", str(server.server_port), server="127.0.0.1", clients="blend").exit_code == 0
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "superlink/front/server.crt", folder / "superlink/front/server.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder / "clients" / "blend", server
    server.shutdown()
    server.server_close()


def verdicts(told):
    return {line.split()[1]: line.split()[0] == "good" for line in told.stdout.splitlines()}


ALL = ["versions", "data", "address", "server", "control", "clock"]


def test_a_client_that_can_take_part_hears_so_with_its_counts(deployed):
    told = deploy("check", deployed[0])
    assert told.exit_code == 0, told.output
    assert list(verdicts(told)) == ALL and all(verdicts(told).values())
    assert "blend of digits in embedded: 1000 to train, 150 to test" in told.stdout


@pytest.mark.parametrize(
    ("ahead", "good"), [(0, True), (-3, True), (-7, False), (290, True), (310, False), (-86400, False), (86400, False)]
)
def test_a_clock_that_flower_would_refuse_is_told(ahead, good, deployed):
    folder, server = deployed
    server.ahead = ahead
    told = deploy("check", folder)
    assert verdicts(told) == {**dict.fromkeys(ALL, True), "clock": good}
    assert told.exit_code == (0 if good else 1)
    assert good or "NTP" in told.stdout


def test_the_limits_are_flowers():
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert (checkup.AHEAD, checkup.BEHIND) == (SYSTEM_TIME_TOLERANCE, SYSTEM_TIME_TOLERANCE + TIMESTAMP_TOLERANCE)


@pytest.mark.parametrize("status", [200, 401, 415, 500])
def test_an_open_control_interface_is_told(status, deployed):
    folder, server = deployed
    server.status = status
    told = deploy("check", folder)
    assert told.exit_code == 1 and not verdicts(told)["control"]
    assert "any client could start runs" in told.stdout


def edit(folder, old, new):
    text = (folder / CLIENT_FILE).read_text()
    assert old in text
    (folder / CLIENT_FILE).write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "subject", "said"),
    [
        ('server = "127.0.0.1"', 'server = "nowhere.invalid"', "address", "nowhere.invalid: is unknown here"),
        ('fmtda = "', 'fmtda = "9', "versions", "install that here"),
        ('flwr = "1.', 'flwr = "2.', "versions", "was set up with flwr 2."),
        ('domain = "blend"', 'domain = "nothing"', "data", "nothing"),
        ('data = "digits"\ndata-dir = ""', 'data = "digit-five"\ndata-dir = "/nonexistent"', "data", "docs/data.md"),
        ('server = "127.0.0.1"', 'server = "localhost"', "server", "another server answers"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(old, new, subject, said, deployed):
    edit(deployed[0], old, new)
    told = deploy("check", deployed[0])
    assert told.exit_code == 1, told.output
    assert [name for name, good in verdicts(told).items() if not good] == [subject]
    assert said in told.stdout


def test_a_server_that_is_not_there_and_one_with_another_authority_are_told(deployed):
    folder, server = deployed
    (folder / "ca.crt").write_bytes(certificates.new_authority("127.0.0.1").certificate)
    assert "another server answers" in deploy("check", folder).stdout
    server.shutdown()
    server.server_close()
    told = deploy("check", folder)
    assert told.exit_code == 1 and "no TLS answer" in told.stdout


def test_check_outside_a_clients_folder_says_where_to_go(tmp_path):
    refused = deploy("check", tmp_path)
    assert refused.exit_code == 2 and "in the client's own folder" in refused.stderr
    assert deploy("register", tmp_path).exit_code == 2
    assert "the server's folder" in deploy("register", tmp_path).stderr


def test_registering_without_a_superlink_says_to_start_it(folder):
    refused = deploy("register", folder / "superlink")
    assert refused.exit_code == 2 and "start it first" in refused.stderr
    assert not (folder / "superlink/nodes/nodes.toml").exists()


def test_two_clients_with_one_key_are_refused(folder):
    nodes = folder / "superlink/nodes"
    (nodes / "usps.pub").write_bytes((nodes / "svhn.pub").read_bytes())
    refused = deploy("register", folder / "superlink")
    assert refused.exit_code == 2 and "have the same key" in refused.stderr


def test_the_ports_are_the_deployments(folder):
    assert "proxy_pass https://127.0.0.1:8005;" in nginx(read_deployment(folder))
    assert tomllib.loads((folder / "superlink/server.toml").read_text()) == {"control": "127.0.0.1:8005"}
    assert read_client(folder / "clients/svhn").port == 8000
