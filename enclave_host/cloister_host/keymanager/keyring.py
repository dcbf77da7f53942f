"""A tenant's keys and their versions, as rows and as key material."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec
from msgspec.structs import replace

from cloister.errors import ConfigurationError, OpenError
from cloister.jose import Key, generate_key
from cloister_host.keymanager.records import (
    ALGS,
    KEY_VERSIONS,
    KEYS,
    KeyRecord,
    KeyVersion,
    Purpose,
    version_id,
)
from cloister_host.store import Row, Tx
from cloister_host.store.canonical import canonical, digest

__all__ = ["HeldKey", "KeyRing"]

CACHED_KEYS: Final = 4096
_SEALING: Final = frozenset({"active"})
_OPENING: Final = frozenset({"active", "deactivated"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """One version of a key with its material.

    Attributes:
        material: Names the material itself: a kid that was rolled back and made again has another.
    """

    kid: str
    purpose: Purpose
    key: Key
    created_at: int
    material: str


class KeyRing:
    """Creates, rotates and finds key versions.

    A version's row, and with it its state, is read every time. The parsed key is remembered under the
    very blob it was opened from, so no change in the store, by whomever, leaves a stale key in use.

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._parsed = _ParsedKeys()

    def create(self, tx: Tx, tenant: str, name: str, purpose: Purpose) -> HeldKey:
        """Create a key with its first version.

        Raises:
            ExistsError: The name is taken.
        """
        record = KeyRecord(purpose=purpose, current=1, created_at=int(self._clock()))
        tx.insert(KEYS, tenant, name, record)
        return self._add_version(tx, tenant, name, record)

    def rotate(self, tx: Tx, tenant: str, name: str) -> HeldKey:
        """Make a new version the one that seals; the one before still opens.

        Raises:
            ConfigurationError: There is no such key.
        """
        row = self._existing(tx, tenant, name)
        old = tx.get(KEY_VERSIONS, tenant, version_id(f"{name}.{row.record.current}"))
        if old is not None and old.record.state == "active":
            secret = tx.reveal(KEY_VERSIONS, old).reveal()
            tx.put(KEY_VERSIONS, tenant, old.id, replace(old.record, state="deactivated"), secret=secret)
        record = replace(row.record, current=row.record.current + 1)
        tx.put(KEYS, tenant, name, record)
        return self._add_version(tx, tenant, name, record)

    def current(self, tx: Tx, tenant: str, name: str) -> HeldKey:
        """The version that seals.

        Raises:
            ConfigurationError: There is no such key, or its current version may not seal.
        """
        row = self._existing(tx, tenant, name)
        held = self._find(tx, tenant, f"{name}.{row.record.current}", _SEALING)
        if held is None:
            raise ConfigurationError("this key does not seal in its present state", hint="rotate the key")
        return held

    def version(self, tx: Tx, tenant: str, kid: str) -> HeldKey:
        """The one version with this kid, if it may open.

        Raises:
            OpenError: There is none; it looks like any other value that does not open.
        """
        held = self._find(tx, tenant, kid, _OPENING)
        if held is None:
            raise OpenError
        return held

    def _find(self, tx: Tx, tenant: str, kid: str, states: frozenset[str]) -> HeldKey | None:
        row = tx.get(KEY_VERSIONS, tenant, version_id(kid))
        if row is None or row.record.state not in states:
            return None
        key = self._parsed.key(tx, row)
        return _held(row, kid, key)

    def _existing(self, tx: Tx, tenant: str, name: str) -> Row[KeyRecord]:
        row = tx.get(KEYS, tenant, name)
        if row is None:
            raise ConfigurationError("there is no such key", hint="create it with key.create")
        return row

    def _add_version(self, tx: Tx, tenant: str, name: str, record: KeyRecord) -> HeldKey:
        kid = f"{name}.{record.current}"
        key = generate_key(ALGS[record.purpose], kid=kid)
        version = KeyVersion(
            key=name,
            number=record.current,
            purpose=record.purpose,
            state="active",
            created_at=int(self._clock()),
        )
        row = tx.insert(KEY_VERSIONS, tenant, version_id(kid), version, secret=canonical(key.to_jwk()))
        return _held(row, kid, key)


def _held(row: Row[KeyVersion], kid: str, key: Key) -> HeldKey:
    return HeldKey(
        kid=kid,
        purpose=row.record.purpose,
        key=key,
        created_at=row.record.created_at,
        material=digest(row.blob or b""),
    )


class _ParsedKeys:
    """Memory of key material: (tenant, row, version, blob) to the parsed key."""

    def __init__(self) -> None:
        self._of = lru_cache(maxsize=CACHED_KEYS)(_Slot)

    def key(self, tx: Tx, row: Row[KeyVersion]) -> Key:
        slot = self._of(row.tenant, row.id, row.version, row.blob)
        if slot.key is None:
            slot.key = Key.from_jwk(msgspec.json.decode(tx.reveal(KEY_VERSIONS, row).reveal()))
        return slot.key


class _Slot:
    """One remembered key; empty until it was opened once."""

    __slots__ = ("key",)

    def __init__(self, *_names: object) -> None:
        self.key: Key | None = None
