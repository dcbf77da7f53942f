"""A certificate authority of a few lines, whose every certificate is made as the test wants it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["NAME", "Authority"]

NAME = x509.UniformResourceIdentifier("spiffe://acme/app")


@dataclass(frozen=True, kw_only=True)
class Authority:
    """An authority of a few lines; every certificate is made as the test wants it."""

    key: Any
    certificate: x509.Certificate
    now: dt.datetime

    @classmethod
    def create(cls, name: str = "Acme", *, now: dt.datetime, ca: bool = True) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, subject, key.public_key(), now - dt.timedelta(days=1), 365)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True).add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        return cls(key=key, certificate=builder.sign(key, SHA256()), now=now)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self,
        key: Any,
        names: list[x509.GeneralName] | None = None,
        *,
        begins: dt.datetime | None = None,
        days: int = 1,
        usages: list[x509.ObjectIdentifier] | None = None,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app")])
        builder = _builder(
            subject,
            self.certificate.subject,
            key.public_key(),
            begins or self.now - dt.timedelta(hours=1),
            days,
        )
        builder = builder.add_extension(
            x509.ExtendedKeyUsage(usages or [ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        if names != []:
            builder = builder.add_extension(x509.SubjectAlternativeName(names or [NAME]), critical=False)
        return builder.sign(self.key, SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, begins: dt.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + dt.timedelta(days=days))
    )
