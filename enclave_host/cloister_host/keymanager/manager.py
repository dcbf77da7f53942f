"""What is done with keys: data keys issued, values sealed and opened."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from cloister.envelope import (
    ContentKey,
    DataKey,
    Dek,
    DekCache,
    OpenCache,
    Padded,
    Sealed,
    Value,
    recover_cek,
    seal_many_to,
)
from cloister.errors import ConfigurationError, LimitError, OpenError
from cloister.jose import wrap_key
from cloister.jose.jwe import management
from cloister.secret import Secret
from cloister_host.audit import Audit
from cloister_host.identity.caller import Caller
from cloister_host.keymanager.keyring import HeldKey, KeyRing
from cloister_host.keymanager.usage import Usage
from cloister_host.policy.grants import Grants
from cloister_host.store import Tx

__all__ = ["MAX_DEK_AGE_SECONDS", "MAX_DEK_BYTES", "MAX_DEK_MESSAGES", "KeyManager"]

MAX_DEK_MESSAGES: Final = 2**24
MAX_DEK_BYTES: Final = 2**36
MAX_DEK_AGE_SECONDS: Final = 300
DEK_BYTES: Final = 32
HOST_LEASE: Final = 2**14  # of a version with a limit of its own, so that none of it goes to waste
TENANTS_REMEMBERED: Final = 1024

Context = Mapping[str, str]


class KeyManager:
    """Seals and opens under tenants' keys.

    Args:
        ring: The keys.
        usage: How much each has protected.
        grants: Who may use them.
        audit: Where each use is recorded.
        clock: Epoch seconds.
    """

    def __init__(
        self, ring: KeyRing, usage: Usage, grants: Grants, audit: Audit, clock: Callable[[], float]
    ) -> None:
        self._ring = ring
        self._usage = usage
        self._grants = grants
        self._audit = audit
        self._clock = clock
        # Kids are unique within a tenant only: a cache shared between tenants would open across them.
        self._deks = lru_cache(maxsize=TENANTS_REMEMBERED)(lambda _tenant: DekCache())
        self._opened = lru_cache(maxsize=TENANTS_REMEMBERED)(lambda _tenant: OpenCache())

    def forget(self) -> None:
        """Drop every opened key from memory; they are read again when they are needed."""
        self._ring.forget()
        self._deks.cache_clear()
        self._opened.cache_clear()

    # --- for confidential functions -----------------------------------------------------------------

    def open_values(
        self,
        tx: Tx,
        caller: Caller,
        key: str,
        values: Sequence[str],
        contexts: Sequence[Context | None] | None = None,
    ) -> list[Value | OpenError]:
        """Open a function's sealed inputs (right `use-in-function`; one audit entry a batch).

        Args:
            tx: The transaction.
            caller: The function, from `Caller.as_function`.
            key: The key the function's manifest names; values under any other do not open.
            values: Sealed values.
            contexts: What each is bound to, in the same order.

        Returns:
            For each value what it holds, or an `OpenError` that says nothing about why.
        """
        self._grants.require(tx, caller, "use-in-function", f"key/{key}")
        opened = self.open_granted(tx, caller.tenant, values, contexts, keys=frozenset({key}))
        failed = sum(isinstance(value, OpenError) for value in opened)
        self._audit.record(
            tx,
            caller,
            act="use-in-function",
            resource=f"key/{key}",
            detail={"values": len(values), "failed": failed},
        )
        return opened

    def seal_values(
        self,
        tx: Tx,
        caller: Caller,
        key: str,
        values: Sequence[Value | Padded],
        contexts: Sequence[Context | None] | None = None,
    ) -> list[Sealed]:
        """Seal a function's outputs (right `seal`; one audit entry a batch).

        Raises:
            ConfigurationError: There is no such key, or a value or context cannot be sealed.
        """
        self._grants.require(tx, caller, "seal", f"key/{key}")
        held = self._ring.current(tx, caller.tenant, key)
        if held.purpose == "seal":
            size = sum(map(_most_bytes, values))
            dek = self.lease_dek(tx, caller.tenant, held, messages=len(values), size_bytes=size)
            sealed = _seal_each(dek, values, contexts)
        else:
            self._usage.spend(tx, caller.tenant, held, len(values))
            sealed = seal_many_to(values, held.key.public(), kid=held.kid, contexts=contexts)
        self._audit.record(
            tx, caller, act="seal", resource=f"key/{key}", detail={"kid": held.kid, "values": len(values)}
        )
        return sealed

    def seal_for_output(
        self, tx: Tx, caller: Caller, key: str, value: Value, context: Context | None
    ) -> Sealed:
        """Seal one output; see `seal_values`."""
        return self.seal_values(tx, caller, key, [value], [context])[0]

    # --- for services that checked and record the right themselves ------------------------------------

    def issue_data_key(self, tx: Tx, tenant: str, key: str, *, messages: int) -> DataKey:
        """Draw a DEK for up to so many messages, and wrap it under the current version of a key.

        Raises:
            ConfigurationError: There is no such key, it is sealed to offline, or it may not seal now.
            LimitError: The version has protected all it may.
        """
        held = self._symmetric(self._ring.current(tx, tenant, key))
        return _draw_data_key(held, self._usage.lease(tx, tenant, held, wanted=messages))

    def wrap(self, tx: Tx, tenant: str, key: str, dek: Secret) -> tuple[str, bytes]:
        """Wrap a DEK that came from outside under the current version of a key; returns kid and wrapped DEK.

        Raises:
            ConfigurationError: There is no such key, or it wraps nothing now.
            LimitError: The version has not all the messages left that such a DEK may seal.
        """
        held = self._symmetric(self._ring.current(tx, tenant, key))
        self._usage.lease(tx, tenant, held, wanted=MAX_DEK_MESSAGES, least=MAX_DEK_MESSAGES)
        return held.kid, wrap_key(dek, held.key)

    def unwrap(self, tx: Tx, tenant: str, kid: str, encrypted_key: bytes, ek: str | None) -> Secret:
        """Unwrap a DEK, or with its encapsulation `ek` one that was sealed offline; raises `OpenError`."""
        held = self._ring.version(tx, tenant, kid)
        self._usage.note_opened(tx, tenant, kid, now=self._ring.now)
        try:
            return Secret(management(held.key).recover(ek, encrypted_key, b""))
        except ConfigurationError:  # a key that wraps nothing
            raise OpenError from None

    def open_granted(
        self,
        tx: Tx,
        tenant: str,
        values: Sequence[str],
        contexts: Sequence[Context | None] | None,
        *,
        keys: frozenset[str],
    ) -> list[Value | OpenError]:
        """Open values under the keys the caller was found to have a right to, and no others."""

        def version(kid: str) -> HeldKey:
            held = self._ring.version(tx, tenant, kid)
            self._usage.note_opened(tx, tenant, kid, now=self._ring.now)
            return held

        batch = _Batch(version, keys=keys, cache=self._opened(tenant), now=self._clock())
        if contexts is None:
            return [batch.open(value, None) for value in values]
        if len(contexts) != len(values):
            raise ConfigurationError("as many contexts as values are needed")
        return [batch.open(value, context) for value, context in zip(values, contexts, strict=True)]

    def lease_dek(self, tx: Tx, tenant: str, held: HeldKey, *, messages: int, size_bytes: int) -> Dek:
        """This process's data key under a version, with room for a batch set aside.

        Raises:
            LimitError: The batch is larger than one data key may seal, or the version has no such room.
        """
        cache, now = self._deks(tenant), self._clock()
        dek = cache.lease(held.material, None, messages=messages, size_bytes=size_bytes, now=now)
        if dek is None:
            wanted = max(messages, HOST_LEASE) if held.max_messages is not None else MAX_DEK_MESSAGES
            least = min(messages, MAX_DEK_MESSAGES)
            granted = self._usage.lease(tx, tenant, held, wanted=min(wanted, MAX_DEK_MESSAGES), least=least)
            # A transaction that is undone gives the lease back, and with it this data key.
            tx.on_rollback(lambda _aftermath: cache.clear())
            dek = cache.add(held.material, None, _draw_data_key(held, granted), now=now)
            if not dek.lease(messages=messages, size_bytes=size_bytes, now=now):
                raise LimitError("the batch is larger than one data key may seal", hint="seal it in parts")
        return dek

    # ------------------------------------------------------------------------------------------------

    def _symmetric(self, held: HeldKey) -> HeldKey:
        if held.purpose != "seal":
            raise ConfigurationError(
                f"a key for {held.purpose} wraps no data keys", hint="seal to its public half (key.public)"
            )
        return held


def _seal_each(
    dek: Dek, values: Sequence[Value | Padded], contexts: Sequence[Context | None] | None
) -> list[Sealed]:
    if contexts is None:
        return [dek.seal(value) for value in values]
    if len(contexts) != len(values):
        raise ConfigurationError("as many contexts as values are needed")
    return [dek.seal(value, context) for value, context in zip(values, contexts, strict=True)]


class _Batch:
    """Opens the values of one batch: each key version is read once, each DEK unwrapped once."""

    def __init__(
        self,
        version: Callable[[str], HeldKey],
        *,
        keys: frozenset[str],
        cache: OpenCache,
        now: float,
    ) -> None:
        self._lookup = version
        self._keys = keys
        self._cache = cache
        self._now = now
        self._versions: dict[str, HeldKey | OpenError] = {}
        self._content: dict[tuple[str, str], ContentKey] = {}

    def open(self, value: str, context: Context | None) -> Value | OpenError:
        try:
            sealed = Sealed(value)
            encrypted_key = sealed[(start := sealed.index(".") + 1) : sealed.index(".", start)]
            entry = (sealed.header.kid, encrypted_key)
            content = self._content.get(entry)
            if content is None:
                content = self._content[entry] = self._recover(sealed)
            return content.open(sealed, context)
        except OpenError:
            # A fresh one, so that nothing of how it failed goes along.
            return OpenError()

    def _recover(self, sealed: Sealed) -> ContentKey:
        if sealed.key not in self._keys:
            raise OpenError
        held = self._version(sealed.kid)
        content = self._cache.get(held.material, sealed.encrypted_key, now=self._now)
        if content is None:
            cek = recover_cek(sealed, held.key)
            content = self._cache.add(held.material, sealed.encrypted_key, cek, now=self._now)
        return content

    def _version(self, kid: str) -> HeldKey:
        found = self._versions.get(kid)
        if found is None:
            try:
                found = self._lookup(kid)
            except OpenError as error:
                found = error
            self._versions[kid] = found
        if isinstance(found, OpenError):
            raise OpenError
        return found


def _most_bytes(value: Value | Padded) -> int:
    """As many bytes as a value can have once it is encoded."""
    if isinstance(value, Padded):
        return 2 * len(json.dumps(value.value, default=str)) + 64
    if isinstance(value, bytes):
        return len(value)
    return 4 * len(value) if isinstance(value, str) else len(json.dumps(value, default=str))


def _draw_data_key(held: HeldKey, messages: int) -> DataKey:
    dek = Secret(os.urandom(DEK_BYTES))
    return DataKey(
        kid=held.kid,
        dek=dek,
        encrypted_key=wrap_key(dek, held.key),
        max_messages=messages,
        max_bytes=MAX_DEK_BYTES,
        max_age_seconds=MAX_DEK_AGE_SECONDS,
    )
