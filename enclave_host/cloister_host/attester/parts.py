"""The attester of one host, what endorses it, and what it says this machine is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from cloister.attestation.fetching import FETCHED, fetch
from cloister_host.attester import Attester
from cloister_host.attester.endorsements import Endorser
from cloister_host.attester.machine import Machine
from cloister_host.attester.probing import choose_attester
from cloister_host.attester.settings import AttesterSettings
from cloister_host.attester.vendor import get

__all__ = ["AttesterParts", "build_attester"]

CACHE: Final = "endorsements.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttesterParts:
    """What `build` needs to know about the machine."""

    attester: Attester
    endorser: Endorser
    machine: Machine


def build_attester(
    settings: AttesterSettings,
    *,
    state: Path,
    clock: Callable[[], float],
    attester: Attester | None = None,
) -> AttesterParts:
    """Choose the attester and learn from its own evidence what this machine is.

    Args:
        settings: Which attester, which anchors.
        state: Where fetched endorsements are kept.
        clock: Epoch seconds.
        attester: One that was built elsewhere, instead of a choice.

    Raises:
        ConfigurationError: There is no TEE, or its evidence is not authentic here.
        UnavailableError: The attester does not answer.
    """
    attester = attester or choose_attester(settings.name, tpm=settings.tpm, clock=clock)
    asks = settings.fetch and attester.format in FETCHED
    endorser = Endorser(
        attester,
        fetch=partial(fetch, format=attester.format, get=get) if asks else None,
        folder=settings.endorsements,
        cache=state / CACHE if asks else None,
        trust_anchors=settings.anchors(),
        clock=clock,
    )
    machine = Machine.of(endorser.recognise())
    return AttesterParts(attester=attester, endorser=endorser, machine=machine)
