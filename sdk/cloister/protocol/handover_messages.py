"""The messages of a hand-over as bytes; what a peer sent is read strictly, and within limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import rfc8785

from cloister import jose
from cloister.errors import ConfigurationError, EvidenceError
from cloister.jose.strict_json import load_object

__all__ = [
    "MAX_GRANT_BYTES",
    "MAX_MESSAGE_BYTES",
    "NONCE_BYTES",
    "VERSION",
    "WANTED",
    "HandedKey",
    "HandedOver",
    "Hello",
    "Proof",
    "canonical",
    "claimed_nonce",
    "integer",
    "member",
    "parse",
    "read_handed_over",
    "read_hello",
    "read_nonce",
    "read_proof",
]

VERSION: Final = 1
NONCE_BYTES: Final = 32
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_GRANT_BYTES: Final = 32 * 1024 * 1024
MAX_ENDORSEMENTS: Final = 16
MAX_KEYS: Final = 64
WANTED: Final = frozenset({"request-keys", "root"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Evidence over a statement of the hand-over, with what endorses it."""

    format: str
    evidence: bytes
    endorsements: tuple[bytes, ...] = ()
    collateral: bytes | None = None

    def members(self) -> dict[str, Any]:
        """Its JSON form."""
        return {
            "format": self.format,
            "evidence": jose.b64url_encode(self.evidence),
            "endorsements": [jose.b64url_encode(item) for item in self.endorsements],
            "collateral": None if self.collateral is None else jose.b64url_encode(self.collateral),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedKey:
    """A request key with its private half; times in epoch seconds."""

    kid: str
    jwk: Mapping[str, Any] = field(repr=False)
    not_before: int
    expires: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """What a giver hands over.

    Attributes:
        keys: Request keys that may be given under this version of the holders.
        counters: The highest state counter of each tenant that the giver has seen.
        root: The root key as its host writes it down, if it was wanted.
    """

    keys: tuple[HandedKey, ...]
    counters: Mapping[str, int]
    root: Mapping[str, Any] | None = field(default=None, repr=False)

    def members(self) -> dict[str, Any]:
        """Its JSON form."""
        members: dict[str, Any] = {
            "keys": [
                {"kid": key.kid, "jwk": dict(key.jwk), "nbf": key.not_before, "exp": key.expires}
                for key in self.keys
            ],
            "counters": dict(self.counters),
        }
        return members if self.root is None else {**members, "root": dict(self.root)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What the receiver says of itself; proven by its claim."""

    deployment: str
    nonce: bytes
    key: jose.Key
    holders_version: int
    config: Mapping[str, Any]
    wants: frozenset[str]

    def encode(self) -> bytes:
        """The first message."""
        return rfc8785.dumps(
            {
                "v": VERSION,
                "deployment": self.deployment,
                "nonce": jose.b64url_encode(self.nonce),
                "key": self.key.to_jwk(),
                "holders_version": self.holders_version,
                "config": dict(self.config),
                "wants": sorted(self.wants),
            }
        )


def parse(unverified: bytes, most: int) -> Mapping[str, Any]:
    """One message as JSON.

    Raises:
        EvidenceError: It is larger than `most` bytes, malformed or of another version.
    """
    if len(unverified) > most:
        raise EvidenceError("the hand-over's message is too large")
    try:
        message = load_object(unverified)
    except ValueError:
        raise EvidenceError("the hand-over's message is not JSON", hint="is this a Cloister host?") from None
    if message.get("v") != VERSION:
        raise EvidenceError("the hand-over's message has another version", hint="update the older host")
    return message


def read_hello(unverified: bytes) -> Hello:
    """The first message, as its receiver claims it.

    Raises:
        EvidenceError: It is malformed.
    """
    message = parse(unverified, MAX_MESSAGE_BYTES)
    wants = frozenset(map(str, member(message, "wants", list)))
    try:
        key = jose.Key.from_jwk(member(message, "key", dict))
    except ConfigurationError:
        raise EvidenceError("the hand-over's key is malformed") from None
    if not wants or not wants <= WANTED or key.alg != "HPKE-10-KE" or "priv" in key.to_jwk():
        raise EvidenceError("the hand-over's hello asks for something else, or to another kind of key")
    return Hello(
        deployment=member(message, "deployment", str),
        nonce=read_nonce(message, "nonce"),
        key=key,
        holders_version=integer(message, "holders_version"),
        config=canonical(member(message, "config", dict)),
        wants=wants,
    )


def claimed_nonce(unverified_claim: bytes) -> bytes:
    """The giver's nonce that a claim answers: by it the giver finds the hand-over, once.

    Raises:
        EvidenceError: The claim is malformed.
    """
    return read_nonce(parse(unverified_claim, MAX_MESSAGE_BYTES), "nonce")


def canonical(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration that has a canonical form at all."""
    try:
        rfc8785.dumps(dict(config))
    except (ValueError, TypeError, RecursionError):
        raise EvidenceError("the hand-over's configuration is malformed") from None
    return config


def read_proof(members: Mapping[str, Any]) -> Proof:
    """Evidence, unverified.

    Raises:
        EvidenceError: It is malformed.
    """
    endorsements, collateral = member(members, "endorsements", list), members.get("collateral")
    if len(endorsements) > MAX_ENDORSEMENTS:
        raise EvidenceError("the hand-over's evidence has too many endorsements")
    return Proof(
        format=member(members, "format", str),
        evidence=_bytes(members.get("evidence")),
        endorsements=tuple(_bytes(item) for item in endorsements),
        collateral=None if collateral is None else _bytes(collateral),
    )


def read_handed_over(payload: Mapping[str, Any]) -> HandedOver:
    """What a grant, whose signature was verified, holds.

    Raises:
        EvidenceError: It is malformed.
    """
    keys, counters = member(payload, "keys", list), member(payload, "counters", dict)
    root = payload.get("root")
    if len(keys) > MAX_KEYS or not all(type(counter) is int for counter in counters.values()):
        raise EvidenceError("what was handed over is malformed")
    if root is not None and not isinstance(root, dict):
        raise EvidenceError("what was handed over is malformed")
    return HandedOver(keys=tuple(_handed_key(key) for key in keys), counters=counters, root=root)


def _handed_key(raw: Any) -> HandedKey:
    members = raw if isinstance(raw, dict) else {}
    return HandedKey(
        kid=member(members, "kid", str),
        jwk=member(members, "jwk", dict),
        not_before=integer(members, "nbf"),
        expires=integer(members, "exp"),
    )


def member(message: Mapping[str, Any], name: str, kind: type) -> Any:
    """A member of this type, or `EvidenceError`."""
    value = message.get(name)
    if not isinstance(value, kind):
        raise EvidenceError(f"the hand-over's member {name!r} is missing or malformed")
    return value


def integer(message: Mapping[str, Any], name: str) -> int:
    """A member that is a natural number, or `EvidenceError`."""
    value = message.get(name)
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise EvidenceError(f"the hand-over's member {name!r} is missing or malformed")
    return value


def read_nonce(message: Mapping[str, Any], name: str) -> bytes:
    """A member that is 32 bytes in base64url, or `EvidenceError`."""
    nonce = _bytes(message.get(name))
    if len(nonce) != NONCE_BYTES:
        raise EvidenceError(f"the hand-over's member {name!r} has another length")
    return nonce


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return jose.b64url_decode(value)
        except ValueError:
            pass
    raise EvidenceError("the hand-over's message is malformed")
