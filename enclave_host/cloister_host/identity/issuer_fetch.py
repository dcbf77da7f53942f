"""Fetch an issuer's documents through the host's egress: https, checked addresses, no redirects."""

from __future__ import annotations

import re
import time
from typing import Final

from cloister.errors import ConfigurationError, UnavailableError
from cloister.function.egress import OriginRule
from cloister_host.egress import Credentials, Egress
from cloister_host.egress.cache import fresh_seconds
from cloister_host.egress.request import Outgoing
from cloister_host.identity.issuer_keys import MAX_FRESH_SECONDS, Fetched
from cloister_host.identity.jwks import MAX_JWKS_BYTES

__all__ = ["HTTPS_URL", "EgressFetch"]

TIMEOUT_SECONDS: Final = 5
HTTP_OK: Final = 200

# No user, no query, no fragment: nothing that could hold a secret, or be read in two ways.
HTTPS_URL: Final = (
    r"https://[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~-]{1,128}){0,8}/?"
)
_SPLIT: Final = re.compile(r"(https://[^/]+)(/.*)?")


class EgressFetch:
    """GET over the host's egress; each tenant has connections of its own."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    def __call__(self, tenant: str, url: str) -> Fetched:
        """Fetch one document.

        Raises:
            ConfigurationError: This is no URL to fetch from.
            CloisterError: There was no usable answer.
        """
        parts = _SPLIT.fullmatch(url) if re.fullmatch(HTTPS_URL, url) else None
        if parts is None:
            raise ConfigurationError("the issuer's keys are at no plain https URL")
        rule = OriginRule(url=parts[1], timeout_seconds=TIMEOUT_SECONDS, max_response_bytes=MAX_JWKS_BYTES)
        request = Outgoing(method="GET", target=parts[2] or "/", headers=(), body=b"")
        until = time.monotonic() + TIMEOUT_SECONDS
        answer = self._egress.exchange(tenant, "identity", rule, request, Credentials(), until=until).answer
        if answer.status != HTTP_OK:
            raise UnavailableError("the issuer did not give its keys")
        return Fetched(body=answer.body, fresh_seconds=fresh_seconds(answer, MAX_FRESH_SECONDS))
