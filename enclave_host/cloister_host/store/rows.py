"""Protected rows: what decides anything is authenticated, row by row (PROTOCOL 7).

A row's MAC is over deployment, tenant, table, primary key, version, the stored canonical JSON and the
digest of its blob. So a row that was edited, moved to another table, tenant or key, or copied from
another deployment is found when it is read. That it is the latest, and that none is missing, is known
from the tenant's state (see `state`). A row's secret part is a blob bound to the same names (see `blobs`).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from cloister.errors import ConfigurationError, UnavailableError
from cloister.secret import Secret
from cloister_host.store.canonical import canonical

if TYPE_CHECKING:
    from cloister_host.store.generations import Generations

__all__ = [
    "AnyRow",
    "ExistsError",
    "Row",
    "RowKeys",
    "Table",
    "TamperedError",
    "check_row",
    "row_binding",
    "row_mac",
]

_MAC_LABEL: Final = b"cloister.row.v1"

RecordT = TypeVar("RecordT", bound=msgspec.Struct)


class TamperedError(UnavailableError):
    """What the database gave back is not what the host wrote. Retrying does not help."""

    retryable = False

    def __init__(self, table: str) -> None:
        self.table = table
        super().__init__(
            f"a stored row of {table} was changed outside the host",
            hint="restore the database and look for who can write to it",
        )


class ExistsError(ConfigurationError):
    """Something with this name exists already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowKeys:
    """What the root key gives the store; each key has one use.

    Attributes:
        deployment: Whose rows these are.
        mac: Authenticates rows.
        state: Seals the digests of tenants' states.
        generations: What wraps the tenants' KEKs; the one part that changes when the root key is rotated.
    """

    deployment: str
    mac: Secret = field(repr=False)
    state: Secret = field(repr=False)
    generations: Generations = field(repr=False)


@dataclass(frozen=True, slots=True)
class Table(Generic[RecordT]):
    """A protected table: columns tenant, id, version, content, secret, mac.

    Attributes:
        name: Its name in the database, a constant of the program.
        record: The type of its content.
        noun: What a user calls one of its rows.
    """

    name: str
    record: type[RecordT]
    noun: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Generic[RecordT]):
    """A row whose MAC was checked.

    Attributes:
        blob: The sealed secret part, opened with `Tx.reveal`.
    """

    tenant: str
    id: str
    version: int
    record: RecordT
    blob: bytes | None
    mac: bytes = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes beside its record."""
        return len(self.blob or b"")


AnyRow = Row[Any]


def row_binding(deployment: str, tenant: str, table: str, row_id: str, version: int) -> bytes:
    """Name one state of one row unambiguously: canonical JSON, so no two tuples share bytes."""
    return canonical((deployment, tenant, table, row_id, version))


def row_mac(keys: RowKeys, binding: bytes, content: bytes, blob: bytes | None = None) -> bytes:
    """Authenticate one row. The blob's part has one length, and the binding ends in its own bracket."""
    secret = b"\x01" + hashlib.sha256(blob).digest() if blob is not None else bytes(33)
    return hmac.digest(keys.mac.reveal(), _MAC_LABEL + secret + binding + content, "sha256")


def check_row(keys: RowKeys, tenant: str, table: str, raw: Any) -> bytes:
    """Check the MAC of a row as the database gave it: id, MAC, version, content, blob; gives the content.

    Raises:
        TamperedError: The host did not write it in this place.
    """
    row_id, mac, version, content, blob = raw
    if not (isinstance(row_id, str) and isinstance(version, int) and isinstance(content, str)):
        raise TamperedError(table)
    if not isinstance(mac, bytes) or not isinstance(blob, bytes | None):
        raise TamperedError(table)
    stored = content.encode("utf-8", "surrogatepass")
    expected = row_mac(keys, row_binding(keys.deployment, tenant, table, row_id, version), stored, blob)
    if not hmac.compare_digest(mac, expected):
        raise TamperedError(table)
    return stored
