"""Public keys that a tenant has registered: of those who deploy functions, and of those who write values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from cloister.errors import ConfigurationError, DeniedError, EvidenceError
from cloister.function.bundle import Bundle
from cloister.function.signing import verify_bundle
from cloister.jose import Key, parse_jws_header, public_jwk
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.operations import Name, Operation, Page, Request, Result
from cloister_host.policy import Grants
from cloister_host.policy.quorum import Quorum, request_digest
from cloister_host.store import Table, Tx

__all__ = ["Signers"]

Use = Literal["deployer", "author"]

_SIGNATURES: Final = frozenset({"EdDSA", "ES256", "ES384"})
_RULES_ID: Final = "rules"


class SignerRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a `signers` row; its id is the name."""

    use: Use
    jwk: dict[str, str]
    added_by: str
    added_at: int


class RulesRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Content of a tenant's one `function_rules` row."""

    signed_only: bool


SIGNERS: Final = Table("signers", SignerRecord, "signer")
RULES: Final = Table("function_rules", RulesRecord, "rules for functions")


class SignerAdd(Request):
    """Registers the public key of a deployer or of an author."""

    signer: Name
    use: Use
    jwk: Annotated[dict[str, Annotated[str, Meta(max_length=4096)]], Meta(max_length=16)]


class SignerName(Request):
    """Names a signer."""

    signer: Name


class SignerInfo(Result):
    """One registered key."""

    signer: str
    use: Use
    jwk: dict[str, str]
    added_by: str
    added_at: int


class SignerList(Result):
    """One page of signers; `next` continues it, and is empty at the end."""

    signers: list[SignerInfo]
    next: str


class Rules(Request):
    """What a tenant demands of deployments: whether bundles must be signed by a registered deployer."""

    signed_only: bool


class Signers:
    """The signers of the caller's tenant.

    Args:
        grants: Who may manage them (right `signer.manage`).
        audit: Where each change is recorded.
        clock: Epoch seconds.
    """

    def __init__(self, grants: Grants, quorum: Quorum, audit: Audit, clock: Callable[[], float]) -> None:
        self._grants = grants
        self._quorum = quorum
        self._audit = audit
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        """What this service answers."""
        return {
            "signer.add": Operation(SignerAdd, self.add, effect=True),
            "signer.remove": Operation(SignerName, self.remove, effect=True),
            "signer.list": Operation(Page, self.list, effect=False),
            "function.rules": Operation(Rules, self.rules, effect=True),
        }

    def add(self, caller: Caller, request: SignerAdd, tx: Tx) -> SignerInfo:
        """Register a key. A name is one key: to change it, remove it first.

        Raises:
            ConfigurationError: It is no public signature key, or the name is taken.
            QuorumNeededError: Others have to approve it.
        """
        self._require(tx, caller, request.signer)
        if {"d", "priv", "k"} & request.jwk.keys():
            raise ConfigurationError("this is a private key", hint="register the public half, and keep it")
        jwk = public_jwk({**request.jwk, "kid": request.signer})
        if jwk.get("alg") not in _SIGNATURES:
            raise ConfigurationError("this key does not sign", hint="EdDSA (Ed25519), ES256 or ES384")
        record = SignerRecord(
            use=request.use, jwk=jwk, added_by=caller.principal, added_at=int(self._clock())
        )
        self._approved(tx, caller, "signer.add", request.signer, request, use=request.use)
        tx.insert(SIGNERS, caller.tenant, request.signer, record)
        self._record(tx, caller, "signer.add", request.signer, use=request.use)
        return _info(request.signer, record)

    def remove(self, caller: Caller, request: SignerName, tx: Tx) -> SignerName:
        """Forget a key: nothing it signed is accepted from now on, bundles that are deployed stay."""
        self._require(tx, caller, request.signer)
        if not tx.delete(SIGNERS, caller.tenant, request.signer):
            raise ConfigurationError("there is no such signer", hint="see `cloister signer list`")
        self._record(tx, caller, "signer.remove", request.signer)
        return request

    def list(self, caller: Caller, request: Page, tx: Tx) -> SignerList:
        """List registered keys."""
        self._require(tx, caller, "*")
        rows = tx.scan(SIGNERS, caller.tenant, after=request.after, limit=request.limit)
        self._record(tx, caller, "signer.list", "*")
        return SignerList(
            signers=[_info(row.id, row.record) for row in rows],
            next=rows[-1].id if len(rows) == request.limit else "",
        )

    def rules(self, caller: Caller, request: Rules, tx: Tx) -> Rules:
        """Say whether bundles must be signed.

        Raises:
            QuorumNeededError: Others have to approve that they need not.
        """
        self._require(tx, caller, "*")
        if not request.signed_only:
            self._approved(tx, caller, "function.rules", "*", request, signed_only=0)
        tx.put(RULES, caller.tenant, _RULES_ID, RulesRecord(signed_only=request.signed_only))
        self._record(tx, caller, "function.rules", "*", signed_only=int(request.signed_only))
        return request

    def check_bundle(self, tx: Tx, caller: Caller, bundle: Bundle, signature: str | None) -> str:
        """Verify the signature of a bundle that is being deployed; returns the signer, or nothing.

        Raises:
            DeniedError: The tenant wants a signature and there is none, or it is not a registered
                deployer's for this very bundle.
        """
        if signature is None:
            rules = tx.get(RULES, caller.tenant, _RULES_ID)
            if rules is None or not rules.record.signed_only:
                return ""
            raise DeniedError(
                "this tenant deploys signed bundles only", hint="`cloister function deploy --sign KEY`"
            )
        try:
            signer = str(parse_jws_header(signature).get("kid"))
            key = self.keys(tx, caller.tenant, [signer], use="deployer").get(signer)
            if key is None:
                raise EvidenceError("no registered deployer")
            verify_bundle(
                signature, key, digest=bundle.digest, function=bundle.manifest.name, tenant=caller.tenant
            )
        except EvidenceError:
            raise DeniedError(
                "the signature of the bundle is not a registered deployer's for it",
                hint="see `cloister signer list`; sign for this tenant and this digest",
            ) from None
        return signer

    def keys(self, tx: Tx, tenant: str, names: Iterable[str], *, use: Use) -> dict[str, Key]:
        """The keys among these names that are registered for a use."""
        found = tx.get_many(SIGNERS, tenant, list(names))
        return {name: Key.from_jwk(row.record.jwk) for name, row in found.items() if row.record.use == use}

    def _require(self, tx: Tx, caller: Caller, name: str) -> None:
        self._grants.require(tx, caller, "signer.manage", f"signer/{name}")

    def _approved(
        self, tx: Tx, caller: Caller, op: str, name: str, request: Request, **detail: str | int
    ) -> None:
        digest = request_digest(op, request)
        about = {"change": op, "signer": name, **detail}
        self._quorum.require(tx, caller, "policy.change", f"signer/{name}", digest, detail=about)

    def _record(self, tx: Tx, caller: Caller, act: str, name: str, **detail: str | int) -> None:
        self._audit.record(tx, caller, act=act, resource=f"signer/{name}", detail=detail)


def _info(name: str, record: SignerRecord) -> SignerInfo:
    return SignerInfo(
        signer=name, use=record.use, jwk=record.jwk, added_by=record.added_by, added_at=record.added_at
    )
