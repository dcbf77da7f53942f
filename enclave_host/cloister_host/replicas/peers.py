"""The other hosts of the deployment: found in the store, asked for their keys, told about one's own.

A host announces which request keys it has; whoever lacks one asks for it, at the latest when the first
request comes that is sealed to it. Nobody waits for anybody: a host that cannot be reached is passed over.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import text

from cloister.errors import (
    AppraisalError,
    AttestationError,
    CloisterError,
    ConfigurationError,
    OpenError,
    UnavailableError,
)
from cloister.protocol.handover import Receiving, Terms
from cloister.protocol.handover_messages import NONCE_BYTES, HandedOver
from cloister_host.keysets import KeysetManager
from cloister_host.replicas.doors import check_door, receive
from cloister_host.replicas.giver import Prove
from cloister_host.replicas.holders import is_listed, read_holders
from cloister_host.store import Store, Tx

__all__ = ["Asking", "Peers"]

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 1.0
ANNOUNCE_SECONDS: Final = 5.0
GONE_SECONDS: Final = 60
FORGOTTEN_SECONDS: Final = 600
AGAIN_SECONDS: Final = 1.0
LONGEST_AGAIN_SECONDS: Final = 15.0
MAX_REPLICAS: Final = 256
LOOK_SECONDS: Final = 0.25
FIND_SECONDS: Final = 3.0

_SELECT: Final = text(
    "SELECT id, doors, keys, seen_at FROM replicas WHERE seen_at >= :after ORDER BY seen_at DESC LIMIT :limit"
)
_ANNOUNCE: Final = text(
    "INSERT INTO replicas (id, doors, keys, seen_at) VALUES (:id, :doors, :keys, :seen_at)"
    " ON CONFLICT (id) DO UPDATE SET doors = excluded.doors, keys = excluded.keys, seen_at = excluded.seen_at"
)
_LEAVE: Final = text("DELETE FROM replicas WHERE id = :id OR seen_at < :before")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replica:
    """What the store says of another host. Hints, all of it."""

    id: str
    doors: tuple[str, ...]
    keys: frozenset[str]


@dataclass(slots=True)
class _Patience:
    """When a host that failed is asked again."""

    until: float = 0.0
    seconds: float = field(default=AGAIN_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How this host asks others.

    Attributes:
        terms: What it brings, and holds them to, at this moment.
        prove: Makes evidence of this machine over (statement, nonce).
        clock: Epoch seconds.
    """

    terms: Callable[[], Terms]
    prove: Prove
    clock: Callable[[], float]

    def ask(self, doors: Sequence[str], wants: frozenset[str]) -> HandedOver:
        """Ask the doors of one host, one after the other.

        Raises:
            AppraisalError: The two hosts do not accept each other.
            CloisterError: None of the doors leads to a host of this deployment.
        """
        failure: CloisterError = UnavailableError("no peer answers there")
        for door in doors:
            try:
                return receive(check_door(door), lambda: self._begin(wants), self.prove, now=self.clock())
            except AppraisalError:
                raise
            except (AttestationError, ConfigurationError, OpenError, UnavailableError) as error:
                failure = error
        raise failure

    def _begin(self, wants: frozenset[str]) -> Receiving:
        return Receiving(self.terms(), wants=wants, nonce=secrets.token_bytes(NONCE_BYTES))


class Peers:
    """Keeps this host's request keys and its list of holders level with the others'.

    Args:
        store: Where they find each other.
        keysets: This host's keys.
        asking: How others are asked.
        machine: This machine, as a keyset names it.
        doors: Where others ask this host.
        seeds: Doors that are known without the store.
        clock: Epoch seconds.
        poll_seconds: How often it looks.
    """

    def __init__(
        self,
        *,
        store: Store,
        keysets: KeysetManager,
        asking: Asking,
        machine: Mapping[str, Any],
        doors: Sequence[str],
        seeds: Sequence[str],
        clock: Callable[[], float],
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.id: Final = secrets.token_hex(8)
        self._store = store
        self._keysets = keysets
        self._asking = asking
        self._machine = machine
        self._doors = list(doors)
        self._seeds = tuple(seeds)
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._announced: tuple[frozenset[str], float] = (frozenset(), 0.0)
        self._patience: dict[str, _Patience] = {}
        self._known: tuple[frozenset[str], float] = (frozenset(), 0.0)
        self._round = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloister-peers", daemon=True)
        keysets.find = self.find

    def add_door(self, door: str) -> None:
        """Let others ask at this door too, before any other."""
        self._doors.insert(0, door)
        self._announced = (frozenset(), 0.0)

    def join(self) -> Mapping[str, int]:
        """Take the keys of every host that answers; gives the highest state counters they have seen.

        Raises:
            ConfigurationError: A host of this deployment refuses this one.
        """
        highest: dict[str, int] = {}
        others = [replica.doors for replica in self._look()]
        for doors in (*others, *((seed,) for seed in self._seeds)):
            try:
                handed = self._pull(doors)
            except AppraisalError as error:
                # Somebody genuine is there, and the two do not accept each other: clients of one could not
                # use the other.
                raise ConfigurationError(str(error.args[0]), hint=error.hint) from None
            except CloisterError as error:
                log.info("peers.passed_over", error=error.code)
                continue
            for tenant, counter in handed.counters.items():
                highest[tenant] = max(counter, highest.get(tenant, 0))
        return highest

    def start(self) -> None:
        """Tell the others of this host, and begin to keep level with them."""
        self.round()
        self._thread.start()

    def close(self) -> None:
        """End, and let nobody ask here any more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._announced[1]:
            try:
                with self._store.begin() as tx:
                    tx.execute(_LEAVE, {"id": self.id, "before": int(self._clock()) - FORGOTTEN_SECONDS})
            except CloisterError as error:
                log.info("peers.left_unsaid", error=error.code)

    def round(self) -> None:
        """Follow the list of holders, take the keys that others have, announce one's own."""
        with self._round:
            others = self._look()
            self._keysets.draw_ahead()
            # Before anything that may take its time: others look for these keys from now on.
            self._announce()
            for replica in others:
                if not all(map(self._keysets.holds, replica.keys)):
                    self._pull_patiently(replica)
            self._announce()

    def follow(self) -> None:
        """Follow the list of holders as it stands now, because another host may know a newer one."""
        self._look()

    def find(self, kid: str) -> None:
        """Look for a request key that a request was sealed to, if any host says that it has it.

        Anybody can ask for keys that do not exist: for those the store is read a few times a second at most.
        """
        if not self._round.acquire(timeout=FIND_SECONDS):
            return
        try:
            known, at = self._known
            fresh = time.monotonic() - at < LOOK_SECONDS
            if self._keysets.holds(kid) or (fresh and kid not in known):
                return
            for replica in self._look():
                if kid in replica.keys and not self._keysets.holds(kid):
                    # Somebody waits for this key: it was announced, so its host is there.
                    self._patience.pop(replica.id, None)
                    self._pull_patiently(replica)
        finally:
            self._round.release()

    # ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.wait(self._poll_seconds):
            try:
                self.round()
            except CloisterError as error:
                log.warning("peers.waiting", error=error.code)
            except Exception as error:  # noqa: BLE001 (a thread that ends unseen would leave this host alone)
                log.error("peers.failed", error=type(error).__name__)  # noqa: TRY400 (no traceback)

    def _look(self) -> list[_Replica]:
        """Follow the list of holders as it stands; gives the other hosts that were seen lately."""
        with self._store.begin() as tx:
            holders = read_holders(tx, self._machine)
            found = _replicas(tx, after=int(self._clock()) - GONE_SECONDS)
        _, version = self._keysets.holders
        self._keysets.retire(retired=not is_listed(self._machine, holders.entries))
        if holders.version > version:
            log.info("holders.changed", version=holders.version)
            self._keysets.set_holders(holders.entries, holders.version)
        others = [replica for replica in found if replica.id != self.id]
        self._known = frozenset().union(*(replica.keys for replica in others)), time.monotonic()
        return others

    def _pull_patiently(self, replica: _Replica) -> None:
        patience = self._patience.setdefault(replica.id, _Patience())
        if time.monotonic() < patience.until:
            return
        try:
            self._pull(replica.doors)
        except CloisterError as error:
            log.info("peers.passed_over", error=error.code, replica=replica.id)
            patience.until = time.monotonic() + patience.seconds
            patience.seconds = min(2 * patience.seconds, LONGEST_AGAIN_SECONDS)
        else:
            self._patience.pop(replica.id, None)

    def _pull(self, doors: Sequence[str]) -> HandedOver:
        _, version = self._keysets.holders
        handed = self._asking.ask(doors, frozenset({"request-keys"}))
        self._keysets.take(handed.keys, holders_version=version)
        return handed

    def _announce(self) -> None:
        if not self._doors:
            return
        now, keys = self._clock(), frozenset(key.kid for key in self._keysets.to_give())
        announced, at = self._announced
        if keys == announced and 0 <= now - at < ANNOUNCE_SECONDS:
            return
        row = {
            "id": self.id,
            "doors": _text(self._doors),
            "keys": _text(sorted(keys)),
            "seen_at": int(now),
        }
        with self._store.begin() as tx:
            tx.execute_many(_ANNOUNCE, [row])
        self._announced = keys, now


def _replicas(tx: Tx, *, after: int) -> list[_Replica]:
    rows = tx.execute(_SELECT, {"after": after, "limit": MAX_REPLICAS}).all()
    return [
        _Replica(id=str(replica), doors=_strings(doors), keys=frozenset(_strings(keys)))
        for replica, doors, keys, _ in rows
    ]


def _text(items: Sequence[str]) -> str:
    return msgspec.json.encode(items).decode()


def _strings(raw: Any) -> tuple[str, ...]:
    """A list of strings as the database gives it; anything else is none."""
    try:
        return tuple(msgspec.json.decode(raw, type=list[str])[:16])
    except (msgspec.MsgspecError, TypeError):
        return ()
