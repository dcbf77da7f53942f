"""Simulated evidence: for development and tests. It proves nothing, and says so.

A real signature is made and verified, so that every line of the client runs as it does in production,
but the signing key derives from a published constant: anyone can make such evidence. Its environment
is `simulated`, which no production policy accepts.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloister.attestation.authenticate import Support
from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.errors import EvidenceError

__all__ = ["DEVELOPMENT_ROOT", "authenticate", "sign"]

DEVELOPMENT_SEED: Final = hashlib.sha256(b"cloister development root: worth nothing, known to all").digest()
"""The published constant. Knowing it is no secret; trusting it is the mistake policies prevent."""

DEVELOPMENT_ROOT: Final = bytes.fromhex("4bf95e919740ca4e997a6a16c9b670ba4964b99754958ad5bde39da89a6b403e")
"""Public half (Ed25519), pinned."""

_DOMAIN: Final = b"cloister.simulated-evidence.v1\0"
_LIFE: Final = timedelta(hours=3)
_MAX_MEASUREMENT_CHARS: Final = 128
_MEMBERS: Final = {"v", "measurement", "statement", "nonce", "issued_at", "debug"}


def sign(*, measurement: str, statement: bytes, nonce: bytes, issued_at: int, debug: bool = False) -> bytes:
    """Make simulated evidence; `issued_at` is in epoch seconds."""
    payload = json.dumps(
        {
            "v": 1,
            "measurement": measurement,
            "statement": base64.b64encode(statement).decode(),
            "nonce": base64.b64encode(nonce).decode(),
            "issued_at": issued_at,
            "debug": debug,
        },
        separators=(",", ":"),
        sort_keys=True,
    ).encode()
    key = Ed25519PrivateKey.from_private_bytes(DEVELOPMENT_SEED)
    return key.sign(_DOMAIN + payload) + payload


def authenticate(raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence:  # noqa: ARG001 (one signature for all formats)
    """Authenticate simulated evidence: 64 bytes of Ed25519 signature, then JSON.

    Raises:
        EvidenceError: It is malformed, or not signed by the development root.
    """
    if support.trust_anchors is not None:
        raise EvidenceError("simulated evidence has one anchor, the development root", hint="pass none")
    # (1) Signature, over a domain of its own.
    signature, payload = raw[:64], raw[64:]
    try:
        _root().verify(signature, _DOMAIN + payload)
    except InvalidSignature:
        raise EvidenceError("signature: not made by the development root (step: authenticate)") from None
    # (2) Contents.
    try:
        members: dict[str, Any] = json.loads(payload)
        if members.keys() != _MEMBERS or members["v"] != 1:
            raise ValueError
        measurement, debug = members["measurement"], members["debug"]
        if not isinstance(measurement, str) or not isinstance(debug, bool):
            raise TypeError
        if not 0 < len(measurement) <= _MAX_MEASUREMENT_CHARS:
            raise ValueError
        statement, nonce = (base64.b64decode(members[name], validate=True) for name in ("statement", "nonce"))
        issued_at = datetime.fromtimestamp(members["issued_at"], UTC)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ArithmeticError,
        OSError,
        RecursionError,
    ):
        raise EvidenceError("the simulated evidence is malformed") from None
    return AuthenticEvidence(
        format=Format.SIMULATED,
        environment="simulated",
        claims={"measurement": measurement},
        binding={"statement": (statement,), "nonce": (nonce,)},
        debug=debug,
        issued_at=issued_at,
        not_before=issued_at - timedelta(seconds=60),
        not_after=issued_at + _LIFE,
        checks=("signature by the public development root",),
        not_checked=("hardware: simulated evidence proves nothing about the machine",),
    )


@cache
def _root() -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(DEVELOPMENT_ROOT)
