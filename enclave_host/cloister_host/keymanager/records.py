"""The protected rows of keys and their versions."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from cloister.jose import Alg
from cloister_host.store import Table

__all__ = ["ALGS", "KEYS", "KEY_VERSIONS", "KeyRecord", "KeyVersion", "Purpose", "State", "version_id"]

Purpose = Literal["seal", "seal-public", "seal-public-fips"]
State = Literal["pre_activation", "active", "suspended", "deactivated", "compromised", "destroyed"]

ALGS: Final[dict[Purpose, Alg]] = {
    "seal": "A256KW",
    "seal-public": "HPKE-10-KE",
    "seal-public-fips": "HPKE-7-KE",
}


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `keys` row: a name, what it is for, and the version that seals."""

    purpose: Purpose
    current: int
    created_at: int


class KeyVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `key_versions` row; the private JWK is its blob (NIST SP 800-57 states)."""

    key: str
    number: int
    purpose: Purpose
    state: State
    created_at: int


KEYS: Final = Table("keys", KeyRecord, "key")
KEY_VERSIONS: Final = Table("key_versions", KeyVersion, "key version")


def version_id(kid: str) -> str:
    """The primary key of a version: its role, then its kid. One role, one candidate (PROTOCOL 1)."""
    return f"value/{kid}"
