"""What comes beside this machine's evidence, so that clients in closed networks fetch nothing.

Sources, best first: the vendor's service, what it said last time (a file in the state directory), and
a folder of `cloister evidence fetch`. None of them is trusted: a set is taken only if this machine's own
evidence is authentic with it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import rfc8785
import structlog

from cloister import attestation
from cloister.attestation.binding import require_binding
from cloister.attestation.fetching import Fetched
from cloister.errors import CloisterError, ConfigurationError, EvidenceError, UnavailableError
from cloister.jose import b64url_decode, b64url_encode
from cloister_host.attester import Attester

__all__ = ["Endorser"]

log = structlog.get_logger(__name__)

PERIOD_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 300.0
NONCE_BYTES: Final = 32
MAX_FILE_BYTES: Final = 1024 * 1024
PURPOSE: Final = "cloister.self.v1"

Fetch = Callable[[bytes], Fetched]
"""Asks the vendor for what a piece of evidence needs."""


class Endorser:
    """Endorsements and collateral of one machine, renewed by a timer while the host serves.

    Args:
        attester: Whose evidence is endorsed.
        fetch: The vendor's service; None where nothing is fetched.
        folder: What `cloister evidence fetch` wrote.
        cache: File that keeps what was fetched last.
        trust_anchors: Instead of the pinned ones, in tests.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        attester: Attester,
        *,
        clock: Callable[[], float],
        fetch: Fetch | None = None,
        folder: Path | None = None,
        cache: Path | None = None,
        trust_anchors: tuple[bytes, ...] | None = None,
    ) -> None:
        self._attester = attester
        self._fetch = fetch
        self._folder = folder
        self._cache = cache
        self._trust_anchors = trust_anchors
        self._clock = clock
        self._current = Fetched()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def current(self) -> Fetched:
        """What to staple now; never waits for a network."""
        return self._current

    def recognise(self) -> attestation.AuthenticEvidence:
        """Authenticate this machine's own evidence, and keep what made it authentic.

        Raises:
            ConfigurationError: No source has what it needs.
            UnavailableError: The attester does not answer.
        """
        evidence, statement, nonce = self._evidence()
        refusal: CloisterError = EvidenceError("there is nothing to endorse the evidence with")
        for source in self._sources(evidence):
            try:
                found = source()
                authentic = self._authenticate(evidence, found)
                require_binding(authentic, statement=statement, nonce=nonce)
            except (EvidenceError, UnavailableError, ConfigurationError) as error:
                refusal = error
                continue
            self._keep(found)
            return authentic
        raise ConfigurationError(
            f"this machine's own evidence is not authentic: {refusal.args[0]}",
            hint=refusal.hint or "fetch its endorsements: `cloister evidence fetch`, then --endorsements",
        )

    def refresh(self) -> bool:
        """Ask the vendor again; what is held stays if it does not answer with something better."""
        if self._fetch is None:
            return True
        try:
            evidence, _, _ = self._evidence()
            found = self._fetch(evidence)
            self._authenticate(evidence, found)
        except ConfigurationError:
            return True  # this machine's evidence needs nothing that a vendor has
        except CloisterError as error:
            log.warning("endorsements.stale", error=error.code, reason=error.args[0])
            return False
        self._keep(found)
        return True

    def start(self) -> None:
        """Begin to refresh in the background, where there is a vendor to ask."""
        if self._fetch is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="cloister-endorsements", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop refreshing."""
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        pause = PERIOD_SECONDS
        while not self._wake.wait(pause):
            pause = PERIOD_SECONDS if self.refresh() else RETRY_SECONDS

    def _evidence(self) -> tuple[bytes, bytes, bytes]:
        nonce = os.urandom(NONCE_BYTES)
        statement = rfc8785.dumps({"nonce": b64url_encode(nonce), "purpose": PURPOSE})
        return self._attester.evidence(statement=statement, nonce=nonce), statement, nonce

    def _authenticate(self, evidence: bytes, found: Fetched) -> attestation.AuthenticEvidence:
        return attestation.authenticate(
            evidence,
            format=self._attester.format,
            at=datetime.fromtimestamp(self._clock(), UTC),
            endorsements=found.endorsements,
            collateral=found.collateral,
            trust_anchors=self._trust_anchors,
        )

    def _sources(self, evidence: bytes) -> Iterator[Callable[[], Fetched]]:
        fetch = self._fetch
        if fetch is not None:
            yield lambda: fetch(evidence)
            yield self._cached
        if self._folder is not None:
            yield self._from_folder
        yield Fetched

    def _keep(self, found: Fetched) -> None:
        self._current = found
        if self._cache is not None and found != Fetched():
            text = json.dumps(
                {
                    "endorsements": [b64url_encode(item) for item in found.endorsements],
                    "collateral": None if found.collateral is None else b64url_encode(found.collateral),
                }
            )
            whole = self._cache.with_suffix(".new")
            whole.write_text(text, encoding="ascii")
            whole.replace(self._cache)

    def _cached(self) -> Fetched:
        if self._cache is None or not self._cache.exists():
            raise EvidenceError("nothing was fetched before")
        try:
            members = json.loads(_read(self._cache))
            collateral = members["collateral"]
            return Fetched(
                endorsements=tuple(b64url_decode(item) for item in members["endorsements"]),
                collateral=None if collateral is None else b64url_decode(collateral),
            )
        except (ValueError, KeyError, TypeError):
            raise EvidenceError("the cached endorsements are damaged") from None

    def _from_folder(self) -> Fetched:
        assert self._folder is not None
        files = sorted(path for path in self._folder.iterdir() if path.is_file())
        collateral = [_read(path) for path in files if path.suffix == ".json"]
        if len(collateral) > 1:
            raise ConfigurationError(
                "the folder of endorsements has several JSON files", hint="keep one, the collateral"
            )
        return Fetched(
            endorsements=tuple(_read(path) for path in files if path.suffix != ".json"),
            collateral=collateral[0] if collateral else None,
        )


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigurationError(f"{path} is too large to be an endorsement")
    return path.read_bytes()
