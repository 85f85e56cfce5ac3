"""Certificates for servers of the tests: an authority that no one else knows, and what it signs."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

_VALID = timedelta(days=2)


class Authority:
    """A certificate authority that lives as long as a test run.

    :param name: how its certificate calls it.
    """

    def __init__(self, name: str = "authority of the tests") -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = (
            _begun(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate(self) -> bytes:
        """Its own certificate, PEM: the file that a client trusts."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, names: Sequence[str]) -> ServerCertificate:
        """Make a server's certificate.

        :param names: host names and IP addresses that it is good for.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server of the tests")])
        certificate = (
            _begun(subject, self._name, key)
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return ServerCertificate(tuple(names), certificate, key, authority=self.certificate)


class ServerCertificate:
    """A server's certificate and its key; made by an :class:`Authority`.

    :param names: host names and IP addresses that it is good for.
    :param authority: the certificate that a client has to trust, PEM.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        *,
        authority: bytes,
    ) -> None:
        self.names = names
        self.authority = authority
        self._certificate = certificate
        self._key = key

    @property
    def certificate(self) -> bytes:
        """The certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key(self) -> bytes:
        """The private key, PEM, without a password."""
        form = serialization.PrivateFormat.PKCS8
        return self._key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in hex, with colons, as ``openssl`` prints it."""
        return self._certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(tz=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
