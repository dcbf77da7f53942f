"""Issuers that a tenant trusts, and the exact claims that make somebody one of its principals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from cloister.errors import ConfigurationError
from cloister.protocol.deployment import audience
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.identity.certificates import load_authority
from cloister_host.identity.claims import check_wanted, could_both_match, flat
from cloister_host.identity.issuer_messages import (
    BindingInfo,
    BindingList,
    BindingListRequest,
    BindingRequest,
    IssuerInfo,
    IssuerList,
    IssuerName,
    IssuerRequest,
)
from cloister_host.identity.issuer_records import BINDINGS, ISSUERS, Binding, Issuer, subject_prefix
from cloister_host.identity.jwks import ALGORITHMS, KeySet
from cloister_host.identity.records import PRINCIPALS
from cloister_host.operations import Operation, Page
from cloister_host.policy.acts import QUORUM_CHANGE
from cloister_host.policy.grants import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import ExistsError, Row, Tx
from cloister_host.store.canonical import canonical

__all__ = ["IssuerService"]

CA_PREFIX: Final = "ca:"
MAX_ISSUERS: Final = 64
MAX_BINDINGS_OF_A_SUBJECT: Final = 64


class IssuerService:
    """Manages who vouches for whom in the caller's tenant."""

    def __init__(
        self, *, deployment: str, grants: Grants, quorum: Quorum, audit: Audit, clock: Callable[[], float]
    ) -> None:
        self._deployment = deployment
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "issuer.create": Operation(IssuerRequest, self.create, effect=True),
            "issuer.update": Operation(IssuerRequest, self.update, effect=True),
            "issuer.delete": Operation(IssuerName, self.delete, effect=True),
            "issuer.list": Operation(Page, self.list, effect=False),
            "principal.bind": Operation(BindingRequest, self.bind, effect=True),
            "principal.unbind": Operation(BindingRequest, self.unbind, effect=True),
            "principal.bindings": Operation(BindingListRequest, self.bindings, effect=False),
        }

    # --- issuers ------------------------------------------------------------------------------------

    def create(self, caller: Caller, request: IssuerRequest, tx: Tx) -> IssuerInfo:
        """Trust an issuer. By itself that lets nobody in: bind principals to its claims.

        Raises:
            ExistsError: It is trusted already.
            ConfigurationError: The keys or certificates cannot be used, or there are too many issuers.
            QuorumNeededError: Others have to approve it.
        """
        self._grants.require(tx, caller, "issuer.manage", "issuer/*")
        record = self._record_of(request)
        if tx.get(ISSUERS, caller.tenant, request.issuer) is not None:
            raise ExistsError("this issuer exists already", hint="change it with issuer.update")
        if len(tx.scan(ISSUERS, caller.tenant, limit=MAX_ISSUERS)) >= MAX_ISSUERS:
            raise ConfigurationError(f"a tenant has at most {MAX_ISSUERS} issuers")
        detail = _about(request.issuer, record)
        digest = request_digest("issuer.create", request)
        self._quorum.require(tx, caller, "policy.change", "issuer/*", digest, detail=detail)
        row = tx.insert(ISSUERS, caller.tenant, request.issuer, record)
        self._audit.record(tx, caller, act="issuer.create", resource="issuer/*", detail=detail)
        return _issuer(row)

    def update(self, caller: Caller, request: IssuerRequest, tx: Tx) -> IssuerInfo:
        """Replace everything about an issuer, such as pinned keys that it has rotated.

        New keys speak for everybody who is bound to it, approvers perhaps among them.

        Raises:
            ConfigurationError: There is no such issuer, or the keys or certificates cannot be used.
            QuorumNeededError: Others have to approve it.
        """
        self._grants.require(tx, caller, "issuer.manage", "issuer/*")
        self._issuer(tx, caller.tenant, request.issuer)
        record = self._record_of(request)
        detail = _about(request.issuer, record)
        digest = request_digest("issuer.update", request)
        self._quorum.require(tx, caller, QUORUM_CHANGE, "issuer/*", digest, detail=detail)
        row = tx.put(ISSUERS, caller.tenant, request.issuer, record)
        self._audit.record(tx, caller, act="issuer.update", resource="issuer/*", detail=detail)
        return _issuer(row)

    def delete(self, caller: Caller, request: IssuerName, tx: Tx) -> IssuerName:
        """Trust an issuer no longer, at once; its bindings end with it.

        Raises:
            ConfigurationError: There is no such issuer.
        """
        self._grants.require(tx, caller, "issuer.manage", "issuer/*")
        self._issuer(tx, caller.tenant, request.issuer)
        # A binding that stayed would come alive again under an issuer of this name with other keys.
        ended = [row.id for row in _all_bindings(tx, caller.tenant) if row.record.issuer == request.issuer]
        for binding in ended:
            tx.delete(BINDINGS, caller.tenant, binding)
        tx.delete(ISSUERS, caller.tenant, request.issuer)
        detail: dict[str, str | int] = {"issuer": request.issuer, "bindings": len(ended)}
        self._audit.record(tx, caller, act="issuer.delete", resource="issuer/*", detail=detail)
        return request

    def list(self, caller: Caller, request: Page, tx: Tx) -> IssuerList:
        """List the issuers."""
        self._grants.require(tx, caller, "issuer.manage", "issuer/*")
        rows = tx.scan(ISSUERS, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="issuer.list", resource="issuer/*")
        return IssuerList(
            issuers=[_issuer(row) for row in rows], next=rows[-1].id if len(rows) == request.limit else ""
        )

    # --- bindings -----------------------------------------------------------------------------------

    def bind(self, caller: Caller, request: BindingRequest, tx: Tx) -> BindingInfo:
        """Let whoever shows these claims act as a principal; binding again changes nothing.

        Raises:
            ConfigurationError: There is no such principal or issuer, the claims cannot be demanded, or
                somebody could meet them and those of another principal at once.
            QuorumNeededError: Others have to approve it.
        """
        resource = f"principal/{request.principal}"
        self._grants.require(tx, caller, "principal.manage", resource)
        principal = tx.get(PRINCIPALS, caller.tenant, request.principal)
        if principal is None or principal.record.state != "active":
            raise ConfigurationError("there is no such principal", hint="list the principals")
        self._issuer(tx, caller.tenant, request.issuer)
        prefix, binding_id = _binding_id(request)
        rivals = tx.scan(BINDINGS, caller.tenant, prefix=prefix)
        for row in rivals:
            if row.record.principal != request.principal and could_both_match(
                row.record.claims, request.claims
            ):
                raise ConfigurationError(
                    "somebody could show these claims and those of another principal",
                    hint="demand a claim of both in which they differ",
                )
        existing = tx.get(BINDINGS, caller.tenant, binding_id)
        if existing is None and len(rivals) >= MAX_BINDINGS_OF_A_SUBJECT:
            raise ConfigurationError("this subject has too many bindings")
        if existing is None:
            digest = request_digest("principal.bind", request)
            detail = {"issuer": request.issuer, **{f"claim {p}": v for p, v in flat(request.claims)}}
            self._quorum.require_for_credential(
                tx, caller, request.principal, resource, digest, detail=detail
            )
            record = Binding(
                issuer=request.issuer,
                principal=request.principal,
                claims=request.claims,
                created_by=caller.principal,
                created_at=int(self._clock()),
            )
            existing = tx.insert(BINDINGS, caller.tenant, binding_id, record)
        self._record(tx, caller, "principal.bind", request)
        return _binding(existing)

    def unbind(self, caller: Caller, request: BindingRequest, tx: Tx) -> BindingRequest:
        """End a binding, at once.

        Raises:
            ConfigurationError: There is no such binding.
        """
        self._grants.require(tx, caller, "principal.manage", f"principal/{request.principal}")
        if not tx.delete(BINDINGS, caller.tenant, _binding_id(request)[1]):
            raise ConfigurationError("there is no such binding", hint="list them with principal.bindings")
        self._record(tx, caller, "principal.unbind", request)
        return request

    def bindings(self, caller: Caller, request: BindingListRequest, tx: Tx) -> BindingList:
        """List bindings, of one principal or of all."""
        resource = f"principal/{request.principal or '*'}"
        self._grants.require(tx, caller, "principal.manage", resource)
        rows = tx.scan(BINDINGS, caller.tenant, after=request.after, limit=request.limit)
        self._audit.record(tx, caller, act="principal.bindings", resource=resource)
        return BindingList(
            bindings=[_binding(row) for row in rows if request.principal in {None, row.record.principal}],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    # ------------------------------------------------------------------------------------------------

    def _record_of(self, request: IssuerRequest) -> Issuer:
        now = int(self._clock())
        tokens = (request.jwks, request.jwks_url, request.audience, request.algorithms)
        if request.issuer.startswith(CA_PREFIX):
            if request.certificates is None or any(member is not None for member in tokens):
                raise ConfigurationError("an authority for client certificates is its certificates alone")
            load_authority(request.certificates)
            return Issuer(kind="x509", certificates=request.certificates, created_at=now)
        if request.certificates is not None:
            raise ConfigurationError("certificates belong to an issuer named ca:<name>")
        if request.jwks is not None and request.jwks_url is not None:
            raise ConfigurationError("give the issuer's keys or where they are, not both")
        wanted = request.audience or audience(self._deployment)
        if self._deployment not in wanted:
            raise ConfigurationError(
                "the audience must hold the deployment's name",
                hint=f"{audience(self._deployment)}, or api://{self._deployment}",
            )
        jwks = canonical(request.jwks) if request.jwks is not None else b""
        if request.jwks is not None:
            KeySet.parse(jwks)
        return Issuer(
            kind="oidc",
            audience=wanted,
            jwks=jwks.decode(),
            jwks_url=request.jwks_url or "",
            algorithms=tuple(sorted(set(request.algorithms or ALGORITHMS))),
            max_lifetime_seconds=request.max_lifetime_seconds,
            created_at=now,
        )

    def _issuer(self, tx: Tx, tenant: str, name: str) -> Row[Issuer]:
        row = tx.get(ISSUERS, tenant, name)
        if row is None:
            raise ConfigurationError("there is no such issuer", hint="create it with issuer.create")
        return row

    def _record(self, tx: Tx, caller: Caller, act: str, request: BindingRequest) -> None:
        self._audit.record(
            tx,
            caller,
            act=act,
            resource=f"principal/{request.principal}",
            detail={"issuer": request.issuer},
        )


def _binding_id(request: BindingRequest) -> tuple[str, str]:
    """The prefix that all bindings of this subject share, and the id of this one."""
    check_wanted(request.claims)
    subject = request.claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise ConfigurationError("a binding names the subject it is for", hint='claims: {"sub": "..."}')
    prefix = subject_prefix(request.issuer, subject)
    demanded = hashlib.sha256(canonical(request.claims)).hexdigest()[:32]
    return prefix, f"{prefix}{request.principal}|{demanded}"


def _all_bindings(tx: Tx, tenant: str) -> Iterator[Row[Binding]]:
    after = ""
    while rows := tx.scan(BINDINGS, tenant, after=after):
        yield from rows
        after = rows[-1].id


def _about(name: str, issuer: Issuer) -> dict[str, str | int]:
    return {"issuer": name, "audience": issuer.audience, "keys": _pinned(issuer) or issuer.jwks_url}


def _pinned(issuer: Issuer) -> str:
    """The digest of keys that are never fetched, or nothing."""
    pinned = issuer.jwks or issuer.certificates
    return hashlib.sha256(pinned.encode()).hexdigest() if pinned else ""


def _issuer(row: Row[Issuer]) -> IssuerInfo:
    return IssuerInfo(
        issuer=row.id,
        kind=row.record.kind,
        audience=row.record.audience,
        algorithms=list(row.record.algorithms),
        jwks_url=row.record.jwks_url,
        keys=_pinned(row.record),
        max_lifetime_seconds=row.record.max_lifetime_seconds,
        created_at=row.record.created_at,
    )


def _binding(row: Row[Binding]) -> BindingInfo:
    return BindingInfo(
        principal=row.record.principal,
        issuer=row.record.issuer,
        claims=row.record.claims,
        created_by=row.record.created_by,
        created_at=row.record.created_at,
    )
