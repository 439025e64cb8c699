"""Certificates for servers on this machine, made on the spot."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


class Authority:
    """
    Signs certificates; whoever trusts :attr:`bundle` trusts them.

    :param folder: where its files are put.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
        self.bundle = folder / "authority.pem"
        certificate = self._sign(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
        self.bundle.write_bytes(certificate)

    def server(self, name: x509.GeneralName = LOOPBACK, days: float = 1, signed: bool = True) -> ssl.SSLContext:
        """
        Return the context of a server with a certificate of its own.

        :param name: whom the certificate is for.
        :param days: for how long it is valid; a negative number makes it expired.
        :param signed: whether this authority has signed it; otherwise it is self-signed.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of the tests")])
        extension = x509.SubjectAlternativeName([name])
        certificate = self._sign(subject, key.public_key(), extension, days, None if signed else key)
        file = self._folder / f"{x509.random_serial_number()}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + certificate)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context

    def _sign(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        extension: x509.ExtensionType,
        days: float = 1,
        own_key: ec.EllipticCurvePrivateKey | None = None,
    ) -> bytes:
        now = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(
            issuer_name=subject if own_key else self._name,
            subject_name=subject,
            public_key=public_key,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=30),
            not_valid_after=now + timedelta(days=days),
        ).add_extension(extension, critical=False)
        return builder.sign(own_key or self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
