"""The host's own keys: epochs of request keys, receipt and delivery keys, and the keyset that names them.

Request keys are random, live in memory only and are never derived from the root key (PROTOCOL 5): a
root key that leaks later opens no recorded request. Hosts of one deployment hold each other's
(`replicas`), so that any of them opens a request; receipt and delivery keys are each host's own.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import rfc8785

from cloister import jose
from cloister.attestation.fetching import Fetched
from cloister.errors import ConfigurationError, UnavailableError
from cloister.protocol import (
    AttestationDocument,
    Keyset,
    KeysetKey,
    sign_keyset,
    staple_nonce,
    statement,
)
from cloister.protocol.delivery import DELIVERY_TYP
from cloister.protocol.deployment import deployment_of
from cloister.protocol.handover_messages import HandedKey
from cloister.protocol.keyset import Role
from cloister.receipts import Receipt, issue_receipt
from cloister_host.attester import Attester

__all__ = ["KeysetManager"]

EPOCH_SECONDS: Final = 24 * 3600
OVERLAP_SECONDS: Final = 600
GRACE_SECONDS: Final = 60
DELIVERY_LIFETIME_SECONDS: Final = 300
LEAD_SECONDS: Final = 60
"""A request key is there this long before a keyset names it, so that the other hosts have it by then."""
MAX_NAMED: Final = 16
STAPLE_SECONDS: Final = 3600
"""Stapled evidence is made anew this often: the certificates of a Nitro document live three hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldKey:
    """A key with its private half; a request key with the version of the holders it may be given to."""

    public: KeysetKey
    private: jose.Key
    holders_version: int = 0


class KeysetManager:
    """Keeps the keyset current; every method is safe to call from any thread.

    Args:
        deployment_key: Ed25519, derived from the root key; signs every keyset.
        log_key: Ed25519, derived from the root key; signs tree heads, and every keyset names it.
        attester: What can produce evidence on this machine.
        config: The configuration to be attested (PROTOCOL 4).
        holders: The kinds of machine that may be given the request keys, this one among them.
        holders_version: How often that list was changed.
        clock: Epoch seconds.
        endorsements: What to staple to evidence at this moment.

    Attributes:
        find: Called with the name of a request key that is not held; may `take` it from another host.
    """

    def __init__(
        self,
        *,
        deployment_key: jose.Key,
        log_key: jose.Key,
        attester: Attester,
        config: Mapping[str, Any],
        holders: tuple[Mapping[str, Any], ...],
        clock: Callable[[], float],
        holders_version: int = 0,
        endorsements: Callable[[], Fetched] = Fetched,
    ) -> None:
        self.find: Callable[[str], object] = lambda _kid: None
        self._holders_version = holders_version
        self._retired = False
        self._deployment_key = deployment_key
        self._log_key = log_key
        self._attester = attester
        self._endorsements = endorsements
        self._config = config
        self._holders = holders
        self._clock = clock
        self._lock = threading.RLock()
        self._request_keys: list[_HeldKey] = []
        self._receipt_key = _held("receipt", "EdDSA", int(clock()))
        self._delivery_key = _held("delivery", "EdDSA", int(clock()))
        self._keyset: Keyset | None = None
        self._staple: AttestationDocument | None = None
        self._staple_until = 0.0

    @property
    def deployment(self) -> str:
        """Name of the deployment."""
        return deployment_of(self._deployment_key)

    @property
    def holders(self) -> tuple[Sequence[Mapping[str, Any]], int]:
        """The kinds of machine that may be given the request keys, and how often that was changed."""
        with self._lock:
            return self._holders, self._holders_version

    def keyset(self) -> Keyset:
        """The current keyset; begins a new epoch when the newest request key nears its end.

        Raises:
            UnavailableError: This kind of machine is not to hold keys any more.
        """
        with self._lock:
            self._require_holder()
            if self._keyset is None or not self._is_current(self._keyset):
                self._publish(self._longest(OVERLAP_SECONDS) or self._draw())
            assert self._keyset is not None
            return self._keyset

    def _is_current(self, keyset: Keyset) -> bool:
        """Whether a keyset may still be shown: not near its end, nor from a time that the clock jumped to."""
        return keyset.issued_at - GRACE_SECONDS <= self._clock() < keyset.expires - OVERLAP_SECONDS

    def rotate(self) -> None:
        """Begin a new epoch: a new request key and receipt key; the old ones end with their overlap."""
        with self._lock:
            self._publish(self._draw())

    def draw_ahead(self) -> None:
        """Draw the next epoch's request key a little before it is named, so that others have it by then."""
        with self._lock:
            if not self._retired and self._longest(OVERLAP_SECONDS + LEAD_SECONDS) is None:
                self._draw()

    def set_holders(self, holders: Sequence[Mapping[str, Any]], version: int | None = None) -> None:
        """Change which kinds of machine may be given the request keys.

        A new epoch begins, and only its keys are given to anybody. If a kind is removed, machines of it may
        hold the keys of earlier epochs, so those are accepted no longer: clients attest again and find the
        holders they now have to accept.
        """
        with self._lock:
            removed = [holder for holder in self._holders if holder not in holders]
            self._holders = tuple(holders)
            self._holders_version = self._holders_version + 1 if version is None else version
            if removed:
                self._request_keys.clear()
            self._keyset = None
            if not self._retired:
                self.rotate()

    def retire(self, *, retired: bool) -> None:
        """Drop every request key and serve nobody, because this kind of machine was removed; or come back."""
        with self._lock:
            self._retired = retired
            if retired:
                self._request_keys.clear()
                self._keyset = None

    def request_key(self, kid: str, *, ask: bool = True) -> jose.Key | None:
        """The private half of a request key, while requests to it are accepted.

        Args:
            kid: Its name.
            ask: Ask the other hosts for it, if it is not held here.
        """
        found = self._held_request_key(kid)
        if found is None and ask:
            self.find(kid)
            found = self._held_request_key(kid)
        return found.private if found else None

    def holds(self, kid: str) -> bool:
        """Whether requests to this key can be opened here."""
        return self._held_request_key(kid) is not None

    def to_give(self) -> tuple[HandedKey, ...]:
        """The request keys that the holders of today may be given."""
        now = self._clock()
        with self._lock:
            return tuple(
                HandedKey(
                    kid=key.public.kid,
                    jwk=key.private.to_jwk(),
                    not_before=key.public.not_before,
                    expires=key.public.expires,
                )
                for key in self._request_keys
                if key.holders_version == self._holders_version and key.public.expires > now
            )

    def take(self, keys: Sequence[HandedKey], *, holders_version: int) -> int:
        """Hold request keys that another host has handed over; gives how many were new.

        Args:
            keys: From a grant of this deployment.
            holders_version: Of the list they were handed over under.
        """
        now, taken = int(self._clock()), 0
        with self._lock:
            if self._retired or holders_version != self._holders_version:
                return 0
            for key in keys:
                held = _taken(key, now, holders_version)
                if held is not None and all(other.public.kid != key.kid for other in self._request_keys):
                    self._request_keys.append(held)
                    taken += 1
        return taken

    def _held_request_key(self, kid: str) -> _HeldKey | None:
        now = self._clock()
        with self._lock:
            for key in self._request_keys:
                if key.public.kid == kid and now < key.public.expires + GRACE_SECONDS:
                    return key
        return None

    def _longest(self, seconds: int) -> _HeldKey | None:
        """The request key of these holders that lives longest, if it lives longer than so many seconds."""
        now = self._clock()
        until = now + seconds
        own = [
            key
            for key in self._request_keys
            if key.holders_version == self._holders_version and key.public.not_before <= now
        ]
        found = max(own, key=lambda key: (key.public.expires, key.public.kid), default=None)
        return found if found is not None and found.public.expires > until else None

    def _draw(self) -> _HeldKey:
        """Draw a request key; it is held from now on, and named from the next keyset on."""
        self._require_holder()
        now = int(self._clock())
        self._request_keys = [key for key in self._request_keys if key.public.expires + GRACE_SECONDS > now]
        key = _held("request", "HPKE-10-KE", now, holders_version=self._holders_version)
        self._request_keys.append(key)
        return key

    def _publish(self, request: _HeldKey) -> None:
        """Sign a keyset with this request key as its newest, and new keys of this host's own."""
        now, expires = int(self._clock()), request.public.expires
        self._receipt_key = _held("receipt", "EdDSA", now, expires=expires)
        self._delivery_key = _held("delivery", "EdDSA", now, expires=expires)
        older = [
            key.public
            for key in self._request_keys
            if key.public.valid_at(now) and key.public.expires <= expires
        ]
        older = sorted(older, key=lambda key: key.expires)[-MAX_NAMED:]
        self._keyset = sign_keyset(
            keys=(
                *(key for key in older if key.kid != request.public.kid),
                request.public,
                self._receipt_key.public,
                self._delivery_key.public,
                _named("log", self._log_key, now, expires=expires),
            ),
            config=self._config,
            holders=self._holders,
            issued_at=now,
            expires=expires,
            deployment_key=self._deployment_key,
        )
        self._staple = None

    def _require_holder(self) -> None:
        if self._retired:
            raise UnavailableError(
                "this kind of machine may hold no keys any more",
                hint="`cloister holder list` names those that may",
            )

    def document(self, nonce: bytes) -> AttestationDocument:
        """Answer a challenge: fresh evidence over the current keyset."""
        return self._document(self.keyset(), nonce)

    def staple(self) -> AttestationDocument:
        """Evidence over the current keyset that answers no challenge, for deliveries and receipts."""
        with self._lock:
            keyset = self.keyset()
            if self._staple is None or self._clock() >= self._staple_until:
                self._staple = self._document(keyset, staple_nonce(keyset))
                self._staple_until = self._clock() + STAPLE_SECONDS
            return self._staple

    def issue_receipt(
        self, claims: Mapping[str, Any], disclosures: Mapping[str, Any], *, receipt_id: str, at: int
    ) -> Receipt:
        """Sign a receipt of a time (epoch seconds); deployment and keyset are added here."""
        with self._lock:
            keyset, key = self.keyset(), self._receipt_key
        full = {
            **claims,
            "deployment": keyset.deployment,
            "keyset": keyset.digest,
            "iat": at,
        }
        return issue_receipt(full, disclosures, receipt_id=receipt_id, key=key.private)

    def sign_delivery(self, claims: Mapping[str, Any]) -> str:
        """Sign one sending of a delivery (PROTOCOL 9); deployment, keyset and times are added here."""
        with self._lock:
            keyset, key = self.keyset(), self._delivery_key
        now = int(self._clock())
        full = {
            **claims,
            "deployment": keyset.deployment,
            "keyset": keyset.digest,
            "iat": now,
            "exp": now + DELIVERY_LIFETIME_SECONDS,
        }
        return jose.sign_compact(rfc8785.dumps(full), key.private, typ=DELIVERY_TYP)

    def _document(self, keyset: Keyset, nonce: bytes) -> AttestationDocument:
        evidence = self._attester.evidence(statement=statement(keyset, nonce), nonce=nonce)
        stapled = self._endorsements()
        return AttestationDocument(
            format=self._attester.format,
            evidence=evidence,
            keyset=keyset.token,
            endorsements=stapled.endorsements,
            collateral=stapled.collateral,
        )


def _held(
    role: Role, alg: jose.Alg, now: int, *, expires: int | None = None, holders_version: int = 0
) -> _HeldKey:
    """Draw a key for one epoch."""
    private = jose.generate_key(alg, kid=f"{role}-{secrets.token_hex(8)}")
    public = _named(role, private, now, expires=now + EPOCH_SECONDS if expires is None else expires)
    return _HeldKey(public=public, private=private, holders_version=holders_version)


def _named(role: Role, private: jose.Key, now: int, *, expires: int) -> KeysetKey:
    """A key as the keyset of an epoch names it."""
    jwk = private.public().to_jwk()
    return KeysetKey(role=role, kid=jwk.pop("kid"), jwk=jwk, not_before=now - GRACE_SECONDS, expires=expires)


def _taken(key: HandedKey, now: int, holders_version: int) -> _HeldKey | None:
    """A key that was handed over, if it can be one of this deployment's request keys."""
    try:
        private = jose.Key.from_jwk(key.jwk)
    except ConfigurationError:
        return None
    jwk = private.public().to_jwk()
    if private.alg != "HPKE-10-KE" or jwk.pop("kid", None) != key.kid or "priv" not in key.jwk:
        return None
    if not now < key.expires <= now + EPOCH_SECONDS + GRACE_SECONDS:
        return None
    public = KeysetKey(role="request", kid=key.kid, jwk=jwk, not_before=key.not_before, expires=key.expires)
    return _HeldKey(public=public, private=private, holders_version=holders_version)
