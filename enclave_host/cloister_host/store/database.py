"""The database itself: connections, transactions and versioned migrations.

The SQL is portable between SQLite and PostgreSQL; what differs stands in `_DIALECTS`.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import Any, Final

import sqlalchemy
from sqlalchemy import TextClause, event, text

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.fairness import aside
from cloister_host.store.durability import LogFlush
from cloister_host.store.statements import Rows, compiled
from cloister_host.store.turns import Turns

__all__ = ["ConflictError", "Database", "Reading", "Session", "migration_digests", "with_password"]

BUSY_SECONDS: Final = 15.0
READ_AT_ONCE: Final = 64

_ALONE: Final = 0x636C6F6973746572  # "cloister"
_MIGRATIONS = "cloister_host.store.migrations"
_DIALECTS: Final = {
    # Names are compared and ranged over by bytes, whatever the database's locale.
    "postgresql": {"bytes": "BYTEA", "text": 'TEXT COLLATE "C"'},
    "sqlite": {"bytes": "BLOB", "text": "TEXT"},
}


_COLUMNS: Final = {
    "postgresql": text(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
    ),
    "sqlite": text(
        "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'"
    ),
}


class ConflictError(UnavailableError):
    """Another transaction changed what this one had read; everything in it was undone.

    Attributes:
        acted: An earlier transaction of the same act was committed, so the act cannot simply be repeated.
    """

    def __init__(self) -> None:
        self.acted = False
        super().__init__("the store changed meanwhile", hint="retry")


class Session:
    """One open transaction on a connection of the driver.

    Attributes:
        alone: No other transaction can be at work beside this one.
        disturbed: Somebody else has written to the database since the last transaction, as far as it tells.
        deferred: Nothing outside this host sees what was done here before a later transaction is
            durable, so this commit need not wait for the disk. A crash may lose it, never reorder it.
    """

    def __init__(self, connection: Any, dialect: sqlalchemy.Dialect) -> None:
        self._cursor = connection.cursor()
        self._dialect = dialect
        self.alone: Final = dialect.name == "sqlite"
        self._after: list[Callable[[], object]] = []
        self.disturbed = False
        self.wrote = False
        self.deferred = False

    def execute(self, statement: TextClause, parameters: Mapping[str, Any] | None = None) -> Rows:
        """Run one constant statement with bound parameters."""
        cursor = self._cursor
        cursor.execute(*compiled(statement, self._dialect).bind(parameters or {}))
        if cursor.description is None:
            self.wrote = True
            return Rows((), None, cursor.rowcount)
        return Rows(cursor.fetchall(), cursor.description, cursor.rowcount)

    def execute_many(self, statement: TextClause, parameters: Sequence[Mapping[str, Any]]) -> int:
        """Run one statement, without lists, for each set of parameters; tells how many rows it touched."""
        if not parameters:
            return 0
        self.wrote = True
        self._cursor.executemany(compiled(statement, self._dialect).bind({})[0], parameters)
        return int(self._cursor.rowcount)

    def tables(self) -> Mapping[str, frozenset[str]]:
        """The columns of every table of the schema."""
        found: dict[str, set[str]] = {}
        for table, column in self.execute(_COLUMNS[self._dialect.name]):
            found.setdefault(table, set()).add(column)
        return {table: frozenset(columns) for table, columns in found.items()}

    def after_commit(self, action: Callable[[], object]) -> None:
        """Do this once the transaction is committed, before another of this process can begin."""
        self._after.append(action)

    def committed(self) -> None:
        """Do what `after_commit` was given."""
        for action in self._after:
            action()

    def close(self) -> None:
        """Let go of the driver's statements.

        SQLite's are shared by all transactions of the connection: a cursor that is collected later, in
        another thread, would reset a statement in the midst of somebody else's use of it.
        """
        self._cursor.close()


class Reading:
    """A transaction that only reads, row by row, in constant memory."""

    def __init__(self, connection: Any, dialect: sqlalchemy.Dialect) -> None:
        self._connection = connection
        self._dialect = dialect

    def tables(self) -> Mapping[str, frozenset[str]]:
        """The columns of every table of the schema."""
        session = Session(self._connection, self._dialect)
        try:
            return session.tables()
        finally:
            session.close()

    def rows(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Every row of one constant statement, a few of them in memory."""
        # The default cursor of PostgreSQL's driver takes all rows at once; a named one leaves them there.
        named = {} if self._dialect.name == "sqlite" else {"name": "cloister_reading"}
        cursor = self._connection.cursor(**named)
        try:
            cursor.execute(statement)
            while batch := cursor.fetchmany(READ_AT_ONCE):
                yield from batch
        finally:
            cursor.close()


class Database:
    """A SQLite file (write-ahead log, fully synchronous commits) or a PostgreSQL database.

    Args:
        url: An SQLAlchemy URL, such as `sqlite:////var/lib/cloister/host.db`.
        shared: Other processes of this host write to the same SQLite file. That somebody else has written
            then tells nothing; rows in memory are compared by the scrub, as with PostgreSQL.
        timeout_seconds: After so long without an answer PostgreSQL counts as lost, and what was asked ends.
    """

    def __init__(self, url: str, *, shared: bool = False, timeout_seconds: float = BUSY_SECONDS) -> None:
        parsed = _parse_url(url)
        self.kind: Final = parsed.get_backend_name()
        self._flush: LogFlush | None = None
        # SQLite has one writer, so one connection. Queueing here is fair; its own handler polls and starves.
        self._writer = threading.Lock() if self.kind == "sqlite" else None
        self._kept: Any = None
        self._joined: Session | None = None
        self._version = 0
        self._turns: Turns | None = None
        if self.kind == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigurationError("the store needs a file", hint="sqlite:////path/to/host.db")
            self._engine = sqlalchemy.create_engine(
                parsed,
                paramstyle="named",
                connect_args={"check_same_thread": False, "cached_statements": 512},
            )
            event.listen(self._engine, "connect", _prepare_sqlite)
            self._flush = LogFlush(Path(parsed.database).resolve())
            self._turns = Turns(Path(parsed.database).resolve()) if shared else None
        else:
            self._engine = _postgresql(parsed, timeout_seconds)
        self._errors: Final = self._engine.dialect.loaded_dbapi.Error

    @contextmanager
    def begin(self, *, alone: bool = False) -> Iterator[Session]:
        """One write transaction: committed at the end, rolled back by any exception.

        Args:
            alone: Wait until no other is in a transaction that asked for this, on any replica.

        Raises:
            ConflictError: It has to be done again: another transaction was faster.
            UnavailableError: The database cannot be reached, is busy, or undid the transaction.
        """
        if self._joined is not None:
            yield self._joined
            return
        try:
            with self._alone(), self._connection() as connection:
                session, others = Session(connection, self._engine.dialect), False
                if self._writer is not None:
                    connection.execute("BEGIN IMMEDIATE")
                    [version] = connection.execute("PRAGMA data_version").fetchone()
                    others, self._version = version != self._version, version
                    session.disturbed = others and self._turns is None
                try:
                    if alone and self._writer is None:
                        session.execute(_LOCK, {"key": _ALONE})
                    yield session
                    if session.deferred and self._writer is None:
                        session.execute(_LAZY_COMMIT)
                    session.close()
                    connection.commit()
                except BaseException:
                    session.close()
                    connection.rollback()
                    raise
                # What another process has committed may not be on the disk yet, and is answered with here.
                if self._flush is not None and (session.wrote or others):
                    self._flush.written()
                session.committed()
            # Also a transaction that wrote nothing may answer with what another has just written.
            if self._flush is not None and not session.deferred:
                with aside():
                    self._flush.wait()
        except (self._errors, sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError) as error:
            if getattr(error, "sqlstate", None) in _TRY_AGAIN:
                raise ConflictError from None
            # The statement and the driver's message can hold names; the type is enough.
            raise UnavailableError(f"the store failed ({type(error).__name__})") from None

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A transaction that only reads, and sees one moment of the database throughout.

        Raises:
            UnavailableError: The database cannot be reached.
        """
        with self.begin() as session:
            if not session.alone and self._joined is None:
                session.execute(_SNAPSHOT)
            yield session

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """One moment of the database, read for as long as it takes beside everybody who writes.

        Raises:
            UnavailableError: The database cannot be reached.
        """
        try:
            pooled = self._engine.raw_connection()
            try:
                connection: Any = pooled.driver_connection
                if self._writer is not None:
                    # The moment is that of the first read; nobody commits meanwhile.
                    with self._alone():
                        connection.execute("BEGIN")
                        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
                else:
                    session = Session(connection, self._engine.dialect)
                    session.execute(_SNAPSHOT)
                    session.execute(_PATIENCE)
                    session.close()
                if self._flush is not None:
                    self._flush.wait()
                yield Reading(connection, self._engine.dialect)
            finally:
                pooled.close()  # which rolls back
        except (self._errors, sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError) as error:
            raise UnavailableError(f"the store failed ({type(error).__name__})") from None

    def joined(self, session: Session) -> Database:
        """The same database within a transaction that is open: what is begun there is a part of it."""
        within = copy.copy(self)
        within._joined = session  # noqa: SLF001 (its own class)
        return within

    def migrate(self, *, only: Collection[str] | None = None) -> None:
        """Bring the schema to this version of the host.

        Args:
            only: Go no further than these migrations, which must all be known.

        Raises:
            ConfigurationError: The database is newer than the host, or a migration that was
                applied is not the one this host carries.
        """
        known = _migrations()
        if only is not None:
            if unknown := set(only) - known.keys():
                raise ConfigurationError(
                    f"this schema is newer than this host: migration {min(unknown)}", hint="update the host"
                )
            known = {name: script for name, script in known.items() if name in only}
        with self.begin(alone=True) as session:
            session.execute(_MIGRATION_TABLE)
            applied: dict[str, str] = {row[0]: row[1] for row in session.execute(_APPLIED)}
            if unknown := applied.keys() - known.keys():
                raise ConfigurationError(
                    f"the database is newer than this host: migration {min(unknown)}", hint="update the host"
                )
            for name, script in known.items():
                found = _digest(script)
                if name not in applied:
                    for statement in self._statements(script):
                        session.execute(text(statement))
                    session.execute(_APPLY, {"name": name, "digest": found})
                elif applied[name] != found:
                    raise ConfigurationError(
                        f"migration {name} was applied in another form",
                        hint="use the host version that created this database, or one after it",
                    )

    def close(self) -> None:
        """Close every connection; those of a transaction that is joined stay open."""
        if self._joined is not None:
            return
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        if self._turns is not None:
            self._turns.close()
            self._turns = None
        self._engine.dispose()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other transaction of this process is at work, where only one can be."""
        if self._writer is None:
            yield
            return
        if not self._writer.acquire(timeout=BUSY_SECONDS):
            raise UnavailableError("the store is busy")
        try:
            with self._turns.turn() if self._turns is not None else nullcontext():
                yield
        finally:
            self._writer.release()

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """A connection of the driver: the one kept for the only writer, or one from the pool."""
        if self._writer is not None:
            self._kept = self._kept or self._engine.raw_connection()
            yield self._kept.driver_connection
            return
        pooled = self._engine.raw_connection()
        try:
            yield pooled.driver_connection
        except self._errors:
            pooled.invalidate()
            raise
        finally:
            pooled.close()

    def _statements(self, script: str) -> Iterator[str]:
        code = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("--"))
        for statement in code.format(**_DIALECTS[self.kind]).split(";"):
            if statement.strip():
                yield statement


_MIGRATION_TABLE: Final = text(
    "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, digest TEXT NOT NULL)"
)
_APPLIED: Final = text("SELECT name, digest FROM migrations")
_APPLY: Final = text("INSERT INTO migrations (name, digest) VALUES (:name, :digest)")
_LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")
_SNAPSHOT: Final = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
# Whoever takes a backup may take it slowly.
_PATIENCE: Final = text("SET LOCAL idle_in_transaction_session_timeout = '1h'")
_LAZY_COMMIT: Final = text("SET LOCAL synchronous_commit TO off")
# PostgreSQL: serialization failure, deadlock.
_TRY_AGAIN: Final = frozenset({"40001", "40P01"})


def _postgresql(url: sqlalchemy.URL, timeout_seconds: float) -> sqlalchemy.Engine:
    """A pool of connections that notice a database that hangs.

    Raises:
        ConfigurationError: The driver is not installed.
    """
    milliseconds = int(timeout_seconds * 1000)
    given = url.query.get("options", "")
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    try:
        return sqlalchemy.create_engine(
            url,
            pool_size=16,
            max_overflow=32,
            pool_timeout=timeout_seconds,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
            connect_args={
                "connect_timeout": max(2, int(timeout_seconds)),  # libpq takes less than two for two
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": milliseconds,
                "options": " ".join([*(f"-c {name}={milliseconds}" for name in limits), str(given)]),
            },
        )
    except ModuleNotFoundError:
        raise ConfigurationError(
            "PostgreSQL needs a driver", hint="pip install 'cloister-host[postgres]'"
        ) from None


def with_password(url: str, password: str | None) -> str:
    """Put a password, which came from a file, into a URL that has none.

    Raises:
        ConfigurationError: The URL cannot be used, or has a password in it.
    """
    parsed = _parse_url(url)
    if parsed.password is not None or "password" in parsed.query:
        raise ConfigurationError(
            "a database URL with a password in it is seen by every user of the machine",
            hint="take it out, and give --database-password-file or PGPASSWORD",
        )
    if password is not None:
        parsed = parsed.set(password=password)
    return parsed.render_as_string(hide_password=False)


def _parse_url(url: str) -> sqlalchemy.URL:
    try:
        parsed = sqlalchemy.make_url(url)
        if parsed.drivername in {"postgresql", "postgres"}:
            parsed = parsed.set(drivername="postgresql+psycopg")
        known = parsed.get_backend_name() in _DIALECTS
    except (sqlalchemy.exc.ArgumentError, ValueError):
        known = False
    if not known:
        # The URL itself may hold a password and stays out of the message.
        raise ConfigurationError(
            "the store's URL cannot be used", hint="sqlite:////path/to/host.db or postgresql://..."
        )
    return parsed


def migration_digests() -> dict[str, str]:
    """Name and digest of every migration that this host carries."""
    return {name: _digest(script) for name, script in _migrations().items()}


def _digest(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()


def _migrations() -> dict[str, str]:
    folder = resources.files(_MIGRATIONS)
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda e: e.name)
    return {entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8") for entry in files}


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions of its own: `Database.begin` does.
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",  # and a shared flush: see `durability`
        "foreign_keys = ON",
        "trusted_schema = OFF",
        "secure_delete = ON",
        f"busy_timeout = {int(BUSY_SECONDS * 1000)}",
    ):
        connection.execute(f"PRAGMA {pragma}")
