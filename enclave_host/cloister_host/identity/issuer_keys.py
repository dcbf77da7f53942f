"""The keys of token issuers: pinned, or fetched through the host's egress and kept for a while.

Fetching happens before the request's transaction and never in it. Keys are fresh as long as the issuer
says, within bounds. An unknown `kid` may mean that the issuer has rotated: it is asked again, at most once
a minute. While the issuer cannot be reached its known keys are used for at most `STALE_SECONDS` more;
after that nobody of this issuer gets in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from cloister.errors import CloisterError, ConfigurationError, UnavailableError
from cloister.jose import strict_json
from cloister_host.identity.issuer_records import Issuer
from cloister_host.identity.jwks import KeySet

__all__ = ["DISCOVERY_PATH", "Fetch", "Fetched", "IssuerKeys"]

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
MIN_FRESH_SECONDS: Final = 300
MAX_FRESH_SECONDS: Final = 3600
STALE_SECONDS: Final = 12 * 3600
REFETCH_SECONDS: Final = 60
OUTAGE_RETRY_SECONDS: Final = 10
FLIGHT_SECONDS: Final = 10
MAX_KEPT: Final = 1024
_LOCKS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A document and for how many seconds its server says it is good, if it says so."""

    body: bytes
    fresh_seconds: int | None


class Fetch(Protocol):
    """Port: GET one https URL for a tenant.

    Raises:
        CloisterError: There was no usable answer.
    """

    def __call__(self, tenant: str, url: str) -> Fetched:
        """Fetch one document."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    keys: KeySet | None
    fresh_until: float
    stale_until: float
    tried: float


Place = tuple[str, str, str]


class IssuerKeys:
    """Gives the key set of an issuer.

    Args:
        fetch: The way out; None where there is none, so that keys have to be pinned.
        monotonic: Seconds that only go forward, whatever is done to the clock.
    """

    def __init__(self, fetch: Fetch | None, monotonic: Callable[[], float]) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._kept: OrderedDict[Place, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._flights = [threading.Lock() for _ in range(_LOCKS)]
        self._pinned = lru_cache(maxsize=MAX_KEPT)(lambda jwks: KeySet.parse(jwks.encode()))

    def get(self, tenant: str, url: str, issuer: Issuer) -> KeySet:
        """The keys as they are known now; asks nobody.

        Raises:
            UnavailableError: They were never fetched, or too long ago.
        """
        if issuer.jwks:
            return self._pinned(issuer.jwks)
        kept = self._look((tenant, url, issuer.jwks_url))
        if kept is None or kept.keys is None or self._monotonic() >= kept.stale_until:
            raise UnavailableError("the keys of the token's issuer cannot be had now", hint="try again")
        return kept.keys

    def prepare(self, tenant: str, url: str, issuer: Issuer, kid: str) -> None:
        """Fetch the keys if what is known does not do for this `kid`; may wait for the issuer.

        Raises nothing: what could not be had, `get` misses.
        """
        if issuer.jwks:
            return
        place = (tenant, url, issuer.jwks_url)
        if not self._wanting(place, kid):
            return
        # One thread asks; the others wait for what it brings, and only look again.
        flight = self._flights[hash(place) % _LOCKS]
        if flight.acquire(timeout=FLIGHT_SECONDS):
            try:
                if self._wanting(place, kid):
                    self._refetch(place)
            finally:
                flight.release()

    # ------------------------------------------------------------------------------------------------

    def _wanting(self, place: Place, kid: str) -> bool:
        kept = self._look(place)
        if kept is None:
            return True
        now = self._monotonic()
        if kept.keys is None or now >= kept.fresh_until:
            return now - kept.tried >= OUTAGE_RETRY_SECONDS
        return kid not in kept.keys.keys and now - kept.tried >= REFETCH_SECONDS

    def _refetch(self, place: Place) -> None:
        tenant, url, jwks_url = place
        now, old = self._monotonic(), self._look(place)
        try:
            found = self._ask(tenant, jwks_url or self._discover(tenant, url))
            keys = KeySet.parse(found.body)
        except CloisterError:
            # An outage, or an answer that is none: what is known stays known, for its time.
            kept = _Kept(
                keys=old.keys if old else None,
                fresh_until=old.fresh_until if old else now,
                stale_until=old.stale_until if old else now,
                tried=now,
            )
        else:
            fresh = min(max(found.fresh_seconds or 0, MIN_FRESH_SECONDS), MAX_FRESH_SECONDS)
            kept = _Kept(
                keys=keys, fresh_until=now + fresh, stale_until=now + fresh + STALE_SECONDS, tried=now
            )
        with self._lock:
            self._kept.pop(place, None)
            self._kept[place] = kept
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def _discover(self, tenant: str, url: str) -> str:
        """Where the issuer says its keys are (OpenID Connect Discovery 4.3: it must call itself so)."""
        try:
            document = strict_json.load_object(self._ask(tenant, url.rstrip("/") + DISCOVERY_PATH).body)
        except ValueError:
            raise ConfigurationError("the issuer's discovery document is not JSON") from None
        place = document.get("jwks_uri")
        if document.get("issuer") != url or not isinstance(place, str):
            raise ConfigurationError("the issuer's discovery document is not its own")
        return place

    def _ask(self, tenant: str, url: str) -> Fetched:
        if self._fetch is None:
            raise UnavailableError("this host has no way out", hint="pin the issuer's keys", retryable=False)
        return self._fetch(tenant, url)

    def _look(self, place: Place) -> _Kept | None:
        with self._lock:
            return self._kept.get(place)
