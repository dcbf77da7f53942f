"""The store: what the host remembers, in a database it does not trust (PROTOCOL 7)."""

from cloister_host.store.database import ConflictError, Database
from cloister_host.store.rows import ExistsError, Row, RowKeys, Table, TamperedError
from cloister_host.store.store import Store
from cloister_host.store.tx import Tx

__all__ = [
    "ConflictError",
    "Database",
    "ExistsError",
    "Row",
    "RowKeys",
    "Store",
    "Table",
    "TamperedError",
    "Tx",
]
