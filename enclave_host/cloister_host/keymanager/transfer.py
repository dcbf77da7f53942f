"""Bring your own key, and take it along: always wrapped, always bound to what it is (PROTOCOL 2)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cloister import jose
from cloister.errors import CloisterError, ConfigurationError, OpenError
from cloister.protocol.key_transfer import KeyName, symmetric_jwk, unwrap_key_material, wrap_key_material
from cloister.protocol.public_key import PublicKey, sign_public_key
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.keyring import KeyRing
from cloister_host.keymanager.messages import NewKey
from cloister_host.keymanager.records import KEYS, RAW, KeyAlg, KeyRecord, Purpose
from cloister_host.keymanager.service import SKEW_SECONDS, new_record
from cloister_host.keymanager.transfer_messages import Export, Exported, Import, ImportKey, ImportPrepare
from cloister_host.operations import Operation
from cloister_host.policy.grants import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Table, Tx
from cloister_host.store.canonical import canonical, digest

__all__ = ["KeyTransfer"]

IMPORT_SECONDS: Final = 3600
ID_BYTES: Final = 16
MAX_WAITING: Final = 100


class ImportRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of an `import_keys` row; the private half of the import key is its blob.

    Attributes:
        record: The key as it will be, or is.
        is_new: Whether the key is made by the import.
    """

    key: str
    record: KeyRecord
    is_new: bool
    expires: int

    @property
    def kid(self) -> str:
        """The version that the material becomes."""
        return f"{self.key}.{self.record.latest}"


IMPORT_KEYS: Final = Table("import_keys", ImportRecord, "import")


class KeyTransfer:
    """Imports and exports key versions."""

    def __init__(
        self, *, ring: KeyRing, grants: Grants, quorum: Quorum, audit: Audit, deployment_key: jose.Key
    ) -> None:
        self._ring = ring
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._deployment_key = deployment_key

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "key.import_key": Operation(ImportPrepare, self.prepare, effect=True),
            "key.import": Operation(Import, self.bring, effect=True),
            "key.export": Operation(Export, self.export, effect=True),
        }

    def prepare(self, caller: Caller, request: ImportPrepare, tx: Tx) -> ImportKey:
        """Make a key to wrap one other key to, vouched for by the deployment.

        Raises:
            ConfigurationError: The key exists with another purpose or algorithm.
            LimitError: Too many imports wait.
        """
        resource = f"key/{request.key}"
        self._grants.require(tx, caller, "key.import", resource)
        now = self._ring.now
        waiting = tx.scan(IMPORT_KEYS, caller.tenant, limit=MAX_WAITING)
        if len(waiting) == MAX_WAITING:
            raise ConfigurationError("too many imports wait for their material", hint="they lapse in an hour")
        asked = new_record(request, now=now)
        existing = tx.get(KEYS, caller.tenant, request.key)
        record = asked if existing is None else _next(existing.record, asked)
        import_id = f"import-{jose.b64url_encode(os.urandom(ID_BYTES))}"
        key = jose.generate_key(request.suite, kid=import_id)
        row = ImportRecord(
            key=request.key, record=record, is_new=existing is None, expires=now + IMPORT_SECONDS
        )
        tx.insert(IMPORT_KEYS, caller.tenant, import_id, row, secret=canonical(key.to_jwk()))
        statement = PublicKey(
            tenant=caller.tenant,
            kid=import_id,
            purpose="import",
            jwk=key.public().to_jwk(),
            not_before=now - SKEW_SECONDS,
            expires=row.expires,
        )
        self._audit.record(
            tx, caller, act="key.import_key", resource=resource, detail={"kid": row.kid, "import": import_id}
        )
        return ImportKey(
            import_id=import_id,
            kid=row.kid,
            purpose=record.purpose,
            alg=record.alg,
            jwk=dict(statement.jwk),
            statement=sign_public_key(statement, deployment_key=self._deployment_key),
            expires=row.expires,
        )

    def bring(self, caller: Caller, request: Import, tx: Tx) -> NewKey:
        """Take in material that was wrapped to an import key, which is spent by it.

        Raises:
            OpenError: There is no such import, or this was not wrapped for it.
            ConfigurationError: What was wrapped is no key of the kind that was announced, or the key was
                made or rotated meanwhile.
        """
        row = tx.get(IMPORT_KEYS, caller.tenant, request.import_id)
        # Asked before anything is said about whether it exists.
        self._grants.require(tx, caller, "key.import", f"key/{row.record.key if row else '*'}")
        if row is None or self._ring.now >= row.record.expires:
            raise OpenError
        announced = row.record
        private = jose.Key.from_jwk(msgspec.json.decode(tx.reveal(IMPORT_KEYS, row).reveal()))
        name = _name(caller.tenant, announced.kid, announced.record)
        jwk = _checked(unwrap_key_material(request.wrapped, private, name, "import"), announced.record)
        if announced.is_new:
            held = self._ring.create(
                tx, caller.tenant, announced.key, announced.record, activate_at=request.activate_at, jwk=jwk
            )
        else:
            held = self._ring.rotate(
                tx,
                caller.tenant,
                announced.key,
                activate_at=request.activate_at,
                expected=announced.record.latest - 1,
                jwk=jwk,
            )
        tx.delete(IMPORT_KEYS, caller.tenant, request.import_id)
        self._audit.record(
            tx,
            caller,
            act="key.import",
            resource=f"key/{announced.key}",
            detail={"kid": held.kid, "import": request.import_id},
        )
        return NewKey(key=announced.key, kid=held.kid, purpose=held.purpose, alg=announced.record.alg)

    def export(self, caller: Caller, request: Export, tx: Tx) -> Exported:
        """Give a version out, wrapped to a public half (right `key.export`).

        Raises:
            ConfigurationError: There is no such version, it was not created exportable, its state does not
                allow it, or the recipient's key is no HPKE public key.
            QuorumNeededError: The tenant put exports under quorum.
        """
        resource = f"key/{request.kid.rpartition('.')[0]}"
        self._grants.require(tx, caller, "key.export", resource)
        record, row = self._ring.version_row(tx, caller.tenant, request.kid)
        if not record.exportable:
            raise ConfigurationError(
                "this key never leaves", hint="only a key that was created exportable can be exported"
            )
        if not row.record.life.processes(self._ring.now):
            raise ConfigurationError("this version is not exported in its present state")
        recipient = jose.Key.from_jwk(request.to)
        if recipient.is_private:
            raise ConfigurationError(
                "this is a private key", hint="send its public half, and use another one"
            )
        detail = {"kid": request.kid, "to": jose.thumbprint(recipient)}
        self._quorum.require(
            tx, caller, "key.export", resource, request_digest("key.export", request), detail=detail
        )
        jwk = msgspec.json.decode(self._ring.reveal_jwk(tx, row))
        wrapped = wrap_key_material(jwk, recipient, _name(caller.tenant, request.kid, record), "export")
        self._audit.record(
            tx,
            caller,
            act="key.export",
            resource=resource,
            detail={**detail, "wrapped": digest(wrapped.encode())},
        )
        return Exported(kid=request.kid, purpose=record.purpose, alg=record.alg, wrapped=wrapped)

    def keep(self, tx: Tx, caller: Caller, _after: str = "") -> str:
        """Drop imports whose time is over; for the scheduler."""
        now = self._ring.now
        for row in tx.scan(IMPORT_KEYS, caller.tenant):
            if now >= row.record.expires:
                tx.delete(IMPORT_KEYS, caller.tenant, row.id)
        return ""


def _name(tenant: str, kid: str, record: KeyRecord) -> KeyName:
    return KeyName(tenant=tenant, kid=kid, purpose=record.purpose, alg=record.alg)


def _next(existing: KeyRecord, asked: KeyRecord) -> KeyRecord:
    if (existing.purpose, existing.alg) != (asked.purpose, asked.alg):
        raise ConfigurationError(
            f"this key exists, for {existing.purpose} with {existing.alg}", hint="choose another name"
        )
    return msgspec.structs.replace(existing, latest=existing.latest + 1)


def _checked(jwk: dict[str, Any], record: KeyRecord) -> dict[str, str]:
    """The material as it is kept, if it is a key of this kind."""
    if record.purpose in RAW:
        try:
            octets = jose.b64url_decode(str(jwk["k"]))
        except (KeyError, ValueError):
            raise _not_it(record.purpose, record.alg) from None
        if jwk.get("kty") != "oct" or jwk.get("alg", record.alg) != record.alg:
            raise _not_it(record.purpose, record.alg)
        return symmetric_jwk(octets, record.alg)
    try:
        key = jose.Key.from_jwk({**jwk, "kid": None})
    except CloisterError:
        raise _not_it(record.purpose, record.alg) from None
    if key.alg != record.alg or not key.is_private:
        raise _not_it(record.purpose, record.alg)
    return key.to_jwk()


def _not_it(purpose: Purpose, alg: KeyAlg) -> ConfigurationError:
    return ConfigurationError(
        f"what was wrapped is no private JWK for {purpose} with {alg}",
        hint="symmetric keys have 32 bytes; see the protocol's SPEC, section 7",
    )
