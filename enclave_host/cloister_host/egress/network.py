"""The network under the HTTP client: connects to the address that was checked, within a deadline."""

from __future__ import annotations

import hashlib
import hmac
import ssl
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final

import httpcore
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate

from cloister.errors import DeniedError
from cloister_host.egress.addresses import Resolve, check_addresses

__all__ = ["SPKI", "CheckedBackend", "CheckedStream", "deadline", "remaining"]

SPKI: Final = "cloister.spki"

# On the monotonic clock. The HTTP client's own timeouts start anew with every byte; this one does not.
deadline: ContextVar[float] = ContextVar("deadline")


def remaining(timeout: float | None, error: type[httpcore.TimeoutException]) -> float:
    """The seconds that are left until the deadline, at most `timeout`.

    Raises:
        httpcore.TimeoutException: There are none.
    """
    left = deadline.get() - time.monotonic()
    if left <= 0:
        raise error
    return left if timeout is None else min(left, timeout)


class CheckedBackend(httpcore.NetworkBackend):
    """Connects to origins of one function.

    Args:
        resolve: Name to addresses; asked once a connection, and only its answer is connected to.
        allow_private: Whether addresses that are not public may be reached.
        pins: SHA-256 (hex) of acceptable public keys; none accepts every key the name's certificate has.
    """

    def __init__(self, *, resolve: Resolve, allow_private: bool, pins: tuple[str, ...]) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._pins = pins
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve, check, and connect to the first address that answers."""
        left = remaining(timeout, httpcore.ConnectTimeout)
        addresses = check_addresses(self._resolve(host, left), allow_private=self._allow_private)
        failure: Exception = httpcore.ConnectError()
        for address in addresses:
            left = remaining(timeout, httpcore.ConnectTimeout)
            try:
                stream = self._network.connect_tcp(str(address), port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            return CheckedStream(stream, self._pins)
        raise failure


class CheckedStream(httpcore.NetworkStream):
    """A connection that keeps to the deadline and knows whose key it speaks to."""

    def __init__(self, stream: httpcore.NetworkStream, pins: tuple[str, ...], spki: str = "") -> None:
        self._stream = stream
        self._pins = pins
        self._spki = spki

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there."""
        return self._stream.read(max_bytes, remaining(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write it all."""
        self._stream.write(buffer, remaining(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Shake hands for the origin's name, then check the key before anything is sent."""
        secured = self._stream.start_tls(
            ssl_context, server_hostname, remaining(timeout, httpcore.ConnectTimeout)
        )
        try:
            spki = _spki(secured.get_extra_info("ssl_object"))
            if self._pins and not any(hmac.compare_digest(spki, pin) for pin in self._pins):
                raise DeniedError(
                    "the origin shows another key than the pinned ones", hint="check spki_sha256"
                )
        except BaseException:
            secured.close()
            raise
        return CheckedStream(secured, self._pins, spki)

    def get_extra_info(self, info: str) -> Any:
        """`SPKI` gives the SHA-256 of the server's public key; the rest is the stream's own."""
        return self._spki if info == SPKI else self._stream.get_extra_info(info)


def _spki(tls: ssl.SSLObject | ssl.SSLSocket) -> str:
    certificate = tls.getpeercert(True)  # noqa: FBT003 - the object takes no keyword
    assert certificate is not None, "TLS without a certificate"
    key = load_der_x509_certificate(certificate).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
