"""Keys and values through the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cloister.envelope import Sealed, Value
from cloister.errors import ConfigurationError, OpenError
from cloister.jose import Key, b64url_decode, b64url_encode
from cloister.protocol.public_key import PublicKey, sign_public_key
from cloister.secret import Secret
from cloister_host.audit import Audit, Event
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.keyring import HeldKey, KeyRing
from cloister_host.keymanager.manager import KeyManager
from cloister_host.keymanager.messages import (
    DataKeyRequest,
    IssuedDataKey,
    KeyCreate,
    KeyInfo,
    KeyList,
    KeyName,
    KeyRotate,
    NewKey,
    Opened,
    OpenedValues,
    PublicKeyStatement,
    UnwrappedKey,
    UnwrapRequest,
    ValueOpen,
    VersionInfo,
    WrappedKey,
    WrapRequest,
)
from cloister_host.keymanager.records import (
    ALGS,
    DESTROY_WAIT_SECONDS,
    KEY_VERSIONS,
    KEYS,
    KeyRecord,
    KeyVersion,
    version_id,
)
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import Grants
from cloister_host.store import Row, Tx
from cloister_host.store.canonical import digest

__all__ = ["SKEW_SECONDS", "KeyService", "key_info", "new_record", "version_info"]

STATEMENT_SECONDS: Final = 24 * 3600
SKEW_SECONDS: Final = 60
_PUBLIC: Final = frozenset({"seal-public", "seal-public-fips", "sign"})


class KeyService:
    """Manages the keys of the caller's tenant and answers what clients ask of them."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        manager: KeyManager,
        grants: Grants,
        audit: Audit,
        deployment_key: Key,
        clock: Callable[[], float],
    ) -> None:
        self._ring = ring
        self._manager = manager
        self._grants = grants
        self._audit = audit
        self._deployment_key = deployment_key
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "key.create": Operation(KeyCreate, self.create, effect=True),
            "key.rotate": Operation(KeyRotate, self.rotate, effect=True),
            "key.list": Operation(Page, self.list, effect=False),
            "key.public": Operation(KeyName, self.public, effect=False),
            "key.data_key": Operation(DataKeyRequest, self.data_key, effect=False),
            "key.wrap": Operation(WrapRequest, self.wrap, effect=False),
            "key.unwrap": Operation(UnwrapRequest, self.unwrap, effect=False),
            "value.open": Operation(ValueOpen, self.open, effect=False, receipt="act"),
        }

    def create(self, caller: Caller, request: KeyCreate, tx: Tx) -> NewKey:
        """Create a key.

        Raises:
            ExistsError: The name is taken.
            ConfigurationError: The purpose has no such algorithm.
        """
        resource = f"key/{request.key}"
        self._grants.require(tx, caller, "key.manage", resource)
        record = new_record(request, now=self._ring.now)
        held = self._ring.create(tx, caller.tenant, request.key, record, activate_at=request.activate_at)
        self._record_version(tx, caller, "key.create", request.key, held)
        return NewKey(key=request.key, kid=held.kid, purpose=held.purpose, alg=record.alg)

    def rotate(self, caller: Caller, request: KeyRotate, tx: Tx) -> NewKey:
        """Make a new version protect; older ones go on processing.

        Raises:
            ConfigurationError: There is no such key, or it was rotated meanwhile.
        """
        self._grants.require(tx, caller, "key.manage", f"key/{request.key}")
        expected = None
        if request.if_kid is not None:
            name, _, number = request.if_kid.rpartition(".")
            if name != request.key:
                raise ConfigurationError("if_kid is not a version of this key")
            expected = int(number)
        held = self._ring.rotate(
            tx, caller.tenant, request.key, activate_at=request.activate_at, expected=expected
        )
        self._record_version(tx, caller, "key.rotate", request.key, held)
        alg = self._ring.existing(tx, caller.tenant, request.key).record.alg
        return NewKey(key=request.key, kid=held.kid, purpose=held.purpose, alg=alg)

    def list(self, caller: Caller, request: Page, tx: Tx) -> KeyList:
        """List keys and their versions, without any material."""
        self._grants.require(tx, caller, "key.read", "key/*")
        rows = tx.scan(KEYS, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="key.list", resource="key/*")
        return KeyList(
            keys=[key_info(tx, row, now=self._ring.now) for row in rows],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def public(self, caller: Caller, request: KeyName, tx: Tx) -> PublicKeyStatement:
        """Give the public half, vouched for by the deployment key.

        Raises:
            ConfigurationError: There is no such key, or it is symmetric.
        """
        self._grants.require(tx, caller, "key.read", f"key/{request.key}")
        held = self._ring.current(tx, caller.tenant, request.key, *ALGS)
        if held.purpose not in _PUBLIC:
            raise ConfigurationError("a symmetric key has no public half", hint="ask for a data key")
        now = int(self._clock())
        jwk = held.key.public().to_jwk()
        statement = sign_public_key(
            PublicKey(
                tenant=caller.tenant,
                kid=held.kid,
                purpose=held.purpose,
                jwk=jwk,
                not_before=now - SKEW_SECONDS,
                expires=now + STATEMENT_SECONDS,
            ),
            deployment_key=self._deployment_key,
        )
        self._record_version(tx, caller, "key.public", request.key, held)
        return PublicKeyStatement(kid=held.kid, jwk=jwk, statement=statement)

    def data_key(self, caller: Caller, request: DataKeyRequest, tx: Tx) -> IssuedDataKey:
        """Issue a fresh DEK to seal with (right `seal`).

        Raises:
            ConfigurationError: There is no such key, or it is sealed to offline.
        """
        resource = f"key/{request.key}"
        self._grants.require(tx, caller, "seal", resource)
        issued = self._manager.issue_data_key(tx, caller.tenant, request.key, messages=request.messages)
        self._audit.record(
            tx,
            caller,
            act="key.data_key",
            resource=resource,
            detail={
                "kid": issued.kid,
                "encrypted_key": digest(issued.encrypted_key),
                "messages": issued.max_messages,
            },
        )
        return IssuedDataKey(
            kid=issued.kid,
            dek=b64url_encode(issued.dek.reveal()),
            encrypted_key=b64url_encode(issued.encrypted_key),
            max_messages=issued.max_messages,
            max_bytes=issued.max_bytes,
            max_age_seconds=int(issued.max_age_seconds),
        )

    def wrap(self, caller: Caller, request: WrapRequest, tx: Tx) -> WrappedKey:
        """Wrap a DEK that the client drew (right `wrap`).

        Raises:
            ConfigurationError: There is no such key, or it wraps no DEKs.
        """
        resource = f"key/{request.key}"
        self._grants.require(tx, caller, "wrap", resource)
        dek = Secret(_decode(request.dek))
        kid, encrypted_key = self._manager.wrap(tx, caller.tenant, request.key, dek)
        self._audit.record(
            tx,
            caller,
            act="key.wrap",
            resource=resource,
            detail={"kid": kid, "encrypted_key": digest(encrypted_key)},
        )
        return WrappedKey(kid=kid, encrypted_key=b64url_encode(encrypted_key))

    def unwrap(self, caller: Caller, request: UnwrapRequest, tx: Tx) -> UnwrappedKey:
        """Give a DEK in the clear (right `unwrap`; one audit entry a DEK).

        Raises:
            OpenError: There is no such version, or it did not wrap this.
        """
        resource = f"key/{request.kid.rpartition('.')[0]}"
        self._grants.require(tx, caller, "unwrap", resource)
        encrypted_key = _decode(request.encrypted_key)
        dek = self._manager.unwrap(tx, caller.tenant, request.kid, encrypted_key, request.ek)
        self._audit.record(
            tx,
            caller,
            act="key.unwrap",
            resource=resource,
            detail={"kid": request.kid, "encrypted_key": digest(encrypted_key)},
        )
        return UnwrappedKey(dek=b64url_encode(dek.reveal()))

    def open(self, caller: Caller, request: ValueOpen, tx: Tx) -> OpenedValues:
        """Open values here (right `decrypt` on every key among them; one audit entry a value)."""
        values = [_parsed(item.sealed) for item in request.values]
        keys = frozenset(value.key for value in values if isinstance(value, Sealed))
        for key in sorted(keys):
            self._grants.require(tx, caller, "decrypt", f"key/{key}")
        opened = self._manager.open_granted(
            tx,
            caller.tenant,
            values,
            [item.context for item in request.values],
            keys=keys,
        )
        self._audit.record_many(tx, caller, act="value.open", events=list(map(_event, values, opened)))
        return OpenedValues(values=list(map(_opened, opened)))

    def _record_version(self, tx: Tx, caller: Caller, act: str, key: str, held: HeldKey) -> None:
        self._audit.record(tx, caller, act=act, resource=f"key/{key}", detail={"kid": held.kid})


def new_record(request: KeyCreate, *, now: int) -> KeyRecord:
    """The row of a key that is asked for.

    Raises:
        ConfigurationError: The purpose has no such algorithm.
    """
    algs = ALGS[request.purpose]
    alg = request.alg or algs[0]
    if alg not in algs:
        raise ConfigurationError(
            f"a key for {request.purpose} has another algorithm", hint=f"one of {', '.join(algs)}"
        )
    return KeyRecord(
        purpose=request.purpose,
        alg=alg,
        latest=1,
        created_at=now,
        rotated_at=now,
        exportable=request.exportable,
        active_seconds=request.active_seconds,
        recipient_seconds=request.recipient_seconds,
        rotate_seconds=request.rotate_seconds,
        max_messages=request.max_messages,
        destroy_wait_seconds=request.destroy_wait_seconds or DESTROY_WAIT_SECONDS,
    )


def key_info(tx: Tx, row: Row[KeyRecord], *, now: int) -> KeyInfo:
    """What is told of a key, without any material."""
    key, record = row.id, row.record
    found = tx.scan(KEY_VERSIONS, row.tenant, prefix=version_id(f"{key}.", record.purpose))
    versions = sorted((version.record for version in found), key=lambda version: version.number)
    able = [v for v in versions if v.number >= record.min_seal and v.life.protects(now)]
    return KeyInfo(
        key=key,
        purpose=record.purpose,
        alg=record.alg,
        kid=able[-1].kid if able else None,
        exportable=record.exportable,
        min_seal=record.min_seal,
        min_open=record.min_open,
        active_seconds=record.active_seconds,
        recipient_seconds=record.recipient_seconds,
        rotate_seconds=record.rotate_seconds,
        rotate_at=record.rotate_seconds and record.rotated_at + record.rotate_seconds,
        max_messages=record.max_messages,
        destroy_wait_seconds=record.destroy_wait_seconds,
        versions=[version_info(version, now=now) for version in versions],
    )


def version_info(version: KeyVersion, *, now: int) -> VersionInfo:
    """What is told of a version."""
    life = version.life
    return VersionInfo(
        kid=version.kid,
        state=life.state_at(now),
        origin=version.origin,
        created_at=version.created_at,
        activate_at=life.activate_at,
        deactivate_at=life.deactivate_at,
        destroy_at=life.destroy_at,
        processing_accepted=life.processing_accepted,
    )


def _parsed(text: str) -> str:
    """The value with its header read, or the text as it came if it is none."""
    try:
        return Sealed(text)
    except OpenError:
        return text


def _event(value: str, opened: Value | OpenError) -> Event:
    # The digest is of ciphertext, so it gives nothing away.
    return Event(
        resource=f"key/{value.key}" if isinstance(value, Sealed) else "key/*",
        outcome="failed" if isinstance(opened, OpenError) else "done",
        detail={"sealed": digest(value.encode("utf-8", "surrogatepass"))},
    )


def _opened(value: Value | OpenError) -> Opened:
    if isinstance(value, OpenError):
        return Opened(error=value.code)
    if isinstance(value, bytes):
        return Opened(cty="octets", value=b64url_encode(value))
    return Opened(cty="text" if isinstance(value, str) else "json", value=value)


def _decode(text: str) -> bytes:
    try:
        return b64url_decode(text)
    except ValueError:
        raise ConfigurationError("this is not canonical base64url") from None
