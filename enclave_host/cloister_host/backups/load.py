"""Put the rows of a backup into an empty store, in the schema they stood in."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from cloister import jose
from cloister.backups import Backup, Begin, Rows
from cloister.backups.log import LogCheck
from cloister.errors import ConfigurationError, OpenError
from cloister.receipts.head import TreeHead
from cloister_host.store import Database
from cloister_host.store.database import Session, migration_digests
from cloister_host.store.schema import tables

__all__ = ["is_empty", "load"]


def is_empty(session: Session) -> bool:
    """Whether no table of the program holds a row."""
    found = session.tables()
    return not any(
        # S608: names of the program's own migrations.
        session.execute(text(f"SELECT 1 FROM {name} LIMIT 1")).first()  # noqa: S608
        for name in tables()
        if name in found
    )


def load(
    database: Database, session: Session, backup: Backup, key: jose.Key, *, known: TreeHead | None
) -> None:
    """Make the schema of a backup, put its rows in, and bring both to this version of the host.

    Args:
        database: Joined to the transaction.
        session: The transaction; its store is empty.
        backup: Its object was checked.
        key: The private backup key.
        known: A head of the log that was seen; the backup's log must be the same one.

    Raises:
        OpenError: The backup does not open, or does not fit its own schema.
        ConfigurationError: It comes from a newer host, or the store has another schema.
        LogError: Its log is not the one that was signed, or seen.
    """
    log = LogCheck(backup.manifest, known)
    for record in backup.records(key):
        log.take(record)
        match record:
            case Begin():
                _make_schema(database, session, record)
            case Rows():
                _insert(session, record)
    log.finish()
    database.migrate()


def _make_schema(database: Database, session: Session, begin: Begin) -> None:
    known = migration_digests()
    for name, digest in begin.migrations.items():
        if name in known and known[name] != digest:
            raise ConfigurationError(
                f"the backup's schema has another form: migration {name}",
                hint="restore it with the host version that took it",
            )
    database.migrate(only=begin.migrations)
    applied = {str(row[0]) for row in session.execute(_APPLIED)}
    if extra := applied - begin.migrations.keys():
        raise ConfigurationError(
            f"this store has a newer schema than the backup: migration {min(extra)}",
            hint="restore into a new, empty database; it is brought up to date afterwards",
        )


def _insert(session: Session, record: Rows) -> None:
    name, columns = record.table.name, record.table.columns
    if name not in tables() or frozenset(columns) != session.tables()[name]:
        raise OpenError("the backup does not fit its own schema", hint="was it made by a newer version?")
    # S608: the name is one of the program's migrations', the columns are those of that table.
    statement = text(
        f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join(f':{c}' for c in columns)})"  # noqa: S608
    )
    session.execute_many(statement, [dict(zip(columns, row, strict=True)) for row in record.rows])


_APPLIED: Final = text("SELECT name FROM migrations")
