"""Attesters: what can produce evidence about the machine the host runs on."""

from __future__ import annotations

from typing import Protocol

from cloister.attestation import Format

__all__ = ["Attester"]


class Attester(Protocol):
    """Port: produce evidence that speaks of a statement and answers a nonce (PROTOCOL 5)."""

    @property
    def format(self) -> Format:
        """What kind of evidence it produces."""
        ...

    def evidence(self, *, statement: bytes, nonce: bytes) -> bytes:
        """Evidence about this machine.

        Raises:
            UnavailableError: The device or service behind it does not answer.
        """
        ...
