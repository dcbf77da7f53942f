"""The protected rows of keys and their versions."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from cloister_host.keymanager.lifecycle import Life, State
from cloister_host.store import Table

__all__ = [
    "ALGS",
    "DESTROY_WAIT_SECONDS",
    "KEYS",
    "KEY_VERSIONS",
    "RAW",
    "KeyAlg",
    "KeyRecord",
    "KeyVersion",
    "Origin",
    "Purpose",
    "State",
    "version_id",
]

Purpose = Literal["seal", "seal-public", "seal-public-fips", "tokenize", "mac", "sign"]
KeyAlg = Literal[
    "A256KW", "HPKE-10-KE", "HPKE-7-KE", "tokenize", "HS256", "EdDSA", "ES256", "ES384", "ML-DSA-65"
]
Origin = Literal["generated", "imported"]

DESTROY_WAIT_SECONDS: Final = 7 * 24 * 3600

# The first is what a key gets that names none.
ALGS: Final[dict[Purpose, tuple[KeyAlg, ...]]] = {
    "seal": ("A256KW",),
    "seal-public": ("HPKE-10-KE", "HPKE-7-KE"),
    "seal-public-fips": ("HPKE-7-KE",),
    "tokenize": ("tokenize",),
    "mac": ("HS256",),
    "sign": ("EdDSA", "ES256", "ES384", "ML-DSA-65"),
}
# Symmetric keys that are no JOSE keys of this profile; they are kept, imported and exported as JWKs.
RAW: Final[frozenset[Purpose]] = frozenset({"tokenize", "mac"})
_ROLES: Final[dict[Purpose, str]] = {
    "seal": "value",
    "seal-public": "value",
    "seal-public-fips": "value",
    "tokenize": "token",
    "mac": "mac",
    "sign": "sign",
}


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Content of a `keys` row: a name, what it is for, and the rules its versions live by.

    Attributes:
        latest: Number of the newest version, active or not yet.
        exportable: Whether versions may leave, wrapped. Said when the key is made, and never later.
        min_seal: The lowest version that may protect.
        min_open: The lowest version that may process.
        active_seconds: Originator-usage period of each version.
        recipient_seconds: Recipient-usage period of each version, after that.
        rotate_seconds: How often the host makes a new version by itself.
        max_messages: How many messages a version may protect in all.
        destroy_wait_seconds: The shortest wait before a version is destroyed.
        rotated_at: When the newest version was made.
    """

    purpose: Purpose
    alg: KeyAlg
    latest: int
    created_at: int
    rotated_at: int
    exportable: bool = False
    min_seal: int = 1
    min_open: int = 1
    active_seconds: int | None = None
    recipient_seconds: int | None = None
    rotate_seconds: int | None = None
    max_messages: int | None = None
    destroy_wait_seconds: int = DESTROY_WAIT_SECONDS


class KeyVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Content of a `key_versions` row; the private JWK is its blob, until it is destroyed."""

    key: str
    number: int
    purpose: Purpose
    created_at: int
    life: Life
    origin: Origin = "generated"

    @property
    def kid(self) -> str:
        """What values, signatures and MACs call it."""
        return f"{self.key}.{self.number}"


KEYS: Final = Table("keys", KeyRecord, "key")
KEY_VERSIONS: Final = Table("key_versions", KeyVersion, "key version")


def version_id(kid: str, purpose: Purpose) -> str:
    """The primary key of a version: its role, then its kid. One role, one candidate (PROTOCOL 1)."""
    return f"{_ROLES[purpose]}/{kid}"
