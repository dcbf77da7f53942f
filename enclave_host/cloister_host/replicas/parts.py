"""What makes a host one of several, built in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cloister.errors import ConfigurationError
from cloister.protocol.handover import Terms
from cloister.protocol.handover_messages import Proof
from cloister_host.attester.parts import AttesterParts
from cloister_host.keymanager.root import RootKey
from cloister_host.keysets import KeysetManager
from cloister_host.replicas.giver import Giver
from cloister_host.replicas.holders import (
    Holders,
    HolderService,
    is_listed,
    read_holders,
)
from cloister_host.replicas.peers import Asking, Peers
from cloister_host.services import Services
from cloister_host.settings import HostSettings

__all__ = ["Replicas", "build_replicas"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """This host among others."""

    keysets: KeysetManager
    giver: Giver
    peers: Peers
    holders: HolderService


def build_replicas(
    settings: HostSettings,
    *,
    root: RootKey,
    parts: AttesterParts,
    services: Services,
    config: Mapping[str, Any],
    clock: Callable[[], float],
) -> Replicas:
    """Build what exchanges keys with the other hosts.

    Raises:
        ConfigurationError: This kind of machine may not hold the deployment's keys.
    """
    machine = parts.machine.holder()
    with services.store.begin() as tx:
        holders = read_holders(tx, machine)
    if not is_listed(machine, holders.entries):
        raise ConfigurationError(
            "this kind of machine may not hold the deployment's keys",
            hint="`cloister holder add` on a running host, with what `cloister host holder` prints here",
        )
    keysets = KeysetManager(
        deployment_key=root.deployment_key,
        log_key=root.log_key,
        attester=parts.attester,
        endorsements=parts.endorser.current,
        config=config,
        holders=holders.entries,
        holders_version=holders.version,
        clock=clock,
    )

    def terms() -> Terms:
        entries, version = keysets.holders
        current = Holders(entries=tuple(entries), version=version)
        return _terms(settings, parts, current, config=config, deployment=root.deployment)

    prove = partial(_prove, parts)
    giver = Giver(
        terms=terms,
        prove=prove,
        keysets=keysets,
        deployment_key=root.deployment_key,
        store=services.store,
        audit=services.audit,
        clock=clock,
    )
    peers = Peers(
        store=services.store,
        keysets=keysets,
        asking=Asking(terms=terms, prove=prove, clock=clock),
        machine=machine,
        doors=settings.doors,
        seeds=settings.peers,
        clock=clock,
    )
    giver.follow = peers.follow
    return Replicas(
        keysets=keysets,
        giver=giver,
        peers=peers,
        holders=HolderService(machine, services.grants, services.audit),
    )


def _terms(
    settings: HostSettings,
    parts: AttesterParts,
    holders: Holders,
    *,
    config: Mapping[str, Any],
    deployment: str,
) -> Terms:
    return Terms(
        deployment=deployment,
        environment=parts.machine.environment,
        holders=holders.entries,
        holders_version=holders.version,
        config=config,
        trust_anchors=settings.attester.anchors(),
    )


def _prove(parts: AttesterParts, statement: bytes, nonce: bytes) -> Proof:
    """Evidence of this machine, with what endorses it."""
    stapled = parts.endorser.current()
    return Proof(
        format=str(parts.attester.format),
        evidence=parts.attester.evidence(statement=statement, nonce=nonce),
        endorsements=tuple(stapled.endorsements),
        collateral=stapled.collateral,
    )
