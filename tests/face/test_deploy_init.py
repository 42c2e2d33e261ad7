"""``fmtda deploy init`` by itself: what it writes holds against OpenSSL, OpenSSH, YAML and systemd, and is safe."""

import ipaddress
import shutil
import ssl
import stat
import subprocess

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from real_nodes import blocks
from typer.testing import CliRunner

from fmtda.face.command_line import cli
from fmtda.face.deploy import flower_commands
from fmtda.face.deploy.certificates import certificates
from fmtda.face.deploy.deployment import Deployment
from fmtda.face.deploy.node_keys import node_key_pair
from fmtda.face.deploy.page import page

PRIVATE = {"authority/ca.key", "superlink/server.key", "clients/svhn/node.key", "clients/usps/node.key"}


def init(folder, *options, server="fed.example.org", clients="svhn,usps"):
    words = ["deploy", "init", str(folder), "--server", server, "--clients", clients, *options]
    return CliRunner().invoke(cli, words)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy") / "federation"
    assert init(folder).exit_code == 0
    return folder


def test_private_keys_are_their_owners_alone_and_everything_else_is_not(written):
    modes = {name: stat.S_IMODE((written / name).stat().st_mode) for name in contents(written)}
    assert {name for name, mode in modes.items() if mode == 0o600} == PRIVATE
    assert {mode for name, mode in modes.items() if name not in PRIVATE} == {0o644}
    assert {name for name, content in contents(written).items() if b"PRIVATE KEY" in content} == PRIVATE


def test_a_machines_folder_holds_no_other_machines_secret(written):
    keys = [(written / name).read_bytes() for name in PRIVATE]
    assert len(set(keys)) == 4
    assert not (written / "superlink" / "ca.key").exists()


def test_nothing_is_overwritten_without_force(written):
    before = contents(written)
    refused = init(written, clients="svhn,mnist-m")
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert contents(written) == before


def test_force_replaces_every_key(tmp_path):
    init(tmp_path / "federation")
    before = contents(tmp_path / "federation")
    assert init(tmp_path / "federation", "--force").exit_code == 0
    after = contents(tmp_path / "federation")
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in PRIVATE)
    mode = stat.S_IMODE((tmp_path / "federation" / "superlink" / "server.key").stat().st_mode)
    assert mode == 0o600


def handshake(server_files, authority, name):
    """A TLS handshake in memory between a server with these files and a client that trusts this authority."""
    as_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    as_server.load_cert_chain(server_files / "server.crt", server_files / "server.key")
    as_client = ssl.create_default_context(cafile=authority)
    as_client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = as_client.wrap_bio(to_client, to_server, server_hostname=name)
    server = as_server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.version()


@pytest.mark.parametrize("name", ["fed.example.org", "localhost", "127.0.0.1"])
def test_openssl_accepts_the_server_under_its_names(written, name):
    assert handshake(written / "superlink", written / "clients/svhn/ca.crt", name) == "TLSv1.3"


def test_openssl_refuses_another_name_and_another_authority(written, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(written / "superlink", written / "clients/svhn/ca.crt", "elsewhere.example.org")
    (tmp_path / "other.crt").write_bytes(certificates("fed.example.org")["ca.crt"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(written / "superlink", tmp_path / "other.crt", "fed.example.org")


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_an_address_stands_in_the_certificate_as_an_address(address):
    certificate = x509.load_pem_x509_certificate(certificates(address)["server.crt"])
    names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert ipaddress.ip_address(address) in names.get_values_for_type(x509.IPAddress)
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")
def test_openssh_finds_the_same_key_in_both_halves(tmp_path):
    private, public = node_key_pair()
    (tmp_path / "node.key").write_bytes(private)
    (tmp_path / "node.key").chmod(0o600)
    told = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(tmp_path / "node.key")], capture_output=True, text=True, check=True
    )
    assert told.stdout.split()[:2] == public.decode().split()
    assert told.stdout.startswith("ecdsa-sha2-nistp384 ")


def deployment(**changes):
    asked = {"server": "fed.example.org", "clients": ("svhn", "usps"), "data": "digit-five", "data_dir": "/data"}
    return Deployment(**{**asked, **changes})


def test_compose_files_start_what_the_page_starts(written):
    service = yaml.safe_load((written / "clients/usps/compose.yaml").read_text())["services"]["supernode-usps"]
    words = [word for part in flower_commands.supernode(deployment(), "usps", "/deployment/local") for word in part]
    assert service["command"] == words
    assert "/data:/data:ro" in service["volumes"]
    server = yaml.safe_load((written / "superlink/compose.yaml").read_text())["services"]["superlink"]
    assert server["command"] == [word for part in flower_commands.superlink(deployment()) for word in part]
    assert server["ports"] == ["8000:8000"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_understands_the_units(written, tmp_path):
    for unit in (written / "superlink/fmtda-superlink.service", written / "clients/svhn/fmtda-svhn.service"):
        text = unit.read_text().replace("/opt/fmtda/venv/bin/flower-superlink", "/bin/true")
        copy = tmp_path / unit.name
        copy.write_text(text.replace("/opt/fmtda/venv/bin/flower-supernode", "/bin/true").replace("User=fmtda\n", ""))
        verified = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
        assert unit.name not in verified.stderr, verified.stderr


def test_the_page_names_every_client_and_an_ipv6_address_in_brackets():
    text = page(deployment(server="2001:db8::7", port=9000))
    assert "--superlink '[2001:db8::7]:9000'" in text
    assert "--host ::" in text and "0.0.0.0" not in text
    started = [block for block in blocks(text) if "flower-supernode" in block]
    assert [f'domain="{client}"' in block for client, block in zip(("svhn", "usps"), started, strict=True)] == [
        True
    ] * 2
    assert all(other not in block for other, block in zip(("usps", "svhn"), started, strict=True))
    assert "--port 9095" in started[1]


def test_the_servers_source_is_no_client_and_another_one_is_written_down(tmp_path):
    refused = init(tmp_path / "federation", clients="svhn,mnist")
    assert refused.exit_code == 2 and "mnist is the server's labelled source" in refused.stderr
    assert not (tmp_path / "federation").exists()
    assert init(tmp_path / "federation", "--source", "usps", clients="svhn,mnist").exit_code == 0
    assert 'data.source="usps"' in (tmp_path / "federation" / "README.md").read_text()


def test_embedded_data_need_no_folder(tmp_path):
    assert init(tmp_path / "federation", clients="blend,pen").exit_code == 0
    text = (tmp_path / "federation" / "README.md").read_text()
    assert "data-dir" not in text and "data.dir" not in text
    assert 'data.name="digits" data.targets="blend,pen" clients=2' in text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"server": "https://fed.example.org"}, "--server https://fed.example.org: give a host name"),
        ({"server": "fed.example.org:8000"}, "without port"),
        ({"clients": ""}, "names no client"),
        ({"clients": "svhn,svhn"}, "svhn is named twice"),
        ({"clients": "clinic-a"}, "name yours with --data"),
        ({"clients": "a/b", "options": ("--data", "image-folders")}, "--clients a/b"),
        ({"clients": "svhn,blend", "options": ("--data", "digit-five")}, "digit-five has no such domain"),
        ({"options": ("--data-dir", "my data")}, "--data-dir my data"),
        ({"options": ("--port", "9095")}, "--port 9095: a SuperNode has it"),
        ({"options": ("--data", "nonsense")}, "nonsense"),
    ],
)
def test_what_cannot_be_deployed_is_refused_by_name_and_nothing_is_written(options, named, tmp_path):
    more = options.get("options", ())
    given = {key: value for key, value in options.items() if key != "options"}
    refused = init(tmp_path / "federation", *more, **given)
    assert refused.exit_code == 2
    assert named in refused.stderr
    assert not (tmp_path / "federation").exists()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    refused = init(tmp_path / "file" / "federation")
    assert refused.exit_code == 2
    assert "can't be written to" in refused.stderr
