"""Tables that only tell where to look, made to agree with the protected rows again and again.

Somebody who can write to the database can delete such a hint, so that a delivery, a job or an expiry would be
forgotten, or put one in. Neither has an effect for long: what is due stands in the protected rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cloister_host.identity.caller import Caller
from cloister_host.store import Tx

__all__ = ["MENDED_AT_ONCE", "Hints", "Mend"]

MENDED_AT_ONCE: Final = 200

Mend = Callable[[Tx, str, str], str]
"""Makes a page of a tenant's hints agree, behind an id; tells where the next one begins, empty at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    mend: Mend
    every_seconds: float


class Hints:
    """A chore for the scheduler: at the start of a host, and then at times.

    Args:
        monotonic: Seconds that only go forward.
        mends: What there is to mend, each with how many seconds lie between two times.
    """

    def __init__(self, monotonic: Callable[[], float], mends: Sequence[tuple[Mend, float]]) -> None:
        self._monotonic = monotonic
        self._mends = [_Due(mend=mend, every_seconds=seconds) for mend, seconds in mends]
        self._lock = threading.Lock()
        self._next: dict[tuple[int, str], float] = {}

    def keep(self, tx: Tx, caller: Caller, after: str) -> str:
        """One step of a tenant: a `Chore`. The place is the number of a mend and an id."""
        number, _, place = after.partition("/") if after else ("0", "", "")
        for index in range(int(number), len(self._mends)):
            due, now = self._mends[index], self._monotonic()
            key = (index, caller.tenant)
            if not place and now < self._next.get(key, 0.0):
                continue
            place = due.mend(tx, caller.tenant, place)
            if place:
                return f"{index}/{place}"
            with self._lock:
                self._next[key] = now + due.every_seconds
        return ""
