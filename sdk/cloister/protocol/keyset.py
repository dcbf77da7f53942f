"""The keyset: the keys and the configuration that attestation vouches for (PROTOCOL 4 and 5).

A keyset is a JWS by the deployment key. The deployment key's name, `deployment`, is the SHA-256 of
its public half, so whoever knows the deployment can check the keyset without anything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import rfc8785

from cloister import jose
from cloister.errors import EvidenceError
from cloister.protocol.deployment import deployment_of, sign_as_deployment, verify_as_deployment

__all__ = [
    "KEYSET_TYP",
    "Keyset",
    "KeysetKey",
    "Role",
    "sign_keyset",
    "staple_nonce",
    "statement",
    "verify_keyset",
]

KEYSET_TYP: Final = "cloister-keyset+jwt"
VERSION: Final = 1
MAX_KEYSET_CHARS: Final = 256 * 1024
MAX_KEYS: Final = 64
PURPOSE: Final = "cloister.attestation.v1"

Role = Literal["request", "receipt", "delivery", "log", "peer", "import"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetKey:
    """One public key of the host, for one role and one span of time (epoch seconds)."""

    role: str
    kid: str
    jwk: Mapping[str, Any]
    not_before: int
    expires: int

    def valid_at(self, now: float) -> bool:
        """Whether `now` lies in the key's life."""
        return self.not_before <= now < self.expires


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """A keyset whose signature by the deployment key was verified."""

    token: str
    deployment: str
    keys: tuple[KeysetKey, ...]
    config: Mapping[str, Any]
    holders: tuple[Mapping[str, Any], ...]
    issued_at: int
    expires: int

    @property
    def digest(self) -> str:
        """Base64url SHA-256 of the signed form; the name of this keyset in evidence and receipts."""
        return _digest(self.token.encode())

    @property
    def config_digest(self) -> str:
        """Base64url SHA-256 of the canonical configuration."""
        return _digest(rfc8785.dumps(dict(self.config)))

    def key(self, role: Role, kid: str) -> KeysetKey:
        """The one key with this role and kid.

        Raises:
            EvidenceError: The keyset has no such key.
        """
        for key in self.keys:
            if key.role == role and key.kid == kid:
                return key
        raise EvidenceError("the keyset has no such key", hint="attest the host again")

    def request_key(self, now: float, *, margin_seconds: float = 0) -> KeysetKey | None:
        """The request key that lives longest among those valid now, if there is one."""
        valid = [
            key
            for key in self.keys
            if key.role == "request" and key.valid_at(now) and key.valid_at(now + margin_seconds)
        ]
        return max(valid, key=lambda key: key.expires, default=None)


def sign_keyset(
    *,
    keys: tuple[KeysetKey, ...],
    config: Mapping[str, Any],
    holders: tuple[Mapping[str, Any], ...],
    issued_at: int,
    expires: int,
    deployment_key: jose.Key,
) -> Keyset:
    """Sign a keyset with the deployment key (Ed25519)."""
    payload = {
        "v": VERSION,
        "deployment": deployment_of(deployment_key),
        "iat": issued_at,
        "exp": expires,
        "config": dict(config),
        "holders": [dict(holder) for holder in holders],
        "keys": [
            {"role": k.role, "kid": k.kid, "nbf": k.not_before, "exp": k.expires, "jwk": dict(k.jwk)}
            for k in keys
        ],
    }
    return _parse(sign_as_deployment(payload, deployment_key, typ=KEYSET_TYP), payload)


def verify_keyset(token: str, *, deployment: str | None) -> Keyset:
    """Check a keyset's signature and shape.

    Args:
        token: The compact JWS.
        deployment: The deployment that is meant. `None` only where the caller goes on to compare
            the result's `deployment` with attested evidence, as `appraise_document` does.

    Raises:
        EvidenceError: The keyset is malformed, signed by another key or names another deployment.
    """
    if len(token) > MAX_KEYSET_CHARS:
        raise EvidenceError("the keyset is too large")
    return _parse(token, verify_as_deployment(token, typ=KEYSET_TYP, deployment=deployment))


def statement(keyset: Keyset, nonce: bytes) -> bytes:
    """What evidence must be bound to, in canonical JSON (PROTOCOL 5)."""
    return rfc8785.dumps(
        {
            "config_digest": keyset.config_digest,
            "deployment": keyset.deployment,
            "keyset_digest": keyset.digest,
            "nonce": jose.b64url_encode(nonce),
            "purpose": PURPOSE,
        }
    )


def staple_nonce(keyset: Keyset) -> bytes:
    """The nonce of evidence stapled to deliveries and receipts, which answers no challenge.

    It is a function of the keyset, so stapled evidence can never pass as an answer to a fresh one.
    """
    return hashlib.sha256(b"cloister.staple.v1\x00" + keyset.digest.encode()).digest()


def _digest(data: bytes) -> str:
    return jose.b64url_encode(hashlib.sha256(data).digest())


def _parse(token: str, payload: Mapping[str, Any]) -> Keyset:
    if payload.get("v") != VERSION:
        raise EvidenceError("the keyset has another version", hint="update the client or the host")
    keys = _field(payload, "keys", list)
    if not keys or len(keys) > MAX_KEYS:
        raise EvidenceError("the keyset has no keys, or too many")
    holders = _field(payload, "holders", list)
    if not all(isinstance(holder, dict) for holder in holders):
        raise EvidenceError("the keyset's holders are malformed")
    parsed = tuple(_parse_key(key) for key in keys)
    if len({(key.role, key.kid) for key in parsed}) != len(parsed):
        raise EvidenceError("the keyset names a key twice")
    return Keyset(
        token=token,
        deployment=_field(payload, "deployment", str),
        keys=parsed,
        config=_field(payload, "config", dict),
        holders=tuple(holders),
        issued_at=_field(payload, "iat", int),
        expires=_field(payload, "exp", int),
    )


def _parse_key(raw: Any) -> KeysetKey:
    if not isinstance(raw, dict):
        raise EvidenceError("the keyset's keys are malformed")
    return KeysetKey(
        role=_field(raw, "role", str),
        kid=_field(raw, "kid", str),
        jwk=_field(raw, "jwk", dict),
        not_before=_field(raw, "nbf", int),
        expires=_field(raw, "exp", int),
    )


def _field(document: Mapping[str, Any], name: str, kind: type) -> Any:
    value = document.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise EvidenceError(f"the keyset's member {name!r} is missing or malformed")
    return value
