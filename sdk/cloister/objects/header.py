"""What stands in front of the frames: public, authenticated by every frame (SPEC section 2)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from cloister.envelope.sealed import is_kid
from cloister.errors import ConfigurationError, OpenError
from cloister.jose import b64url_decode, b64url_encode
from cloister.jose.strict_json import dump_compact, load_object
from cloister.objects.frames import MAX_FRAME_BYTES, MIN_FRAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_HEADER_BYTES",
    "OBJECT_TYP",
    "PREFIX_BYTES",
    "ObjectHeader",
    "Readable",
    "is_object",
    "read_header",
]

OBJECT_TYP: Final = "cloister-object+jwe"
MAGIC: Final = b"clobj\x00\x01\n"  # no text, and broken by whoever rewrites line ends
PREFIX_BYTES: Final = len(MAGIC) + 4
MAX_HEADER_BYTES: Final = 8 * 1024
SALT_BYTES: Final = 32
COMMITMENT_BYTES: Final = 32
_WRAPPED_BYTES: Final = {"A256KW": 40, "HPKE-10-KE": 48, "HPKE-7-KE": 48}
_MEMBERS: Final = frozenset(
    {"typ", "alg", "enc", "kid", "ek", "encrypted_key", "salt", "commitment", "frame_bytes", "cty", "ctx"}
)
_OPTIONAL: Final = frozenset({"ek", "cty", "ctx"})
_IS_CTX: Final = re.compile(r"[A-Za-z0-9_-]{22}").fullmatch
_IS_MEDIA_TYPE: Final = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,126}").fullmatch


class Readable(Protocol):
    """What a header is read from: any file, or the body of an HTTP answer."""

    def read(self, size: int, /) -> bytes:
        """Read at most so many bytes; none at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectHeader:
    """The header of a sealed object; nothing in it is authenticated before a frame opened.

    Attributes:
        alg: How the content-encryption key is wrapped: `A256KW`, `HPKE-10-KE` or `HPKE-7-KE`.
        kid: The key version it is wrapped under, `<name>.<version>`.
        encrypted_key: The wrapped key.
        ek: HPKE only: the encapsulation, base64url.
        salt: 32 random bytes of this object.
        commitment: 32 bytes that commit to the key.
        frame_bytes: Plaintext bytes of every frame but the last.
        cty: The media type, public.
        ctx: Binds a context, as in a sealed value.
    """

    alg: str
    kid: str
    encrypted_key: bytes
    salt: bytes
    commitment: bytes
    frame_bytes: int
    ek: str | None = None
    cty: str | None = None
    ctx: str | None = None
    raw: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cty is not None and not _IS_MEDIA_TYPE(self.cty):
            raise ConfigurationError("a media type is 1 to 127 printable ASCII characters")
        if not MIN_FRAME_BYTES <= self.frame_bytes <= MAX_FRAME_BYTES:
            raise ConfigurationError(f"a frame has {MIN_FRAME_BYTES} to {MAX_FRAME_BYTES} bytes")
        members = {
            "typ": OBJECT_TYP,
            "alg": self.alg,
            "enc": "A256GCM",
            "kid": self.kid,
            "ek": self.ek,
            "encrypted_key": b64url_encode(self.encrypted_key),
            "salt": b64url_encode(self.salt),
            "commitment": b64url_encode(self.commitment),
            "frame_bytes": self.frame_bytes,
            "cty": self.cty,
            "ctx": self.ctx,
        }
        text = dump_compact({name: value for name, value in members.items() if value is not None})
        object.__setattr__(self, "raw", MAGIC + len(text).to_bytes(4, "big") + text)

    @property
    def key(self) -> str:
        """The name of the key."""
        return self.kid.rpartition(".")[0]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the header as it stands in the object; every frame is bound to it."""
        return hashlib.sha256(self.raw).digest()

    def __len__(self) -> int:
        return len(self.raw)


def is_object(start: bytes) -> bool:
    """Tell whether bytes begin as a sealed object does."""
    return start[: len(MAGIC)] == MAGIC


def read_header(source: Readable) -> ObjectHeader:
    """Read the header from the start of a source; the first frame follows.

    Raises:
        OpenError: This is not a sealed object.
    """
    prefix = read_exactly(source, PREFIX_BYTES)
    if not is_object(prefix):
        raise OpenError(
            "not a sealed object", hint="it was not written by Cloister, or was changed on its way"
        )
    length = int.from_bytes(prefix[len(MAGIC) :], "big")
    if length > MAX_HEADER_BYTES:
        raise OpenError("not a sealed object", hint=f"its header has more than {MAX_HEADER_BYTES} bytes")
    text = read_exactly(source, length)
    try:
        header = _parse(load_object(text))
    except (ValueError, TypeError, ConfigurationError):
        raise OpenError("not a sealed object", hint="its header is malformed") from None
    # Written in one way only, so that the digest over what was parsed is the digest over what was read.
    if header.raw != prefix + text:
        raise OpenError("not a sealed object", hint="its header is not in canonical form")
    return header


def read_exactly(source: Readable, length: int) -> bytes:
    """Read so many bytes, from a source that may give fewer at a time; fewer in all at its end."""
    parts = []
    while length > 0 and (part := source.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _parse(members: Mapping[str, Any]) -> ObjectHeader:
    names = members.keys()
    if not names <= _MEMBERS or not _MEMBERS - names <= _OPTIONAL:
        raise ValueError("members")
    if members["typ"] != OBJECT_TYP or members["enc"] != "A256GCM":
        raise ValueError("typ or enc")
    alg, kid, ctx, ek, cty = (members.get(name) for name in ("alg", "kid", "ctx", "ek", "cty"))
    for name in ("ek", "cty", "ctx"):
        if name in members and not isinstance(members[name], str):
            raise ValueError(name)
    if alg not in _WRAPPED_BYTES or not isinstance(kid, str) or not is_kid(kid):
        raise ValueError("alg or kid")
    if (ek is None) != (alg == "A256KW") or (ctx is not None and not _IS_CTX(ctx)):
        raise ValueError("ek or ctx")
    if type(members["frame_bytes"]) is not int:
        raise ValueError("frame_bytes")
    encrypted_key, salt, commitment = (
        b64url_decode(members[name]) for name in ("encrypted_key", "salt", "commitment")
    )
    if (len(encrypted_key), len(salt), len(commitment)) != (
        _WRAPPED_BYTES[alg],
        SALT_BYTES,
        COMMITMENT_BYTES,
    ):
        raise ValueError("encrypted_key, salt or commitment")
    return ObjectHeader(
        alg=alg,
        kid=kid,
        encrypted_key=encrypted_key,
        salt=salt,
        commitment=commitment,
        frame_bytes=members["frame_bytes"],
        ek=ek,
        cty=cty,
        ctx=ctx,
    )
