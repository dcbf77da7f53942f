"""Rotate the root key, move it to another provider, destroy what came before: while hosts serve.

Each step is one transaction, and the next begins from what stands in the store, so a process that dies at
any point is followed by one that goes on. Until a KEK is wrapped under the new generation the old one opens
it; nothing is destroyed that a tenant still hangs on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from cloister.errors import ConfigurationError
from cloister_host.audit import Audit
from cloister_host.identity.caller import SYSTEM_TENANT, Caller
from cloister_host.identity.records import TENANTS
from cloister_host.keymanager.root import wrapping_key
from cloister_host.store import Store, Tx
from cloister_host.store.database import ConflictError
from cloister_host.store.generations import (
    Generation,
    Generations,
    generations_of,
    newest_generation,
    put_generation,
)
from cloister_host.unseal import Unseal
from cloister_host.unseal.copies import (
    Copy,
    RootParts,
    add_copy,
    copies_of,
    delete_copy,
    open_copy,
    seal_copy,
)
from cloister_host.unseal.recovery import RecoveryUnseal, put_recovery, recovery_of
from cloister_host.unseal.settings import ShamirSettings
from cloister_host.unseal.wrapped import NotOursError

__all__ = ["GenerationStatus", "RootKeeper"]

_PAGE: Final = 500
_ATTEMPTS: Final = 30
_HOST: Final = Caller(tenant=SYSTEM_TENANT, principal="host", kind="service", correlation_id="host-command")

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationStatus:
    """Where one generation stands.

    Attributes:
        copies: The providers that have a copy of it.
        tenants: How many tenants' KEKs it wraps.
    """

    number: int
    record: Generation
    copies: tuple[str, ...]
    tenants: int


class RootKeeper:
    """The acts on the root key of a deployment, for whoever can open it.

    Args:
        store: Of the deployment.
        held: The generations that the store holds.
        parts: The newest of them.
        audit: Where the acts are recorded.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        store: Store,
        held: Generations,
        parts: RootParts,
        audit: Audit,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._held = held
        self._parts = parts
        self._audit = audit
        self._clock = clock

    def status(self) -> list[GenerationStatus]:
        """Every generation, oldest first."""
        with self._store.begin() as tx:
            copies = copies_of(tx.execute)
            hanging = [tx.root_generation(tenant) for tenant in _tenants(tx)]
            return [
                GenerationStatus(
                    number=number,
                    record=record,
                    copies=tuple(sorted({copy.provider for copy in copies if copy.generation == number})),
                    tenants=hanging.count(number),
                )
                for number, record in generations_of(tx).items()
            ]

    # --- rotation -----------------------------------------------------------------------------------

    def rotate(self, *providers: Unseal) -> int:
        """Begin a generation, sealed by these providers, and wrap every tenant's KEK under it.

        A rotation that was begun and not finished is finished instead. The deployment stays the same, and
        hosts that serve meanwhile go on.

        Returns:
            The generation that wraps everything now.

        Raises:
            ConfigurationError: A provider cannot be used.
            UnavailableError: A provider or the database does not answer; call it again.
        """
        with self._store.begin() as tx:
            newest = newest_generation(tx)
            unfinished = any(tx.root_generation(tenant) not in {0, newest} for tenant in _tenants(tx))
        if not unfinished:
            newest = self._begin(newest, providers)
        self._rewrap(newest)
        return newest

    def _begin(self, before: int, providers: Sequence[Unseal]) -> int:
        parts = self._parts.succeeded(before + 1)
        copies = [seal_copy(provider.renewed(), parts) for provider in providers]

        def begin(tx: Tx) -> None:
            if newest_generation(tx) != before:
                raise ConfigurationError("the root key was rotated meanwhile", hint="look at its status")
            for copy in (*copies, *_recovery_copies(tx, parts)):
                add_copy(tx.execute, copy)
            old = generations_of(tx)[before]
            put_generation(tx, before, msgspec.structs.replace(old, state="retired"))
            put_generation(tx, parts.generation, Generation(state="active", created_at=int(self._clock())))
            self._record(tx, "root.rotate", f"root/{parts.generation}")

        self._try(begin)
        self._held.add(parts.generation, wrapping_key(parts.key))
        self._parts = parts
        return parts.generation

    def _rewrap(self, newest: int) -> None:
        with self._store.begin() as tx:
            tenants = list(_tenants(tx))
        for tenant in tenants:

            def rewrap(tx: Tx, tenant: str = tenant) -> None:
                if tx.rewrap_tenant_kek(tenant, newest):
                    self._record(tx, "root.rewrap", f"tenant/{tenant}")

            self._try(rewrap)

    # --- destruction --------------------------------------------------------------------------------

    def destroy(self, number: int, providers: Sequence[Unseal], *, told: Collection[str] = ()) -> Generation:
        """Destroy a generation that nothing hangs on: no copy of it, wherever it is, opens any more.

        Args:
            number: The generation.
            providers: Those that have a copy of it.
            told: Providers of which operators say that what opens their copies is destroyed, where that
                cannot be seen: shares, or a provider that is lost.

        Raises:
            ConfigurationError: There is no such generation, it is in use, a provider still opens a copy, or
                nobody says of one that it does not.
            UnavailableError: A provider or the database does not answer; call it again.
        """

        def intend(tx: Tx) -> list[Copy]:
            record = generations_of(tx).get(number)
            if record is None or record.state == "active":
                raise ConfigurationError(
                    f"generation {number} of the root key is " + ("in use" if record else "unknown"),
                    hint="rotate the root key first",
                )
            if any(tx.root_generation(tenant) == number for tenant in _tenants(tx)):
                raise ConfigurationError(
                    f"keys of tenants hang on generation {number} of the root key",
                    hint="finish the rotation first",
                )
            if record.state == "retired":
                put_generation(tx, number, msgspec.structs.replace(record, state="destroying"))
                self._record(tx, "root.destroy", f"root/{number}", outcome="intent")
            return copies_of(tx.execute, generation=number)

        copies = self._try(intend)
        seen = {copy.provider for copy in copies if self._destroyed(copy, providers, told)}

        def done(tx: Tx) -> Generation:
            record = generations_of(tx)[number]
            if record.state == "destroyed":
                return record
            for copy in copies_of(tx.execute, generation=number):
                delete_copy(tx.execute, copy)
            names = {copy.provider for copy in copies}
            record = msgspec.structs.replace(
                record,
                state="destroyed",
                destroyed_at=int(self._clock()),
                checked=tuple(sorted(names & seen)),
                told=tuple(sorted(names - seen)),
            )
            put_generation(tx, number, record)
            self._record(tx, "root.destroy", f"root/{number}")
            return record

        record = self._try(done)
        self._held.forget(number)
        return record

    def leave(self, provider: Unseal, *, stays: Unseal) -> int:
        """Destroy the copies that a provider has of generations that are in use, when another has them too.

        Returns:
            How many there were.

        Raises:
            ConfigurationError: The provider that stays does not open a generation that is in use.
            UnavailableError: A provider or the database does not answer; call it again.
        """
        with self._store.begin() as tx:
            live = [number for number, found in generations_of(tx).items() if found.state != "destroyed"]
            copies = [copy for copy in copies_of(tx.execute) if copy.generation in live]
        left = 0
        for copy in copies:
            if copy.provider != provider.name or _opens(stays, copy):
                continue
            beside = [other for other in copies if other.generation == copy.generation and other is not copy]
            if not any(_opens(stays, other) for other in beside):
                raise ConfigurationError(
                    f"{stays.name} has no copy of generation {copy.generation} of the root key",
                    hint="rotate to it first, and destroy what came before",
                )
            provider.destroy(copy.sealed, copy.place)

            def leave(tx: Tx, copy: Copy = copy) -> None:
                delete_copy(tx.execute, copy)
                self._record(tx, "root.leave", f"root/{copy.generation}")

            self._try(leave)
            left += 1
        return left

    def _destroyed(self, copy: Copy, providers: Sequence[Unseal], told: Collection[str]) -> bool:
        """Destroy a copy at its provider; tells whether that was seen, and not only said."""
        for provider in providers:
            if provider.name != copy.provider:
                continue
            try:
                seen = provider.destroy(copy.sealed, copy.place)
            except NotOursError:
                continue
            if seen and _opens(provider, copy):
                raise ConfigurationError(f"the provider {provider.name} still opens what it destroyed")
            if seen:
                return True
        if copy.provider not in told:
            raise ConfigurationError(
                f"nobody can see whether what opens the copy of {copy.provider} is destroyed",
                hint=f"destroy it, and say so: --destroyed {copy.provider}",
            )
        return False

    # --- recovery -----------------------------------------------------------------------------------

    def make_recovery(self, settings: ShamirSettings) -> None:
        """Make a recovery key, split among operators; the shares of the one before open nothing new.

        Raises:
            ConfigurationError: A rotation is unfinished, the numbers make no sense, or a share cannot be
                written.
        """
        with self._store.begin() as tx:
            if any(tx.root_generation(tenant) not in {0, self._parts.generation} for tenant in _tenants(tx)):
                raise ConfigurationError("the root key is being rotated", hint="finish the rotation first")
        unseal = RecoveryUnseal.create(settings, at=int(self._clock()))
        copy = seal_copy(unseal, self._parts)
        recovery = unseal.recovery
        assert recovery is not None, "it was just made"

        def keep(tx: Tx) -> None:
            for old in copies_of(tx.execute, provider=unseal.name, generation=copy.generation):
                delete_copy(tx.execute, old)
            add_copy(tx.execute, copy)
            put_recovery(tx, recovery)
            detail = {"shares": settings.shares, "threshold": settings.threshold}
            self._record(tx, "root.recovery", f"root/{copy.generation}", detail=detail)

        self._try(keep)

    # ------------------------------------------------------------------------------------------------

    def _record(self, tx: Tx, act: str, resource: str, **more: object) -> None:
        self._audit.record(tx, _HOST, act=act, resource=resource, **more)  # type: ignore[arg-type]

    def _try(self, act: Callable[[Tx], ResultT]) -> ResultT:
        """One transaction, again when another was faster."""
        for _ in range(_ATTEMPTS - 1):
            try:
                with self._store.begin() as tx:
                    return act(tx)
            except ConflictError:
                continue
        with self._store.begin() as tx:
            return act(tx)


def _tenants(tx: Tx) -> Iterator[str]:
    after = ""
    while rows := tx.scan(TENANTS, SYSTEM_TENANT, after=after, limit=_PAGE):
        yield from (row.id for row in rows)
        after = rows[-1].id


def _recovery_copies(tx: Tx, parts: RootParts) -> list[Copy]:
    recovery = recovery_of(tx)
    if recovery is None:
        return []
    # With the public half alone nobody can see that it opens.
    return [seal_copy(RecoveryUnseal(ShamirSettings(), recovery), parts, check=False)]


def _opens(provider: Unseal, copy: Copy) -> bool:
    if provider.name != copy.provider:
        return False
    try:
        open_copy(provider, copy)
    except ConfigurationError:
        return False
    return True
