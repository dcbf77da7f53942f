"""Seal and open values under one content-encryption key, with everything that repeats computed once."""

from __future__ import annotations

import hmac
from binascii import b2a_base64
from os import urandom
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.envelope.context import ContextMac
from cloister.envelope.sealed import VALUE_TYP, Sealed
from cloister.envelope.values import Value, decode_value
from cloister.errors import ConfigurationError, OpenError
from cloister.jose import b64url_decode, b64url_encode
from cloister.jose._management import CEK_BYTES
from cloister.jose.strict_json import dump_compact

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ContentKey", "ContentSealer"]

_IV_BYTES: Final = 12
_IV_CHARS: Final = 16
_TAG_BYTES: Final = 16
_TAG_CHARS: Final = 22
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")


class ContentKey:
    """A content-encryption key, ready to open values."""

    __slots__ = ("_aead", "_cek", "_mac")

    def __init__(self, cek: bytes) -> None:
        if len(cek) != CEK_BYTES:  # AESGCM takes shorter keys, and then it is another algorithm
            raise ConfigurationError(f"a content-encryption key has {CEK_BYTES} bytes")
        self._aead = AESGCM(cek)
        self._cek = cek
        self._mac: ContextMac | None = None

    def open(self, sealed: str, context: Mapping[str, str] | None = None) -> Value:
        """Open a value sealed under this key; raises `OpenError` for every failure alike."""
        sealed = Sealed(sealed)
        content = self._decrypt(sealed)
        # After decryption, so that the time it takes does not tell a wrong context from a wrong key.
        self._check_context(sealed.header.ctx, context)
        return decode_value(sealed.header.cty, content)

    def reseal(self, sealed: str, to: ContentSealer, context: Mapping[str, str] | None = None) -> Sealed:
        """Seal a value anew, byte for byte, for another key version; nobody learns what it holds.

        Args:
            sealed: The value, sealed under this key.
            to: What seals it now.
            context: What it is bound to; not needed where `to` has the very same content-encryption key.

        Raises:
            OpenError: It does not open, or is bound to another context or to one that was not given.
        """
        sealed = Sealed(sealed)
        content, ctx = self._decrypt(sealed), sealed.header.ctx
        if ctx is not None and context is None and to.has_key(self._cek):
            return to.seal_with(sealed.header.cty, content, ctx)
        self._check_context(ctx, context)
        return to.seal(sealed.header.cty, content, context)

    def has_key(self, cek: bytes) -> bool:
        """Whether this is the content-encryption key."""
        return hmac.compare_digest(self._cek, cek)

    def _decrypt(self, sealed: Sealed) -> bytes:
        protected, _, iv, ciphertext, tag = sealed.split(".")
        if len(iv) != _IV_CHARS or len(tag) != _TAG_CHARS:
            raise OpenError
        try:
            # The IV fills whole groups of four characters, so one decoding reads it and the ciphertext.
            raw = b64url_decode(iv + ciphertext)
            return self._aead.decrypt(
                raw[:_IV_BYTES], raw[_IV_BYTES:] + b64url_decode(tag), protected.encode("ascii")
            )
        except (InvalidTag, ValueError):
            raise OpenError from None

    def _check_context(self, ctx: str | None, context: Mapping[str, str] | None) -> None:
        if ctx is None and context is None:
            return
        if ctx is None or context is None or not hmac.compare_digest(ctx, self.ctx(context)):
            raise OpenError

    def ctx(self, context: Mapping[str, str]) -> str:
        """Return the `ctx` header member that binds a value under this key to a context."""
        if self._mac is None:
            self._mac = ContextMac(self._cek)
        return self._mac.ctx(context)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ContentSealer(ContentKey):
    """A content-encryption key with its header, ready to seal values too. It counts nothing itself."""

    __slots__ = ("_encrypted_key", "_header", "_headers")

    def __init__(
        self, cek: bytes, *, alg: str, kid: str, encrypted_key: bytes, ek: str | None = None
    ) -> None:
        super().__init__(cek)
        self._header = {"alg": alg, "enc": "A256GCM", "kid": kid, "typ": VALUE_TYP}
        if ek is not None:
            self._header["ek"] = ek
        self._headers: dict[str, tuple[bytes, bytes]] = {}
        self._encrypted_key = b64url_encode(encrypted_key).encode("ascii")

    def seal(self, cty: str, content: bytes, context: Mapping[str, str] | None) -> Sealed:
        """Seal bytes of a content type under a fresh random IV."""
        return self.seal_with(cty, content, None if context is None else self.ctx(context))

    def seal_with(self, cty: str, content: bytes, ctx: str | None) -> Sealed:
        """Seal bytes whose context was bound before, or to none."""
        protected, unfinished = self._headers.get(cty) or self._prepare(cty)
        if ctx is not None:
            header = b'%b,"ctx":"%b"}' % (unfinished, ctx.encode("ascii"))
            protected = _b64(header).translate(_TO_URL, b"=")
        iv = urandom(_IV_BYTES)
        sealed = self._aead.encrypt(iv, content, protected)
        ciphertext, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
        parts = (protected, self._encrypted_key, _b64(iv), _b64(ciphertext), _b64(tag))
        # One pass turns every part into base64url at once; header and key already are.
        return str.__new__(Sealed, b".".join(parts).translate(_TO_URL, b"="), "ascii")

    def _prepare(self, cty: str) -> tuple[bytes, bytes]:
        """Return the encoded header of a content type, and the raw one without its closing brace."""
        raw = dump_compact(self._header | {"cty": cty})
        self._headers[cty] = (b64url_encode(raw).encode("ascii"), raw[:-1])
        return self._headers[cty]


def _b64(data: bytes) -> bytes:
    return b2a_base64(data, newline=False)
