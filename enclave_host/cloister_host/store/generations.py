"""The generations of the root key: which key wraps a tenant's KEK, and which of them are gone for good.

The root key can be replaced while hosts run. Each generation has a number and a key of its own, and wraps
KEKs of tenants; a KEK says which one wraps it. What stands here about generations is protected as every other
row is, so that nobody revives one that was destroyed, or hides that there is a newer one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.secret import Secret
from cloister_host.store.rows import Table, TamperedError

if TYPE_CHECKING:
    from cloister_host.store.tx import Tx

__all__ = [
    "FIRST",
    "GENERATIONS",
    "Generation",
    "Generations",
    "generations_of",
    "newest_generation",
    "put_generation",
]

FIRST: Final = 1
MAX_GENERATIONS: Final = 1000


class Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One generation of the root key; the first has no row until there is a second.

    Attributes:
        state: `active`: new KEKs are wrapped under it. `retired`: there is a newer one. `destroying`: nothing
            hangs on it any more, and its copies are being destroyed. `destroyed`: no copy of it opens.
        created_at: Epoch seconds; 0 for the first.
        destroyed_at: Epoch seconds.
        checked: The providers that were seen to refuse a copy of it, or to have destroyed what opens it.
        told: The providers of which operators said so, because nobody can see it.
    """

    state: Literal["active", "retired", "destroying", "destroyed"]
    created_at: int = 0
    destroyed_at: int = 0
    checked: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


GENERATIONS: Final = Table("root_generations", Generation, "generation of the root key")
_NOBODY: Final = ""


class Generations:
    """The keys of the generations that this process holds.

    Args:
        keys: What wraps KEKs, by generation.
        load: Opens a generation that came up while this process ran.
    """

    def __init__(self, keys: Mapping[int, Secret], load: Callable[[Tx, int], Secret] | None = None) -> None:
        self._lock = threading.Lock()
        self._keys = dict(keys)
        self.load = load

    def aead(self, tx: Tx, number: int) -> AESGCM:
        """What wraps KEKs in a generation.

        Raises:
            UnavailableError: Its provider does not open it for this process.
            TamperedError: There is no such generation.
        """
        key = self._keys.get(number)
        if key is None:
            if self.load is None or number not in generations_of(tx):
                raise TamperedError(GENERATIONS.name)
            key = self.load(tx, number)
            self.add(number, key)
        return AESGCM(key.reveal())

    def add(self, number: int, key: Secret) -> None:
        """Hold one more."""
        with self._lock:
            self._keys[number] = key

    def forget(self, number: int) -> None:
        """Hold one no longer."""
        with self._lock:
            self._keys.pop(number, None)

    def held(self) -> frozenset[int]:
        """The generations that are held."""
        with self._lock:
            return frozenset(self._keys)


def generations_of(tx: Tx) -> dict[int, Generation]:
    """Every generation that ever was, oldest first."""
    rows = tx.scan(GENERATIONS, _NOBODY, limit=MAX_GENERATIONS)
    found = {FIRST: Generation(state="active"), **{int(row.id): row.record for row in rows}}
    return dict(sorted(found.items()))


def newest_generation(tx: Tx) -> int:
    """The generation that wraps the KEKs of new tenants."""
    return max(number for number, found in generations_of(tx).items() if found.state == "active")


def put_generation(tx: Tx, number: int, record: Generation) -> None:
    """Write down what became of a generation."""
    tx.put(GENERATIONS, _NOBODY, str(number), record)
