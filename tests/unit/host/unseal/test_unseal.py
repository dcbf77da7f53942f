"""The root key is generated once, and unseals where it was generated (PROTOCOL 4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import ConfigurationError
from cloister_host.keymanager.root import Environment, RootKey
from cloister_host.store import Database
from cloister_host.unseal import Unseal
from cloister_host.unseal.file import FileUnseal
from cloister_host.unseal.root import create_root, unseal_root
from cloister_host.unseal.wrapped import Wrapped

PLACE = "deployment/1"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/host.db")
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def key_file(tmp_path: Path) -> FileUnseal:
    return FileUnseal.create(tmp_path / "unseal.key")


def create(database: Database, unseal: Unseal, environment: Environment = "simulated") -> RootKey:
    return create_root(database, unseal, environment, accept_file_unseal=False)


def unseal(database: Database, provider: Unseal, environment: Environment = "simulated") -> RootKey:
    return unseal_root(database, provider, environment, accept_file_unseal=False)


def test_the_root_that_was_created_is_the_one_that_unseals(database: Database, key_file: FileUnseal) -> None:
    created = create(database, key_file)
    again = unseal(database, key_file)
    assert again.deployment == created.deployment
    assert again.row_keys().mac == created.row_keys().mac
    assert again.environment == "simulated"


def test_the_root_key_is_not_in_the_database(
    database: Database, key_file: FileUnseal, tmp_path: Path
) -> None:
    from cloister.jose import b64url_encode
    from cloister_host.unseal.root import open_root

    create(database, key_file)
    parts = open_root(database, key_file, "simulated")
    database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("host.db*"))
    for key in (parts.key.reveal(), parts.lasting.reveal()):
        for form in (key, key.hex().encode(), b64url_encode(key).encode()):
            assert form not in stored


def test_a_root_is_created_once(database: Database, key_file: FileUnseal) -> None:
    first = create(database, key_file)
    with pytest.raises(ConfigurationError, match="already"):
        create(database, key_file)
    assert unseal(database, key_file).deployment == first.deployment


def test_without_a_root_there_is_nothing_to_unseal(database: Database, key_file: FileUnseal) -> None:
    with pytest.raises(ConfigurationError, match="init"):
        unseal(database, key_file)


@pytest.mark.parametrize("elsewhere", ["hardware", "test"])
def test_a_root_does_not_unseal_in_another_environment(
    database: Database, key_file: FileUnseal, elsewhere: Environment
) -> None:
    create(database, key_file)
    with pytest.raises(ConfigurationError, match="another"):
        unseal_root(database, key_file, elsewhere, accept_file_unseal=True)


@pytest.mark.parametrize("environment", ["hardware", "test"])
def test_the_file_provider_is_for_simulations_unless_it_is_named(
    database: Database, key_file: FileUnseal, environment: Environment
) -> None:
    with pytest.raises(ConfigurationError, match="simulations"):
        create(database, key_file, environment)
    created = create_root(database, key_file, environment, accept_file_unseal=True)
    with pytest.raises(ConfigurationError, match="simulations"):
        unseal(database, key_file, environment)
    again = unseal_root(database, key_file, environment, accept_file_unseal=True)
    assert again.deployment == created.deployment


def test_another_key_file_does_not_unseal(database: Database, key_file: FileUnseal, tmp_path: Path) -> None:
    create(database, key_file)
    with pytest.raises(ConfigurationError, match="does not unseal"):
        unseal(database, FileUnseal.create(tmp_path / "other.key"))


def test_another_provider_does_not_unseal(database: Database, key_file: FileUnseal) -> None:
    class Other:
        name = "pkcs11"
        wrap = key_file.wrap
        unwrap = key_file.unwrap
        renewed = key_file.renewed
        destroy = key_file.destroy

    create(database, key_file)
    with pytest.raises(ConfigurationError, match="the provider file"):
        unseal(database, Other())


@pytest.mark.parametrize("position", [0, 12, -1])
def test_a_sealed_root_with_one_byte_changed_does_not_unseal(
    database: Database, key_file: FileUnseal, position: int, tmp_path: Path
) -> None:
    import sqlite3

    create(database, key_file)
    connection = sqlite3.connect(tmp_path / "host.db")
    with connection:
        [[sealed]] = connection.execute("SELECT sealed FROM roots").fetchall()
        changed = bytearray(sealed)
        changed[position] ^= 1
        connection.execute("UPDATE roots SET sealed = ?", (bytes(changed),))
    connection.close()
    with pytest.raises(ConfigurationError):
        unseal(database, key_file)


def test_a_sealed_document_that_is_no_root_is_refused(
    database: Database, key_file: FileUnseal, tmp_path: Path
) -> None:
    import sqlite3

    create(database, key_file)
    for document in (
        b"",
        b"{}",
        b'{"environment":"moon","key":"AA"}',
        b'{"environment":"simulated","key":"A"}',
    ):
        connection = sqlite3.connect(tmp_path / "host.db")
        with connection:
            connection.execute("UPDATE roots SET sealed = ?", (key_file.wrap(document, PLACE),))
        connection.close()
        with pytest.raises(ConfigurationError):
            unseal(database, key_file)


# --- the file ---


def test_a_key_file_is_its_owners_alone(key_file: FileUnseal, tmp_path: Path) -> None:
    path = tmp_path / "unseal.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) == 32


def test_a_key_file_is_never_overwritten(key_file: FileUnseal, tmp_path: Path) -> None:
    before = (tmp_path / "unseal.key").read_bytes()
    with pytest.raises(ConfigurationError, match="cannot be made"):
        FileUnseal.create(tmp_path / "unseal.key")
    assert (tmp_path / "unseal.key").read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_file_that_others_can_reach_is_refused(key_file: FileUnseal, tmp_path: Path, mode: int) -> None:
    wrapped = key_file.wrap(b"root", PLACE)
    (tmp_path / "unseal.key").chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        key_file.unwrap(wrapped, PLACE)


def test_a_key_file_behind_a_symbolic_link_is_refused(key_file: FileUnseal, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "unseal.key")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FileUnseal(tmp_path / "link").wrap(b"root", PLACE)


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33)])
def test_a_damaged_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="damaged"):
        FileUnseal(path).wrap(b"root", PLACE)


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FileUnseal(tmp_path / "nothing").wrap(b"root", PLACE)


@pytest.mark.parametrize("wrapped", [b"", bytes(11), bytes(12), bytes(28), bytes(60)])
def test_what_was_never_wrapped_does_not_unwrap(key_file: FileUnseal, wrapped: bytes) -> None:
    with pytest.raises(ConfigurationError, match="does not unseal"):
        key_file.unwrap(wrapped, PLACE)


def test_a_renewed_key_is_another_file_and_can_be_destroyed_alone(
    key_file: FileUnseal, tmp_path: Path
) -> None:
    old, second = key_file.wrap(b"old", PLACE), key_file.renewed()
    new = second.wrap(b"new", PLACE)
    reopened = FileUnseal(tmp_path / "unseal.key")
    assert (reopened.unwrap(old, PLACE), reopened.unwrap(new, PLACE)) == (b"old", b"new")
    assert reopened.destroy(old, PLACE)
    assert reopened.destroy(old, PLACE), "twice does no harm"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        reopened.unwrap(old, PLACE)
    assert reopened.unwrap(new, PLACE) == b"new"
    assert second.renewed().wrap(b"third", PLACE)


@pytest.mark.parametrize("name", ["other.key", "../unseal.key", "unseal-0123456.key", "unseal-012345678.key"])
def test_a_wrapped_root_key_names_no_other_file(key_file: FileUnseal, tmp_path: Path, name: str) -> None:
    (tmp_path / "other.key").write_bytes(bytes(32))
    wrapped = Wrapped.seal(bytes(32), b"root", provider="file", name=name, place=PLACE)
    for act in (key_file.unwrap, key_file.destroy):
        with pytest.raises(ConfigurationError, match="does not unseal"):
            act(wrapped, PLACE)
    assert (tmp_path / "other.key").exists()


@given(wrapped=st.binary(max_size=300) | st.just(b"\x91" * 20_000))
@settings(max_examples=60, deadline=None)
def test_random_bytes_are_no_wrapped_root_key(wrapped: bytes) -> None:
    with pytest.raises(ConfigurationError, match="does not unseal"):
        Wrapped.parse(wrapped, provider="file")
