"""Protected rows: what decides anything is authenticated, row by row (PROTOCOL 7).

A row's MAC is over deployment, tenant, table, primary key, version and the stored canonical JSON. So a
row that was edited, moved to another table, tenant or key, or copied from another deployment is found
when it is read. A row's secret part is a blob bound to the same names (see `blobs`).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import msgspec

from cloister.errors import ConfigurationError, UnavailableError
from cloister.secret import Secret
from cloister_host.store.canonical import canonical

__all__ = ["ExistsError", "Row", "RowKeys", "Table", "TamperedError", "row_binding", "row_mac"]

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
    """What the root key gives the store; each key has one use."""

    deployment: str
    mac: Secret = field(repr=False)
    tenant_wrap: Secret = field(repr=False)


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


def row_binding(deployment: str, tenant: str, table: str, row_id: str, version: int) -> bytes:
    """Name one state of one row unambiguously: canonical JSON, so no two tuples share bytes."""
    return canonical((deployment, tenant, table, row_id, version))


def row_mac(keys: RowKeys, binding: bytes, content: bytes) -> bytes:
    """Authenticate the content of one row. The binding ends in its own bracket, so no two pairs are alike."""
    return hmac.digest(keys.mac.reveal(), _MAC_LABEL + binding + content, "sha256")
