"""Requests seen: a sealed request has its effect once (PROTOCOL 6)."""

from __future__ import annotations

import hmac
import itertools
import threading
from collections.abc import Callable
from typing import Final

from sqlalchemy import text

from cloister.errors import UnavailableError
from cloister_host.store.rows import TamperedError
from cloister_host.store.tx import Tx

__all__ = ["MAX_SKEW_SECONDS", "ReplayError", "ReplayGuard"]

MAX_SKEW_SECONDS: Final = 60
PRUNE_SECONDS: Final = 0.25
PRUNED_AT_ONCE: Final = 256

_INSERT: Final = text(
    "INSERT INTO requests (deployment, jti, digest, reply, expires)"
    " VALUES (:deployment, :jti, :digest, NULL, :expires) ON CONFLICT (deployment, jti) DO NOTHING"
)
_SELECT: Final = text("SELECT digest, reply FROM requests WHERE deployment = :deployment AND jti = :jti")
_FINISH: Final = text(
    "UPDATE requests SET reply = :reply WHERE deployment = :deployment AND jti = :jti AND reply IS NULL"
)
_PRUNE: Final = text(
    "DELETE FROM requests WHERE (deployment, jti) IN"
    " (SELECT deployment, jti FROM requests WHERE expires < :before ORDER BY expires LIMIT :limit)"
)


class ReplayError(UnavailableError):
    """This very request cannot be answered; its sender may seal another one."""


class ReplayGuard:
    """Remembers each request's identifier until nobody can accept it any more.

    The rows carry no MAC: they hold nothing but ciphertext and its digest. What this process has recorded
    it also keeps in memory until then, so that a row which the database loses or changes is noticed.

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pruned = 0.0
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, bytes]] = {}

    def begin(self, tx: Tx, jti: str, digest: bytes, expires: int) -> str | None:
        """Record a request before it has any effect.

        Args:
            tx: Committed before the effect, or together with it.
            jti: The request's identifier.
            digest: SHA-256 of the request's ciphertext.
            expires: When it expires (epoch seconds).

        Returns:
            The sealed reply it was given before, or None if it is new.

        Raises:
            ReplayError: Another ciphertext came with this identifier (not retryable), or the same
                request is being worked on, or its worker died.
            TamperedError: The database has lost or changed what it was given.
        """
        self.prune(tx)
        seen = self._seen.get(jti)
        names = {"deployment": tx.keys.deployment, "jti": jti}
        if tx.execute(_INSERT, {**names, "digest": digest, "expires": expires}).rowcount == 1:
            if seen is not None:
                raise TamperedError("requests")
            tx.on_commit(lambda: self._see(jti, expires, digest))
            return None
        stored_digest, reply = tuple(tx.execute(_SELECT, names).one())
        if not isinstance(stored_digest, bytes) or not isinstance(reply, bytes | None):
            raise TamperedError("requests")
        if seen is not None and not hmac.compare_digest(stored_digest, seen[1]):
            raise TamperedError("requests")
        if not hmac.compare_digest(stored_digest, digest):
            raise ReplayError("this request's identifier was used by another request", retryable=False)
        if reply is None:
            raise ReplayError(
                "this request is being worked on", hint="seal it anew, with the same idempotency key"
            )
        return reply.decode("ascii", "replace")

    def finish(self, tx: Tx, jti: str, reply: str) -> None:
        """Keep the sealed reply for whoever repeats the request."""
        tx.execute(_FINISH, {"deployment": tx.keys.deployment, "jti": jti, "reply": reply.encode("ascii")})

    def keep(self, tx: Tx, jti: str, digest: bytes, expires: int, reply: str) -> None:
        """Keep a reply whose request may have been recorded, or undone with what it began."""
        names = {"deployment": tx.keys.deployment, "jti": jti}
        tx.execute(_INSERT, {**names, "digest": digest, "expires": expires})
        tx.on_commit(lambda: self._see(jti, expires, digest))
        self.finish(tx, jti, reply)

    def prune(self, tx: Tx) -> None:
        """Forget some requests that are past their expiry and the skew allowed for it, unless just done."""
        now = self._clock()
        if abs(now - self._pruned) < PRUNE_SECONDS:
            return
        self._pruned, before = now, int(now) - 2 * MAX_SKEW_SECONDS
        tx.execute(_PRUNE, {"before": before, "limit": PRUNED_AT_ONCE})
        with self._lock:
            # In the order they came, which is nearly that of their expiry.
            for jti, (expires, _) in list(itertools.islice(self._seen.items(), 2 * PRUNED_AT_ONCE)):
                if expires < before:
                    del self._seen[jti]

    def _see(self, jti: str, expires: int, digest: bytes) -> None:
        with self._lock:
            self._seen.setdefault(jti, (expires, digest))
