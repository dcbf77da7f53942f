"""Authenticate a credential."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Final

from cloister.errors import IdentityError
from cloister_host.identity.api_keys import ApiKeyHasher, parse_api_key
from cloister_host.identity.caller import SYSTEM_TENANT, Caller
from cloister_host.identity.records import API_KEYS, PRINCIPALS, TENANTS
from cloister_host.store import Tx

__all__ = ["Identity"]

_TENANT: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_NO_HASH: Final = "-" * 43


class Identity:
    """Turns a credential into a caller."""

    def __init__(self, hasher: ApiKeyHasher) -> None:
        self._hasher = hasher

    def authenticate(
        self, tx: Tx, tenant: str, credential: Mapping[str, object], *, correlation_id: str
    ) -> Caller:
        """Find out who is asking.

        Args:
            tx: A transaction.
            tenant: The tenant the request names.
            credential: `{"type": "api-key", "value": "clk_..."}`.
            correlation_id: What the request is logged under.

        Raises:
            IdentityError: One and the same for an unknown tenant, an unknown or malformed key, a wrong
                secret, a disabled principal and a tenant that is going away.
        """
        value = credential.get("value")
        if credential.get("type") != "api-key" or len(credential) != 2 or not isinstance(value, str):  # noqa: PLR2004 (type and value)
            raise _refused(correlation_id)
        if not _TENANT.fullmatch(tenant):
            raise _refused(correlation_id)
        try:
            unverified = parse_api_key(value)
        except IdentityError:
            raise _refused(correlation_id) from None
        # (1) The secret. An unknown key is hashed and compared like a known one.
        row = tx.get(API_KEYS, tenant, unverified.id)
        computed = self._hasher.hash(tenant, unverified)
        if not hmac.compare_digest(computed, row.record.hash if row else _NO_HASH) or row is None:
            raise _refused(correlation_id)
        # (2) The principal, and that this is still its key.
        principal = tx.get(PRINCIPALS, tenant, row.record.principal)
        if principal is None or principal.record.state != "active" or principal.record.api_key != row.id:
            raise _refused(correlation_id)
        # (3) The tenant.
        home = tx.get(TENANTS, SYSTEM_TENANT, tenant)
        if home is None or home.record.state != "active":
            raise _refused(correlation_id)
        return Caller(
            tenant=tenant,
            principal=principal.id,
            kind=principal.record.kind,
            correlation_id=correlation_id,
        )


def _refused(correlation_id: str) -> IdentityError:
    return IdentityError(
        "the credential was not accepted",
        hint="check the tenant and the API key",
        correlation_id=correlation_id,
    )
