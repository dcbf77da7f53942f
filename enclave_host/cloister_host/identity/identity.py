"""Authenticate a credential: an API key, an OIDC token, or a client certificate with its proof."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from cloister.errors import CloisterError, IdentityError, LimitError
from cloister_host.audit import Audit
from cloister_host.identity.api_keys import ApiKeyHasher, parse_api_key
from cloister_host.identity.attempts import Attempts
from cloister_host.identity.caller import SYSTEM_TENANT, Caller
from cloister_host.identity.certificates import verify_chain, verify_proof
from cloister_host.identity.claims import first_mismatch
from cloister_host.identity.issuer_keys import IssuerKeys
from cloister_host.identity.issuer_records import BINDINGS, ISSUERS, subject_prefix
from cloister_host.identity.records import API_KEYS, PRINCIPALS, TENANTS
from cloister_host.identity.steady import SteadyClock
from cloister_host.identity.tokens import UnverifiedToken, check_claims
from cloister_host.store import Store, Tx
from cloister_host.store.canonical import canonical

__all__ = ["Identity", "RequestProof"]

_TENANT: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_NO_HASH: Final = "-" * 43
CA_PREFIX: Final = "ca:"
MAX_RECENT: Final = 4096
PROVEN_SECONDS: Final = 600
PREPARED_SECONDS: Final = 20


class RequestProof(Protocol):
    """What of a sealed request a client certificate's key signs."""

    @property
    def kid(self) -> str:
        """The request key it is sealed to."""
        ...

    @property
    def jti(self) -> str:
        """Its identifier."""
        ...

    def digest(self) -> bytes:
        """`cloister.protocol.body_digest` of what it asks for."""
        ...


class _ApiKey(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="api-key"):
    value: str


class _Oidc(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="oidc"):
    value: str


class _Mtls(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="mtls"):
    chain: list[str]
    jws: str


_Credential = _ApiKey | _Oidc | _Mtls


class Identity:
    """Turns a credential into a caller.

    Every refusal is the same to whoever sent the credential, whatever was wrong with it.

    Args:
        keys: The keys of token issuers.
        clock: Epoch seconds; credentials that have expired stay so if it is set back.
        monotonic: Seconds that only go forward.
    """

    def __init__(
        self,
        hasher: ApiKeyHasher,
        keys: IssuerKeys,
        audit: Audit,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hasher = hasher
        self._keys = keys
        self._audit = audit
        self._now = SteadyClock(clock)
        self._proven = _Recent(monotonic, PROVEN_SECONDS)
        self._prepared = _Recent(monotonic, PREPARED_SECONDS)
        self.attempts = Attempts(monotonic)

    def prepare(self, store: Store, tenant: str, credential: Mapping[str, Any]) -> None:
        """Fetch what `authenticate` will need from outside, before the request's transaction begins.

        Raises:
            LimitError: This credential was refused too often.
        """
        self.attempts.check(_name(tenant, credential))
        if credential.get("type") != "oidc" or not _TENANT.fullmatch(tenant):
            return
        try:
            token = UnverifiedToken.parse(str(credential.get("value")))
        except IdentityError:
            return
        wanted = (tenant, token.issuer, token.kid)
        if self._prepared.knows(wanted):
            return
        with store.begin() as tx:
            issuer = tx.get(ISSUERS, tenant, token.issuer)
        # Only an issuer that the tenant has named is ever asked.
        if issuer is not None and issuer.record.kind == "oidc":
            self._keys.prepare(tenant, token.issuer, issuer.record, token.kid)
            self._prepared.add(wanted)

    def authenticate(
        self,
        tx: Tx,
        tenant: str,
        credential: Mapping[str, Any],
        *,
        correlation_id: str,
        proof: RequestProof | None = None,
        purpose: str = "",
    ) -> Caller:
        """Find out who is asking.

        Args:
            tx: A transaction.
            tenant: The tenant the request names.
            credential: `{"type": "api-key" | "oidc", "value": ...}`, or
                `{"type": "mtls", "chain": [...], "jws": ...}`.
            correlation_id: What the request is logged under.
            proof: The request the credential came in, for credentials that are signed over it.
            purpose: What the caller says it does this for.

        Raises:
            IdentityError: One and the same for an unknown tenant, an unknown or malformed credential, a
                wrong secret or signature, a disabled principal and a tenant that is sealed off or going away.
            LimitError: There were too many failures under this name.
            UnavailableError: The keys of the token's issuer cannot be had.
        """
        self._tell(tx, tenant)
        try:
            principal, claims = self._principal(tx, tenant, credential, proof)
        except IdentityError:
            if self.attempts.failed(_name(tenant, credential), _public_name(tenant, credential), tenant):
                raise LimitError(
                    "too many logins have failed under this name",
                    hint="check the tenant and the credential, and wait a minute",
                    correlation_id=correlation_id,
                ) from None
            raise IdentityError(
                "the credential was not accepted",
                hint="check the tenant and the credential",
                correlation_id=correlation_id,
            ) from None
        return Caller(
            tenant=tenant,
            principal=principal.id,
            kind=principal.record.kind,
            correlation_id=correlation_id,
            purpose=purpose,
            groups=principal.record.groups,
            claims=claims,
        )

    # ------------------------------------------------------------------------------------------------

    def _principal(
        self, tx: Tx, tenant: str, credential: Mapping[str, Any], proof: RequestProof | None
    ) -> tuple[Any, Mapping[str, Any]]:
        if not _TENANT.fullmatch(tenant):
            raise IdentityError("there is no such tenant")
        try:
            parsed = msgspec.convert(credential, _Credential)
        except (msgspec.ValidationError, RecursionError):
            raise IdentityError("this is no credential") from None
        # (1) Whose credential is it, and is it genuine?
        claims: Mapping[str, Any] = {}
        match parsed:
            case _ApiKey(value=value):
                name, key_id = self._by_api_key(tx, tenant, value)
            case _Oidc(value=value):
                issuer, claims = self._by_token(tx, tenant, value)
                name, key_id = self._bound(tx, tenant, issuer, claims), ""
            case _Mtls():
                issuer, claims = self._by_certificate(tx, tenant, parsed, proof)
                name, key_id = self._bound(tx, tenant, issuer, claims), ""
        # (2) The principal, and that this is still its key.
        principal = tx.get(PRINCIPALS, tenant, name)
        if principal is None or principal.record.state != "active":
            raise IdentityError("there is no such principal")
        if key_id and key_id not in principal.record.api_keys:
            raise IdentityError("this is none of its keys")
        # (3) The tenant.
        home = tx.get(TENANTS, SYSTEM_TENANT, tenant)
        if home is None or home.record.state != "active":
            raise IdentityError("the tenant is closed")
        return principal, claims

    def _by_api_key(self, tx: Tx, tenant: str, value: str) -> tuple[str, str]:
        unverified = parse_api_key(value)
        # An unknown key is hashed and compared like a known one.
        row = tx.get(API_KEYS, tenant, unverified.id)
        computed = self._hasher.hash(tenant, unverified)
        if not hmac.compare_digest(computed, row.record.hash if row else _NO_HASH) or row is None:
            raise IdentityError("the key is wrong")
        if row.record.expires and self._now() >= row.record.expires:
            raise IdentityError("the key has expired")
        return row.record.principal, row.id

    def _by_token(self, tx: Tx, tenant: str, value: str) -> tuple[str, Mapping[str, Any]]:
        token = UnverifiedToken.parse(value)
        issuer = tx.get(ISSUERS, tenant, token.issuer)
        if issuer is None or issuer.record.kind != "oidc":
            raise IdentityError("the issuer is not trusted")
        keys = self._keys.get(tenant, token.issuer, issuer.record)
        # A signature is checked once for one token, one key set and one state of the issuer's row.
        seen = (tenant, value, keys.digest, issuer.version)
        if not self._proven.knows(seen):
            token.verify(keys, algorithms=issuer.record.algorithms)
            self._proven.add(seen)
        check_claims(
            token.unverified_claims,
            audience=issuer.record.audience,
            now=self._now(),
            max_lifetime_seconds=issuer.record.max_lifetime_seconds,
        )
        return token.issuer, token.unverified_claims

    def _by_certificate(
        self, tx: Tx, tenant: str, credential: _Mtls, proof: RequestProof | None
    ) -> tuple[str, Mapping[str, Any]]:
        if proof is None:
            raise IdentityError("a certificate has to sign its request")
        found = []
        for issuer in tx.scan(ISSUERS, tenant, prefix=CA_PREFIX):
            try:
                chain = verify_chain(credential.chain, issuer.record.certificates, now=self._now())
            except IdentityError:
                continue
            found.append((issuer.id, chain))
        # Under two authorities of the tenant it would be the client's choice whom it is.
        if len(found) != 1:
            raise IdentityError("the certificate leads to no authority, or to several")
        [(name, certificate)] = found
        verify_proof(credential.jws, certificate, kid=proof.kid, jti=proof.jti, digest=proof.digest())
        return name, certificate.claims

    def _bound(self, tx: Tx, tenant: str, issuer: str, claims: Mapping[str, Any]) -> str:
        """The one principal whose binding these genuine claims meet."""
        rows = tx.scan(BINDINGS, tenant, prefix=subject_prefix(issuer, str(claims["sub"])))
        names = {
            row.record.principal
            for row in rows
            if row.record.issuer == issuer and first_mismatch(claims, row.record.claims) is None
        }
        # Bindings are kept apart when they are made; if two meet all the same, nobody is meant.
        if len(names) != 1:
            raise IdentityError("nobody is bound to these claims")
        return names.pop()

    def _tell(self, tx: Tx, tenant: str) -> None:
        """Put the number of recent failures into the log of a tenant that exists."""
        count = self.attempts.untold(tenant)
        if count and tx.get(TENANTS, SYSTEM_TENANT, tenant) is not None:
            nobody = Caller(tenant=tenant, principal="anonymous", kind="service", correlation_id="")
            self._audit.refuse(tx, nobody, act="login", resource="principal/*", detail={"count": count})


class _Recent:
    """What was done not long ago, by a digest of what it was; bounded."""

    def __init__(self, monotonic: Callable[[], float], seconds: float) -> None:
        self._monotonic = monotonic
        self._seconds = seconds
        self._lock = threading.Lock()
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def knows(self, what: tuple[Any, ...]) -> bool:
        with self._lock:
            return self._monotonic() < self._until.get(hashlib.sha256(canonical(what)).digest(), 0)

    def add(self, what: tuple[Any, ...]) -> None:
        with self._lock:
            name = hashlib.sha256(canonical(what)).digest()
            self._until.pop(name, None)
            self._until[name] = self._monotonic() + self._seconds
            if len(self._until) > MAX_RECENT:
                self._until.popitem(last=False)


def _name(tenant: str, credential: Mapping[str, Any]) -> bytes:
    """The name of this exact credential; nothing of it can be read from there."""
    return hashlib.sha256(canonical((tenant, credential.get("type"), credential.get("value")))).digest()


def _public_name(tenant: str, credential: Mapping[str, Any]) -> bytes:
    """The name under which many credentials may be tried: the public part of an API key, or the tenant."""
    value = credential.get("value")
    public = ""
    if credential.get("type") == "api-key" and isinstance(value, str):
        try:
            public = parse_api_key(value).id
        except CloisterError:
            public = ""
    return hashlib.sha256(canonical((tenant, "name", public))).digest()
