"""Versioned secrets of a tenant: written through the API, used by egress, read by whoever may read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from cloister.errors import ConfigurationError, UnavailableError
from cloister.secret import Secret
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.secrets.messages import (
    SecretDestroy,
    SecretGiven,
    SecretInfo,
    SecretList,
    SecretName,
    SecretPut,
    SecretSchedule,
    SecretVersion,
    SecretVersions,
    SecretWanted,
)
from cloister_host.secrets.records import (
    SECRET_VERSIONS,
    SECRETS,
    Rotation,
    SecretRecord,
    State,
    VersionRecord,
    version_id,
)
from cloister_host.store import Row, Tx
from cloister_host.store.canonical import utf8

__all__ = ["SecretValue", "Secrets"]

KEPT_VERSIONS: Final = 10
UNDELETE_SECONDS: Final = 30 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretValue:
    """A secret's value, and the version that caches are keyed by."""

    version: int
    value: Secret = field(repr=False)


class Secrets:
    """Keeps secrets, and gives them to confidential functions' egress.

    Args:
        clock: Epoch seconds, never going back.
    """

    def __init__(self, *, grants: Grants, quorum: Quorum, audit: Audit, clock: Callable[[], float]) -> None:
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers. Only `secret.get` gives a value."""
        return {
            "secret.put": Operation(SecretPut, self.put, effect=True),
            "secret.get": Operation(SecretWanted, self.get, effect=False),
            "secret.list": Operation(Page, self.list, effect=False),
            "secret.versions": Operation(SecretName, self.versions, effect=False),
            "secret.delete": Operation(SecretWanted, self.delete, effect=True),
            "secret.undelete": Operation(SecretWanted, self.undelete, effect=True),
            "secret.destroy": Operation(SecretDestroy, self.destroy, effect=True),
            "secret.schedule": Operation(SecretSchedule, self.schedule, effect=True),
        }

    def put(self, caller: Caller, request: SecretPut, tx: Tx) -> SecretInfo:
        """Write a new version of a secret.

        Raises:
            ConfigurationError: It has another newest version than `if_version`.
        """
        resource = self._manage(tx, caller, request.secret)
        row = tx.get(SECRETS, caller.tenant, request.secret)
        latest = row.record.latest if row else 0
        if request.if_version is not None and request.if_version != latest:
            raise ConfigurationError(
                f"the newest version of this secret is {latest}", hint="look at it, then put again"
            )
        value = utf8(request.value)
        info = self.add(tx, caller.tenant, request.secret, value, ttl_seconds=request.ttl_seconds)
        self._audit.record(tx, caller, act="secret.put", resource=resource, detail={"version": info.version})
        return info

    def get(self, caller: Caller, request: SecretWanted, tx: Tx) -> SecretGiven:
        """Give a value (right `secret.read`, which nobody has by default and FaaS principals never).

        Raises:
            ConfigurationError: There is no such secret or version, or no value of it any more.
        """
        resource = f"secret/{request.secret}"
        self._grants.require(tx, caller, "secret.read", resource)
        found = self._value(tx, caller.tenant, request.secret, request.version)
        self._audit.record(tx, caller, act="secret.get", resource=resource, detail={"version": found.version})
        return SecretGiven(secret=request.secret, version=found.version, value=found.value.reveal().decode())

    def list(self, caller: Caller, request: Page, tx: Tx) -> SecretList:
        """List the secrets that have a value."""
        self._grants.require(tx, caller, "secret.manage", "secret/*")
        rows = tx.scan(SECRETS, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="secret.list", resource="secret/*")
        newest = {row.id: self._version(tx, row) for row in rows}
        return SecretList(
            secrets=[
                _info(row, version)
                for row in rows
                if (version := newest[row.id]) and version.record.state_at(self._now) == "active"
            ],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def versions(self, caller: Caller, request: SecretName, tx: Tx) -> SecretVersions:
        """List the versions of a secret.

        Raises:
            ConfigurationError: There is no such secret.
        """
        resource = self._manage(tx, caller, request.secret)
        self._existing(tx, caller.tenant, request.secret)
        rows = tx.scan(SECRET_VERSIONS, caller.tenant, prefix=f"{request.secret}/")
        self._audit.record(tx, caller, act="secret.versions", resource=resource)
        return SecretVersions(secret=request.secret, versions=[self._told(row) for row in rows])

    def delete(self, caller: Caller, request: SecretWanted, tx: Tx) -> SecretVersion:
        """Take a version out of use; `secret.undelete` brings it back for thirty days.

        Raises:
            ConfigurationError: There is no such version, or it is not in use.
        """
        return self._move(tx, caller, "secret.delete", request, "active", "deleted")

    def undelete(self, caller: Caller, request: SecretWanted, tx: Tx) -> SecretVersion:
        """Bring a deleted version back.

        Raises:
            ConfigurationError: There is no such version, or it was not deleted, or is destroyed.
        """
        return self._move(tx, caller, "secret.undelete", request, "deleted", "active")

    def destroy(self, caller: Caller, request: SecretDestroy, tx: Tx) -> SecretVersion:
        """Erase a version's value, for good.

        Raises:
            ConfigurationError: There is no such version, or it is destroyed already.
            QuorumNeededError: Others have to approve it.
        """
        resource = self._manage(tx, caller, request.secret)
        row = self._found(tx, caller.tenant, request.secret, request.version)
        if row.record.state == "destroyed":
            raise ConfigurationError("this version is destroyed already")
        self._quorum.require(
            tx,
            caller,
            "secret.destroy",
            resource,
            request_digest("secret.destroy", request),
            detail={"version": request.version},
        )
        gone = self._erase(tx, row)
        self._audit.record(
            tx, caller, act="secret.destroy", resource=resource, detail={"version": request.version}
        )
        return self._told(gone)

    def schedule(self, caller: Caller, request: SecretSchedule, tx: Tx) -> SecretInfo:
        """Say which confidential function rotates a secret, and how often.

        Raises:
            ConfigurationError: There is no such secret, or the rotation is incomplete.
            DeniedError: Also: the caller may not invoke that function, or not open under that key.
        """
        resource = self._manage(tx, caller, request.secret)
        row = self._existing(tx, caller.tenant, request.secret)
        rotation = None
        if request.function is not None:
            if request.key is None:
                raise ConfigurationError("a rotation needs the key that the function seals its answer under")
            name = request.function.partition("@")[0]
            self._grants.require(tx, caller, "invoke", f"function/{name}")
            self.require_opening(tx, caller, request.key)
            if caller.kind == "function":
                raise ConfigurationError("a function does not schedule rotations")
            rotation = Rotation(
                function=request.function,
                key=request.key,
                principal=caller.principal,
                kind=caller.kind,
                every_seconds=request.every_seconds,
                rotated_at=self._now,
            )
        elif request.key is not None or request.every_seconds is not None:
            raise ConfigurationError("a rotation needs a function")
        written = tx.put(SECRETS, caller.tenant, row.id, replace(row.record, rotation=rotation))
        self._audit.record(
            tx,
            caller,
            act="secret.schedule",
            resource=resource,
            detail={"function": request.function or "", "every_seconds": request.every_seconds or 0},
        )
        return _info(written, self._version(tx, written))

    # --- for the rest of the host --------------------------------------------------------------------

    def read(self, tx: Tx, caller: Caller, name: str) -> SecretValue:
        """Read a secret for a function's egress (right `use-secret`, which only functions can hold).

        Raises:
            ConfigurationError: There is no such secret.
        """
        resource = f"secret/{name}"
        self._grants.require(tx, caller, "use-secret", resource)
        found = self._value(tx, caller.tenant, name, None)
        self._audit.record(tx, caller, act="use-secret", resource=resource, detail={"version": found.version})
        return found

    def rotation(self, tx: Tx, caller: Caller, name: str) -> Row[SecretRecord]:
        """A secret with the rotation that its manager asked for (right `secret.manage`).

        Raises:
            ConfigurationError: There is no such secret, or it has none.
        """
        self._manage(tx, caller, name)
        row = self._existing(tx, caller.tenant, name)
        if row.record.rotation is None:
            raise ConfigurationError(
                "this secret has no rotation", hint="name a function with secret.schedule"
            )
        return row

    def require_opening(self, tx: Tx, caller: Caller, key: str) -> None:
        """Refuse a rotation by somebody who may not have the host open under its key (right `decrypt`).

        Whoever may only write secrets would otherwise turn what others sealed into one that egress sends out.
        """
        self._grants.require(tx, caller, "decrypt", f"key/{key}")

    def add(
        self,
        tx: Tx,
        tenant: str,
        name: str,
        value: bytes,
        *,
        ttl_seconds: int | None = None,
        rotated: bool = False,
    ) -> SecretInfo:
        """Write the next version, and erase those beyond the ten newest. Rights are the caller's to check."""
        now, row = self._now, tx.get(SECRETS, tenant, name)
        record = row.record if row else SecretRecord(latest=0, updated_at=now)
        if rotated and record.rotation is not None:
            record = replace(record, rotation=replace(record.rotation, rotated_at=now, leased_until=0))
        written = tx.put(SECRETS, tenant, name, replace(record, latest=record.latest + 1, updated_at=now))
        version = VersionRecord(
            state="active", created_at=now, expires_at=None if ttl_seconds is None else now + ttl_seconds
        )
        number = written.record.latest
        added = tx.insert(SECRET_VERSIONS, tenant, version_id(name, number), version, secret=value)
        old = tx.get(SECRET_VERSIONS, tenant, version_id(name, number - KEPT_VERSIONS))
        if old is not None and old.record.state != "destroyed":
            self._erase(tx, old)
        return _info(written, added)

    def lease_rotation(self, tx: Tx, row: Row[SecretRecord], *, seconds: int) -> None:
        """Take a rotation on, so that nobody else does; it counts as lost after that time.

        Raises:
            UnavailableError: Somebody is at it.
        """
        rotation = row.record.rotation
        assert rotation is not None, "only a rotation that there is can be taken on"
        if self._now < rotation.leased_until:
            raise UnavailableError("this secret is being rotated", hint="look at it with secret.versions")
        leased = replace(rotation, leased_until=self._now + seconds)
        tx.put(SECRETS, row.tenant, row.id, replace(row.record, rotation=leased))

    def release_rotation(self, tx: Tx, tenant: str, name: str) -> None:
        """Give a rotation back that failed."""
        row = tx.get(SECRETS, tenant, name)
        if row is not None and row.record.rotation is not None:
            released = replace(row.record.rotation, leased_until=0)
            tx.put(SECRETS, tenant, name, replace(row.record, rotation=released))

    def due(self, tx: Tx, tenant: str) -> Sequence[Row[SecretRecord]]:
        """The secrets that should be rotated now."""
        now = self._now
        rows = tx.scan(SECRETS, tenant)
        return [row for row in rows if row.record.rotation is not None and row.record.rotation.is_due(now)]

    def keep(self, tx: Tx, caller: Caller, after: str = "", *, limit: int = 500) -> str:
        """Erase values that expired, or were deleted thirty days ago; for the scheduler."""
        now = self._now
        rows = tx.scan(SECRET_VERSIONS, caller.tenant, after=after, limit=limit)
        for row in rows:
            record = row.record
            lapsed = record.deleted_at is not None and now >= record.deleted_at + UNDELETE_SECONDS
            if record.state_at(now) == "expired" or (record.state == "deleted" and lapsed):
                self._erase(tx, row)
                name, _, number = row.id.partition("/")
                self._audit.record(
                    tx,
                    caller,
                    act="secret.settle",
                    resource=f"secret/{name}",
                    detail={"version": int(number)},
                )
        return rows[-1].id if len(rows) == limit else ""

    # ------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> int:
        return int(self._clock())

    def _manage(self, tx: Tx, caller: Caller, name: str) -> str:
        resource = f"secret/{name}"
        self._grants.require(tx, caller, "secret.manage", resource)
        return resource

    def _existing(self, tx: Tx, tenant: str, name: str) -> Row[SecretRecord]:
        row = tx.get(SECRETS, tenant, name)
        if row is None:
            raise _none()
        return row

    def _version(self, tx: Tx, row: Row[SecretRecord]) -> Row[VersionRecord] | None:
        return tx.get(SECRET_VERSIONS, row.tenant, version_id(row.id, row.record.latest))

    def _found(self, tx: Tx, tenant: str, name: str, version: int | None) -> Row[VersionRecord]:
        number = version or self._existing(tx, tenant, name).record.latest
        row = tx.get(SECRET_VERSIONS, tenant, version_id(name, number))
        if row is None:
            raise _none()
        return row

    def _value(self, tx: Tx, tenant: str, name: str, version: int | None) -> SecretValue:
        row = self._found(tx, tenant, name, version)
        if row.record.state_at(self._now) != "active":
            # An older version never takes the place of the newest: it was replaced for a reason.
            raise _none()
        return SecretValue(version=int(row.id.partition("/")[2]), value=tx.reveal(SECRET_VERSIONS, row))

    def _move(  # noqa: PLR0917 (one act)
        self, tx: Tx, caller: Caller, act: str, request: SecretWanted, start: State, end: State
    ) -> SecretVersion:
        resource = self._manage(tx, caller, request.secret)
        row = self._found(tx, caller.tenant, request.secret, request.version)
        if row.record.state != start:
            raise (
                _none()
                if start == "active"
                else ConfigurationError(
                    "this version is not deleted", hint="a destroyed one never comes back"
                )
            )
        record = replace(row.record, state=end, deleted_at=self._now if end == "deleted" else None)
        value = tx.reveal(SECRET_VERSIONS, row).reveal()
        written = tx.put(SECRET_VERSIONS, caller.tenant, row.id, record, secret=value)
        number = int(row.id.partition("/")[2])
        self._audit.record(tx, caller, act=act, resource=resource, detail={"version": number})
        return self._told(written)

    def _erase(self, tx: Tx, row: Row[VersionRecord]) -> Row[VersionRecord]:
        return tx.put(SECRET_VERSIONS, row.tenant, row.id, replace(row.record, state="destroyed"))

    def _told(self, row: Row[VersionRecord]) -> SecretVersion:
        return SecretVersion(
            version=int(row.id.partition("/")[2]),
            state=row.record.state_at(self._now),
            created_at=row.record.created_at,
            expires_at=row.record.expires_at,
        )


def _none() -> ConfigurationError:
    return ConfigurationError("there is no such secret", hint="write it with secret.put")


def _info(row: Row[SecretRecord], version: Row[VersionRecord] | None) -> SecretInfo:
    rotation = row.record.rotation
    return SecretInfo(
        secret=row.id,
        version=row.record.latest,
        updated_at=row.record.updated_at,
        expires_at=version.record.expires_at if version else None,
        function=rotation.function if rotation else None,
        rotate_at=rotation.rotated_at + rotation.every_seconds
        if rotation and rotation.every_seconds
        else None,
    )
