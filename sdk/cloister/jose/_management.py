"""How a content-encryption key reaches the recipient: `dir`, `A256KW`, `HPKE-7-KE`, `HPKE-10-KE`.

Each class holds key material that was parsed once. `draw` makes a fresh content-encryption key for one
token, `recover` finds it again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.exceptions import InvalidTag

from cloister.errors import ConfigurationError, OpenError
from cloister.jose.base64url import b64url_decode, b64url_encode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite

__all__ = ["CEK_BYTES", "Direct", "Drawn", "Hpke", "KeyManagement", "KeyWrap"]

CEK_BYTES: Final = 32
_WRAPPED_BYTES: Final = CEK_BYTES + 8  # RFC 3394 section 2.2.1
_HPKE_WRAPPED_BYTES: Final = CEK_BYTES + 16
_INFO: Final = b"JOSE-HPKE rcpt\xffA256GCM\xff"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A content-encryption key with what tells the recipient about it."""

    cek: bytes = field(repr=False)
    encrypted_key: bytes
    ek: str | None = None


class KeyManagement(Protocol):
    """Port: one key in its key-management algorithm (RFC 7516 section 2)."""

    def draw(self, info: bytes) -> Drawn:
        """Draw a content-encryption key for one new token."""

    def recover(self, ek: str | None, encrypted_key: bytes, info: bytes) -> bytes:
        """Recover it from a received token; raises `OpenError`."""


def _no_info(info: bytes) -> None:
    if info:
        raise ConfigurationError("only HPKE keys bind `info`", hint="leave `info` out for A256KW and dir")


@dataclass(frozen=True, slots=True)
class Direct:
    """`dir`: the shared key is the content-encryption key (RFC 7518 section 4.5)."""

    key: bytes = field(repr=False)

    def draw(self, info: bytes) -> Drawn:
        _no_info(info)
        return Drawn(self.key, b"")

    def recover(self, ek: str | None, encrypted_key: bytes, info: bytes) -> bytes:
        _no_info(info)
        if encrypted_key or ek is not None:
            raise OpenError
        return self.key


@dataclass(frozen=True, slots=True)
class KeyWrap:
    """`A256KW`: a random key under AES key wrap (RFC 7518 section 4.4, RFC 3394)."""

    key: bytes = field(repr=False)

    def draw(self, info: bytes) -> Drawn:
        _no_info(info)
        cek = os.urandom(CEK_BYTES)
        return Drawn(cek, self.wrap(cek))

    def recover(self, ek: str | None, encrypted_key: bytes, info: bytes) -> bytes:
        _no_info(info)
        if ek is not None:
            raise OpenError
        return self.unwrap(encrypted_key)

    def wrap(self, cek: bytes) -> bytes:
        wrapped: bytes = _keywrap().aes_key_wrap(self.key, cek)
        return wrapped

    def unwrap(self, encrypted_key: bytes) -> bytes:
        if len(encrypted_key) != _WRAPPED_BYTES:
            raise OpenError
        keywrap = _keywrap()
        try:
            cek: bytes = keywrap.aes_key_unwrap(self.key, encrypted_key)
        except keywrap.InvalidUnwrap:
            raise OpenError from None
        return cek


@dataclass(frozen=True, slots=True)
class Hpke:
    """`HPKE-*-KE`: a random key under HPKE base mode (draft-ietf-jose-hpke-encrypt section 6)."""

    alg: str
    public: Any  # the union of pyca's HPKE public keys
    private: Any = field(default=None, repr=False)

    def draw(self, info: bytes) -> Drawn:
        suite, ek_bytes = _suite(self.alg)
        cek = os.urandom(CEK_BYTES)
        sealed = suite.encrypt(cek, self.public, _INFO + info)
        return Drawn(cek, sealed[ek_bytes:], b64url_encode(sealed[:ek_bytes]))

    def recover(self, ek: str | None, encrypted_key: bytes, info: bytes) -> bytes:
        if self.private is None:
            raise ConfigurationError("this key is a public half", hint="open with the private key")
        suite, ek_bytes = _suite(self.alg)
        try:
            encapsulation = b64url_decode(ek or "")
            if len(encapsulation) != ek_bytes or len(encrypted_key) != _HPKE_WRAPPED_BYTES:
                raise OpenError
            return suite.decrypt(encapsulation + encrypted_key, self.private, _INFO + info)
        except (InvalidTag, ValueError):
            raise OpenError from None


@cache
def _suite(alg: str) -> tuple[Suite, int]:
    """Return the HPKE suite of an algorithm and the length of its encapsulation in bytes."""
    from cryptography.hazmat.primitives import hpke  # noqa: PLC0415 - loaded with the first HPKE key

    kem, kdf = {
        "HPKE-7-KE": (hpke.KEM.P256, hpke.KDF.HKDF_SHA256),
        "HPKE-10-KE": (hpke.KEM.MLKEM768_X25519, hpke.KDF.SHAKE256),
    }[alg]
    return hpke.Suite(kem, kdf, hpke.AEAD.AES_256_GCM), kem.enc_length()


@cache
def _keywrap() -> Any:
    from cryptography.hazmat.primitives import keywrap  # noqa: PLC0415 - loaded with the first A256KW key

    return keywrap
