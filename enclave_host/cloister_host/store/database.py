"""The database itself: connections, transactions and versioned migrations.

The SQL is portable between SQLite and PostgreSQL; what differs stands in `_DIALECTS`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, Final

import sqlalchemy
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from cloister.errors import ConfigurationError, UnavailableError

__all__ = ["Database"]

BUSY_SECONDS: Final = 15.0

_ALONE: Final = 0x636C6F6973746572  # "cloister"
_MIGRATIONS = "cloister_host.store.migrations"
_DIALECTS: Final = {
    # Names are compared and ranged over by bytes, whatever the database's locale.
    "postgresql": {"bytes": "BYTEA", "text": 'TEXT COLLATE "C"'},
    "sqlite": {"bytes": "BLOB", "text": "TEXT"},
}


class Database:
    """A SQLite file (write-ahead log, fully synchronous commits) or a PostgreSQL database.

    Args:
        url: An SQLAlchemy URL, such as `sqlite:////var/lib/cloister/host.db`.
    """

    def __init__(self, url: str) -> None:
        parsed = _parse_url(url)
        self.kind: Final = parsed.get_backend_name()
        if self.kind == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigurationError("the store needs a file", hint="sqlite:////path/to/host.db")
            self._engine = sqlalchemy.create_engine(
                parsed, pool_size=8, max_overflow=24, hide_parameters=True
            )
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_immediate)
        else:
            self._engine = sqlalchemy.create_engine(
                parsed, isolation_level="SERIALIZABLE", pool_pre_ping=True, hide_parameters=True
            )
        # SQLite has one writer. Queueing here is fair; its own busy handler polls and starves.
        self._writer = threading.Lock() if self.kind == "sqlite" else None

    @contextmanager
    def begin(self, *, alone: bool = False) -> Iterator[sqlalchemy.Connection]:
        """One write transaction: committed at the end, rolled back by any exception.

        Args:
            alone: Wait until no other is in a transaction that asked for this, on any replica. Such a
                transaction sees what was committed by each of its statements, and is in no other's way.

        Raises:
            UnavailableError: The database cannot be reached, is busy, or undid the transaction.
        """
        if self._writer is not None and not self._writer.acquire(timeout=BUSY_SECONDS):
            raise UnavailableError("the store is busy")
        try:
            engine: sqlalchemy.Engine = self._engine
            # SQLite has one writer at a time anyway.
            if lock := alone and self.kind == "postgresql":
                engine = engine.execution_options(isolation_level="READ COMMITTED")
            with engine.begin() as connection:
                if lock:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ALONE})
                yield connection
        except DBAPIError as error:
            # The statement and the driver's message can hold names; the type is enough.
            raise UnavailableError(f"the store failed ({type(error).__name__})") from None
        finally:
            if self._writer is not None:
                self._writer.release()

    def migrate(self) -> None:
        """Bring the schema to this version of the host.

        Raises:
            ConfigurationError: The database is newer than the host, or a migration that was
                applied is not the one this host carries.
        """
        known = _migrations()
        with self.begin() as connection:
            connection.execute(
                text("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, digest TEXT NOT NULL)")
            )
            applied: dict[str, str] = {
                row[0]: row[1] for row in connection.execute(text("SELECT name, digest FROM migrations"))
            }
            if unknown := applied.keys() - known.keys():
                raise ConfigurationError(
                    f"the database is newer than this host: migration {min(unknown)}", hint="update the host"
                )
            for name, script in known.items():
                found = hashlib.sha256(script.encode()).hexdigest()
                if name not in applied:
                    for statement in self._statements(script):
                        connection.execute(text(statement))
                    connection.execute(
                        text("INSERT INTO migrations (name, digest) VALUES (:name, :digest)"),
                        {"name": name, "digest": found},
                    )
                elif applied[name] != found:
                    raise ConfigurationError(
                        f"migration {name} was applied in another form",
                        hint="use the host version that created this database, or one after it",
                    )

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()

    def _statements(self, script: str) -> Iterator[str]:
        code = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("--"))
        for statement in code.format(**_DIALECTS[self.kind]).split(";"):
            if statement.strip():
                yield statement


def _parse_url(url: str) -> sqlalchemy.URL:
    try:
        parsed = sqlalchemy.make_url(url)
        known = parsed.get_backend_name() in _DIALECTS
    except (sqlalchemy.exc.ArgumentError, ValueError):
        known = False
    if not known:
        # The URL itself may hold a password and stays out of the message.
        raise ConfigurationError(
            "the store's URL cannot be used", hint="sqlite:////path/to/host.db or postgresql+psycopg://..."
        )
    return parsed


def _migrations() -> dict[str, str]:
    folder = resources.files(_MIGRATIONS)
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda e: e.name)
    return {entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8") for entry in files}


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions of its own: `_begin_immediate` does.
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "trusted_schema = OFF",
        "secure_delete = ON",
        f"busy_timeout = {int(BUSY_SECONDS * 1000)}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
