"""Everything the host does with its store, built in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cloister_host.audit import Audit, Log
from cloister_host.audit.service import AuditService
from cloister_host.backups.service import BackupService
from cloister_host.identity.api_keys import ApiKeyHasher
from cloister_host.identity.identity import Identity
from cloister_host.identity.issuer_keys import Fetch, IssuerKeys
from cloister_host.identity.issuers import IssuerService
from cloister_host.identity.principals import PrincipalService
from cloister_host.identity.tenants import TenantService
from cloister_host.keymanager.administration import KeyAdministration
from cloister_host.keymanager.applications import KeyApplications
from cloister_host.keymanager.clock import ForwardClock
from cloister_host.keymanager.keyring import KeyRing
from cloister_host.keymanager.manager import KeyManager
from cloister_host.keymanager.rewrap import Rewrapper
from cloister_host.keymanager.root import RootKey
from cloister_host.keymanager.scheduler import Chore
from cloister_host.keymanager.service import KeyService
from cloister_host.keymanager.transfer import KeyTransfer
from cloister_host.keymanager.usage import Usage
from cloister_host.operations import Operation
from cloister_host.policy.approvers import Approvers
from cloister_host.policy.grants import Grants
from cloister_host.policy.groups import GroupService
from cloister_host.policy.quorum import Quorum
from cloister_host.policy.quorum_service import QuorumService
from cloister_host.policy.service import GrantService
from cloister_host.secrets import Secrets
from cloister_host.store import Store
from cloister_host.store.idempotency import Idempotency
from cloister_host.store.replay import ReplayGuard
from cloister_host.tokenization.service import TokenizationService
from cloister_host.tokenization.vault import Vault

__all__ = ["Services", "bootstrap", "build_services"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services of one host."""

    store: Store
    clock: Callable[[], float]
    audit: Audit
    log: Log
    audit_service: AuditService
    grants: Grants
    grant_service: GrantService
    groups: GroupService
    quorum: Quorum
    quorum_service: QuorumService
    identity: Identity
    issuers: IssuerService
    principals: PrincipalService
    tenants: TenantService
    keymanager: KeyManager
    keys: KeyService
    key_administration: KeyAdministration
    key_applications: KeyApplications
    key_transfer: KeyTransfer
    rewrapper: Rewrapper
    tokenization: TokenizationService
    secrets: Secrets
    replay: ReplayGuard
    idempotency: Idempotency
    backups: BackupService

    def chores(self) -> Sequence[Chore]:
        """What the scheduler does for these services."""
        return (self.key_administration.keep, self.key_transfer.keep, self.secrets.keep)

    def operations(self) -> Mapping[str, Operation]:
        """Every operation of these services, by name."""
        return {
            **self.tenants.operations(),
            **self.principals.operations(),
            **self.issuers.operations(),
            **self.grant_service.operations(),
            **self.groups.operations(),
            **self.quorum_service.operations(),
            **self.keys.operations(),
            **self.key_administration.operations(),
            **self.key_applications.operations(),
            **self.key_transfer.operations(),
            **self.rewrapper.operations(),
            **self.tokenization.operations(),
            **self.secrets.operations(),
            **self.audit_service.operations(),
            **self.backups.operations(),
        }


def build_services(
    store: Store,
    root: RootKey,
    clock: Callable[[], float],
    *,
    fetch: Fetch | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Services:
    """Build the services over a migrated store.

    Args:
        store: Opened with `root.row_keys()`.
        root: The unsealed root key.
        clock: Epoch seconds.
        fetch: How the keys of token issuers are fetched; without it they have to be pinned.
        monotonic: Seconds that only go forward.
    """
    audit = Audit(clock)
    grants = Grants(audit, clock)
    hasher = ApiKeyHasher(root.api_key_hash_key())
    approvers = Approvers(grants)
    quorum = Quorum(approvers, audit, clock)
    principals = PrincipalService(hasher, grants, quorum, audit, clock)
    forward = ForwardClock(clock)
    ring = KeyRing(forward)
    usage = Usage()
    keymanager = KeyManager(ring, usage, grants, audit, clock)
    return Services(
        store=store,
        clock=clock,
        audit=audit,
        log=Log(store, audit, root.log_key, clock),
        audit_service=AuditService(audit, grants),
        grants=grants,
        grant_service=GrantService(grants, quorum, audit, clock),
        groups=GroupService(grants, quorum, audit, clock),
        quorum=quorum,
        quorum_service=QuorumService(
            quorum=quorum, approvers=approvers, grants=grants, audit=audit, clock=clock
        ),
        identity=Identity(hasher, IssuerKeys(fetch, monotonic), audit, clock=clock, monotonic=monotonic),
        issuers=IssuerService(
            deployment=root.deployment, grants=grants, quorum=quorum, audit=audit, clock=clock
        ),
        principals=principals,
        tenants=TenantService(
            principals=principals,
            grants=grants,
            quorum=quorum,
            audit=audit,
            clock=clock,
            forget=keymanager.forget,
        ),
        keymanager=keymanager,
        keys=KeyService(
            ring=ring,
            manager=keymanager,
            grants=grants,
            audit=audit,
            deployment_key=root.deployment_key,
            clock=clock,
        ),
        key_applications=KeyApplications(
            ring=ring, manager=keymanager, usage=usage, grants=grants, audit=audit
        ),
        key_transfer=KeyTransfer(
            ring=ring, grants=grants, quorum=quorum, audit=audit, deployment_key=root.deployment_key
        ),
        rewrapper=Rewrapper(ring=ring, manager=keymanager, usage=usage, grants=grants, audit=audit),
        key_administration=KeyAdministration(
            ring=ring, usage=usage, grants=grants, quorum=quorum, audit=audit
        ),
        tokenization=TokenizationService(
            ring=ring, vault=Vault(clock), grants=grants, quorum=quorum, audit=audit, clock=clock
        ),
        secrets=Secrets(grants=grants, quorum=quorum, audit=audit, clock=forward),
        replay=ReplayGuard(clock),
        idempotency=Idempotency(clock),
        backups=BackupService(
            store=store,
            keys=root.row_keys(),
            deployment_key=root.deployment_key,
            log_key=root.log_key,
            grants=grants,
            quorum=quorum,
            audit=audit,
            clock=clock,
        ),
    )


def bootstrap(services: Services) -> str:
    """Create the system tenant; returns the API key of its operator, which is shown this once.

    Raises:
        ConfigurationError: This store has it already.
    """
    with services.store.begin() as tx:
        api_key = services.tenants.bootstrap(tx)
        services.log.create(tx)
    return api_key
