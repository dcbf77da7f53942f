"""What egress may be told by whoever runs the host."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import certifi

from cloister.errors import ConfigurationError

__all__ = ["EgressSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """Settings of every connection to the outside.

    Attributes:
        trust_anchors: PEM certificates trusted beside the public authorities.
        allow_private_addresses: For development: reach loopback and private networks too. It is named
            in the attested configuration, and the default policy of clients refuses such a host.
    """

    trust_anchors: bytes = b""
    allow_private_addresses: bool = False

    @property
    def debug_switches(self) -> tuple[str, ...]:
        """The switches that a client must be told about."""
        return ("egress.allow_private_addresses",) if self.allow_private_addresses else ()

    def tls(self) -> ssl.SSLContext:
        """A TLS client context; unlike the default one it never logs keys, whatever the environment says.

        Raises:
            ConfigurationError: The trust anchors are not PEM certificates.
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
        return context
