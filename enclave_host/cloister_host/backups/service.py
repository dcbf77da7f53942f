"""Takes backups, for callers of the system tenant, and remembers which there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from cloister import jose
from cloister.backups import BackupWriter, Manifest
from cloister.errors import CloisterError, ConfigurationError
from cloister.receipts.head import TreeHead, verify_head_under
from cloister_host.audit import Audit
from cloister_host.backups.messages import BackupCreate, BackupInfo, BackupList, BackupName
from cloister_host.backups.records import BACKUPS, BackupRecord, incarnation
from cloister_host.backups.snapshot import checked_records
from cloister_host.identity.caller import SYSTEM_TENANT, Caller
from cloister_host.operations import Operation, Page
from cloister_host.policy.grants import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Row, RowKeys, Store, TamperedError, Tx
from cloister_host.store.database import Reading

__all__ = ["BackupService"]

ID_BYTES: Final = 16


class _Transactions(Protocol):
    """Port: what a streamed operation is given."""

    def begin(self) -> AbstractContextManager[Tx]:
        """A transaction of its own."""
        ...


class BackupService:
    """Streams backups to whoever may take them.

    Args:
        store: What is backed up.
        keys: Row keys of the deployment.
        deployment_key: Signs manifests.
        log_key: Signs tree heads; the manifest names its public half.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        *,
        store: Store,
        keys: RowKeys,
        deployment_key: jose.Key,
        log_key: jose.Key,
        grants: Grants,
        quorum: Quorum,
        audit: Audit,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._keys = keys
        self._deployment_key = deployment_key
        self._log_key = log_key
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "backup.create": Operation(BackupCreate, self.create, effect=False, streamed=True),
            "backup.list": Operation(Page, self.list, effect=False),
            "backup.forget": Operation(BackupName, self.forget, effect=True),
        }

    def create(self, caller: Caller, request: BackupCreate, slices: _Transactions) -> Iterator[bytes]:
        """Back everything up, as of one moment: pieces of the file, each `{"data": base64url}`.

        What is not the host's own is noticed on the way, and the file is never finished then. Nobody
        else waits for it.

        Raises:
            ConfigurationError: The key is no public HPKE key with a name.
            QuorumNeededError: Others have to approve it.
            TamperedError: The store is not what the host wrote.
        """
        key = _public_key(request)
        writer = BackupWriter(key)
        backup = jose.b64url_encode(os.urandom(ID_BYTES))
        resource = f"backup/{backup}"
        with slices.begin() as tx:
            self._require(tx, caller, "backup.create", "backup/*")
            thumbprint = jose.thumbprint(key)
            digest = request_digest("backup.create", request)
            self._quorum.require(tx, caller, "backup.create", "backup/*", digest, detail={"key": thumbprint})
            record = BackupRecord(
                created_at=int(self._clock()),
                by=caller.principal,
                key=thumbprint,
                generations=tuple(sorted(tx.root_generations())),
                state="begun",
            )
            tx.insert(BACKUPS, SYSTEM_TENANT, backup, record)
            number = incarnation(tx).number
            self._audit.record(
                tx,
                caller,
                act="backup.create",
                resource=resource,
                outcome="intent",
                detail={"key": thumbprint},
            )
        try:
            with self._store.reading() as reading:
                manifest = Manifest(
                    deployment=self._keys.deployment,
                    id=backup,
                    created_at=record.created_at,
                    incarnation=number,
                    head=self._head(reading),
                    log_key=self._log_key.public().to_jwk(),
                    key=thumbprint,
                    object_bytes=0,
                    object_digest="",
                )
                yield from map(_piece, writer.seal(checked_records(reading, self._keys, manifest)))
        except CloisterError as error:
            with slices.begin() as tx:
                detail = {"error": error.code}
                self._audit.record(
                    tx, caller, act="backup.create", resource=resource, outcome="failed", detail=detail
                )
            raise
        # Known to be whole before anybody has the whole of it.
        with slices.begin() as tx:
            row = self._row(tx, backup)
            tx.put(
                BACKUPS, SYSTEM_TENANT, backup, replace(row.record, state="complete", digest=writer.digest)
            )
            self._audit.record(
                tx,
                caller,
                act="backup.create",
                resource=resource,
                detail={"key": thumbprint, "digest": writer.digest, "log_size": manifest.head.size},
            )
        signed = manifest.of_object(writer.digest, writer.size).sign(self._deployment_key)
        yield _piece(writer.finish(signed))

    def list(self, caller: Caller, request: Page, tx: Tx) -> BackupList:
        """List the backups that were taken."""
        self._require(tx, caller, "backup.manage", "backup/*")
        rows = tx.scan(BACKUPS, SYSTEM_TENANT, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="backup.list", resource="backup/*")
        return BackupList(
            backups=[_info(row) for row in rows], next=rows[-1].id if len(rows) == request.limit else ""
        )

    def forget(self, caller: Caller, request: BackupName, tx: Tx) -> BackupInfo:
        """Note that every copy of a backup was destroyed; deleted tenants wait for that.

        Raises:
            ConfigurationError: There is no such backup.
        """
        resource = f"backup/{request.backup}"
        self._require(tx, caller, "backup.manage", resource)
        row = self._row(tx, request.backup)
        row = tx.put(BACKUPS, SYSTEM_TENANT, row.id, replace(row.record, state="gone"))
        self._audit.record(tx, caller, act="backup.forget", resource=resource)
        return _info(row)

    def _head(self, reading: Reading) -> TreeHead:
        tokens = [token for (token,) in reading.rows("SELECT token FROM log_heads WHERE id = 1")]
        try:
            [token] = tokens
            return verify_head_under(token, key=self._log_key.public(), deployment=self._keys.deployment)
        except (ValueError, TypeError, CloisterError):
            raise TamperedError("log_heads") from None

    def _row(self, tx: Tx, backup: str) -> Row[BackupRecord]:
        row = tx.get(BACKUPS, SYSTEM_TENANT, backup)
        if row is None:
            raise ConfigurationError("there is no such backup", hint="see `cloister backup list`")
        return row

    def _require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None:
        # A backup has the rows of every tenant: nobody outside the system tenant takes one.
        if caller.tenant != SYSTEM_TENANT:
            self._grants.deny(tx, caller, action, resource)
        self._grants.require(tx, caller, action, resource)


def _public_key(request: BackupCreate) -> jose.Key:
    key = jose.Key.from_jwk(request.key)
    if jose.public_jwk(key) != request.key:
        raise ConfigurationError("a private key was sent, or unknown members", hint="send its public half")
    return key


def _piece(data: bytes) -> bytes:
    return msgspec.json.encode({"data": jose.b64url_encode(data)})


def _info(row: Row[BackupRecord]) -> BackupInfo:
    record = row.record
    return BackupInfo(
        backup=row.id,
        created_at=record.created_at,
        by=record.by,
        key=record.key,
        generations=list(record.generations),
        state=record.state,
        digest=record.digest,
    )
