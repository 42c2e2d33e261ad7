"""``fmtda deploy init`` by itself: what it writes holds against OpenSSL, OpenSSH, YAML and systemd, and is safe."""

import ipaddress
import re
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
from fmtda.face.deploy import flower_commands, front, services
from fmtda.face.deploy.certificates import new_authority, server_certificate
from fmtda.face.deploy.deployment import Deployment
from fmtda.face.deploy.node_keys import node_key_pair
from fmtda.face.deploy.page import page
from fmtda.protocol import telemetry

KEYS = {
    "authority/ca.key",
    "superlink/superlink.key",
    "superlink/front/server.key",
    "clients/svhn/node.key",
    "clients/usps/node.key",
}
SECRETS = {"superlink/superexec.secret", "clients/svhn/superexec.secret", "clients/usps/superexec.secret"}
PRIVATE = KEYS | SECRETS


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
    assert {name for name, content in contents(written).items() if b"PRIVATE KEY" in content} == KEYS


def test_a_machines_folder_holds_no_other_machines_secret(written):
    keys = [(written / name).read_bytes() for name in PRIVATE]
    assert len(set(keys)) == len(PRIVATE)
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
    mode = stat.S_IMODE((tmp_path / "federation" / "superlink/front/server.key").stat().st_mode)
    assert mode == 0o600


def handshake(server, authority, name):
    """A TLS handshake in memory between a server with this certificate and a client that trusts this authority."""
    as_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    as_server.load_cert_chain(f"{server}.crt", f"{server}.key")
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


@pytest.mark.parametrize(
    ("server", "name"),
    [("front/server", "fed.example.org"), ("superlink", "localhost"), ("superlink", "127.0.0.1")],
)
def test_openssl_accepts_front_and_superlink_under_their_names(written, server, name):
    assert handshake(written / "superlink" / server, written / "clients/svhn/ca.crt", name) == "TLSv1.3"


def test_openssl_refuses_another_name_and_another_authority(written, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(written / "superlink/front/server", written / "clients/svhn/ca.crt", "elsewhere.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):  # the SuperLink's certificate can't stand in for the front's
        handshake(written / "superlink/superlink", written / "clients/svhn/ca.crt", "fed.example.org")
    (tmp_path / "other.crt").write_bytes(new_authority("fed.example.org").certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(written / "superlink/front/server", tmp_path / "other.crt", "fed.example.org")


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_an_address_stands_in_the_certificate_as_an_address(address):
    certificate = x509.load_pem_x509_certificate(server_certificate((address,), new_authority(address)).certificate)
    names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(address)]
    assert names.get_values_for_type(x509.DNSName) == []


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


def words(command):
    return [word for part in command for word in part]


def volumes(service):
    """What a container sees of its machine's folder, and whether it may write there."""
    parts = [volume.split(":") for volume in service["volumes"] if volume.startswith("./")]
    return {part[0].removeprefix("./"): "ro" not in part[2:] for part in parts}


def test_compose_files_start_what_the_page_starts(written):
    client = yaml.safe_load((written / "clients/usps/compose.yaml").read_text())["services"]
    local = "/opt/fmtda/usps/app/local"
    assert client["fmtda-usps"]["command"] == words(flower_commands.supernode(deployment(), "usps", local))
    assert client["fmtda-usps-app"]["command"] == words(flower_commands.supernode_app(deployment(), "usps"))
    assert "/data:/data:ro" in client["fmtda-usps-app"]["volumes"]
    assert client["fmtda-usps-app"]["network_mode"] == "service:fmtda-usps"
    server = yaml.safe_load((written / "superlink/compose.yaml").read_text())["services"]
    assert server["fmtda-superlink"]["command"] == words(flower_commands.superlink(deployment()))
    assert server["fmtda-superlink-app"]["command"] == words(flower_commands.superlink_app(deployment()))
    assert server["fmtda-superlink-front"]["command"] == words(flower_commands.front())


def test_no_container_of_foreign_code_sees_a_key_and_none_has_rights(written):
    services = {}
    for file in ("superlink", "clients/svhn", "clients/usps"):
        services |= yaml.safe_load((written / file / "compose.yaml").read_text())["services"]
    assert volumes(services["fmtda-svhn-app"]) == {"superexec.secret": False, "app": True}
    assert volumes(services["fmtda-superlink-app"]) == {
        "ca.crt": False,
        "superexec.secret": False,
        "nodes": False,
        "app": True,
    }
    assert [name for name, service in services.items() if "node.key" in volumes(service)] == [
        "fmtda-svhn",
        "fmtda-usps",
    ]
    assert [name for name, service in services.items() if "superlink.key" in volumes(service)] == ["fmtda-superlink"]
    for name, service in services.items():
        app = name.endswith("-app")
        assert (service["user"] == "${FMTDA_APP:?}") == app
        assert [path for path, writable in volumes(service).items() if writable] in (["app"], ["state"], ["front/run"])
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
        assert "ports" not in service
        assert service["environment"].items() >= telemetry.FLOWER_OFF.items()


UNITS = [
    *(f"superlink/fmtda-superlink{part}.service" for part in ("", "-app", "-front")),
    *(f"clients/svhn/fmtda-svhn{part}.service" for part in ("", "-app")),
]


def test_units_give_each_process_its_account_and_hide_keys_from_apps(written):
    accounts = {}
    for name in UNITS:
        text = (written / name).read_text()
        accounts[name.split("/")[-1]] = re.search(r"^User=(.*)$", text, re.MULTILINE)[1]
        for variable, value in telemetry.FLOWER_OFF.items():
            assert f"{variable}={value}" in text
    assert accounts == {
        "fmtda-superlink.service": "fmtda-superlink",
        "fmtda-superlink-app.service": "fmtda-app",
        "fmtda-superlink-front.service": "fmtda-front",
        "fmtda-svhn.service": "fmtda-node",
        "fmtda-svhn-app.service": "fmtda-app",
    }
    assert "InaccessiblePaths=-/opt/fmtda/svhn/node.key" in (written / UNITS[4]).read_text()
    assert "InaccessiblePaths=-/opt/fmtda/superlink/superlink.key" in (written / UNITS[1]).read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_the_units_and_calls_them_ok(name, written, tmp_path):
    copy = tmp_path / name.split("/")[-1]
    text = re.sub(r"^User=.*\n", "", (written / name).read_text(), flags=re.MULTILINE)
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    verified = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert copy.name not in verified.stderr, verified.stderr
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(written / name)]
    told = subprocess.run(words, capture_output=True, text=True)
    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", told.stdout)[1])
    assert exposure < 5, told.stdout  # 5.0 and more is MEDIUM


def test_a_port_for_which_rights_are_needed_gives_the_front_that_right_alone():
    units = services.superlink(deployment(port=443))
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in units["fmtda-superlink-front.service"]
    assert "AmbientCapabilities=\n" in units["fmtda-superlink.service"]
    assert "AmbientCapabilities=\n" in services.superlink(deployment())["fmtda-superlink-front.service"]


def test_the_page_names_every_client_and_an_ipv6_address_in_brackets():
    text = page(deployment(server="2001:db8::7", port=9000))
    assert "--superlink '[2001:db8::7]:9000'" in text
    assert "listen [::]:9000 ssl;" in front.nginx(deployment(server="2001:db8::7", port=9000))
    assert text.count("--host 127.0.0.1") == 3 and "0.0.0.0" not in text
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
        ({"options": ("--superlink-port", "9095")}, "--superlink-port 9095: a SuperNode has it"),
        ({"options": ("--superlink-port", "8000")}, "--port 8000: the SuperLink has it"),
        ({"clients": "a..b", "options": ("--data", "image-folders")}, "--clients a..b"),
        ({"clients": "superlink", "options": ("--data", "image-folders")}, "fmtda-superlink would be the name of two"),
        ({"clients": "b,b-app", "options": ("--data", "image-folders")}, "fmtda-b-app would be the name of two"),
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
