"""What the database's owner does to rows is found when they are read (PROTOCOL 7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloister_host.store import ExistsError, Row, Table, TamperedError, Tx
from support.host_world import HostWorld


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str


# Two tables of the schema, borrowed for rows of our own.
NOTES = Table("policies", Note, "note")
OTHER_NOTES = Table("secrets", Note, "note")


def write(host: HostWorld, row_id: str = "a", *, tenant: str = "acme", secret: bytes | None = None) -> None:
    with host.store.begin() as tx:
        tx.put(NOTES, tenant, row_id, Note("first"), secret=secret)


def read(host: HostWorld, row_id: str = "a", *, tenant: str = "acme") -> Row[Note] | None:
    with host.store.begin() as tx:
        return tx.get(NOTES, tenant, row_id)


def reveal(host: HostWorld, row_id: str = "a", *, tenant: str = "acme") -> bytes:
    with host.store.begin() as tx:
        row = tx.get(NOTES, tenant, row_id)
        assert row is not None
        return tx.reveal(NOTES, row).reveal()


def test_a_row_comes_back_as_it_was_written(host: HostWorld) -> None:
    write(host)
    row = read(host)
    assert row is not None
    assert (row.record, row.version, row.blob) == (Note("first"), 1, None)


def test_every_write_counts_the_version_up(host: HostWorld) -> None:
    write(host)
    write(host)
    row = read(host)
    assert row is not None
    assert row.version == 2


@pytest.mark.parametrize(
    "change",
    [
        """content = '{"text":"second"}'""",
        """content = '{"text": "first"}'""",  # the same record in other bytes
        "content = x'ff'",
        "version = version + 1",
        "version = 'one'",
        "mac = x'00'",
        "mac = ''",
        "mac = zeroblob(32)",
        "id = 'b'",
        "tenant = 'globex'",
    ],
)
def test_a_row_with_one_column_changed_is_found(host: HostWorld, change: str) -> None:
    write(host)
    host.pen(f"UPDATE policies SET {change}")
    moved_to = {"id = 'b'": ("b", "acme"), "tenant = 'globex'": ("a", "globex")}
    row_id, tenant = moved_to.get(change, ("a", "acme"))
    with pytest.raises(TamperedError):
        read(host, row_id, tenant=tenant)


def test_two_rows_that_changed_places_are_found(host: HostWorld) -> None:
    write(host, "a")
    write(host, "b")
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        host.pen("UPDATE policies SET id = ? WHERE id = ?", new, old)
    with pytest.raises(TamperedError):
        read(host, "a")


def test_a_row_copied_to_another_table_is_found(host: HostWorld) -> None:
    write(host)
    host.pen("INSERT INTO secrets SELECT * FROM policies")
    with pytest.raises(TamperedError), host.store.begin() as tx:
        tx.get(OTHER_NOTES, "acme", "a")


def test_a_row_copied_from_another_deployment_is_found(host: HostWorld, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = HostWorld(tmp_path / "elsewhere")
    write(elsewhere)
    [row] = elsewhere.pen("SELECT * FROM policies")
    elsewhere.close()
    host.pen("INSERT INTO policies VALUES (?, ?, ?, ?, ?, ?)", *row)
    with pytest.raises(TamperedError):
        read(host)


def test_a_changed_row_is_found_among_many(host: HostWorld) -> None:
    write(host, "a")
    write(host, "b")
    host.pen("""UPDATE policies SET content = '{"text":"second"}' WHERE id = 'b'""")
    with host.store.begin() as tx:
        assert set(tx.get_many(NOTES, "acme", ["a", "c"])) == {"a"}
    with pytest.raises(TamperedError), host.store.begin() as tx:
        tx.get_many(NOTES, "acme", ["a", "b"])
    with pytest.raises(TamperedError), host.store.begin() as tx:
        tx.scan(NOTES, "acme")


@pytest.mark.parametrize(
    "ask",
    [
        lambda tx: tx.get(NOTES, "acme", "A"),
        lambda tx: tx.get_many(NOTES, "acme", ["A"]),
        lambda tx: tx.scan(NOTES, "acme", prefix="A"),
    ],
    ids=["get", "get_many", "scan"],
)
def test_an_authentic_row_is_no_answer_to_another_question(
    host: HostWorld, ask: Callable[[Tx], object]
) -> None:
    """The owner of the database also decides what `=` means in it."""
    write(host, "a")
    columns = "tenant TEXT, id TEXT COLLATE NOCASE, version BIGINT, content TEXT, secret BLOB, mac BLOB"
    host.pen(f"CREATE TABLE lies ({columns})")
    host.pen("INSERT INTO lies SELECT * FROM policies")
    host.pen("DROP TABLE policies")
    host.pen("ALTER TABLE lies RENAME TO policies")
    assert read(host, "a") is not None
    with host.store.begin() as tx:
        assert not ask(tx)


def test_scan_gives_pages_in_order_and_only_what_was_asked_for(host: HostWorld) -> None:
    for row_id in ("b-2", "a-1", "b-1", "b-3", "c-1"):
        write(host, row_id)
    write(host, "b-9", tenant="globex")
    with host.store.begin() as tx:
        assert [row.id for row in tx.scan(NOTES, "acme", prefix="b-", limit=2)] == ["b-1", "b-2"]
        assert [row.id for row in tx.scan(NOTES, "acme", prefix="b-", after="b-2")] == ["b-3"]


def test_insert_refuses_a_name_that_is_taken_and_changes_nothing(host: HostWorld) -> None:
    write(host)
    with pytest.raises(ExistsError), host.store.begin() as tx:
        tx.insert(NOTES, "acme", "a", Note("second"))
    row = read(host)
    assert row is not None
    assert row.record == Note("first")


def test_delete_tells_whether_there_was_a_row(host: HostWorld) -> None:
    write(host)
    with host.store.begin() as tx:
        assert not tx.delete(NOTES, "globex", "a")
        assert tx.delete(NOTES, "acme", "a")
        assert not tx.delete(NOTES, "acme", "a")


# --- secret parts ---


def test_a_secret_comes_back_and_is_not_in_the_file(host: HostWorld) -> None:
    write(host, secret=b"correct horse battery staple")
    assert reveal(host) == b"correct horse battery staple"
    host.pen("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"correct horse" not in host.path.read_bytes()


def blob(host: HostWorld, row_id: str = "a", tenant: str = "acme") -> Any:
    [[found]] = host.pen("SELECT secret FROM policies WHERE id = ? AND tenant = ?", row_id, tenant)
    return found


def put_blob(host: HostWorld, value: Any, row_id: str = "a") -> None:
    host.pen("UPDATE policies SET secret = ? WHERE id = ? AND tenant = 'acme'", value, row_id)


def test_a_secret_of_another_row_is_found(host: HostWorld) -> None:
    write(host, "a", secret=b"one")
    write(host, "b", secret=b"two")
    put_blob(host, blob(host, "b"))
    with pytest.raises(TamperedError):
        reveal(host, "a")


def test_a_secret_of_an_earlier_version_is_found(host: HostWorld) -> None:
    write(host, secret=b"one")
    old = blob(host)
    write(host, secret=b"two")
    put_blob(host, old)
    with pytest.raises(TamperedError):
        reveal(host)


def test_a_secret_of_another_tenant_is_found(host: HostWorld) -> None:
    write(host, secret=b"one")
    write(host, tenant="globex", secret=b"two")
    put_blob(host, blob(host, tenant="globex"))
    with pytest.raises(TamperedError):
        reveal(host)


def test_a_secret_of_another_table_is_found(host: HostWorld) -> None:
    write(host, secret=b"one")
    with host.store.begin() as tx:
        tx.put(OTHER_NOTES, "acme", "a", Note("first"), secret=b"two")
    host.pen("UPDATE policies SET secret = (SELECT secret FROM secrets WHERE id = 'a')")
    with pytest.raises(TamperedError):
        reveal(host)


def test_a_secret_of_another_deployment_under_the_same_keys_is_found(host: HostWorld) -> None:
    write(host, secret=b"one")
    with host.store.begin() as tx:
        key = tx.blob_key("acme", "policies")
        elsewhere = type(key)("another-deployment", key.tenant, key.table, key._aead)
    put_blob(host, elsewhere.seal("a", 1, b"two"))
    with pytest.raises(TamperedError):
        reveal(host)


@pytest.mark.parametrize(
    "value",
    [None, b"", b"short", bytes(64), "text", 7],
    ids=["gone", "empty", "short", "zeros", "text", "number"],
)
def test_a_damaged_secret_is_found(host: HostWorld, value: Any) -> None:
    write(host, secret=b"one")
    put_blob(host, value)
    with pytest.raises(TamperedError):
        reveal(host)


def test_a_changed_byte_of_a_secret_is_found(host: HostWorld) -> None:
    write(host, secret=b"one")
    changed = bytearray(blob(host))
    changed[-1] ^= 1
    put_blob(host, bytes(changed))
    with pytest.raises(TamperedError):
        reveal(host)


def test_the_kek_of_another_tenant_is_found(host: HostWorld) -> None:
    write(host, secret=b"one")
    host.pen(
        "UPDATE tenant_keys SET secret = (SELECT secret FROM tenant_keys WHERE tenant = 'globex')"
        " WHERE tenant = 'acme'"
    )
    with pytest.raises(TamperedError):
        reveal(host)


def test_each_table_and_purpose_of_a_tenant_has_a_key_of_its_own(host: HostWorld) -> None:
    with host.store.begin() as tx:
        keys = [
            tx.derived_key(tenant, purpose).reveal()
            for tenant in ("acme", "globex")
            for purpose in ("one", "two")
        ]
        sealed = tx.blob_key("acme", "policies").seal("a", 1, b"x")
        with pytest.raises(TamperedError):
            tx.blob_key("acme", "secrets").open("a", 1, sealed)
    assert len(set(keys)) == 4
