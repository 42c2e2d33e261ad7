"""Makes the deployment's certificate authority and the server's certificates that it signs, for TLS.

Clients trust this authority alone (``--root-certificates``), so no public one is needed and none can stand in for the
server. The server has two certificates, so that no process holds a key that it doesn't need: the front's, under the
name that clients reach it by, and the SuperLink's, under the names of the machine's own loopback.

Our choice: how long certificates hold, when they are near their end, and by how much a client's clock may be behind.
"""

import datetime
import ipaddress
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS, SERVER_DAYS = 3650, 825
"""How long the certificates hold; 825 days is the most that some systems accept of a server's."""

NEAR_THE_END = datetime.timedelta(days=60)
"""A certificate that holds no longer than this is renewed."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of the SuperLink, which nobody reaches but the processes of its own machine."""

CLOCK_DIFFERENCE = datetime.timedelta(days=1)
"""A client's clock may be behind by this much."""


class Signed(NamedTuple):
    """Holds a certificate and its private key, as PEM texts."""

    certificate: bytes
    key: bytes


def new_authority(server: str) -> Signed:
    """Make a new authority, which can sign servers' certificates and nothing else. Keys here are P-256.

    Parameters
    ----------
    server
        Host name or IP address of the server; it stands in the authority's name.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"fmtda authority for {server}")
    certificate = (
        _certificate(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Signed(certificate.public_bytes(serialization.Encoding.PEM), _private(key))


def server_certificate(names: tuple[str, ...], authority: Signed) -> Signed:
    """Make a new key, and its certificate for a server of these names, signed by the authority.

    It holds no longer than the authority does.

    Raises
    ------
    ValueError
        If the authority's two texts can't be read, or don't belong together.
    """
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey) or issuer_key.public_key() != issuer.public_key():
        raise ValueError("the authority's key doesn't belong to its certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _certificate(_name(names[0]), issuer.subject, key.public_key(), SERVER_DAYS, issuer.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return Signed(certificate.public_bytes(serialization.Encoding.PEM), _private(key))


def end_of(certificate: bytes) -> datetime.datetime:
    """Tell until when a certificate holds.

    Raises
    ------
    ValueError
        If it is no certificate in PEM.
    """
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def is_near_the_end(certificate: bytes) -> bool:
    """Tell whether a certificate should be renewed now."""
    return end_of(certificate) - datetime.datetime.now(datetime.UTC) <= NEAR_THE_END


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    days: int,
    at_most: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_DIFFERENCE)
        .not_valid_after(min(end, at_most or end))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])  # X.509 allows no more letters


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


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
