"""The texts that `encrypt`, `mac` and `sign` give: a prefix, the key version, and bytes (SPEC section 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from cloister.envelope.sealed import is_kid
from cloister.errors import ConfigurationError, EvidenceError, OpenError
from cloister.jose import b64url_decode, b64url_encode
from cloister.jose.keys import as_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.jose import Key
    from cloister.jose._signatures import Signature

__all__ = ["Kind", "Raw", "encrypt_aad", "verify_signature"]

Kind = Literal["cle1", "clm1", "cls1"]

MAX_CHARS: Final = 48 * 1024 * 1024
_OVERHEAD: Final = {"cle1": 40 + 12 + 16, "clm1": 32, "cls1": 64}
_PARTS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A ciphertext (`cle1`), MAC (`clm1`) or signature (`cls1`) with the version it was made under."""

    kind: Kind
    kid: str
    body: bytes = field(repr=False)

    @property
    def key(self) -> str:
        """The name of the key."""
        return self.kid.rpartition(".")[0]

    @classmethod
    def parse(cls, text: str, *kinds: Kind) -> Raw:
        """Read one of these kinds.

        Raises:
            OpenError: It is none of them.
        """
        if len(text) > MAX_CHARS or not text.isascii():
            raise OpenError
        parts = text.split(".", _PARTS)
        if len(parts) != _PARTS or not is_kid(kid := f"{parts[1]}.{parts[2]}"):
            raise OpenError
        for kind in kinds:
            if parts[0] == kind:
                return cls(kind=kind, kid=kid, body=_body(parts[3], kind))
        raise OpenError

    def __str__(self) -> str:
        return f"{self.kind}.{self.kid}.{b64url_encode(self.body)}"


def encrypt_aad(kid: str, aad: bytes) -> bytes:
    """What a ciphertext's tag covers beside it. A kid holds no NUL, so this reads one way."""
    return b"cloister.encrypt.v1\0" + kid.encode("ascii") + b"\0" + aad


def verify_signature(signature: str, data: bytes, public_jwk: Mapping[str, Any] | Key) -> str:
    """Verify a signature here, with a public half that was pinned or vouched for; returns its kid.

    Raises:
        EvidenceError: It is no signature of this data under this key.
        ConfigurationError: The key is not a signature key.
    """
    key = as_key(public_jwk)
    try:
        raw = Raw.parse(signature, "cls1")
    except OpenError:
        raise EvidenceError("this is not a signature", hint="it begins with cls1") from None
    if key.kid not in {None, raw.kid}:
        raise EvidenceError("the signature names another key")
    if not hasattr(key.operations, "verify"):
        raise ConfigurationError(f"a {key.alg} key does not verify signatures", hint="use a signature key")
    cast("Signature", key.operations).verify(raw.body, data)
    return raw.kid


def _body(text: str, kind: Kind) -> bytes:
    try:
        body = b64url_decode(text)
    except ValueError:
        raise OpenError from None
    least = _OVERHEAD[kind]
    if len(body) < least or (kind == "clm1" and len(body) != least):
        raise OpenError
    return body
