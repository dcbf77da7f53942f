"""Secret blobs: AES-256-GCM under keys of the tenant, bound to the row they stand in (PROTOCOL 7).

Each tenant has a random KEK, wrapped under a key of the root key (see `generations`). Every table gets a
key of its own from it, so destroying one tenant's KEK destroys all that is secret of that tenant, and of
nobody else.

Opened KEKs are remembered under the wrapped bytes they came from, which are read from the store each
time: a rolled-back, replaced or destroyed KEK is never served from memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cloister.errors import UnavailableError
from cloister.secret import Secret
from cloister_host.store.generations import newest_generation
from cloister_host.store.rows import RowKeys, Table, TamperedError, row_binding

if TYPE_CHECKING:
    from cloister_host.store.tx import Tx

__all__ = ["BlobKey", "Blobs"]

KEK_BYTES: Final = 32
NONCE_BYTES: Final = 12
CACHED_KEKS: Final = 4096


class TenantKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of a `tenant_keys` row; the KEK itself is its blob.

    Attributes:
        generation: That of the root key which wraps it.
        sealed: Whether the tenant is sealed off: then nobody unwraps it.
    """

    generation: int
    sealed: bool = False


TENANT_KEYS: Final = Table("tenant_keys", TenantKey, "tenant key")
_KEK_ID: Final = "kek"


@dataclass(frozen=True, slots=True)
class BlobKey:
    """The key of one tenant for one table."""

    deployment: str
    tenant: str
    table: str
    _aead: AESGCM

    def seal(self, row_id: str, version: int, plaintext: bytes) -> bytes:
        """Encrypt the secret part of one version of one row."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plaintext, self._aad(row_id, version))

    def open(self, row_id: str, version: int, blob: bytes) -> bytes:
        """Decrypt it again.

        Raises:
            TamperedError: It was changed, or belongs to another row, version, tenant or deployment.
        """
        try:
            return self._aead.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], self._aad(row_id, version))
        except (InvalidTag, ValueError, TypeError):  # the database may hold something else than bytes
            raise TamperedError(self.table) from None

    def _aad(self, row_id: str, version: int) -> bytes:
        return row_binding(self.deployment, self.tenant, self.table, row_id, version)


class Blobs:
    """The tenants' KEKs, and the blob keys derived from them."""

    def __init__(self, keys: RowKeys) -> None:
        self._deployment = keys.deployment
        self._generations = keys.generations
        # What is derived from a KEK, by tenant, wrapped bytes and label.
        self._derived = lru_cache(maxsize=CACHED_KEKS)(_Slot)

    def create_kek(self, tx: Tx, tenant: str) -> None:
        """Draw and store the KEK of a new tenant."""
        generation = newest_generation(tx)
        wrapped = self._wrapping(tx, generation).seal(f"{tenant}/{_KEK_ID}", 1, os.urandom(KEK_BYTES))
        tx.insert(TENANT_KEYS, tenant, _KEK_ID, TenantKey(generation=generation), blob=wrapped)

    def rewrap(self, tx: Tx, tenant: str, generation: int) -> bool:
        """Wrap a tenant's KEK under another generation of the root key; tells whether that was to be done.

        The KEK itself stays, so nothing else of the tenant has to be written.
        """
        row = tx.get(TENANT_KEYS, tenant, _KEK_ID)
        if row is None or row.blob is None or row.record.generation == generation:
            return False
        name = f"{tenant}/{_KEK_ID}"
        kek = self._wrapping(tx, row.record.generation).open(name, 1, row.blob)
        wrapped = self._wrapping(tx, generation).seal(name, 1, kek)
        record = msgspec.structs.replace(row.record, generation=generation)
        tx.put(TENANT_KEYS, tenant, _KEK_ID, record, blob=wrapped)
        return True

    def generation(self, tx: Tx, tenant: str) -> int:
        """The generation of the root key that wraps a tenant's KEK; 0 if it has none."""
        row = tx.get(TENANT_KEYS, tenant, _KEK_ID)
        return row.record.generation if row else 0

    def is_open(self, tx: Tx, tenant: str) -> bool:
        """Whether a tenant has a KEK, and it is not sealed off."""
        row = tx.get(TENANT_KEYS, tenant, _KEK_ID)
        return row is not None and row.blob is not None and not row.record.sealed

    def seal_off(self, tx: Tx, tenant: str, *, sealed: bool) -> None:
        """Refuse every key of a tenant from now on, or no longer; what is in memory is dropped.

        The mark stands in the row that every use of the KEK reads, so it holds on every host at once.
        """
        row = tx.get(TENANT_KEYS, tenant, _KEK_ID)
        if row is not None:
            record = msgspec.structs.replace(row.record, sealed=sealed)
            tx.put(TENANT_KEYS, tenant, _KEK_ID, record, blob=row.blob)
        tx.on_commit(self._derived.cache_clear)

    def key(self, tx: Tx, tenant: str, table: str) -> BlobKey:
        """The key for the blobs of one table of one tenant."""
        return BlobKey(self._deployment, tenant, table, AESGCM(self._purpose(tx, tenant, f"blob.{table}")))

    def derive(self, tx: Tx, tenant: str, purpose: str) -> Secret:
        """A key of the tenant for one purpose other than blobs, such as a keyed hash."""
        return Secret(self._purpose(tx, tenant, f"derived.{purpose}"))

    def _purpose(self, tx: Tx, tenant: str, label: str) -> bytes:
        row = tx.get(TENANT_KEYS, tenant, _KEK_ID)
        if row is None or row.blob is None:
            raise UnavailableError("the tenant's keys are not here", retryable=False)
        if row.record.sealed:
            # Another host may have been told: what this one remembers goes too.
            self._derived.cache_clear()
            raise UnavailableError("the tenant is sealed off", retryable=False)
        slot = self._derived(tenant, row.blob, label)
        if slot.key is None:
            kek = self._wrapping(tx, row.record.generation).open(f"{tenant}/{_KEK_ID}", 1, row.blob)
            info = f"cloister.tenant.{label}.v1".encode()
            slot.key = HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(kek)
        return slot.key

    def _wrapping(self, tx: Tx, generation: int) -> BlobKey:
        """The key of a generation of the root key, for KEKs."""
        return BlobKey(self._deployment, "", TENANT_KEYS.name, self._generations.aead(tx, generation))


class _Slot:
    """One remembered key; empty until it was derived once."""

    __slots__ = ("key",)

    def __init__(self, *_names: object) -> None:
        self.key: bytes | None = None
