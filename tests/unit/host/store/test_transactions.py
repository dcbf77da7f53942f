"""Transactions happen whole or not at all, wait for each other, and fail with our errors alone."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.keymanager.root import RootKey
from cloister_host.store import ConflictError, Database, Store, Table, Tx, database
from support.host_world import HostWorld


class Count(msgspec.Struct, frozen=True):
    value: int


COUNTS = Table("policies", Count, "count")


def fail_after(*_effects: object) -> None:
    raise RuntimeError


def test_an_exception_undoes_everything(host: HostWorld) -> None:
    with pytest.raises(RuntimeError), host.store.begin() as tx:
        fail_after(tx.insert(COUNTS, "acme", "a", Count(1)))
    with host.store.begin() as tx:
        assert tx.get(COUNTS, "acme", "a") is None


def test_what_must_survive_a_rollback_is_done_after_it(host: HostWorld) -> None:
    def remember(tx: Tx) -> None:
        tx.insert(COUNTS, "acme", "refused", Count(1))

    def fail(tx: Tx) -> None:
        tx.on_rollback(remember)
        fail_after(tx.insert(COUNTS, "acme", "undone", Count(1)))

    with pytest.raises(RuntimeError), host.store.begin() as tx:
        fail(tx)
    with host.store.begin() as tx:
        assert [row.id for row in tx.scan(COUNTS, "acme")] == ["refused"]


def test_it_is_not_done_when_the_transaction_commits(host: HostWorld) -> None:
    with host.store.begin() as tx:
        tx.on_rollback(lambda aftermath: aftermath.insert(COUNTS, "acme", "refused", Count(1)))
    with host.store.begin() as tx:
        assert tx.scan(COUNTS, "acme") == []


def test_concurrent_read_modify_write_loses_nothing(host: HostWorld) -> None:
    with host.store.begin() as tx:
        tx.insert(COUNTS, "acme", "a", Count(0))

    def add(number: int) -> None:
        try:
            with host.store.begin() as tx:
                row = tx.get(COUNTS, "acme", "a")
                assert row is not None
                tx.put(COUNTS, "acme", "a", Count(row.record.value + 1))
        except ConflictError:
            # On PostgreSQL they run side by side; whoever was slower was undone.
            add(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(200)))
    with host.store.begin() as tx:
        row = tx.get(COUNTS, "acme", "a")
    assert row is not None
    assert row.record.value == 200


_BUMP = text("UPDATE policies SET version = version + :by WHERE id = :id")


def test_many_threads_run_the_same_statement_for_many_rows(host: HostWorld) -> None:
    """SQLite's statements are shared by the connection: one that is let go of late breaks another's use."""

    def work(_number: int) -> None:
        with host.store.begin() as tx:
            tx.execute_many(_BUMP, [{"by": by, "id": "nobody"} for by in range(20)])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(800)))


def test_nothing_can_be_done_in_a_transaction_that_is_over(host: HostWorld) -> None:
    with host.store.begin() as tx:
        pass
    with pytest.raises(Exception, match="closed"):
        tx.execute(_BUMP, {"by": 1, "id": "nobody"})


def test_a_store_that_stays_busy_is_unavailable(host: HostWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    host.only_sqlite("many transactions are open at once")
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with host.store.begin():
            entered.set()
            leave.wait(30)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert entered.wait(30)
        with pytest.raises(UnavailableError), host.store.begin():
            pytest.fail("two transactions at once")
        leave.set()
        held.result()


def test_a_failing_database_gives_our_error_without_statement_or_values(host: HostWorld) -> None:
    host.pen("DROP TABLE policies")
    with pytest.raises(UnavailableError) as caught, host.store.begin() as tx:
        tx.insert(COUNTS, "acme", "quite-particular-id", Count(1))
    assert "policies" not in str(caught.value)
    assert "quite-particular-id" not in str(caught.value)
    assert caught.value.__cause__ is None


# --- migrations ---


def open_store(path: Path) -> Store:
    return Store(f"sqlite:///{path}/host.db", RootKey.generate("test").row_keys())


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.migrate()
    with sqlite3.connect(tmp_path / "host.db") as connection:
        before = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    store.migrate()
    with sqlite3.connect(tmp_path / "host.db") as after:
        assert after.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == before
    connection.close()
    after.close()
    store.close()


def test_a_migration_applied_in_another_form_is_refused(host: HostWorld) -> None:
    host.pen("UPDATE migrations SET digest = 'another' WHERE name = '0001_core'")
    with pytest.raises(ConfigurationError, match="0001_core"):
        host.store.migrate()


def test_a_database_of_a_newer_host_is_refused(host: HostWorld) -> None:
    host.pen("INSERT INTO migrations VALUES ('9999_future', 'x')")
    with pytest.raises(ConfigurationError, match="9999_future"):
        host.store.migrate()


def test_a_failed_migration_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = {"0001_first": "CREATE TABLE one (id {text})", "0002_second": "CREATE TABLE"}
    monkeypatch.setattr(database, "_migrations", lambda: scripts)
    store = open_store(tmp_path)
    with pytest.raises(UnavailableError):
        store.migrate()
    with sqlite3.connect(tmp_path / "host.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    store.close()


def test_every_protected_table_has_the_columns_that_rows_need(host: HostWorld) -> None:
    shape = ["tenant", "id", "version", "content", "secret", "mac"]
    plain = {
        "migrations",
        "roots",
        "requests",
        "idempotency_expiry",
        "vault",
        "audit",
        "outbox_due",
        "jobs_due",
    }
    plain |= {"log_tiles", "log_heads", "log_tenants", "receipt_evidence", "replicas"}
    tables = {name for [name] in host.pen("SELECT name FROM sqlite_master WHERE type = 'table'")} - plain
    assert {"grants", "principals", "api_keys", "keys", "key_versions", "tenants"} <= tables
    for table in tables - {"tenant_states", "tenant_changes"}:
        columns = [column[1] for column in host.pen(f"PRAGMA table_info({table})")]
        assert columns == shape, table


def test_migrations_are_files_of_the_package() -> None:
    names = [entry.name for entry in resources.files("cloister_host.store.migrations").iterdir()]
    assert "0001_core.sql" in names


# --- the URL ---


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "mysql://root:hunter2@db/x", "not a url hunter2", ""],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Database(url)
    assert "hunter2" not in str(caught.value)


def test_deleted_content_is_overwritten_and_the_log_is_written_ahead(host: HostWorld) -> None:
    from sqlalchemy import text

    host.only_sqlite("these are settings of SQLite")
    with host.store.begin() as tx:
        assert tx.execute(text("PRAGMA secure_delete"), {}).scalar() == 1
        assert tx.execute(text("PRAGMA journal_mode"), {}).scalar() == "wal"
