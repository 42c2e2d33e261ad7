"""Makes a SuperNode's key pair, by which the SuperLink knows it again.

Flower 1.41 reads both halves in OpenSSH's format and wants a NIST curve; P-384 is the one its command line names. The
same pair comes from ``ssh-keygen -t ecdsa -b 384 -N "" -f node.key``.
"""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def node_key_pair() -> tuple[bytes, bytes]:
    """Make a new private key and its public key, as OpenSSH writes them."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public + b"\n"
