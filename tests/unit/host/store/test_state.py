"""With a pen in the database: nothing that is missing, old or put in has an effect unnoticed (PROTOCOL 7)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from cloister.errors import UnavailableError
from cloister_host.identity.caller import SYSTEM_TENANT
from cloister_host.store import Row, Store, Table, TamperedError, Tx
from cloister_host.store.state import PROTECTED_COLUMNS
from support.host_world import HostWorld, caller


class Note(msgspec.Struct, frozen=True):
    text: str


NOTES = Table("policies", Note, "note")
MANY = 200


def write(host: HostWorld, row_id: str, text: str = "first") -> None:
    with host.store.begin() as tx:
        tx.put(NOTES, "acme", row_id, Note(text))


def read(host: HostWorld, row_id: str) -> Row[Note] | None:
    with host.store.begin() as tx:
        return tx.get(NOTES, "acme", row_id)


def fill(host: HostWorld) -> None:
    with host.store.begin() as tx:
        for number in range(MANY):
            tx.insert(NOTES, "acme", f"{number:04}", Note(str(number)))


@contextmanager
def restarted(host: HostWorld) -> Iterator[Store]:
    """Another host over the same database, with an empty memory."""
    store = Store(host.url, host.root.row_keys())
    try:
        yield store
    finally:
        store.close()


# --- one row ---


def test_a_deleted_row_is_found(host: HostWorld) -> None:
    write(host, "a")
    host.pen("DELETE FROM policies WHERE id = 'a'")
    with pytest.raises(TamperedError):
        read(host, "a")


def test_a_row_that_was_deleted_and_put_back_is_found(host: HostWorld) -> None:
    write(host, "a")
    [old] = host.pen("SELECT * FROM policies WHERE id = 'a'")
    with host.store.begin() as tx:
        tx.delete(NOTES, "acme", "a")
    host.pen("INSERT INTO policies VALUES (?, ?, ?, ?, ?, ?)", *old)
    with pytest.raises(TamperedError):
        read(host, "a")


def test_an_earlier_version_of_a_row_is_found(host: HostWorld) -> None:
    write(host, "a")
    [old] = host.pen("SELECT content, version, mac FROM policies WHERE id = 'a'")
    write(host, "a", "second")
    host.pen("UPDATE policies SET content = ?, version = ?, mac = ? WHERE id = 'a'", *old)
    with pytest.raises(TamperedError):
        read(host, "a")


def test_a_row_cannot_be_made_anew_where_one_was_deleted(host: HostWorld) -> None:
    write(host, "a")
    host.pen("DELETE FROM policies WHERE id = 'a'")
    with pytest.raises(TamperedError), host.store.begin() as tx:
        tx.insert(NOTES, "acme", "a", Note("second"))


def test_two_rows_that_changed_places_are_found(host: HostWorld) -> None:
    write(host, "a", "one")
    write(host, "b", "two")
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        host.pen("UPDATE policies SET id = ? WHERE id = ?", new, old)
    for row_id in ("a", "b"):
        with pytest.raises(TamperedError):
            read(host, row_id)


@pytest.mark.parametrize("gone", [0, 1, 11, 12, 13, 100, MANY - 1])
def test_a_row_that_is_missing_from_a_list_is_found(host: HostWorld, gone: int) -> None:
    fill(host)
    host.pen("DELETE FROM policies WHERE id = ?", f"{gone:04}")
    with pytest.raises(TamperedError), host.store.begin() as tx:
        tx.scan(NOTES, "acme")


def test_a_truncated_table_is_found(host: HostWorld) -> None:
    fill(host)
    host.pen("DELETE FROM policies")
    for ask in (
        lambda tx: tx.get(NOTES, "acme", "0100"),
        lambda tx: tx.get_many(NOTES, "acme", ["0001", "0150"]),
        lambda tx: tx.scan(NOTES, "acme", after="0190"),
        lambda tx: tx.delete(NOTES, "acme", "0100"),
        lambda tx: tx.put(NOTES, "acme", "0100", Note("again")),
    ):
        with pytest.raises(TamperedError), host.store.begin() as tx:
            ask(tx)


def test_what_others_do_to_other_rows_disturbs_nobody(host: HostWorld) -> None:
    fill(host)
    with host.store.begin() as tx:
        assert len(tx.scan(NOTES, "acme")) == MANY
    host.pen("DELETE FROM policies WHERE id = '0199'")
    assert read(host, "0000") is not None


# --- the state itself ---


def test_a_rolled_back_state_is_refused_with_all_its_rows(host: HostWorld) -> None:
    write(host, "a")
    before = host.copy()
    write(host, "a", "second")
    host.put_back(before)
    with pytest.raises(TamperedError):
        read(host, "a")


@pytest.mark.parametrize(
    "change",
    [
        "counter = counter + 1",
        "counter = counter - 1",
        "counter = 'one'",
        "sealed = x'00'",
        "sealed = (SELECT sealed FROM tenant_states WHERE tenant = 'globex')",
        "tenant = 'elsewhere'",
    ],
)
@pytest.mark.parametrize("fresh", [False, True], ids=["running", "restarted"])
def test_a_changed_state_is_found(host: HostWorld, change: str, *, fresh: bool) -> None:
    write(host, "a")
    host.pen(f"UPDATE tenant_states SET {change} WHERE tenant = 'acme'")
    with restarted(host) as other:
        store = other if fresh else host.store
        with pytest.raises(TamperedError), store.begin() as tx:
            tx.get(NOTES, "acme", "a")


def test_a_tenant_that_vanished_with_its_state_is_found(host: HostWorld) -> None:
    write(host, "a")
    for table in protected(host):
        host.pen(f"DELETE FROM {table} WHERE tenant = 'acme'")
    host.pen("DELETE FROM tenant_states WHERE tenant = 'acme'")
    with restarted(host) as store, pytest.raises(TamperedError), store.begin() as tx:
        tx.get(NOTES, "acme", "a")


def test_the_digest_cannot_be_read_in_the_database(host: HostWorld) -> None:
    """Who knew the sums could look for other rows that have them."""
    write(host, "a")
    [[first]] = host.pen("SELECT sealed FROM tenant_states WHERE tenant = 'acme'")
    write(host, "a", "second")
    with host.store.begin() as tx:
        tx.put(NOTES, "acme", "a", Note("first"))
    [[second]] = host.pen("SELECT sealed FROM tenant_states WHERE tenant = 'acme'")
    assert len(first) == len(second)
    assert first[12:] != second[12:]


# --- several processes over one database ---


def test_another_process_sees_every_change_and_goes_on_from_it(host: HostWorld) -> None:
    with restarted(host) as other:
        for number in range(5):
            write(host, "a", f"here {number}")
            with other.begin() as tx:
                row = tx.get(NOTES, "acme", "a")
                assert row is not None
                assert row.record == Note(f"here {number}")
                tx.put(NOTES, "acme", "a", Note("there"))
            found = read(host, "a")
            assert found is not None
            assert found.record == Note("there")


@pytest.mark.parametrize(
    "lie",
    [
        "DELETE FROM tenant_changes",
        "UPDATE tenant_changes SET changes = x'90'",
        "UPDATE tenant_changes SET changes = x'ff00'",
        "UPDATE tenant_changes SET changes = 'text'",
        "UPDATE tenant_changes SET counter = counter + 1000",
    ],
)
def test_a_list_of_changes_is_a_hint_and_believed_in_nothing(host: HostWorld, lie: str) -> None:
    write(host, "a")
    with restarted(host) as other:
        with other.begin() as tx:
            assert tx.get(NOTES, "acme", "a") is not None
        write(host, "a", "second")
        host.pen(lie)
        with other.begin() as tx:
            row = tx.get(NOTES, "acme", "a")
        assert row is not None
        assert row.record == Note("second")


def test_a_row_that_was_put_back_behind_another_process_is_found(host: HostWorld) -> None:
    write(host, "a")
    with restarted(host) as other:
        with other.begin() as tx:
            assert tx.get(NOTES, "acme", "a") is not None
        [old] = host.pen("SELECT * FROM policies WHERE id = 'a'")
        with host.store.begin() as tx:
            tx.delete(NOTES, "acme", "a")
        host.pen("INSERT INTO policies VALUES (?, ?, ?, ?, ?, ?)", *old)
        with pytest.raises(TamperedError), other.begin() as tx:
            tx.get(NOTES, "acme", "a")


# --- many writes ---


def test_a_long_random_history_is_followed_and_every_change_of_it_found(host: HostWorld) -> None:
    chance, kept = random.Random(7), dict[str, str]()
    for _ in range(60):
        with host.store.begin() as tx:
            for _ in range(chance.randrange(1, 12)):
                row_id = f"{chance.randrange(150):03}"
                if chance.random() < 0.3:
                    assert tx.delete(NOTES, "acme", row_id) == (row_id in kept)
                    kept.pop(row_id, None)
                else:
                    kept[row_id] = str(chance.random())
                    tx.put(NOTES, "acme", row_id, Note(kept[row_id]))
    for store in (host.store, Store(host.url, host.root.row_keys())):
        with store.begin() as tx:
            assert {row.id: row.record.text for row in tx.scan(NOTES, "acme")} == kept
    store.verify()
    store.close()
    host.pen("DELETE FROM policies WHERE id = ?", max(kept))
    with pytest.raises(TamperedError):
        host.store.verify()


def test_an_undone_transaction_leaves_memory_as_it_was(host: HostWorld) -> None:
    write(host, "a")

    def fail(tx: Tx) -> None:
        tx.put(NOTES, "acme", "a", Note("second"))
        tx.insert(NOTES, "acme", "b", Note("new"))
        raise RuntimeError

    with pytest.raises(RuntimeError), host.store.begin() as tx:
        fail(tx)
    found = read(host, "a")
    assert found is not None
    assert found.record == Note("first")
    assert read(host, "b") is None


def test_rows_written_at_once_are_covered_like_any_other(host: HostWorld) -> None:
    with host.store.begin() as tx:
        names = [f"{number:05}" for number in range(1500)]
        assert tx.get_many(NOTES, "acme", names) == {}
        tx.put_many(NOTES, "acme", {name: Note("x") for name in names}, over={})
    host.store.verify()
    host.pen("DELETE FROM policies WHERE id = '00777'")
    with pytest.raises(TamperedError):
        read(host, "00777")


# --- every table of the schema ---


def protected(host: HostWorld) -> list[str]:
    return sorted(table for table, columns in host.tables().items() if set(columns) == PROTECTED_COLUMNS)


def every_table(host: HostWorld) -> list[tuple[str, Table[Note]]]:
    """Each protected table, other streams' too, with rows of our own in it."""
    tables = [(name, Table(name, Note, "row")) for name in protected(host)]
    for _, table in tables:
        with host.store.begin() as tx:
            for row_id in ("aa", "bb", "cc"):
                tx.put(table, "acme", row_id, Note("first"))
    return tables


EDITS: dict[str, str] = {
    "edited": """UPDATE {table} SET content = '{{"text":"other"}}' WHERE tenant = 'acme' AND id = 'bb'""",
    "deleted": "DELETE FROM {table} WHERE tenant = 'acme' AND id = 'bb'",
    "moved": "UPDATE {table} SET id = 'bc' WHERE tenant = 'acme' AND id = 'bb'",
    "given away": "UPDATE {table} SET tenant = 'globex' WHERE tenant = 'acme' AND id = 'bb'",
    "truncated": "DELETE FROM {table} WHERE tenant = 'acme'",
    "dropped": "DROP TABLE {table}",
}


@pytest.mark.parametrize("edit", list(EDITS))
@pytest.mark.parametrize("fresh", [False, True], ids=["running", "restarted"])
def test_a_pen_in_any_protected_table_is_found(host: HostWorld, edit: str, *, fresh: bool) -> None:
    tables = every_table(host)
    assert len(tables) > 15
    for name, table in tables:
        before = {name: host.pen(f"SELECT * FROM {name}")}
        host.pen(EDITS[edit].format(table=name))
        with restarted(host) as other:
            store = other if fresh else host.store
            # A table that is gone altogether is a statement that fails.
            with pytest.raises(UnavailableError if edit == "dropped" else TamperedError), store.begin() as tx:
                tx.get(table, "acme", "bb")
            if edit != "dropped":
                with pytest.raises(TamperedError):
                    store.verify()
        if edit != "dropped":
            host.put_back(before)


def test_an_old_row_brought_back_in_any_protected_table_is_found(host: HostWorld) -> None:
    for name, table in every_table(host):
        [old] = host.pen(f"SELECT * FROM {name} WHERE tenant = 'acme' AND id = 'bb'")
        with host.store.begin() as tx:
            tx.delete(table, "acme", "bb")
        host.pen(f"INSERT INTO {name} VALUES (?, ?, ?, ?, ?, ?)", *old)
        with pytest.raises(TamperedError), host.store.begin() as tx:
            tx.get(table, "acme", "bb")
        host.pen(f"DELETE FROM {name} WHERE tenant = 'acme' AND id = 'bb'")


# --- what it is for ---


def revoke_then(host: HostWorld, table: str, change: Callable[[], object]) -> None:
    """Do something through the host, then put back what the table held before it."""
    before = {table: host.pen(f"SELECT * FROM {table}")}
    change()
    host.put_back(before)


def test_a_grant_taken_back_stays_taken_back(host: HostWorld) -> None:
    app = host.principal("app", ("key.read", "key/*"))
    host.call(app, "key.list")
    revoke_then(
        host,
        "grants",
        lambda: host.call(host.admin, "grant.delete", principal="app", action="key.read", resource="key/*"),
    )
    with pytest.raises(TamperedError):
        host.call(app, "key.list")


def test_a_principal_that_was_disabled_stays_disabled(host: HostWorld) -> None:
    key = host.call(host.admin, "principal.create", principal="gone", kind="service").api_key
    before = {table: host.pen(f"SELECT * FROM {table}") for table in ("principals", "api_keys")}
    host.call(host.admin, "principal.disable", principal="gone")
    host.put_back(before)
    with pytest.raises(TamperedError):
        host.authenticate(key)


def test_an_effect_is_not_repeated_for_a_key_whose_row_was_deleted(host: HostWorld) -> None:
    who, digest = caller(), bytes(32)
    with host.store.begin() as tx:
        host.services.idempotency.claim(tx, who, "op", "key", digest)
    with host.store.begin() as tx:
        host.services.idempotency.finish(tx, who, "op", "key", b"result")
    host.pen("DELETE FROM idempotency")
    with pytest.raises(TamperedError), host.store.begin() as tx:
        host.services.idempotency.claim(tx, who, "op", "key", digest)


def test_the_system_tenant_is_covered_like_any_other(host: HostWorld) -> None:
    host.pen("DELETE FROM tenants WHERE id = 'acme'")
    with pytest.raises(TamperedError):
        host.authenticate(host.admin_key)
    with pytest.raises(TamperedError):
        host.call(host.operator, "tenant.create", tenant="acme")
    assert SYSTEM_TENANT == "system"
