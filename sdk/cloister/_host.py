"""The host a client has appraised: when it is good enough, when it is appraised anew, and who does it.

Without I/O and without locks; `Client` and `AsyncClient` bring theirs. The keyset is good until it ends,
however long the process was frozen meanwhile; a restored snapshot or a forked child appraises for itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from cloister.attestation import AppraisalPolicy
from cloister.envelope.process import epoch
from cloister.errors import CloisterError, UnavailableError
from cloister.protocol.attest import AttestationDocument, AttestationResult, appraise_document
from cloister.protocol.keyset import Keyset
from cloister.protocol.session import Attest, Response

__all__ = ["RENEWAL_TIMEOUT_SECONDS", "KnownHost"]

NONCE_BYTES: Final = 32
HTTP_OK: Final = 200
HTTP_SERVER_ERROR: Final = 500
RENEW_SECONDS: Final = 600.0
"""Hosts begin a new epoch this long before a keyset ends (PROTOCOL 5); clients spread over half of it."""
RETRY_SECONDS: Final = 60.0
RENEWAL_TIMEOUT_SECONDS: Final = 10.0
"""A renewal in the background gives up early, so that nobody who needs a host waits behind it for long."""


class KnownHost:
    """What one client knows of its host.

    Args:
        policy: Which host is accepted.
        clock: Epoch seconds.
        jitter: Uniform in [0, 1).
    """

    def __init__(
        self, policy: AppraisalPolicy, *, clock: Callable[[], float], jitter: Callable[[], float]
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._jitter = jitter
        self._host: AttestationResult | None = None
        self._outcome: AttestationResult | CloisterError | None = None
        self._life = epoch()
        self._renew_at = 0.0
        self.flights = 0
        """How many appraisals have ended; who waited for one of them needs none of its own."""

    @property
    def keyset(self) -> Keyset | None:
        """The keyset of the host that was appraised last."""
        return None if self._host is None else self._host.keyset

    def known(self, step: Attest) -> AttestationResult | None:
        """The appraised host, if what is known satisfies the step."""
        host = self._host
        if host is None or self._life is not epoch() or step.fresh or host.keyset.digest == step.reject:
            return None
        return host if host.keyset.request_key(self._clock()) else None

    def challenge(self) -> bytes:
        """A fresh nonce for `POST /v1/attestation`."""
        return os.urandom(NONCE_BYTES)

    def accept(self, response: Response | None, nonce: bytes) -> AttestationResult | None:
        """Appraise the answer to a challenge, and seal to this host from now on; `None`: ask again.

        Raises:
            AttestationError: The host is not the one that the policy accepts. What was known stays: the keys
                it was appraised with are as good as they were.
            UnavailableError: There is no Cloister host.
        """
        try:
            self._outcome = self._appraise(response, nonce)
        except CloisterError as refusal:
            self._outcome = refusal
            raise
        finally:
            self.flights += 1
        return self._outcome

    def outcome(self) -> AttestationResult | None:
        """How the last appraisal ended, for those who waited for it.

        Raises:
            CloisterError: As `accept` did.
        """
        if isinstance(self._outcome, CloisterError):
            raise self._outcome.with_traceback(None)
        return self._outcome

    def renewal_due(self) -> bool:
        """Whether the keyset nears its end; says so once, then not again for a while."""
        host, now = self._host, self._clock()
        if host is None or self._life is not epoch() or not self._renew_at <= now < host.keyset.expires:
            return False
        self._renew_at = now + RETRY_SECONDS
        return True

    def forget(self) -> None:
        """Drop what is known."""
        self._host = None

    def _appraise(self, response: Response | None, nonce: bytes) -> AttestationResult | None:
        if response is None or response.status >= HTTP_SERVER_ERROR:
            return None
        if response.status != HTTP_OK:
            raise UnavailableError("this is not a Cloister host", hint="check CLOISTER_URL", retryable=False)
        document = AttestationDocument.from_bytes(response.body)
        host = appraise_document(document, self._policy, nonce=nonce, now=self._clock())
        if self._host is None or self._host.keyset.digest != host.keyset.digest:
            self._renew_at = host.keyset.expires - RENEW_SECONDS * (1 + self._jitter()) / 2
        self._host, self._life = host, epoch()
        return host
