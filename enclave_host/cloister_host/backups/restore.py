"""Restore a backup into an empty store: all of it, or nothing (docs/disaster-recovery.md).

Everything happens in one transaction of the database: schema, rows, the check of every row under the root
key, what a later moment must not repeat, and the entry in the log. A restore that dies leaves an
empty store.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import BinaryIO

from cloister import jose
from cloister.backups import Backup, Manifest
from cloister.errors import ConfigurationError
from cloister.receipts.head import TreeHead
from cloister_host.attester import Attester
from cloister_host.attester.parts import AttesterParts, build_attester
from cloister_host.backups.incarnate import Restored, begin_incarnation
from cloister_host.backups.load import is_empty, load
from cloister_host.backups.records import incarnation
from cloister_host.guarding import guardian_of
from cloister_host.keymanager.root import RootKey
from cloister_host.services import build_services
from cloister_host.settings import HostSettings
from cloister_host.store import Database, Store
from cloister_host.store.anchors import RolledBackError
from cloister_host.unseal.choose import open_unseal
from cloister_host.unseal.root import unseal_root

__all__ = ["restore"]


def restore(
    settings: HostSettings,
    source: BinaryIO,
    *,
    key: jose.Key,
    known: TreeHead | None = None,
    accept_rollback: str = "",
    attester: Attester | None = None,
    clock: Callable[[], float] = time.time,
) -> Restored:
    """Restore a deployment. It can be asked for again: what is complete stays as it is.

    Args:
        settings: Of the host that will serve; its store is empty.
        source: The backup, seekable.
        key: The private backup key.
        known: A head of the log that somebody saw.
        accept_rollback: Id of the backup, if it may undo what the anchor, or somebody, has seen since.
        attester: One that was built elsewhere, instead of the choice of the settings.
        clock: Epoch seconds.

    Raises:
        ConfigurationError: The store is not empty, or something does not fit.
        OpenError: The backup does not open, or is not whole.
        EvidenceError: The backup is not signed by the deployment whose root key it holds.
        LogError: Its log is another than the one that was seen.
        RolledBackError: It is older than what the anchor, or somebody, has seen.
        TamperedError: Its rows are not what the host wrote.
    """
    backup = Backup(source, deployment=None)
    backup.check_object()
    manifest = backup.manifest
    if clock() < manifest.created_at:
        raise ConfigurationError(
            "the backup comes from the future of this machine's clock", hint="set the clock right"
        )
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    parts = build_attester(settings.attester, state=settings.state, clock=clock, attester=attester)
    database = Database(settings.database_url)
    try:
        with database.begin(alone=True) as session:
            joined = database.joined(session)
            empty = is_empty(session)
            if empty:
                load(joined, session, backup, key, known=known)
            root = _root(joined, settings, parts)
            # The manifest was signed by whom it names; whose rows these are is known by the root key alone.
            if root.deployment != manifest.deployment:
                raise ConfigurationError(
                    "the store or the backup belongs to another deployment",
                    hint="each deployment has a database of its own",
                )
            store = Store(joined, root.row_keys())
            if empty:
                done = _begin(settings, store, root, manifest, known, accept_rollback, clock)
            else:
                done = _restored_before(store, manifest)
        if settings.anchor is not None:
            store = Store(database, root.row_keys())
            store.verify()
            guardian_of(settings, store, root.row_keys()).anchor_now(anew=True)
        return done
    finally:
        database.close()


def _begin(  # noqa: PLR0917 (one step of `restore`)
    settings: HostSettings,
    store: Store,
    root: RootKey,
    manifest: Manifest,
    known: TreeHead | None,
    accept_rollback: str,
    clock: Callable[[], float],
) -> Restored:
    """Check what was loaded, under the root key and against what is known elsewhere, and begin anew."""
    guardian = guardian_of(settings, store, root.row_keys())
    undone = ["the anchor"] if guardian.is_behind(store.verify()) else []
    if known is not None and known.size > manifest.head.size:
        undone.append("somebody's tree head")
    if undone and accept_rollback != manifest.id:
        raise RolledBackError(
            f"the backup {manifest.id} is older than what {' and '.join(undone)} saw",
            hint=f"restore a later one, or undo that with --accept-rollback {manifest.id}",
        )
    services = build_services(store, root, clock)
    services.log.open()
    services.log.require_intact()
    with store.begin() as tx:
        return begin_incarnation(
            tx,
            services.audit,
            manifest,
            clock=clock,
            at_least=guardian.anchored_incarnation(),
            detail={"rolled_back_against": ", ".join(undone)} if undone else {},
        )


def _restored_before(store: Store, manifest: Manifest) -> Restored:
    """What was restored from this very backup before; then only its anchor may be missing."""
    with store.begin() as tx:
        current = incarnation(tx)
    if current.backup != manifest.id:
        raise ConfigurationError(
            "this store is not empty", hint="restore into a new, empty database; nothing is overwritten"
        )
    return Restored(
        deployment=manifest.deployment, backup=manifest.id, incarnation=current.number, again=True
    )


def _root(database: Database, settings: HostSettings, parts: AttesterParts) -> RootKey:
    unseal = open_unseal(settings, parts)
    environment = parts.machine.environment
    return unseal_root(database, unseal, environment, accept_file_unseal=settings.accept_file_unseal)
