"""What egress may be told by whoever runs the host."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

import certifi

from cloister.errors import ConfigurationError
from cloister.secret import Secret
from cloister_host.relay.endpoint import Endpoint

__all__ = ["EgressSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """Settings of every connection to the outside.

    Attributes:
        trust_anchors: PEM certificates trusted beside the public authorities.
        allow_private_addresses: For development: reach loopback and private networks too. It is named
            in the attested configuration, and the default policy of clients refuses such a host.
        outbound: Where the parent's proxy listens, in an enclave that has no network of its own.
    """

    trust_anchors: bytes = b""
    allow_private_addresses: bool = False
    outbound: Endpoint | None = None

    @property
    def debug_switches(self) -> tuple[str, ...]:
        """The switches that a client must be told about."""
        return ("egress.allow_private_addresses",) if self.allow_private_addresses else ()

    def tls(self, certificate: Secret | None = None) -> ssl.SSLContext:
        """A TLS client context; unlike the default one it never logs keys, whatever the environment says.

        Args:
            certificate: PEM certificate, and chain, with its private key to show to servers that ask.

        Raises:
            ConfigurationError: The trust anchors or the certificate cannot be read.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_verify_locations(cafile=certifi.where())
        if self.trust_anchors:
            try:
                context.load_verify_locations(cadata=self.trust_anchors.decode("ascii"))
            except (ssl.SSLError, UnicodeDecodeError):
                raise ConfigurationError(
                    "the trust anchors for egress cannot be read", hint="give certificates in PEM form"
                ) from None
        if certificate is not None:
            _show(context, certificate)
        return context


def _show(context: ssl.SSLContext, certificate: Secret) -> None:
    # OpenSSL reads them from a path only: one that is memory, and gone with its descriptor.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(certificate.reveal())
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    except (ssl.SSLError, OSError, ValueError):
        raise ConfigurationError(
            "the client certificate for egress cannot be used",
            hint="store certificate, chain and unencrypted private key in PEM as one secret",
        ) from None
    finally:
        os.close(descriptor)
