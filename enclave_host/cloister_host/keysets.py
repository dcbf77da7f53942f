"""The host's own keys: epochs of request keys, receipt and delivery keys, and the keyset that names them.

Request keys are random, live in memory only and are never derived from the root key (PROTOCOL 5): a
root key that leaks later opens no recorded request.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import rfc8785

from cloister import jose
from cloister.attestation.fetching import Fetched
from cloister.protocol import (
    AttestationDocument,
    Keyset,
    KeysetKey,
    sign_keyset,
    staple_nonce,
    statement,
)
from cloister.protocol.delivery import DELIVERY_TYP
from cloister.protocol.keyset import Role
from cloister.receipts import Receipt, issue_receipt
from cloister_host.attester import Attester

__all__ = ["KeysetManager"]

EPOCH_SECONDS: Final = 24 * 3600
OVERLAP_SECONDS: Final = 600
GRACE_SECONDS: Final = 60
DELIVERY_LIFETIME_SECONDS: Final = 300
STAPLE_SECONDS: Final = 3600
"""Stapled evidence is made anew this often: the certificates of a Nitro document live three hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldKey:
    public: KeysetKey
    private: jose.Key


class KeysetManager:
    """Keeps the keyset current; every method is safe to call from any thread.

    Args:
        deployment_key: Ed25519, derived from the root key; signs every keyset.
        log_key: Ed25519, derived from the root key; signs tree heads, and every keyset names it.
        attester: What can produce evidence on this machine.
        config: The configuration to be attested (PROTOCOL 4).
        holders: The kinds of machine that may be given the request keys, this one among them.
        clock: Epoch seconds.
        endorsements: What to staple to evidence at this moment.
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
        endorsements: Callable[[], Fetched] = Fetched,
    ) -> None:
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

    def keyset(self) -> Keyset:
        """The current keyset; begins a new epoch when the newest request key nears its end."""
        now = self._clock()
        with self._lock:
            if self._keyset is None or now >= self._keyset.expires - OVERLAP_SECONDS:
                self.rotate()
            assert self._keyset is not None
            return self._keyset

    def rotate(self) -> None:
        """Begin a new epoch: a new request key and receipt key; the old ones end with their overlap."""
        now = int(self._clock())
        with self._lock:
            self._request_keys = [
                key for key in self._request_keys if key.public.expires + GRACE_SECONDS > now
            ]
            self._request_keys.append(_held("request", "HPKE-10-KE", now))
            self._receipt_key = _held("receipt", "EdDSA", now)
            self._delivery_key = _held("delivery", "EdDSA", now)
            named = [key.public for key in self._request_keys if key.public.expires > now]
            self._keyset = sign_keyset(
                keys=(
                    *named,
                    self._receipt_key.public,
                    self._delivery_key.public,
                    _named("log", self._log_key, now),
                ),
                config=self._config,
                holders=self._holders,
                issued_at=now,
                expires=now + EPOCH_SECONDS,
                deployment_key=self._deployment_key,
            )
            self._staple = None

    def set_holders(self, holders: tuple[Mapping[str, Any], ...]) -> None:
        """Change which kinds of machine may be given the request keys.

        A new epoch begins. If a kind is removed, machines of it may hold the keys of earlier epochs, so
        those are accepted no longer: clients attest again and find the holders they now have to accept.
        """
        with self._lock:
            removed = [holder for holder in self._holders if holder not in holders]
            self._holders = holders
            if removed:
                self._request_keys.clear()
            self.rotate()

    def request_key(self, kid: str) -> jose.Key | None:
        """The private half of a request key, while requests to it are accepted."""
        now = self._clock()
        with self._lock:
            for key in self._request_keys:
                if key.public.kid == kid and now < key.public.expires + GRACE_SECONDS:
                    return key.private
        return None

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


def _held(role: Role, alg: jose.Alg, now: int) -> _HeldKey:
    """Draw a key for one epoch."""
    private = jose.generate_key(alg, kid=f"{role}-{secrets.token_hex(8)}")
    return _HeldKey(public=_named(role, private, now), private=private)


def _named(role: Role, private: jose.Key, now: int) -> KeysetKey:
    """A key as the keyset of an epoch names it."""
    jwk = private.public().to_jwk()
    return KeysetKey(
        role=role,
        kid=jwk.pop("kid"),
        jwk=jwk,
        not_before=now - GRACE_SECONDS,
        expires=now + EPOCH_SECONDS,
    )
