"""Sealed requests and replies (PROTOCOL 6).

A request is a JWE to one of the host's request keys. The reply's key is derived from the request's
content encryption key, so only whoever sealed the request can read the answer to it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import rfc8785
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister import jose
from cloister.errors import LimitError, OpenError
from cloister.protocol.keyset import KeysetKey
from cloister.protocol.padding import pad
from cloister.secret import Secret

__all__ = [
    "MAX_LIFETIME_SECONDS",
    "MAX_SKEW_SECONDS",
    "OpenedRequest",
    "RequestBinding",
    "SealedRequest",
    "bind_request",
    "body_digest",
    "dump_body",
    "load_body",
    "open_reply",
    "open_request",
    "request_kid",
    "seal_reply",
    "seal_request",
]

REQUEST_TYP: Final = "cloister-request+jwe"
REPLY_TYP: Final = "cloister-reply+jwe"
REQUEST_INFO: Final = b"cloister.request.v1"
REPLY_INFO: Final = b"cloister.reply.v1"

MAX_LIFETIME_SECONDS: Final = 300
MAX_SKEW_SECONDS: Final = 60
MAX_MESSAGE_CHARS: Final = 96 * 1024 * 1024
SALT_BYTES: Final = 32
JTI_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBinding:
    """One request, as a credential can name it: a proof over key, identifier and digest fits no other.

    Attributes:
        kid: The request key it is sealed to, so the host and its epoch.
        jti: Its identifier.
        body: What it asks for, without a credential.
    """

    kid: str
    jti: str
    body: Mapping[str, Any] = field(repr=False)

    def digest(self) -> bytes:
        """`body_digest` of all that it asks for; on demand, since most credentials name no request."""
        return body_digest(
            dump_body(self.body["payload"]),
            op=self.body["op"],
            tenant=self.body["tenant"],
            idempotency_key=self.body.get("idempotency_key", ""),
            purpose=self.body.get("purpose", ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRequest:
    """A request ready to send, with what is needed to open its reply."""

    token: str
    jti: str
    expires: int
    cek: Secret = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRequest:
    """A request that opened under one of the host's request keys; its plaintext is JSON, not yet parsed."""

    plaintext: bytes = field(repr=False)
    kid: str
    jti: str
    expires: int
    digest: bytes
    cek: Secret = field(repr=False)

    @property
    def body(self) -> Mapping[str, Any]:
        """The members of PROTOCOL 6.

        Raises:
            OpenError: It is not a JSON object.
        """
        return load_body(self.plaintext)


def body_digest(payload: bytes, *, op: str, tenant: str, idempotency_key: str, purpose: str) -> bytes:
    """SHA-256 that stands for everything in a request body but the credential.

    It is over the JCS form of the flat members and the hexadecimal SHA-256 of the payload's JSON text,
    exactly as it stands in the body.
    """
    members = {
        "idempotency_key": idempotency_key,
        "op": op,
        "payload": hashlib.sha256(payload).hexdigest(),
        "purpose": purpose,
        "tenant": tenant,
    }
    return hashlib.sha256(rfc8785.dumps(members)).digest()


def bind_request(body: Mapping[str, Any], *, key: KeysetKey) -> RequestBinding:
    """Draw a request's identifier and name the request, before it has a credential."""
    return RequestBinding(kid=key.kid, jti=jose.b64url_encode(os.urandom(JTI_BYTES)), body=body)


def seal_request(
    body: Mapping[str, Any],
    *,
    key: KeysetKey,
    now: float,
    lifetime_seconds: int = MAX_LIFETIME_SECONDS,
    binding: RequestBinding | None = None,
) -> SealedRequest:
    """Seal a request body to a request key, with an encapsulation of its own.

    Args:
        body: JSON members of PROTOCOL 6: op, tenant, credential, payload, idempotency_key, purpose.
        key: The host's request key, from an appraised keyset.
        now: Epoch seconds.
        lifetime_seconds: How long the host may accept it, at most 300.
        binding: From `bind_request`, if the credential was made for this very request.
    """
    jti = binding.jti if binding else jose.b64url_encode(os.urandom(JTI_BYTES))
    issued_at = int(now)
    expires = issued_at + min(lifetime_seconds, MAX_LIFETIME_SECONDS)
    token, cek = jose.encrypt_compact_with_cek(
        pad(dump_body(body)),
        {**key.jwk, "kid": key.kid},
        typ=REQUEST_TYP,
        headers={"jti": jti, "iat": issued_at, "exp": expires},
        info=REQUEST_INFO,
    )
    return SealedRequest(token=token, jti=jti, expires=expires, cek=cek)


def request_kid(token: str) -> tuple[jose.Jwe, str]:
    """Parse a request far enough to look its key up.

    Raises:
        OpenError: It is not a sealed request.
    """
    jwe = jose.parse_compact(token, max_chars=MAX_MESSAGE_CHARS)
    kid = jwe.header.get("kid")
    if jwe.header.get("typ") != REQUEST_TYP or not isinstance(kid, str):
        raise OpenError("this is not a sealed request")
    return jwe, kid


def open_request(jwe: jose.Jwe, *, token: str, key: jose.Key, now: float) -> OpenedRequest:
    """Open a request and check its times; replay is the caller's next check.

    Raises:
        OpenError: It does not open, or its header is malformed.
        LimitError: It is expired, from the future, or asks to live too long.
    """
    # (1) Authenticity: nothing in the header is believed before the tag is checked.
    plaintext, cek = jose.decrypt_compact_with_cek(jwe, key, typ=REQUEST_TYP, info=REQUEST_INFO)
    # (2) Times.
    jti, issued_at, expires = (jwe.header.get(name) for name in ("jti", "iat", "exp"))
    if not isinstance(jti, str) or len(jti) != -(-JTI_BYTES * 4 // 3):
        raise OpenError("the request has no identifier")
    if type(issued_at) is not int or type(expires) is not int:
        raise OpenError("the request has no times")
    if not 0 < expires - issued_at <= MAX_LIFETIME_SECONDS:
        raise LimitError("the request asks to live too long")
    if issued_at > now + MAX_SKEW_SECONDS:
        raise LimitError("the request is from the future", hint="check the client's clock")
    if expires < now - MAX_SKEW_SECONDS:
        raise LimitError("the request has expired", hint="check the client's clock")
    return OpenedRequest(
        plaintext=plaintext,
        kid=str(jwe.header["kid"]),
        jti=jti,
        expires=expires,
        digest=hashlib.sha256(token.encode()).digest(),
        cek=cek,
    )


def seal_reply(body: Mapping[str, Any] | bytes, *, request: OpenedRequest) -> str:
    """Seal a reply to whoever sealed the request.

    Args:
        body: The reply as JSON members, or already encoded as a JSON object.
        request: The request it answers.
    """
    salt = os.urandom(SALT_BYTES)
    key = _reply_key(request.cek, salt, request.digest)
    document = body if isinstance(body, bytes) else dump_body(body)
    return jose.encrypt_compact(pad(document), key, typ=REPLY_TYP, headers={"salt": jose.b64url_encode(salt)})


def open_reply(token: str, *, request: SealedRequest) -> Mapping[str, Any]:
    """Open the reply to a request.

    Raises:
        OpenError: It is not the reply to this request.
    """
    jwe = jose.parse_compact(token, max_chars=MAX_MESSAGE_CHARS)
    salt_text = jwe.header.get("salt")
    if not isinstance(salt_text, str):
        raise OpenError("this is not a sealed reply")
    try:
        salt = jose.b64url_decode(salt_text)
    except ValueError:
        raise OpenError("this is not a sealed reply") from None
    if len(salt) != SALT_BYTES:
        raise OpenError("this is not a sealed reply")
    digest = hashlib.sha256(request.token.encode()).digest()
    key = _reply_key(request.cek, salt, digest)
    return load_body(jose.decrypt_compact(jwe, key, typ=REPLY_TYP))


def _reply_key(cek: Secret, salt: bytes, request_digest: bytes) -> Mapping[str, str]:
    key = HKDF(algorithm=SHA256(), length=32, salt=salt, info=REPLY_INFO + request_digest).derive(
        cek.reveal()
    )
    return {"kty": "oct", "alg": "dir", "k": jose.b64url_encode(key)}


def dump_body(body: Any) -> bytes:
    """Encode a message as JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def load_body(plaintext: bytes) -> Mapping[str, Any]:
    """Decode a message.

    Raises:
        OpenError: It is not a JSON object.
    """
    try:
        body = json.loads(plaintext)
    except (ValueError, RecursionError):
        raise OpenError("the message is not JSON") from None
    if not isinstance(body, dict):
        raise OpenError("the message is not an object")
    return body
