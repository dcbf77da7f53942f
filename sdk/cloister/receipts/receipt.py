"""Receipts: signed proof of which code answered, with results that cannot be guessed (PROTOCOL 8).

A receipt is a JWS by the host's receipt key. What is sensitive or of low entropy (a boolean result,
the status of a partner, counts and sizes) is in it only as a salted digest, as in SD-JWT
(RFC 9901): the salts travel in the sealed reply alone, and whoever holds them may disclose.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import rfc8785

from cloister import jose
from cloister.errors import EvidenceError
from cloister.jose.strict_json import load_object
from cloister.protocol.keyset import Keyset

__all__ = ["PROFILE", "Receipt", "VerifiedReceipt", "issue_receipt", "verify_receipt"]

PROFILE: Final = "urn:cloister:receipt:1"
"""What the claims mean, as an EAT profile (RFC 9711 section 4.3.2)."""

RECEIPT_TYP: Final = "cloister-receipt+jwt"
SALT_BYTES: Final = 32
MAX_RECEIPT_CHARS: Final = 64 * 1024
MAX_DISCLOSURES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A receipt as it came in a sealed reply; pass on `token` alone to prove without disclosing."""

    id: str
    token: str
    disclosures: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Receipt:
        """Read the members of a reply's `receipt`.

        Raises:
            EvidenceError: They are malformed.
        """
        try:
            return cls(
                id=str(members["id"]),
                token=str(members["receipt"]),
                disclosures=tuple(str(item) for item in members["disclosures"]),
            )
        except (KeyError, TypeError):
            raise EvidenceError("the receipt is malformed") from None

    def to_json(self) -> dict[str, Any]:
        """The members of a reply's `receipt`."""
        return {"id": self.id, "receipt": self.token, "disclosures": list(self.disclosures)}

    @property
    def unverified_claims(self) -> Mapping[str, Any]:
        """What it says, for display and look-up.

        Raises:
            EvidenceError: It is malformed.
        """
        try:
            return load_object(jose.b64url_decode(self.token.split(".")[1]))
        except (IndexError, ValueError):
            raise EvidenceError("the receipt is malformed") from None

    @property
    def unverified_disclosures(self) -> Mapping[str, Any]:
        """What it discloses, for display.

        Raises:
            EvidenceError: It is malformed.
        """
        return dict(map(_disclosure, self.disclosures))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReceipt:
    """A receipt whose signature and disclosures were verified."""

    claims: Mapping[str, Any]
    disclosed: Mapping[str, Any] = field(repr=False)


def issue_receipt(
    claims: Mapping[str, Any], disclosures: Mapping[str, Any], *, receipt_id: str, key: jose.Key
) -> Receipt:
    """Sign a receipt; the salts are drawn inside.

    Args:
        claims: What everyone may read: names and digests, never values.
        disclosures: What only the salts' holder can show.
        receipt_id: Its name: the id of the act's entry in the audit log.
        key: The replica's receipt key, with its name in the keyset as `kid`.
    """
    revealed = [
        jose.b64url_encode(rfc8785.dumps([jose.b64url_encode(os.urandom(SALT_BYTES)), name, value]))
        for name, value in sorted(disclosures.items())
    ]
    payload = {**claims, "jti": receipt_id, "_sd_alg": "sha-256", "_sd": sorted(map(_digest, revealed))}
    token = jose.sign_compact(rfc8785.dumps(payload), key, typ=RECEIPT_TYP)
    return Receipt(id=receipt_id, token=token, disclosures=tuple(revealed))


def verify_receipt(token: str, *, keyset: Keyset, disclosures: Sequence[str] = ()) -> VerifiedReceipt:
    """Check a receipt against the keyset it names, and whatever of it is disclosed.

    Args:
        token: The signed receipt.
        keyset: An appraised keyset, the one that was in force at the receipt's `iat`.
        disclosures: Any subset of the receipt's disclosures.

    Raises:
        EvidenceError: The receipt is not by this keyset, or a disclosure does not belong to it.
    """
    if len(token) > MAX_RECEIPT_CHARS or len(disclosures) > MAX_DISCLOSURES:
        raise EvidenceError("the receipt is too large")
    # (1) Signed by a receipt key of this keyset.
    key = keyset.key("receipt", str(jose.parse_jws_header(token).get("kid")))
    claims = jose.verify_claims(token, key.jwk, typ=RECEIPT_TYP)
    # (2) Issued by this keyset, within its life.
    issued_at = claims.get("iat")
    if claims.get("eat_profile") != PROFILE:
        raise EvidenceError("the receipt is of another profile", hint="update the client or the host")
    if claims.get("deployment") != keyset.deployment or claims.get("keyset") != keyset.digest:
        raise EvidenceError("the receipt names another keyset")
    if type(issued_at) is not int or not key.not_before <= issued_at < key.expires:
        raise EvidenceError("the receipt was issued outside the life of its key")
    # (3) Each disclosure is one the host committed to.
    committed = claims.get("_sd")
    if claims.get("_sd_alg") != "sha-256" or not isinstance(committed, list):
        raise EvidenceError("the receipt commits to its disclosures in an unknown way")
    disclosed: dict[str, Any] = {}
    for disclosure in disclosures:
        if _digest(disclosure) not in committed:
            raise EvidenceError("a disclosure does not belong to this receipt")
        name, value = _disclosure(disclosure)
        disclosed[name] = value
    return VerifiedReceipt(claims=claims, disclosed=disclosed)


def _digest(disclosure: str) -> str:
    return jose.b64url_encode(hashlib.sha256(disclosure.encode()).digest())


def _disclosure(disclosure: str) -> tuple[str, Any]:
    try:
        _salt, name, value = json.loads(jose.b64url_decode(disclosure))
    except (ValueError, TypeError, RecursionError):
        raise EvidenceError("a disclosure is malformed") from None
    if not isinstance(name, str):
        raise EvidenceError("a disclosure is malformed")
    return name, value
