"""Evidence under the public development root, for machines without a TEE."""

from __future__ import annotations

import hashlib
import importlib.resources
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cloister.attestation import Format
from cloister.attestation.formats import simulated

__all__ = ["SimulatedAttester", "image_digest"]


class SimulatedAttester:
    """Signs what it is told under a key that everybody knows; accepted by development policies only."""

    format: Final = Format.SIMULATED

    def __init__(self, measurement: str, *, clock: Callable[[], float] = time.time) -> None:
        self._measurement = measurement
        self._clock = clock

    def evidence(self, *, statement: bytes, nonce: bytes) -> bytes:
        """Simulated evidence."""
        return simulated.sign(
            measurement=self._measurement,
            statement=statement,
            nonce=nonce,
            issued_at=int(self._clock()),
        )


def image_digest() -> str:
    """What the simulated attester calls this image: the digest of the code that is installed."""
    digest = hashlib.sha256()
    for package in ("cloister", "cloister_host"):
        root = Path(str(importlib.resources.files(package)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root)}\x00".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()}"
