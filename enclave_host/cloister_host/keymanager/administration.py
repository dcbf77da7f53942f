"""A key officer's acts: states, schedules, destruction and the way back from it.

Every act is one transaction over protected rows: it is done and recorded, or it is not done at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec.structs import replace

from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.administration_messages import (
    KeyDestroy,
    KeyDetail,
    KeySchedule,
    KeyState,
    Named,
    VersionUsage,
)
from cloister_host.keymanager.keyring import KeyRing
from cloister_host.keymanager.lifecycle import Life
from cloister_host.keymanager.messages import KeyName, VersionInfo
from cloister_host.keymanager.records import KEYS, KeyRecord, KeyVersion
from cloister_host.keymanager.service import key_info, version_info
from cloister_host.keymanager.usage import Usage
from cloister_host.operations import Operation
from cloister_host.policy.grants import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Row, Tx

__all__ = ["KeyAdministration"]

NOT_KNOWN: Final = (
    "values sealed under a data key beyond the number it was leased for are counted as that number",
    "values sealed offline to a public half, and copies of any value, are not seen by the host",
    "values that were deleted are not subtracted",
    "what a client seals with a data key that it had unwrapped is not seen by the host",
)
_RULES: Final = (
    "active_seconds",
    "recipient_seconds",
    "rotate_seconds",
    "max_messages",
    "min_seal",
    "min_open",
)


class KeyAdministration:
    """Moves key versions through their lives."""

    def __init__(self, *, ring: KeyRing, usage: Usage, grants: Grants, quorum: Quorum, audit: Audit) -> None:
        self._ring = ring
        self._usage = usage
        self._grants = grants
        self._quorum = quorum
        self._audit = audit

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "key.show": Operation(KeyName, self.show, effect=False),
            "key.state": Operation(KeyState, self.state, effect=True),
            "key.schedule": Operation(KeySchedule, self.schedule, effect=True),
            "key.destroy": Operation(KeyDestroy, self.destroy, effect=True),
            "key.restore": Operation(Named, self.restore, effect=True),
        }

    def show(self, caller: Caller, request: KeyName, tx: Tx) -> KeyDetail:
        """Show a key, and what still hangs on each of its versions as far as the host can know.

        Raises:
            ConfigurationError: There is no such key.
        """
        self._grants.require(tx, caller, "key.read", f"key/{request.key}")
        row = self._ring.existing(tx, caller.tenant, request.key)
        info = key_info(tx, row, now=self._ring.now)
        self._audit.record(tx, caller, act="key.show", resource=f"key/{request.key}")
        return KeyDetail(
            key=info,
            usage=[self._used(tx, caller.tenant, v) for v in info.versions],
            not_known=list(NOT_KNOWN),
        )

    def state(self, caller: Caller, request: KeyState, tx: Tx) -> VersionInfo:
        """Move a version to another state.

        Raises:
            IllegalTransitionError: SP 800-57 knows no such transition.
            ConfigurationError: There is no such version.
        """
        row = self._managed(tx, caller, request.kid, "key.manage")
        now = self._ring.now
        before = row.record.life.state_at(now)
        life = row.record.life.moved(request.state, now=now, accept_processing=request.accept_processing)
        detail: dict[str, str | int] = {
            "from": before,
            "to": request.state,
            "processing": int(request.accept_processing),
        }
        if request.reason is not None:
            detail["reason"] = request.reason
        return self._write(tx, caller, "key.state", row, life, **detail)

    def schedule(self, caller: Caller, request: KeySchedule, tx: Tx) -> KeyDetail:
        """Change the rules of a key, or the times of one of its versions.

        Raises:
            IllegalTransitionError: That moment of the version's life is over.
            ConfigurationError: There is no such key or version, or the rules contradict each other.
        """
        self._grants.require(tx, caller, "key.manage", f"key/{request.key}")
        row = self._ring.existing(tx, caller.tenant, request.key)
        changed = self._rules(row.record, request)
        if changed != row.record:
            tx.put(KEYS, caller.tenant, request.key, changed)
        if request.activate_at is not None or request.deactivate_at is not None:
            self._reschedule(tx, caller, request, changed)
        detail: dict[str, str | int] = {
            name: value
            for name in request.__struct_fields__
            if isinstance(value := getattr(request, name), int)
        }
        detail |= {"cleared": ",".join(request.clear)} if request.clear else {}
        self._audit.record(tx, caller, act="key.schedule", resource=f"key/{request.key}", detail=detail)
        found = self._ring.existing(tx, caller.tenant, request.key)
        info = key_info(tx, found, now=self._ring.now)
        usage = [self._used(tx, caller.tenant, version) for version in info.versions]
        return KeyDetail(key=info, usage=usage, not_known=list(NOT_KNOWN))

    def destroy(self, caller: Caller, request: KeyDestroy, tx: Tx) -> VersionInfo:
        """Begin the waiting period before a version's material is destroyed; it stops working now.

        Raises:
            IllegalTransitionError: It is destroyed, or waits already.
            ConfigurationError: There is no such version, or the wait is shorter than the key's.
        """
        row = self._managed(tx, caller, request.kid, "key.destroy")
        self._quorum.require(
            tx,
            caller,
            "key.destroy",
            f"key/{row.record.key}",
            request_digest("key.destroy", request),
            detail={"kid": request.kid},
        )
        least = self._ring.existing(tx, caller.tenant, row.record.key).record.destroy_wait_seconds
        wait = least if request.wait_seconds is None else request.wait_seconds
        if wait < least:
            raise ConfigurationError(
                f"this key waits at least {least} seconds before a version is destroyed",
                hint="the wait is chosen when a key is created, and can only become longer",
            )
        life = row.record.life.doomed(now=self._ring.now, wait_seconds=wait)
        return self._write(tx, caller, "key.destroy", row, life, destroy_at=life.destroy_at or 0)

    def restore(self, caller: Caller, request: Named, tx: Tx) -> VersionInfo:
        """Take a version back out of its waiting period.

        Raises:
            IllegalTransitionError: It waits for nothing, or the wait is over.
        """
        row = self._managed(tx, caller, request.kid, "key.manage")
        return self._write(tx, caller, "key.restore", row, row.record.life.spared(now=self._ring.now))

    # --- what is due without anybody asking ----------------------------------------------------------

    def keep(self, tx: Tx, caller: Caller, after: str = "", *, limit: int = 100) -> str:
        """Do what has come due for some of a tenant's keys; returns where to go on, empty at the end.

        Time's transitions are written down, material whose waiting period is over is destroyed, keys that
        are due are rotated. Whoever else did it first, on another replica, leaves nothing due.
        """
        rows = tx.scan(KEYS, caller.tenant, after=after, limit=limit)
        for row in rows:
            for version in self._ring.versions(tx, caller.tenant, row.id, row.record):
                self._settle(tx, caller, version)
            self._rotate_if_due(tx, caller, row)
        return rows[-1].id if len(rows) == limit else ""

    def _settle(self, tx: Tx, caller: Caller, row: Row[KeyVersion]) -> None:
        life = row.record.life.settled(self._ring.now)
        if life.state == row.record.life.state:
            return
        self._write(tx, caller, "key.settle", row, life, state=life.state)
        if life.state == "destroyed":
            self._usage.forget(tx, caller.tenant, row.record.kid)

    def _rotate_if_due(self, tx: Tx, caller: Caller, row: Row[KeyRecord]) -> None:
        record, now = row.record, self._ring.now
        if record.rotate_seconds is None or now < record.rotated_at + record.rotate_seconds:
            return
        newest = next(self._ring.versions(tx, caller.tenant, row.id, record), None)
        if newest is None or newest.record.life.state_at(now) in {"pre_activation", "destroyed"}:
            return  # its successor is chosen already, or the key is at its end
        if newest.record.life.is_waiting(now):
            return
        held = self._ring.rotate(tx, caller.tenant, row.id, expected=record.latest)
        self._audit.record(
            tx, caller, act="key.rotate", resource=f"key/{row.id}", detail={"kid": held.kid, "scheduled": 1}
        )

    # ------------------------------------------------------------------------------------------------

    def _managed(self, tx: Tx, caller: Caller, kid: str, action: str) -> Row[KeyVersion]:
        self._grants.require(tx, caller, action, f"key/{kid.rpartition('.')[0]}")
        return self._ring.version_row(tx, caller.tenant, kid)[1]

    def _write(
        self, tx: Tx, caller: Caller, act: str, row: Row[KeyVersion], life: Life, **detail: str | int
    ) -> VersionInfo:
        written = self._ring.write_life(tx, row, life)
        version = written.record
        self._audit.record(
            tx, caller, act=act, resource=f"key/{version.key}", detail={"kid": version.kid, **detail}
        )
        return version_info(version, now=self._ring.now)

    def _used(self, tx: Tx, tenant: str, version: VersionInfo) -> VersionUsage:
        used = self._usage.of(tx, tenant, version.kid)
        return VersionUsage(
            kid=version.kid,
            state=version.state,
            data_keys=used.deks,
            messages_at_most=used.messages,
            values_rewrapped=used.rewrapped,
            last_opened=used.opened_at or None,
        )

    def _rules(self, record: KeyRecord, request: KeySchedule) -> KeyRecord:
        given = {name: value for name in _RULES if (value := getattr(request, name)) is not None}
        if twice := given.keys() & set(request.clear):
            raise ConfigurationError(f"{min(twice)} is given and cleared")
        changed = replace(record, **given, **dict.fromkeys(request.clear))
        if request.destroy_wait_seconds is not None:
            if request.destroy_wait_seconds < record.destroy_wait_seconds:
                raise ConfigurationError(
                    "the wait before destruction can only become longer",
                    hint=f"at least {record.destroy_wait_seconds} seconds",
                )
            changed = replace(changed, destroy_wait_seconds=request.destroy_wait_seconds)
        if max(changed.min_seal, changed.min_open) > record.latest:
            raise ConfigurationError(
                "a minimum is above the newest version", hint="rotate first; nothing would work with it"
            )
        if changed.min_open > changed.min_seal:
            # What is protected must also open.
            changed = replace(changed, min_seal=changed.min_open)
        return changed

    def _reschedule(self, tx: Tx, caller: Caller, request: KeySchedule, record: KeyRecord) -> None:
        kid = request.kid or f"{request.key}.{record.latest}"
        if kid.rpartition(".")[0] != request.key:
            raise ConfigurationError("kid is not a version of this key")
        _, row = self._ring.version_row(tx, caller.tenant, kid)
        now, before = self._ring.now, row.record.life
        life = before.rescheduled(
            now=now, activate_at=request.activate_at, deactivate_at=request.deactivate_at
        )
        self._ring.write_life(tx, row, life)
        if life.activate_at == before.activate_at:
            return
        # The version before it goes on until this one takes over.
        for older in self._older(tx, caller.tenant, request.key, record, row.record.number):
            if older.record.life.deactivate_at == before.activate_at and older.record.life.protects(now):
                moved = older.record.life.rescheduled(now=now, deactivate_at=life.activate_at)
                self._ring.write_life(tx, older, moved)

    def _older(
        self, tx: Tx, tenant: str, key: str, record: KeyRecord, number: int
    ) -> Iterator[Row[KeyVersion]]:
        return self._ring.versions(tx, tenant, key, replace(record, latest=number - 1))
