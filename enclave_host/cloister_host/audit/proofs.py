"""Proofs through the API: checkpoints and exports of the log, where an entry or a receipt stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from cloister.errors import ConfigurationError, UnavailableError
from cloister.jose import b64url_encode
from cloister.protocol import AttestationDocument
from cloister.receipts.export import Extent, end_line, entry_line, header_line, sign_extent
from cloister.receipts.merkle import cover
from cloister_host.audit.audit import Audit, Written
from cloister_host.audit.log import Log, Proof
from cloister_host.audit.messages import (
    Checkpoint,
    Checkpointed,
    Consistency,
    Consistent,
    Evidence,
    Export,
    Exported,
    Prove,
    Proved,
    ReceiptEvidence,
    ReceiptProof,
    ReceiptProved,
)
from cloister_host.audit.receipts import EvidenceArchive
from cloister_host.identity.caller import Caller
from cloister_host.operations import Operation
from cloister_host.policy.grants import Grants
from cloister_host.store import Tx

__all__ = ["LogService", "Stapler"]

RESOURCE: Final = "audit/*"


class Stapler(Protocol):
    """Port: evidence over the current keyset, which names the log key."""

    def staple(self) -> AttestationDocument:
        """Evidence that answers no challenge."""
        ...


class LogService:
    """What the log proves to a tenant of its own entries (right `audit.read`)."""

    def __init__(
        self, log: Log, audit: Audit, grants: Grants, stapler: Stapler, archive: EvidenceArchive
    ) -> None:
        self._archive = archive
        self._log = log
        self._audit = audit
        self._grants = grants
        self._stapler = stapler

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "audit.checkpoint": Operation(Checkpoint, self.checkpoint, effect=False),
            "audit.export": Operation(Export, self.export, effect=False),
            "audit.consistency": Operation(Consistency, self.consistency, effect=False),
            "audit.prove": Operation(Prove, self.prove, effect=False),
            "receipt.proof": Operation(ReceiptProof, self.receipt_proof, effect=False),
            "receipt.evidence": Operation(ReceiptEvidence, self.receipt_evidence, effect=False),
        }

    def checkpoint(self, caller: Caller, _request: Checkpoint, tx: Tx) -> Checkpointed:
        """Say what the log looks like now, and what of it is the caller's tenant's."""
        self._permit(tx, caller)
        head, entries, chain = self._log.extent(tx, caller.tenant)
        extent = Extent(
            deployment=head.deployment,
            tenant=caller.tenant,
            size=head.size,
            entries=entries,
            chain=chain,
        )
        header = header_line(
            head=head, extent=sign_extent(extent, key=self._log.key), evidence=self._stapler.staple()
        )
        self._record(tx, caller, "audit.checkpoint", size=head.size)
        return Checkpointed(header=header, size=head.size)

    def export(self, caller: Caller, request: Export, tx: Tx) -> Exported:
        """Give the next lines of an export, as of a checkpoint's size."""
        self._permit(tx, caller)
        if not request.start <= request.size <= self._log.head(tx, at_least=request.size).size:
            raise ConfigurationError("the log is not as large as that", hint="ask for a checkpoint first")
        entries = self._audit.placed(
            tx, caller.tenant, start=request.start, end=request.size, limit=request.limit
        )
        at, lines = request.start, list[str]()
        for entry in entries:
            assert entry.position is not None
            before = self._log.nodes(tx, cover(at, entry.position))
            lines.append(
                entry_line(
                    index=entry.position,
                    salt=entry.recorded.salt,
                    before=before,
                    entry=entry.recorded.entry,
                )
            )
            at = entry.position + 1
        ended = len(entries) < request.limit
        if ended:
            behind = self._log.nodes(tx, cover(at, request.size))
            lines.append(end_line(size=request.size, before=behind))
        self._record(tx, caller, "audit.export", entries=len(entries))
        return Exported(lines="".join(f"{line}\n" for line in lines), next=None if ended else at)

    def consistency(self, caller: Caller, request: Consistency, tx: Tx) -> Consistent:
        """Prove that one size of the tree continues another."""
        self._permit(tx, caller)
        if not request.first <= request.second <= self._log.head(tx, at_least=request.second).size:
            raise ConfigurationError("the log is not as large as that, or the sizes are the wrong way round")
        path = self._log.consistency(tx, request.first, request.second)
        self._record(tx, caller, "audit.consistency", first=request.first, second=request.second)
        return Consistent(path=b64url_encode(b"".join(path)))

    def prove(self, caller: Caller, request: Prove, tx: Tx) -> Proved:
        """Prove that an entry is in the log.

        Raises:
            ConfigurationError: The tenant has no such entry.
            UnavailableError: It was recorded so recently that it has no place yet.
        """
        self._permit(tx, caller)
        entry = self._audit.find(tx, caller.tenant, request.entry)
        if entry is None:
            raise ConfigurationError("there is no such entry", hint="`cloister audit list` has their ids")
        proof = placed(self._log, tx, entry)
        self._record(tx, caller, "audit.prove", entry=request.entry)
        return Proved(
            index=proof.index,
            salt=b64url_encode(entry.recorded.salt),
            entry=entry.recorded.entry.decode(),
            path=b64url_encode(b"".join(proof.path)),
            head=proof.head.token,
            evidence=self._stapler.staple().to_json(),
        )

    def receipt_proof(self, caller: Caller, request: ReceiptProof, tx: Tx) -> ReceiptProved:
        """Prove that a receipt's leaf is in the log: to whom it was given, or with the right `audit.read`.

        Raises:
            ConfigurationError: The tenant has no such receipt.
            UnavailableError: Its leaf has no place yet.
        """
        entry = self._audit.find(tx, caller.tenant, request.receipt)
        if entry is None or not _is_of(entry, caller):
            self._permit(tx, caller)
        if entry is None:
            raise ConfigurationError("there is no such receipt", hint="`cloister receipt show` has its id")
        proof = placed(self._log, tx, entry)
        self._record(tx, caller, "receipt.proof", receipt=request.receipt)
        path = b64url_encode(b"".join(proof.path))
        return ReceiptProved(index=proof.index, path=path, head=proof.head.token)

    def receipt_evidence(self, caller: Caller, request: ReceiptEvidence, tx: Tx) -> Evidence:
        """Give the evidence behind a keyset; it is as public as the answer to a challenge."""
        document = self._archive.find(tx, request.keyset, at=request.at)
        self._record(tx, caller, "receipt.evidence", keyset=request.keyset)
        return Evidence(evidence=document.to_json())

    def _permit(self, tx: Tx, caller: Caller) -> None:
        self._grants.require(tx, caller, "audit.read", RESOURCE)

    def _record(self, tx: Tx, caller: Caller, act: str, **detail: str | int) -> None:
        self._audit.record(tx, caller, act=act, resource=RESOURCE, detail=detail)


def _is_of(entry: Written, caller: Caller) -> bool:
    content = entry.recorded.content
    return caller.principal in {content.principal, content.on_behalf_of}


def placed(log: Log, tx: Tx, entry: Written) -> Proof:
    """Prove an entry.

    Raises:
        UnavailableError: It has no place yet.
    """
    proof = log.inclusion(tx, entry)
    if proof is None:
        raise UnavailableError("this entry has no place in the log yet", hint="it has one in a few seconds")
    return proof
