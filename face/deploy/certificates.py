"""Makes the deployment's certificate authority, and the server certificate that it signs, for TLS.

Clients trust this authority alone (``--root-certificates``), so no public one is needed and none can stand in for the
server.

Our choice: how long certificates hold, and by how much a client's clock may be behind.
"""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS, SERVER_DAYS = 3650, 825
"""How long the two certificates hold; 825 days is the most that some systems accept of a server's."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names in every server certificate: the ServerApp runs beside the SuperLink and reaches it by these."""

CLOCK_DIFFERENCE = datetime.timedelta(days=1)
"""A client's clock may be behind by this much."""


def certificates(server: str) -> dict[str, bytes]:
    """Make a new authority and a certificate for the server.

    Parameters
    ----------
    server
        Host name or IP address of the server.

    Returns
    -------
    dict
        PEM texts: ``ca.crt``, ``ca.key`` (private), ``server.crt``, ``server.key`` (private). Keys are P-256.
    """
    now = datetime.datetime.now(datetime.UTC)
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = _name(f"fmtda authority for {server}")
    authority = (
        _certificate(authority_name, authority_name, authority_key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _certificate(_name(server), authority_name, server_key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternatives(server)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(server_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return {
        "ca.crt": authority.public_bytes(serialization.Encoding.PEM),
        "ca.key": _private(authority_key),
        "server.crt": certificate.public_bytes(serialization.Encoding.PEM),
        "server.key": _private(server_key),
    }


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_DIFFERENCE)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])  # X.509 allows no more letters


def _alternatives(server: str) -> list[x509.GeneralName]:
    """Name the server and the machine itself, each once."""
    names: list[x509.GeneralName] = []
    for name in dict.fromkeys((server, *LOOPBACK)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            names.append(x509.DNSName(name))
    return names


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
