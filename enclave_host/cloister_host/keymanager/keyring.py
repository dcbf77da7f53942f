"""A tenant's keys and their versions, as rows and as key material."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, cast

import msgspec
from msgspec.structs import replace

from cloister.errors import ConfigurationError, OpenError
from cloister.jose import Alg, Key, b64url_decode, b64url_encode, generate_key
from cloister.secret import Secret
from cloister_host.keymanager.lifecycle import Life
from cloister_host.keymanager.records import (
    KEY_VERSIONS,
    KEYS,
    RAW,
    KeyAlg,
    KeyRecord,
    KeyVersion,
    Origin,
    Purpose,
    version_id,
)
from cloister_host.store import Row, Tx
from cloister_host.store.canonical import canonical, digest

__all__ = ["CANNOT_PROTECT", "HeldKey", "KeyRing", "new_material"]

CACHED_KEYS: Final = 4096
OCTETS: Final = 32
CANNOT_PROTECT: Final = "no version of this key protects anything in its present state"

_SEALS: Final[frozenset[Purpose]] = frozenset({"seal", "seal-public", "seal-public-fips"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """One version of a key with its material.

    Attributes:
        material: Names the material itself: a kid that was rolled back and made again has another.
        max_messages: How many messages the version may protect in all.
    """

    kid: str
    purpose: Purpose
    created_at: int
    material: str
    opened: Key | Secret = field(repr=False)
    max_messages: int | None = None

    @property
    def key(self) -> Key:
        """The JOSE key, of a key for sealing or signing."""
        assert isinstance(self.opened, Key), "this purpose has no JOSE key"
        return self.opened

    @property
    def octets(self) -> Secret:
        """The 32 bytes, of a key for MACs or tokens."""
        assert isinstance(self.opened, Secret), "this purpose has a JOSE key"
        return self.opened


class KeyRing:
    """Creates, rotates and finds key versions.

    A version's row, and with it its state, is read every time. The parsed key is remembered under the
    very blob it was opened from, so no change in the store, by whomever, leaves a stale key in use.

    Args:
        clock: Epoch seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._parsed = _ParsedKeys()

    def forget(self) -> None:
        """Drop every parsed key from memory."""
        self._parsed.forget()

    @property
    def now(self) -> int:
        """The time that decides states, in epoch seconds."""
        return int(self._clock())

    # --- making versions -----------------------------------------------------------------------------

    def create(
        self,
        tx: Tx,
        tenant: str,
        name: str,
        record: KeyRecord,
        *,
        activate_at: int | None = None,
        jwk: dict[str, str] | None = None,
    ) -> HeldKey:
        """Create a key with its first version, which is generated unless it is given.

        Raises:
            ExistsError: The name is taken.
        """
        tx.insert(KEYS, tenant, name, record)
        return self._add_version(tx, tenant, name, record, activate_at=activate_at, jwk=jwk)

    def rotate(
        self,
        tx: Tx,
        tenant: str,
        name: str,
        *,
        activate_at: int | None = None,
        expected: int | None = None,
        jwk: dict[str, str] | None = None,
    ) -> HeldKey:
        """Make a new version the one that protects; those before still process.

        Args:
            tx: The transaction.
            tenant: Whose key it is.
            name: The key.
            activate_at: When the new version takes over, if not now.
            expected: Number of the newest version as the caller knows it; another one means somebody
                rotated meanwhile.
            jwk: Its material, if it was imported.

        Raises:
            ConfigurationError: There is no such key, or it was rotated meanwhile.
        """
        row = self.existing(tx, tenant, name)
        if expected is not None and expected != row.record.latest:
            raise ConfigurationError("the key was rotated meanwhile", hint="look at it with key.show")
        now = self.now
        start = now if activate_at is None else max(now, activate_at)
        for version in self.versions(tx, tenant, name, row.record):
            self._succeed(tx, version, start=start, now=now)
        record = replace(row.record, latest=row.record.latest + 1, rotated_at=now)
        tx.put(KEYS, tenant, name, record)
        return self._add_version(tx, tenant, name, record, activate_at=activate_at, jwk=jwk)

    def _succeed(self, tx: Tx, row: Row[KeyVersion], *, start: int, now: int) -> None:
        """End what protects or would protect, when another version takes over."""
        life = row.record.life
        if life.destroy_at is not None or life.state_at(now) not in {"active", "pre_activation"}:
            return
        if life.state_at(now) == "active" and start == now:
            self.write_life(tx, row, life.moved("deactivated", now=now))
        elif life.deactivate_at is None or life.deactivate_at > start:
            # A version that was to follow, and would begin later than its successor, never protects.
            begun = life.activate_at if life.activate_at is None else min(life.activate_at, start)
            self.write_life(
                tx, row, replace(life, state=life.state_at(now), activate_at=begun, deactivate_at=start)
            )

    # --- finding them --------------------------------------------------------------------------------

    def current(self, tx: Tx, tenant: str, name: str, *purposes: Purpose) -> HeldKey:
        """The version that protects: the newest that is active, and not under the key's minimum.

        Args:
            tx: The transaction.
            tenant: Whose key it is.
            name: The key.
            purposes: What it may be for; sealing, if none is named.

        Raises:
            ConfigurationError: There is no such key, it is for something else, or none of its versions
                may protect.
        """
        record = self.existing(tx, tenant, name).record
        if record.purpose not in (purposes or _SEALS):
            raise ConfigurationError(f"this key is for {record.purpose}", hint="use a key for this purpose")
        now = self.now
        for row in self.versions(tx, tenant, name, record):
            if row.record.number >= record.min_seal and row.record.life.protects(now):
                return self._held(tx, row, record)
        raise ConfigurationError(CANNOT_PROTECT, hint="rotate the key, or look at it with key.show")

    def newest(self, tx: Tx, tenant: str, name: str) -> int:
        """Number of the newest version that protects; if none does, that processes; the latest at worst.

        Raises:
            ConfigurationError: There is no such key.
        """
        record, now = self.existing(tx, tenant, name).record, self.now
        processing = None
        for row in self.versions(tx, tenant, name, record):
            if row.record.number >= record.min_seal and row.record.life.protects(now):
                return row.record.number
            if processing is None and row.record.life.processes(now):
                processing = row.record.number
        return processing or record.latest

    def version(self, tx: Tx, tenant: str, kid: str, *purposes: Purpose, rescue: bool = False) -> HeldKey:
        """The one version with this kid, if it may process.

        Args:
            tx: The transaction.
            tenant: Whose key it is.
            kid: The version.
            purposes: What it may be for; sealing, if none is named.
            rescue: It is wanted only to move what it protects to another version.

        Raises:
            OpenError: There is none; it looks like any other value that does not open.
        """
        wanted = purposes or tuple(_SEALS)
        row = tx.get(KEY_VERSIONS, tenant, version_id(kid, wanted[0]))
        now = self.now
        if row is None or row.record.purpose not in wanted:
            raise OpenError
        if not (row.record.life.rescues(now) if rescue else row.record.life.processes(now)):
            raise OpenError
        record = self.existing(tx, tenant, row.record.key).record
        if row.record.number < record.min_open:
            raise OpenError
        return self._held(tx, row, record)

    def existing(self, tx: Tx, tenant: str, name: str) -> Row[KeyRecord]:
        """The row of a key.

        Raises:
            ConfigurationError: There is no such key.
        """
        row = tx.get(KEYS, tenant, name)
        if row is None:
            raise ConfigurationError("there is no such key", hint="create it with key.create")
        return row

    def version_row(self, tx: Tx, tenant: str, kid: str) -> tuple[KeyRecord, Row[KeyVersion]]:
        """A key and one of its versions, whatever state that is in.

        Raises:
            ConfigurationError: There is no such key or version.
        """
        record = self.existing(tx, tenant, kid.rpartition(".")[0]).record
        row = tx.get(KEY_VERSIONS, tenant, version_id(kid, record.purpose))
        if row is None:
            raise ConfigurationError("the key has no such version", hint="look at it with key.show")
        return record, row

    def versions(self, tx: Tx, tenant: str, name: str, record: KeyRecord) -> Iterator[Row[KeyVersion]]:
        """The versions of a key, newest first, read one by one."""
        for number in range(record.latest, 0, -1):
            row = tx.get(KEY_VERSIONS, tenant, version_id(f"{name}.{number}", record.purpose))
            if row is not None:
                yield row

    # --- writing them --------------------------------------------------------------------------------

    def write_life(self, tx: Tx, row: Row[KeyVersion], life: Life) -> Row[KeyVersion]:
        """Write down where a version stands; the material goes with its destruction, and with it only."""
        secret = None if life.state == "destroyed" else tx.reveal(KEY_VERSIONS, row).reveal()
        return tx.put(KEY_VERSIONS, row.tenant, row.id, replace(row.record, life=life), secret=secret)

    def reveal_jwk(self, tx: Tx, row: Row[KeyVersion]) -> bytes:
        """The private JWK of a version, for an export that was found to be allowed."""
        return tx.reveal(KEY_VERSIONS, row).reveal()

    def _add_version(
        self,
        tx: Tx,
        tenant: str,
        name: str,
        record: KeyRecord,
        *,
        activate_at: int | None,
        jwk: dict[str, str] | None,
    ) -> HeldKey:
        kid = f"{name}.{record.latest}"
        now = self.now
        origin: Origin = "generated" if jwk is None else "imported"
        version = KeyVersion(
            key=name,
            number=record.latest,
            purpose=record.purpose,
            created_at=now,
            origin=origin,
            life=Life.begin(
                now=now,
                activate_at=activate_at,
                active_seconds=record.active_seconds,
                recipient_seconds=record.recipient_seconds,
            ),
        )
        material = {**(jwk or new_material(record.alg)), "kid": kid}
        row = tx.insert(
            KEY_VERSIONS, tenant, version_id(kid, record.purpose), version, secret=canonical(material)
        )
        return self._held(tx, row, record)

    def _held(self, tx: Tx, row: Row[KeyVersion], record: KeyRecord) -> HeldKey:
        return HeldKey(
            kid=row.record.kid,
            purpose=row.record.purpose,
            opened=self._parsed.key(tx, row),
            created_at=row.record.created_at,
            material=digest(row.blob or b""),
            max_messages=record.max_messages,
        )


def new_material(alg: KeyAlg) -> dict[str, str]:
    """Draw the material of a new version, as a JWK."""
    if alg in {"tokenize", "HS256"}:
        return {"kty": "oct", "alg": alg, "k": b64url_encode(os.urandom(OCTETS))}
    return generate_key(cast("Alg", alg)).to_jwk()


class _ParsedKeys:
    """Memory of key material: (tenant, row, version, blob) to the parsed key."""

    def __init__(self) -> None:
        self._of = lru_cache(maxsize=CACHED_KEYS)(_Slot)

    def forget(self) -> None:
        """Drop them all."""
        self._of.cache_clear()

    def key(self, tx: Tx, row: Row[KeyVersion]) -> Key | Secret:
        slot = self._of(row.tenant, row.id, row.version, row.blob)
        if slot.key is None:
            jwk = msgspec.json.decode(tx.reveal(KEY_VERSIONS, row).reveal())
            raw = row.record.purpose in RAW
            slot.key = Secret(b64url_decode(jwk["k"])) if raw else Key.from_jwk(jwk)
        return slot.key


class _Slot:
    """One remembered key; empty until it was opened once."""

    __slots__ = ("key",)

    def __init__(self, *_names: object) -> None:
        self.key: Key | Secret | None = None
