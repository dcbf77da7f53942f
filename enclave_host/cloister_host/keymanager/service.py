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
from cloister_host.keymanager.records import KEY_VERSIONS, KEYS, version_id
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import Grants
from cloister_host.store import Tx
from cloister_host.store.canonical import digest

__all__ = ["KeyService"]

STATEMENT_SECONDS: Final = 24 * 3600
SKEW_SECONDS: Final = 60


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
            "key.rotate": Operation(KeyName, self.rotate, effect=True),
            "key.list": Operation(Page, self.list, effect=False),
            "key.public": Operation(KeyName, self.public, effect=False),
            "key.data_key": Operation(DataKeyRequest, self.data_key, effect=False),
            "key.wrap": Operation(WrapRequest, self.wrap, effect=False),
            "key.unwrap": Operation(UnwrapRequest, self.unwrap, effect=False),
            "value.open": Operation(ValueOpen, self.open, effect=False),
        }

    def create(self, caller: Caller, request: KeyCreate, tx: Tx) -> NewKey:
        """Create a key.

        Raises:
            ExistsError: The name is taken.
        """
        resource = f"key/{request.key}"
        self._grants.require(tx, caller, "key.manage", resource)
        held = self._ring.create(tx, caller.tenant, request.key, request.purpose)
        self._record_version(tx, caller, "key.create", request.key, held)
        return NewKey(key=request.key, kid=held.kid, purpose=held.purpose)

    def rotate(self, caller: Caller, request: KeyName, tx: Tx) -> NewKey:
        """Make a new version seal; older ones go on opening.

        Raises:
            ConfigurationError: There is no such key.
        """
        self._grants.require(tx, caller, "key.manage", f"key/{request.key}")
        held = self._ring.rotate(tx, caller.tenant, request.key)
        self._record_version(tx, caller, "key.rotate", request.key, held)
        return NewKey(key=request.key, kid=held.kid, purpose=held.purpose)

    def list(self, caller: Caller, request: Page, tx: Tx) -> KeyList:
        """List keys and their versions, without any material."""
        self._grants.require(tx, caller, "key.read", "key/*")
        rows = tx.scan(KEYS, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="key.list", resource="key/*")
        return KeyList(
            keys=[
                KeyInfo(
                    key=row.id,
                    purpose=row.record.purpose,
                    kid=f"{row.id}.{row.record.current}",
                    versions=_versions(tx, caller.tenant, row.id),
                )
                for row in rows
            ],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def public(self, caller: Caller, request: KeyName, tx: Tx) -> PublicKeyStatement:
        """Give the public half, vouched for by the deployment key.

        Raises:
            ConfigurationError: There is no such key, or it is symmetric.
        """
        self._grants.require(tx, caller, "key.read", f"key/{request.key}")
        held = self._ring.current(tx, caller.tenant, request.key)
        if held.purpose == "seal":
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
        issued = self._manager.issue_data_key(tx, caller.tenant, request.key)
        self._audit.record(
            tx,
            caller,
            act="key.data_key",
            resource=resource,
            detail={"kid": issued.kid, "encrypted_key": digest(issued.encrypted_key)},
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


def _versions(tx: Tx, tenant: str, key: str) -> list[VersionInfo]:
    rows = tx.scan(KEY_VERSIONS, tenant, prefix=version_id(f"{key}."))
    return [
        VersionInfo(kid=f"{key}.{v.number}", state=v.state, created_at=v.created_at)
        for v in sorted((row.record for row in rows), key=lambda version: version.number)
    ]


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
