"""Evidence under the public development root, for machines without a TEE."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from cloister.attestation import Format
from cloister.attestation.formats import simulated

__all__ = ["SimulatedAttester"]


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
